-- What settlement.apply_outcome() writes to trade rows of all kinds.
BEGIN;
SET client_min_messages = error;
SET timezone = 'UTC';
SELECT no_plan();

CREATE ROLE settlement_trader;
CREATE SCHEMA trading AUTHORIZATION settlement_trader;

-- What each trade table has besides its key; variants add to it.
CREATE FUNCTION trading.columns() RETURNS text LANGUAGE sql AS $$ SELECT
    'symbol text DEFAULT ''BTC-USDT'', buyer_id text DEFAULT ''b'', seller_id text DEFAULT ''s'', '
    'buy_order_id text DEFAULT ''bo'', sell_order_id text DEFAULT ''so'', '
    'price numeric DEFAULT 50000, quantity numeric DEFAULT 0.5, '
    'buyer_fee numeric DEFAULT 0, seller_fee numeric DEFAULT 0' $$;

-- A table of the given key and further columns, with rows 1 to 3, attached.
CREATE FUNCTION trading.make(name text, more text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %s (id bigint PRIMARY KEY, %s%s)', name, trading.columns(),
                   coalesce(', ' || more, ''));
    EXECUTE format('ALTER TABLE %s OWNER TO settlement_trader', name);
    PERFORM settlement.attach(name::regclass);
    EXECUTE format('INSERT INTO %s (id) SELECT generate_series(1, 3)', name);
END $$;

-- Write an outcome for a trade that was enqueued.
CREATE FUNCTION trading.apply(relation regclass, trade text, new_status text, attempts integer DEFAULT 1,
    settlement_id text DEFAULT NULL, error text DEFAULT NULL, hint tid DEFAULT NULL)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    q record;
BEGIN
    SELECT * INTO STRICT q FROM settlement.queue
    WHERE trade_id = trade
      AND attached_id = (SELECT a.attached_id FROM settlement.attached a WHERE a.relid = relation)
    ORDER BY id LIMIT 1;
    RETURN settlement.apply_outcome(q.attached_id, q.leaf, coalesce(hint, q.trade_tid), q.trade_id, q.row_key,
        new_status, settlement_id, CASE new_status WHEN 'SETTLED' THEN '2024-05-06 07:08:09.123456+00'::timestamptz END,
        attempts, error);
END $$;

---------------------------------------------------------------- a plain table
SELECT trading.make('trading.plain');

SELECT is(trading.apply('trading.plain', '1', 'SETTLED', 2, 'wallet-1'), 'done', 'an outcome is written');
SELECT results_eq(
    'SELECT settlement_status, settlement_id, settled_at, settlement_attempts, settlement_error FROM trading.plain WHERE id = 1',
    $$VALUES ('SETTLED', 'wallet-1', '2024-05-06 07:08:09.123456+00'::timestamptz, 2, NULL::text)$$,
    'all columns of a settled trade are written');
SELECT results_eq(
    'SELECT id, symbol, price, quantity FROM trading.plain WHERE id = 1',
    $$VALUES (1::bigint, 'BTC-USDT', 50000::numeric, 0.5)$$, 'other columns stay');
SELECT is((SELECT count(*) FROM trading.plain WHERE settlement_status = 'PENDING'), 2::bigint, 'other rows stay');

SELECT is(trading.apply('trading.plain', '2', 'FAILED', 3, NULL, 'no money'), 'done', 'a failure is written');
SELECT results_eq(
    'SELECT settlement_status, settlement_id, settled_at, settlement_attempts, settlement_error FROM trading.plain WHERE id = 2',
    $$VALUES ('FAILED', NULL::text, NULL::timestamptz, 3, 'no money')$$, 'with its reason');
SELECT is(trading.apply('trading.plain', '2', 'PENDING', 3), 'done', 'a failed trade can become pending');
SELECT results_eq('SELECT settlement_status, settlement_error FROM trading.plain WHERE id = 2',
    $$VALUES ('PENDING', NULL::text)$$, 'and the error goes');
SELECT is(trading.apply('trading.plain', '2', 'UNKNOWN', 4, NULL, 'timeout'), 'done', 'pending becomes unknown');
SELECT is(trading.apply('trading.plain', '2', 'FAILED', 4), 'done', 'unknown becomes failed when an operator says so');
SELECT is((SELECT settlement_status FROM trading.plain WHERE id = 2), 'FAILED', 'and the row says so');

