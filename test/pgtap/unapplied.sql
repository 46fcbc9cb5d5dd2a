-- What a worker does with outcomes that could not be written to the trade row.
-- Not in one transaction: the worker has to see it.
SET client_min_messages = error;
SELECT no_plan();

CREATE TABLE unapplied_trades (id bigint PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buy_order_id text, sell_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric);
SELECT settlement.attach('unapplied_trades');
SELECT attached_id AS id FROM settlement.attached WHERE relid = 'unapplied_trades'::regclass \gset
INSERT INTO unapplied_trades SELECT i, 'BTC-USDT', 'b', 's', 'bo', 'so', 1, 1, 0, 0 FROM generate_series(1, 5) i;
DELETE FROM settlement.queue WHERE attached_id = :id;

CREATE FUNCTION raise_for_2() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = 2 THEN
        RAISE EXCEPTION 'not trade 2';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER raise_for_2 BEFORE UPDATE ON unapplied_trades FOR EACH ROW EXECUTE FUNCTION raise_for_2();

-- Wait until a condition holds, at most 10 s.
CREATE FUNCTION wait_until(condition text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    holds boolean;
BEGIN
    FOR i IN 1 .. 500 LOOP
        EXECUTE 'SELECT ' || condition INTO holds;
        EXIT WHEN holds;
        PERFORM pg_sleep(0.02);
    END LOOP;
    RETURN holds;
END $$;

CREATE FUNCTION wait_for(attached integer, trade text, status text, attempts integer DEFAULT 1, failures integer DEFAULT 0)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO settlement.unapplied (attached_id, leaf, trade_id, status, settlement_id, settled_at, attempts, failures)
    VALUES (attached, 'unapplied_trades', trade, status, 'wallet-' || trade, '2024-05-06Z', attempts, failures);
$$;

BEGIN;
SELECT wait_for(:id, '2', 'SETTLED'), wait_for(:id, '1', 'SETTLED');
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$EXISTS (SELECT FROM unapplied_trades WHERE id = 1 AND settlement_status = 'SETTLED'
    AND settlement_id = 'wallet-1' AND settled_at = '2024-05-06Z')$$), 'a worker writes a waiting outcome');
SELECT ok(wait_until($$NOT EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '1')$$), 'which then waits no more');
SELECT ok(wait_until($$EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '2' AND failures > 1)$$),
    'one that fails is tried again and again');
SELECT results_eq($$SELECT last_failure, last_failed_at > recorded_at, next_apply_at > last_failed_at FROM settlement.unapplied WHERE trade_id = '2'$$,
    $$VALUES ('not trade 2', true, true)$$, 'and says why');
DROP TRIGGER raise_for_2 ON unapplied_trades;
SELECT ok(wait_until($$EXISTS (SELECT FROM unapplied_trades WHERE id = 2 AND settlement_status = 'SETTLED')$$),
    'until the cause is gone');

BEGIN;
SELECT wait_for(:id, '3', 'PENDING', 3), wait_for(:id, '3', 'FAILED', 3), wait_for(:id, '3', 'UNKNOWN', 3);
SELECT wait_for(:id, '4', 'SETTLED', 1);
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$NOT EXISTS (SELECT FROM settlement.unapplied WHERE trade_id IN ('3', '4'))$$), 'several outcomes of one trade are written');
BEGIN;
SELECT wait_for(:id, '4', 'FAILED', 5);
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$NOT EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '4')$$), 'and one that comes later');
SELECT is((SELECT settlement_status FROM unapplied_trades WHERE id = 3), 'UNKNOWN', 'the newest one stays');
SELECT is((SELECT settlement_status FROM unapplied_trades WHERE id = 4), 'SETTLED', 'but a settlement outlives all others');
SELECT is((SELECT string_agg(trade_id || ' ' || kind, ',') FROM settlement.discrepancies WHERE attached_id = :id), '4 status_changed',
    'and what contradicts it is a discrepancy');

BEGIN;
SELECT wait_for(:id, '77', 'SETTLED', 1, 7);
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$NOT EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '77')$$), 'an outcome whose row is gone is given up in the end');
SELECT results_eq(format($$SELECT kind, details ->> 'leaf', details ->> 'status', details ->> 'settlement_id', details ->> 'searched'
    FROM settlement.discrepancies WHERE attached_id = %s AND trade_id = '77'$$, :id),
    $$VALUES ('trade_row_gone', 'public.unapplied_trades', 'SETTLED', 'wallet-77', 'by key and trade id')$$, 'and stays visible as a discrepancy');

-- a row to a page, more of them than are read for what is gone
CREATE TABLE unapplied_wide (line bigint PRIMARY KEY, id bigint, symbol text, buyer_id text, seller_id text,
    buy_order_id text, sell_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric,
    pad text) WITH (fillfactor = 10);