---------------------------------------------------------- which outcome wins
SELECT is(trading.apply('trading.plain', '1', 'FAILED', 9), 'kept', 'a late failure of a settled trade does not replace it');
SELECT is(trading.apply('trading.plain', '1', 'PENDING', 9), 'kept', 'nor does a late pending');
SELECT is(trading.apply('trading.plain', '1', 'SETTLED', 9, 'wallet-other'), 'done', 'another settlement is done');
SELECT results_eq('SELECT settlement_status, settlement_id, settlement_attempts FROM trading.plain WHERE id = 1',
    $$VALUES ('SETTLED', 'wallet-1', 2)$$, 'only the first settlement is kept');
SELECT is(trading.apply('trading.plain', '1', 'REVERSED', 2), 'done', 'a settled trade can be reversed');
SELECT results_eq('SELECT settlement_status, settlement_id FROM trading.plain WHERE id = 1',
    $$VALUES ('REVERSED', 'wallet-1')$$, 'and keeps its settlement id');
SELECT is(trading.apply('trading.plain', '1', 'SETTLED', 9, 'wallet-1'), 'done', 'a late settlement of a reversed trade is done');
SELECT is((SELECT settlement_status FROM trading.plain WHERE id = 1), 'REVERSED', 'nothing leaves reversed');
SELECT is(trading.apply('trading.plain', '2', 'PENDING', 3), 'done', 'a state of fewer attempts is an old one');
SELECT is((SELECT settlement_status FROM trading.plain WHERE id = 2), 'FAILED', 'and does not overwrite a newer one');
SELECT is(trading.apply('trading.plain', '2', 'SETTLED', 1, 'wallet-2'), 'done', 'but a settlement always wins');
SELECT is((SELECT settlement_status FROM trading.plain WHERE id = 2), 'SETTLED', 'over any number of attempts');
UPDATE trading.plain SET settlement_status = 'SETTLED' WHERE id = 3;
SELECT is(trading.apply('trading.plain', '3', 'SETTLED', 1, 'wallet-3'), 'done', 'SETTLED by hand gets its settlement id');
SELECT is((SELECT settlement_id FROM trading.plain WHERE id = 3), 'wallet-3', 'and the row says it');
UPDATE trading.plain SET settlement_status = 'PENDING' WHERE id = 3;
SELECT trading.apply('trading.plain', '3', 'FAILED', 1);
SELECT ctid AS before FROM trading.plain WHERE id = 3 \gset
SELECT is(trading.apply('trading.plain', '3', 'FAILED', 1), 'done', 'an outcome that is written already is done');
SELECT is((SELECT ctid FROM trading.plain WHERE id = 3), :'before'::tid, 'and writes no new row version');

----------------------------------------------------------- finding the row
SELECT trading.make('trading.found');
SELECT is(trading.apply('trading.found', '1', 'FAILED', hint => '(0,2)'), 'done', 'a tid of another row is seen through');
SELECT is(trading.apply('trading.found', '2', 'FAILED', hint => '(4000000,1)'), 'done', 'so is one behind the end of the table');
SELECT is(trading.apply('trading.found', '3', 'FAILED', hint => '(0,200)'), 'done', 'so is one that does not exist');
SELECT results_eq('SELECT id, settlement_status FROM trading.found ORDER BY id',
    $$VALUES (1::bigint, 'FAILED'), (2, 'FAILED'), (3, 'FAILED')$$, 'and the right row is written');
UPDATE trading.found SET symbol = 'ETH-USDT';
SELECT is(trading.apply('trading.found', '1', 'SETTLED'), 'done', 'a row that was updated since is found');
DELETE FROM trading.found WHERE id = 2;
INSERT INTO trading.found (id) SELECT generate_series(4, 500);
DELETE FROM trading.found WHERE id BETWEEN 4 AND 400;
CLUSTER trading.found USING found_pkey;
SELECT is(trading.apply('trading.found', '3', 'SETTLED'), 'done', 'a row that the table was rewritten under is found');
SELECT is(trading.apply('trading.found', '500', 'SETTLED'), 'done', 'even if the table became shorter');
SELECT is((SELECT array_agg(id ORDER BY id) FROM trading.found WHERE settlement_status = 'SETTLED'),
    '{1,3,500}'::bigint[], 'and the right rows were written');
SELECT is(trading.apply('trading.found', '2', 'SETTLED'), 'gone', 'a deleted row is gone');
UPDATE trading.found SET id = 1001 WHERE id = 401;
SELECT is(trading.apply('trading.found', '401', 'SETTLED'), 'gone', 'so is one whose trade id was changed');
ALTER TABLE trading.found RENAME TO found_under_another_name;
SELECT is(trading.apply('trading.found_under_another_name', '402', 'SETTLED'), 'done', 'a renamed table is found');
SELECT attached_id AS id FROM settlement.attached WHERE relid = 'trading.found_under_another_name'::regclass \gset
SELECT is(settlement.apply_outcome(:id, 'trading.found_under_another_name', NULL, '403', NULL, 'SETTLED', NULL, NULL, 1, NULL),
    'done', 'no tid is needed');
SELECT is(settlement.apply_outcome(:id, 'trading.found_under_another_name', NULL, '404', '{404,x,y}', 'SETTLED', NULL, NULL, 1, NULL),
    'done', 'a key of another shape than the table''s leads to a search by trade id');
SELECT is(settlement.apply_outcome(:id, 'trading.found_under_another_name', NULL, NULL, NULL, 'SETTLED', NULL, NULL, 1, NULL),
    'gone', 'nothing is found by nothing');
SELECT is(settlement.apply_outcome(:id, 'pg_class', NULL, '405', NULL, 'SETTLED', NULL, NULL, 1, NULL),
    'done', 'a table that is not attached is not written, the attached one is searched');
SELECT is(settlement.apply_outcome(:id, 4294967295::oid::regclass, NULL, '406', NULL, 'SETTLED', NULL, NULL, 1, NULL),
    'done', 'nor does a table that does not exist matter');
SELECT is(settlement.apply_outcome(-1, 'trading.found_under_another_name', NULL, '407', NULL, 'SETTLED', NULL, NULL, 1, NULL),
    'gone', 'of a table that is not attached every row is gone');
SELECT throws_ok(format('SELECT settlement.apply_outcome(%s, %L, NULL, %L, NULL, %L, NULL, NULL, 1, NULL)',
        :id, 'trading.found_under_another_name', 'forty', 'SETTLED'),
    '22P02', NULL, 'a key that the column''s type does not take is an error');

SELECT trading.make('trading.dropped_key');
ALTER TABLE trading.dropped_key DROP CONSTRAINT dropped_key_pkey;
SELECT is(trading.apply('trading.dropped_key', '1', 'SETTLED', hint => '(0,2)'), 'done', 'a table that lost its primary key is read');
SELECT is((SELECT settlement_status FROM trading.dropped_key WHERE id = 1), 'SETTLED', 'and its right row is written');

------------------------------------------------------------- partitioned
CREATE FUNCTION trading.make_partitioned(name text, key text, how text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE trading.%s (id bigint, executed_at timestamptz, %s, PRIMARY KEY (%s)) PARTITION BY %s',
                   name, trading.columns(), key, how);
    EXECUTE format('ALTER TABLE trading.%s OWNER TO settlement_trader', name);
END $$;
SELECT trading.make_partitioned('daily', 'id, executed_at', 'RANGE (executed_at)');
CREATE TABLE trading.daily_1 PARTITION OF trading.daily FOR VALUES FROM ('2024-05-01') TO ('2024-05-02');
CREATE TABLE trading.daily_2 PARTITION OF trading.daily FOR VALUES FROM ('2024-05-02') TO ('2024-05-03') PARTITION BY HASH (id);
CREATE TABLE trading.daily_2a PARTITION OF trading.daily_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE trading.daily_2b PARTITION OF trading.daily_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
-- columns in another order, and one that was dropped
CREATE TABLE trading.daily_3 (gone text, quantity numeric, executed_at timestamptz NOT NULL, id bigint NOT NULL,
    seller_fee numeric DEFAULT 0, buyer_fee numeric DEFAULT 0, price numeric, symbol text, sell_order_id text,
    buy_order_id text, seller_id text, buyer_id text);
ALTER TABLE trading.daily_3 DROP COLUMN gone;
ALTER TABLE trading.daily ATTACH PARTITION trading.daily_3 FOR VALUES FROM ('2024-05-03') TO ('2024-05-04');
SELECT settlement.attach('trading.daily');
INSERT INTO trading.daily (id, executed_at) SELECT i, '2024-05-01 12:00:00.000001+00' FROM generate_series(1, 5) i;
INSERT INTO trading.daily (id, executed_at) SELECT i, '2024-05-02 12:00+00' FROM generate_series(11, 15) i;
INSERT INTO trading.daily (id, executed_at) SELECT i, '2024-05-03 12:00+00' FROM generate_series(21, 25) i;
SELECT is(trading.apply('trading.daily', '1', 'SETTLED'), 'done', 'a row of a partition is written');
SELECT is(trading.apply('trading.daily', '2', 'SETTLED', hint => '(77,7)'), 'done', 'by its composite key too');
SELECT is(trading.apply('trading.daily', '11', 'SETTLED'), 'done', 'a row of a subpartition is written');
SELECT is(trading.apply('trading.daily', '21', 'SETTLED'), 'done', 'a row of a partition with other columns is written');
SELECT is((SELECT array_agg(id ORDER BY id) FROM trading.daily WHERE settlement_status = 'SETTLED'), '{1,2,11,21}'::bigint[],
    'and only those');