ALTER TABLE unapplied_wide ALTER COLUMN pad SET STORAGE PLAIN;
SELECT settlement.attach('unapplied_wide', '{"trade_id": "id"}');
SELECT attached_id AS wide FROM settlement.attached WHERE relid = 'unapplied_wide'::regclass \gset
SET session_replication_role = replica;
INSERT INTO unapplied_wide SELECT i, i, 'BTC-USDT', 'b', 's', 'bo', 'so', 1, 1, 0, 0, repeat('x', 5000) FROM generate_series(1, 8300) i;
UPDATE unapplied_wide SET line = -line WHERE id IN (8000, 8001);
RESET session_replication_role;
CREATE FUNCTION wait_for_moved(attached integer, trade text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO settlement.unapplied (attached_id, leaf, trade_id, row_key, status, settlement_id, settled_at, attempts, failures)
    VALUES (attached, 'unapplied_wide', trade, ARRAY[trade], 'SETTLED', 'wallet-' || trade, '2024-05-06Z', 1, 7);
$$;
BEGIN;
SELECT wait_for_moved(:wide, '8000');
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$NOT EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '8000')$$), 'a large table is not read for a row whose key was changed');
SELECT is((SELECT details ->> 'searched' FROM settlement.discrepancies WHERE attached_id = :wide AND trade_id = '8000'),
    'by key', 'and it is told that it was not');
SELECT is(settlement.apply_outcome(:wide, 'unapplied_wide', NULL, '8000', '{8000}', 'SETTLED', 'wallet-8000', now(), 1, NULL),
    'done', 'but a verb of an operator reads all of it');
SELECT is(settlement.apply_outcome(:wide, 'unapplied_wide', NULL, '9000', '{9000}', 'SETTLED', 'wallet-9000', now(), 1, NULL),
    'gone', 'before it says that a row is gone');

-- the primary key is to be built anew
ALTER TABLE unapplied_wide DROP CONSTRAINT unapplied_wide_pkey;
BEGIN;
SELECT wait_for_moved(:wide, '7000');
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '7000' AND failures > 7)$$),
    'an outcome to which no index leads');
SELECT is((SELECT last_failure FROM settlement.unapplied WHERE trade_id = '7000'),
    'no index leads to the row, and the table is too large to be read for it', 'is not given up');
ALTER TABLE unapplied_wide ADD PRIMARY KEY (line);
UPDATE settlement.unapplied SET next_apply_at = now() WHERE trade_id = '7000';
SELECT settlement._announce_work();
SELECT ok(wait_until($$EXISTS (SELECT FROM unapplied_wide WHERE id = 7000 AND settlement_status = 'SETTLED')$$), 'and written once there is one');

CREATE INDEX ON unapplied_wide (id);
BEGIN;
SELECT wait_for_moved(:wide, '8001');
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$EXISTS (SELECT FROM unapplied_wide WHERE id = 8001 AND settlement_status = 'SETTLED')$$), 'an index by trade id leads to it');

-- a prepared transaction holds the lock of a row
BEGIN;
SELECT FROM unapplied_trades WHERE id = 5 FOR UPDATE;
PREPARE TRANSACTION 'settlement_unapplied';
BEGIN;
SELECT wait_for(:id, '5', 'SETTLED');
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '5' AND failures > 1)$$),
    'an outcome whose row is locked waits');
SELECT is((SELECT last_failure FROM settlement.unapplied WHERE trade_id = '5'), 'the row or its table is locked', 'and says so');
COMMIT PREPARED 'settlement_unapplied';
SELECT ok(wait_until($$EXISTS (SELECT FROM unapplied_trades WHERE id = 5 AND settlement_status = 'SETTLED')$$),
    'until the lock is gone');

-- user code that does not come back
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(100); RETURN NEW; END $$;
CREATE TRIGGER sleep AFTER UPDATE ON unapplied_trades FOR EACH ROW EXECUTE FUNCTION sleep();
ALTER SYSTEM SET settlement.apply_timeout = '50ms';
SELECT pg_reload_conf();
BEGIN;
SELECT wait_for(:id, '3', 'SETTLED', 4);
SELECT settlement._announce_work();
COMMIT;
SELECT ok(wait_until($$EXISTS (SELECT FROM settlement.unapplied WHERE trade_id = '3' AND failures > 1)$$),
    'a trigger that takes too long is canceled');
SELECT is((SELECT last_failure FROM settlement.unapplied WHERE trade_id = '3'),
    'canceled by settlement.apply_timeout (50 ms)', 'and the reason is told');
ALTER SYSTEM RESET settlement.apply_timeout;
SELECT pg_reload_conf();
DROP TRIGGER sleep ON unapplied_trades;
SELECT ok(wait_until($$EXISTS (SELECT FROM unapplied_trades WHERE id = 3 AND settlement_status = 'SETTLED')$$),
    'until the trigger is gone');

SELECT ok(wait_until(format($$NOT EXISTS (SELECT FROM settlement.unapplied WHERE attached_id = %s)$$, :id)), 'in the end nothing waits');
DELETE FROM settlement.discrepancies WHERE attached_id IN (:id, :wide);
SELECT settlement.detach('unapplied_trades'), settlement.detach('unapplied_wide');
DROP TABLE unapplied_trades, unapplied_wide;
DROP FUNCTION wait_for_moved(integer, text), raise_for_2(), sleep(), wait_until(text), wait_for(integer, text, text, integer, integer);
SELECT * FROM finish();