SELECT throws_ok($$UPDATE trading.daily SET settlement_status = 'PENDING', executed_at = '2030-01-01' WHERE id = 1$$, '23514', NULL,
    'partitions keep their constraints');

UPDATE trading.daily SET executed_at = '2024-05-02 13:00+00' WHERE id = 3;
SELECT is(trading.apply('trading.daily', '3', 'SETTLED'), 'done', 'a row that moved to another partition is found');
SELECT results_eq('SELECT tableoid::regclass::text IN (''trading.daily_2a'', ''trading.daily_2b''), settlement_status FROM trading.daily WHERE id = 3',
    $$VALUES (true, 'SETTLED')$$, 'and written there');
UPDATE trading.daily SET executed_at = '2024-05-01 13:00+00' WHERE id = 4;
SELECT is(trading.apply('trading.daily', '4', 'SETTLED'), 'done', 'a row whose key changed within its partition is found');
DELETE FROM trading.daily WHERE id = 5;
SELECT is(trading.apply('trading.daily', '5', 'SETTLED'), 'gone', 'a row that is in no partition is gone');

-- pg_partman moves rows like this
WITH moved AS (DELETE FROM trading.daily_1 WHERE id = 4 RETURNING *)
UPDATE settlement.queue q SET trade_tid = '(0,1)' FROM moved WHERE q.trade_id = '4';
SELECT is(trading.apply('trading.daily', '4', 'FAILED', 2), 'gone', 'a row taken out of its partition is gone');
INSERT INTO trading.daily (id, executed_at, settlement_status) VALUES (4, '2024-05-03 12:00+00', 'PENDING');
SELECT is(trading.apply('trading.daily', '4', 'FAILED', 2), 'done', 'and found where it was put');

ALTER TABLE trading.daily DETACH PARTITION trading.daily_3;
SELECT is(trading.apply('trading.daily', '22', 'SETTLED'), 'done', 'a row of a partition that was detached since is written there');
SELECT is((SELECT settlement_status FROM trading.daily_3 WHERE id = 22), 'SETTLED', 'it is still the trade''s row');
DROP TABLE trading.daily_3;
SELECT is(trading.apply('trading.daily', '23', 'SETTLED'), 'gone', 'a row of a dropped partition is gone');
SELECT attached_id AS id FROM settlement.attached WHERE relid = 'trading.daily'::regclass \gset
SELECT 'trading.daily_1'::regclass::oid AS leaf \gset
SAVEPOINT dropped;
ALTER TABLE trading.daily DISABLE TRIGGER ALL;
DROP TABLE trading.daily;
SELECT is(settlement.apply_outcome(:id, :leaf, '(0,1)', '1', '{1,2024-05-01 12:00:00.000001+00}', 'REVERSED', NULL, NULL, 1, NULL),
    'gone', 'of a dropped table every row is gone');
ROLLBACK TO dropped;

SELECT trading.make_partitioned('by_time', 'executed_at, id', 'RANGE (executed_at)');
CREATE TABLE trading.by_time_1 PARTITION OF trading.by_time FOR VALUES FROM ('2024-05-01') TO ('2024-05-02');
CREATE TABLE trading.by_time_2 PARTITION OF trading.by_time FOR VALUES FROM ('2024-05-02') TO ('2024-05-03');
SELECT settlement.attach('trading.by_time');
INSERT INTO trading.by_time (id, executed_at) SELECT i, '2024-05-01 12:00+00' FROM generate_series(1, 3) i;
SET LOCAL timezone = 'Asia/Kolkata';
SET LOCAL datestyle = 'German';
SELECT is(trading.apply('trading.by_time', '1', 'SETTLED', hint => '(5,5)'), 'done', 'time zone and date style do not matter to keys');
SET LOCAL timezone = 'UTC';
SET LOCAL datestyle = 'ISO, MDY';
UPDATE trading.by_time SET executed_at = '2024-05-02 12:00+00' WHERE id = 2;
SELECT is(trading.apply('trading.by_time', '2', 'SETTLED'), 'done', 'a moved row is found by a trade id that is not first in the key');
SELECT is((SELECT settlement_status FROM trading.by_time_2 WHERE id = 2), 'SETTLED', 'and written');

CREATE TABLE trading.by_status (id bigint, settlement_status text DEFAULT 'PENDING', settlement_id text, PRIMARY KEY (id, settlement_status))
    PARTITION BY LIST (settlement_status);
CREATE TABLE trading.by_status_open PARTITION OF trading.by_status FOR VALUES IN ('PENDING');
CREATE TABLE trading.by_status_done PARTITION OF trading.by_status DEFAULT;
DO $$ BEGIN EXECUTE 'ALTER TABLE trading.by_status ADD ' || replace(trading.columns(), ', ', ', ADD '); END $$;
SELECT settlement.attach('trading.by_status');
INSERT INTO trading.by_status (id) VALUES (1);
SELECT throws_like($$SELECT trading.apply('trading.by_status', '1', 'SETTLED')$$, '%violates partition constraint%',
    'a table that is partitioned by the status cannot be written, and the error says why');

---------------------------------------------------------------- names, types
CREATE SCHEMA "Exchange";
CREATE TABLE "Exchange"."Trade Log" ("Trade Id" uuid PRIMARY KEY, "Symbol" varchar(20), "Buyer" uuid, "Seller" uuid,
    "Buy Order" uuid, "Sell Order" uuid, "Price" numeric, "Qty" numeric, "Fee" numeric, "State" text, "Ref""" uuid);
SELECT settlement.attach('"Exchange"."Trade Log"', '{"trade_id": "Trade Id", "symbol": "Symbol", "buyer_id": "Buyer",
    "seller_id": "Seller", "buyer_order_id": "Buy Order", "seller_order_id": "Sell Order", "price": "Price",
    "quantity": "Qty", "buyer_fee": "Fee", "seller_fee": null, "status": "State", "settlement_id": "Ref\""}');
INSERT INTO "Exchange"."Trade Log" VALUES ('00000000-0000-4000-8000-00000000000A', 'BTC-USDT', gen_random_uuid(), gen_random_uuid(),
    gen_random_uuid(), gen_random_uuid(), 1, 1, 0);
SELECT is(trading.apply('"Exchange"."Trade Log"', '00000000-0000-4000-8000-00000000000a', 'SETTLED',
                        settlement_id => 'FFFFFFFF-0000-4000-8000-000000000001'), 'done', 'mixed-case names and uuids work');
SELECT results_eq('SELECT "State", "Ref""" FROM "Exchange"."Trade Log"',
    $$VALUES ('SETTLED', 'ffffffff-0000-4000-8000-000000000001'::uuid)$$, 'and the columns are written');
SELECT trading.make('trading.uuid', 'settlement_id uuid');
SELECT throws_ok($$SELECT trading.apply('trading.uuid', '1', 'SETTLED', settlement_id => 'not-a-uuid')$$, '22P02', NULL,
    'a settlement id that does not fit the column is an error');
SELECT is((SELECT settlement_status FROM trading.uuid WHERE id = 1), 'PENDING', 'and nothing is written');

SELECT trading.make('trading.narrow', 'settlement_error varchar(20), settlement_attempts smallint, '
    'settled_at timestamp(3), settlement_id varchar(36), settlement_status varchar(8)');
SELECT is(trading.apply('trading.narrow', '1', 'FAILED', error => repeat('é', 50)), 'done', 'a long error is cut');
SELECT is((SELECT settlement_error FROM trading.narrow WHERE id = 1), repeat('é', 20)::varchar, 'to the characters that fit');
SELECT is(trading.apply('trading.narrow', '2', 'SETTLED', settlement_id => 'short'), 'done', 'timestamps without time zone and small integers work');
SELECT results_eq('SELECT settled_at, settlement_attempts FROM trading.narrow WHERE id = 2',
    $$VALUES ('2024-05-06 07:08:09.123'::timestamp, 1::smallint)$$, 'with the column''s precision');
SELECT throws_ok($$SELECT trading.apply('trading.narrow', '3', 'SETTLED', settlement_id => repeat('x', 37))$$, '22001', NULL,
    'a long settlement id is an error: it is never cut');
SELECT throws_ok($$SELECT trading.apply('trading.narrow', '3', 'FAILED', 40000)$$, '22003', NULL, 'too many attempts are an error');

CREATE DOMAIN trading.state AS text CHECK (VALUE IN ('PENDING', 'SETTLED', 'FAILED'));
-- char(n) is read without its blanks
SELECT trading.make('trading.padded', 'settlement_status char(12), settlement_error char(20)');
SELECT is(trading.apply('trading.padded', '1', 'SETTLED', 2, 'wallet-1'), 'done', 'a status of char(n) is written');
SELECT is(trading.apply('trading.padded', '1', 'PENDING', 2), 'kept', 'and known for SETTLED when it is read');
UPDATE trading.padded SET settlement_status = 'SETTLED', settlement_id = 'by hand' WHERE id = 2;
SELECT is(trading.apply('trading.padded', '2', 'PENDING', 0), 'kept', 'also when somebody else has set it');
SELECT is(trading.apply('trading.padded', '1', 'REVERSED', 2), 'done', 'so that only what is SETTLED is reversed');
SELECT results_eq('SELECT settlement_status::text, settlement_id FROM trading.padded WHERE id < 3 ORDER BY id',
    $$VALUES ('REVERSED', 'wallet-1'), ('SETTLED', 'by hand')$$, 'and nothing else has changed');
SELECT is((SELECT r.status FROM settlement.attached a, settlement._read_row(a.attached_id, a.relid, NULL, '3', NULL) r
           WHERE a.relid = 'trading.padded'::regclass), 'PENDING', 'the verbs read it so, too');

CREATE DOMAIN trading.reason AS varchar(5) NOT NULL DEFAULT '';
CREATE DOMAIN trading.tries AS bigint CHECK (VALUE < 10);
CREATE DOMAIN trading.trade_key AS bigint;
CREATE TABLE trading.domains (id trading.trade_key PRIMARY KEY, settlement_status trading.state, settlement_attempts trading.tries,
    settlement_error text);
DO $$ BEGIN EXECUTE 'ALTER TABLE trading.domains ADD ' || replace(trading.columns(), ', ', ', ADD '); END $$;
SELECT settlement.attach('trading.domains');
INSERT INTO trading.domains (id) VALUES (1), (2);
SELECT is(trading.apply('trading.domains', '1', 'SETTLED', hint => '(9,9)'), 'done', 'columns of domain types are written and searched');
SELECT throws_ok($$SELECT trading.apply('trading.domains', '2', 'UNKNOWN')$$, '23514', NULL, 'domains are checked');
SELECT throws_ok($$SELECT trading.apply('trading.domains', '2', 'FAILED', 10)$$, '23514', NULL, 'domains of numbers too');
ALTER TABLE trading.domains DROP settlement_error, ADD settlement_error trading.reason;
SELECT is(trading.apply('trading.domains', '2', 'FAILED', error => 'too long'), 'done', 'an error is cut to a domain''s length');
SELECT is((SELECT settlement_error::text FROM trading.domains WHERE id = 2), 'too l', 'and kept');
SELECT throws_ok($$SELECT trading.apply('trading.domains', '2', 'PENDING')$$, '23502', NULL, 'a domain that takes no null is respected');

SELECT trading.make('trading.generated', 'settlement_status text, is_open boolean GENERATED ALWAYS AS (settlement_status = ''PENDING'') STORED, '
    'notional numeric GENERATED ALWAYS AS (price * quantity) STORED');
SELECT is(trading.apply('trading.generated', '1', 'SETTLED'), 'done', 'a table with generated columns is written');
SELECT results_eq('SELECT is_open, notional FROM trading.generated WHERE id = 1', $$VALUES (false, 25000.0)$$,
    'generated columns follow');

SELECT trading.make('trading.indexed', 'settlement_status text');
CREATE INDEX ON trading.indexed (upper(settlement_status)) WHERE settlement_status <> 'SETTLED';
CREATE UNIQUE INDEX ON trading.indexed (settlement_id);
SELECT is(trading.apply('trading.indexed', '1', 'SETTLED', settlement_id => 'same'), 'done', 'indexes on settlement columns are kept');
SELECT throws_ok($$SELECT trading.apply('trading.indexed', '2', 'SETTLED', settlement_id => 'same')$$, '23505', NULL, 'unique ones too');
SET LOCAL enable_seqscan = off;
SELECT is((SELECT array_agg(id ORDER BY id) FROM trading.indexed WHERE upper(settlement_status) = 'PENDING' AND settlement_status <> 'SETTLED'),
    '{2,3}'::bigint[], 'and show the new state');
RESET enable_seqscan;

---------------------------------------------------- whose rules, whose rights
SELECT trading.make('trading.forced');
ALTER TABLE trading.forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SELECT is(trading.apply('trading.forced', '1', 'SETTLED'), 'done', 'FORCE ROW LEVEL SECURITY does not hide rows');
SELECT is((SELECT settlement_status FROM trading.forced WHERE id = 1), 'SETTLED', 'from being written');

SELECT trading.make('trading.watched');
CREATE TABLE trading.seen (what text, who name, path text, statement text);
ALTER TABLE trading.seen OWNER TO settlement_trader;
CREATE FUNCTION trading.note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO trading.seen VALUES (tg_name, current_user, current_setting('search_path'),
                                     current_setting('row_security'));
    PERFORM set_config('search_path', 'trading', false);
    RETURN NEW;
END $$;
CREATE TRIGGER before_row BEFORE UPDATE ON trading.watched FOR EACH ROW EXECUTE FUNCTION trading.note();
CREATE TRIGGER after_row AFTER UPDATE ON trading.watched FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION trading.note();
CREATE TRIGGER after_column AFTER UPDATE OF settlement_error ON trading.watched FOR EACH ROW EXECUTE FUNCTION trading.note();
CREATE TRIGGER other_column AFTER UPDATE OF price ON trading.watched FOR EACH ROW EXECUTE FUNCTION trading.note();
CREATE TRIGGER statement AFTER UPDATE ON trading.watched FOR EACH STATEMENT EXECUTE FUNCTION trading.note();
SET LOCAL search_path = trading, public;
SET LOCAL row_security = off;
SELECT is(apply('watched', '1', 'SETTLED'), 'done', 'a table with triggers is written');
SELECT is(current_setting('search_path'), 'trading, public', 'the settings of the caller are restored');
SELECT is(current_user::text, 'postgres', 'the user too');
RESET search_path;
RESET row_security;
SELECT results_eq('SELECT what FROM trading.seen ORDER BY what', $$VALUES ('after_column'), ('after_row'), ('before_row')$$,
    'row triggers fire, those of other columns and of statements do not');
SELECT is((SELECT array_agg(DISTINCT who) FROM trading.seen), '{settlement_trader}'::name[], 'triggers run as the owner of the table');
SELECT is((SELECT array_agg(DISTINCT statement) FROM trading.seen), '{on}', 'with row level security as usual');
SELECT is((SELECT path FROM trading.seen WHERE what = 'before_row'), 'pg_catalog, pg_temp', 'and with a safe search path');

SELECT trading.make('trading.escape');
CREATE FUNCTION trading.escape() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN SET ROLE postgres; RETURN NEW; END $$;
CREATE TRIGGER escape BEFORE UPDATE ON trading.escape FOR EACH ROW EXECUTE FUNCTION trading.escape();
SELECT throws_ok($$SELECT trading.apply('trading.escape', '1', 'SETTLED')$$, '42501', NULL, 'triggers cannot take another role');
SELECT is(current_user::text, 'postgres', 'after an error the user is restored');
SELECT is(current_setting('search_path'), (SELECT reset_val FROM pg_settings WHERE name = 'search_path'), 'and the search path');

SELECT trading.make('trading.raising');
CREATE FUNCTION trading.raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not on my watch'; END $$;
CREATE TRIGGER raising AFTER UPDATE ON trading.raising FOR EACH ROW EXECUTE FUNCTION trading.raise();
SELECT throws_ok($$SELECT trading.apply('trading.raising', '1', 'SETTLED')$$, 'P0001', 'not on my watch', 'what a trigger raises is raised');
SELECT is((SELECT settlement_status FROM trading.raising WHERE id = 1), 'PENDING', 'and nothing is written');
ALTER TABLE trading.raising DISABLE TRIGGER raising, ADD CHECK (settlement_status <> 'SETTLED');
SELECT throws_ok($$SELECT trading.apply('trading.raising', '1', 'SETTLED')$$, '23514', NULL, 'CHECK constraints are enforced');

SELECT trading.make('trading.deferring');
CREATE CONSTRAINT TRIGGER deferring AFTER UPDATE ON trading.deferring DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION trading.raise();
CREATE CONSTRAINT TRIGGER noting AFTER UPDATE ON trading.deferring DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION trading.note();
TRUNCATE trading.seen;
SELECT throws_ok($$SELECT trading.apply('trading.deferring', '1', 'SETTLED')$$, 'P0001', 'not on my watch', 'deferred constraints are checked at once');
SELECT is(trading.apply('trading.deferring', '2', 'SETTLED'), 'done', 'and do not fail by being deferred');
SELECT is((SELECT who FROM trading.seen), 'settlement_trader', 'a deferred trigger has run as the owner');

-- what triggers do to other rows of the table
SELECT trading.make('trading.chained');
CREATE FUNCTION trading.chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE trading.chained SET symbol = symbol || '+' WHERE id IN (NEW.id, NEW.id + 1);
    RETURN NULL;
END $$;
CREATE TRIGGER chain AFTER UPDATE OF settlement_status ON trading.chained FOR EACH ROW EXECUTE FUNCTION trading.chain();
SELECT results_eq($$SELECT trading.apply('trading.chained', i::text, 'SETTLED') FROM generate_series(1, 3) i$$,
    $$VALUES ('done'), ('done'), ('done')$$, 'rows that triggers of other rows have changed are written');
SELECT results_eq('SELECT symbol, settlement_status FROM trading.chained ORDER BY id',
    $$VALUES ('BTC-USDT+', 'SETTLED'), ('BTC-USDT++', 'SETTLED'), ('BTC-USDT++', 'SETTLED')$$, 'and keep those changes');

SELECT trading.make('trading.refusing');
CREATE FUNCTION trading.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION trading.keep_old() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$;
CREATE TRIGGER b_refuse BEFORE UPDATE ON trading.refusing FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION trading.refuse();
SELECT is(trading.apply('trading.refusing', '1', 'SETTLED'), 'refused', 'a trigger that returns null refuses');
SELECT is((SELECT settlement_status FROM trading.refusing WHERE id = 1), 'PENDING', 'and nothing is written');
CREATE TRIGGER a_keep BEFORE UPDATE ON trading.refusing FOR EACH ROW WHEN (NEW.id = 1) EXECUTE FUNCTION trading.keep_old();
SELECT is(trading.apply('trading.refusing', '1', 'SETTLED'), 'refused', 'even after one that returned the old row');
SELECT is(trading.apply('trading.refusing', '2', 'SETTLED'), 'done', 'other rows are written');
CREATE FUNCTION trading.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.symbol := 'stamped'; RETURN NEW; END $$;
CREATE TRIGGER c_stamp BEFORE UPDATE ON trading.refusing FOR EACH ROW WHEN (NEW.id = 3) EXECUTE FUNCTION trading.stamp();
SELECT is(trading.apply('trading.refusing', '3', 'SETTLED'), 'done', 'a trigger may change the row');
SELECT results_eq('SELECT symbol, settlement_status FROM trading.refusing WHERE id = 3', $$VALUES ('stamped', 'SETTLED')$$,
    'and its change is kept');

SELECT trading.make('trading.published');
ALTER TABLE trading.published REPLICA IDENTITY NOTHING;
CREATE PUBLICATION settlement_test FOR TABLE trading.published;
SELECT throws_ok($$SELECT trading.apply('trading.published', '1', 'SETTLED')$$, '55000', NULL, 'a publication without replica identity is an error');
ALTER TABLE trading.published REPLICA IDENTITY DEFAULT;
SELECT is(trading.apply('trading.published', '1', 'SETTLED'), 'done', 'with one it is none');

------------------------------------------------------------------ arguments
SELECT attached_id AS id FROM settlement.attached WHERE relid = 'trading.plain'::regclass \gset
SELECT throws_ok(format('SELECT settlement.apply_outcome(%s, %L, NULL, %L, NULL, %L, NULL, NULL, 1, NULL)', :id, 'trading.plain', '1', 'DONE'),
    '22023', '"DONE" is not a settlement status', 'a status has to be one');
SELECT throws_ok(format('SELECT settlement.apply_outcome(%s, %L, NULL, %L, NULL, NULL, NULL, NULL, 1, NULL)', :id, 'trading.plain', '1'),
    '22004', 'status must not be null', 'and is required');
SELECT throws_ok(format('SELECT settlement.apply_outcome(%s, NULL, NULL, %L, NULL, %L, NULL, NULL, 1, NULL)', :id, '1', 'SETTLED'),
    '22004', 'leaf must not be null', 'so is the table');
SELECT throws_ok(format('SELECT settlement.apply_outcome(%s, %L, NULL, %L, %L, %L, NULL, NULL, 1, NULL)', :id, 'trading.plain', '1',
        '{1,2,3,4,5,6,7,8,9}', 'SETTLED'), '22023', NULL, 'a key has at most 8 columns');
SELECT throws_ok(format('DO $d$ BEGIN SET transaction_read_only = on; PERFORM settlement.apply_outcome(%s, %L, NULL, %L, NULL, %L, NULL, NULL, 1, NULL); END $d$',
        :id, 'trading.plain', '1', 'SETTLED'), '25006', NULL, 'a read-only transaction writes nothing');
SET LOCAL ROLE settlement_trader;
SELECT throws_ok($$SELECT settlement.apply_outcome(1, 'trading.plain', NULL, '1', NULL, 'SETTLED', NULL, NULL, 1, NULL)$$, '42501', NULL,
    'nobody may call it without being granted it');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
