-- What an operator does with dead and waiting trades.
BEGIN;
SET client_min_messages = error;
SELECT plan(79);

\ir lib/shop.sql
CREATE TABLE shop.others (LIKE shop.trades INCLUDING ALL);
SELECT settlement.attach('shop.others') IS NOT NULL AS attached;

CREATE FUNCTION pg_temp.attached(relation regclass) RETURNS integer LANGUAGE sql AS
    'SELECT attached_id FROM settlement.attached WHERE relid = relation';

CREATE FUNCTION pg_temp.place(id text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(place, ' ' ORDER BY place) FROM (
        SELECT 'queue' AS place FROM settlement.queue WHERE trade_id = $1
        UNION ALL SELECT 'deferred:' || reason FROM settlement.deferred WHERE trade_id = $1
        UNION ALL SELECT 'dlq' FROM settlement.dlq WHERE trade_id = $1
        UNION ALL SELECT 'unapplied:' || status FROM settlement.unapplied WHERE trade_id = $1) p
$$;
CREATE FUNCTION pg_temp.row_status(id text, relation regclass DEFAULT 'shop.trades') RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT settlement_status FROM %s WHERE trade_id = $1', relation) INTO result USING id;
    RETURN result;
END $$;

-- redrive keeps the key of what was not finally rejected
SELECT lives_ok($$ SELECT pg_temp.dead('a', 'UNKNOWN', 'network_timeout', maybe_executed => true) $$, 'an unknown trade');
SELECT is(settlement.redrive('a', 'try again'), 'queue', 'redrive of an unknown trade');
SELECT is(pg_temp.place('a'), 'queue', '... moves it to the queue');
SELECT is(pg_temp.row_status('a'), 'PENDING', '... and its row says PENDING');
SELECT results_eq($$ SELECT generation::int, maybe_executed, first_sent_at IS NOT NULL, format::int, fingerprint,
                            charged::int, pending_ms, attempts FROM settlement.queue WHERE trade_id = 'a' $$,
    $$ VALUES (0, true, true, 1, '\xaa'::bytea, 0, 0::bigint, 3) $$, '... under the same key, with all facts');
SELECT results_eq($$ SELECT act, reason, role::text, details ->> 'to' FROM settlement.audit_log WHERE trade_id = 'a' $$,
    $$ VALUES ('redrive', 'try again', session_user::text, 'queue') $$, '... and is in the audit log');

-- ... and takes a new one after a final rejection
SELECT lives_ok($$ SELECT pg_temp.dead('b', final => true) $$, 'a rejected trade');
SELECT is(settlement.redrive('b', 'paid in'), 'queue', 'redrive of a rejected trade');
SELECT results_eq($$ SELECT generation::int, maybe_executed, first_sent_at, format::int, fingerprint
                     FROM settlement.queue WHERE trade_id = 'b' $$,
    $$ VALUES (1, false, NULL::timestamptz, 0, NULL::bytea) $$, '... takes a new key that was never sent');
SELECT lives_ok($$ SELECT pg_temp.dead('c', 'UNKNOWN', final => true, maybe_executed => true) $$,
    'an unknown trade whose wallet does not promise that a rejection is final');
SELECT is(settlement.redrive('c', 'try again'), 'queue', 'redrive of it');
SELECT is((SELECT generation::int FROM settlement.queue WHERE trade_id = 'c'), 0, '... keeps the key');

-- past the idempotency window the wallet is asked first
SELECT lives_ok($$ SELECT pg_temp.dead('d', 'UNKNOWN', maybe_executed => true, sent => '25 hours') $$,
    'an unknown trade that the wallet may have forgotten');
SELECT is(settlement.redrive('d', 'try again'), 'needs_lookup', 'redrive does not send it');
SELECT is(pg_temp.place('d'), 'deferred:needs_lookup', '... it waits for a look-up');
SELECT ok((SELECT lookup_first AND retry_at <= clock_timestamp() FROM settlement.deferred WHERE trade_id = 'd'),
    '... that is due');
SELECT lives_ok($$ SELECT pg_temp.dead('e', sent => '25 hours') $$, 'an old trade that was certainly not executed');
SELECT is(settlement.redrive('e', 'try again'), 'queue', '... is sent');

-- errors
SELECT throws_ok($$ SELECT settlement.redrive('a', 'again') $$, '42704', 'trade "a" is not in settlement.dlq',
    'redrive of a queued trade');
SELECT throws_ok($$ SELECT settlement.redrive('nobody', 'again') $$, '42704', NULL, 'redrive of an unheard-of trade');
SELECT throws_ok($$ SELECT settlement.redrive(NULL, 'again') $$, '22004', NULL, 'redrive of NULL');
SELECT throws_ok($$ SELECT settlement.redrive('a', ' ') $$, '22023', 'a reason is required', 'redrive without a reason');
SELECT throws_ok($$ SELECT settlement.redrive('a', 'x', 'pg_class') $$, '42704', NULL, 'redrive of a table that is not attached');

-- the same id in two tables
SELECT lives_ok($$ SELECT pg_temp.dead('f'), pg_temp.dead('f', relation => 'shop.others') $$, 'the same id in two tables');
SELECT throws_ok($$ SELECT settlement.redrive('f', 'x') $$, '42P08', 'trade "f" exists in more than one attached table',
    'redrive wants to know which');
SELECT is(settlement.redrive('f', 'x', 'shop.others'), 'queue', '... and takes that one');
SELECT is(pg_temp.row_status('f'), 'FAILED', '... and leaves the other alone');

-- a trade with two dead letters leaves as one, with the facts of both
SELECT lives_ok($$ SELECT pg_temp.dead('g', sent => '3 hours'),
                          pg_temp.dead('g', 'UNKNOWN', maybe_executed => true, sent => '2 hours') $$, 'two dead letters of a trade');
SELECT is(settlement.redrive('g', 'x'), 'queue', 'redrive takes both');
SELECT results_eq($$ SELECT maybe_executed, first_sent_at = now() - interval '3 hours' FROM settlement.queue WHERE trade_id = 'g' $$,
    $$ VALUES (true, true) $$, '... as one queue row with the facts of both');
SELECT is(pg_temp.place('g'), 'queue', '... and none stays');

-- an outcome that waits to be written is overtaken, a settlement is not
SELECT lives_ok($$ SELECT pg_temp.dead('h'), pg_temp.dead('i') $$, 'dead letters');
INSERT INTO settlement.unapplied (attached_id, leaf, trade_id, status)
VALUES (pg_temp.attached('shop.trades'), 'shop.trades', 'h', 'FAILED'),
       (pg_temp.attached('shop.trades'), 'shop.trades', 'i', 'SETTLED');
SELECT is(settlement.redrive('h', 'x'), 'queue', 'redrive overtakes FAILED that waits to be written');
SELECT is(pg_temp.place('h'), 'queue', '... which is gone');
SELECT throws_ok($$ SELECT settlement.redrive('i', 'x') $$, '55000', NULL, 'redrive of a settled trade');
DELETE FROM settlement.dlq WHERE trade_id = 'i';

-- invalid trades
INSERT INTO shop.trades VALUES ('j', 'BTC/USDT', 'b', 's', 'bo', 'so', -1, 10, 0, 0);
SELECT is((SELECT class FROM settlement.dlq WHERE trade_id = 'j'), 'invalid_trade', 'an invalid trade');
SELECT throws_like($$ SELECT settlement.redrive('j', 'x') $$, 'the trade is still invalid: %', 'redrive while it is invalid');
UPDATE shop.trades SET price = 3 WHERE trade_id = 'j';
SELECT is(settlement.redrive('j', 'corrected'), 'queue', 'redrive once its row is corrected');
SELECT results_eq($$ SELECT price, quote_amount, maybe_executed, lookup_first FROM settlement.queue WHERE trade_id = 'j' $$,
    $$ VALUES (3::numeric, 30::numeric, false, false) $$, '... sends what the row says now');
SELECT is(pg_temp.place('j'), 'queue', '... and FAILED is not written any more');
INSERT INTO shop.trades VALUES ('jj', 'BTC/USDT', 'b', 's', 'bo', 'so', -1, 10, 0, 0);
-- as adopt() leaves it
UPDATE settlement.dlq SET lookup_first = true, first_sent_at = enqueued_at WHERE trade_id = 'jj';
SELECT throws_like($$ SELECT settlement.redrive('jj', 'x') $$, 'the trade is still invalid: %', 'an adopted one is read again, too');
UPDATE shop.trades SET price = 3 WHERE trade_id = 'jj';
SELECT is(settlement.redrive('jj', 'corrected'), 'needs_lookup', '... and asked about, as the original may have sent it');
SELECT results_eq($$ SELECT price, quote_amount, maybe_executed, lookup_first, first_sent_at = enqueued_at FROM settlement.deferred WHERE trade_id = 'jj' $$,
    $$ VALUES (3::numeric, 30::numeric, true, true, true) $$, '... with what the row says now');
SELECT is((SELECT details ->> 'to' FROM settlement.audit_log WHERE trade_id = 'jj' AND act = 'redrive'), 'needs_lookup', '... which is in the audit log');

-- gone rows
SELECT lives_ok($$ SELECT pg_temp.dead('k') $$, 'a dead letter');
DELETE FROM shop.trades WHERE trade_id = 'k';
SELECT throws_ok($$ SELECT settlement.redrive('k', 'x') $$, '55000',
    'trade "k" was not redriven: trade row no longer exists', '... whose row was deleted');
SELECT is(pg_temp.place('k'), 'dlq', '... stays');
UPDATE settlement.dlq SET status = 'UNKNOWN', maybe_executed = true WHERE trade_id = 'k';
SELECT throws_ok($$ SELECT settlement.redrive('k', 'x') $$, '55000', NULL, '... also when it is UNKNOWN');
SELECT alike(settlement.lookup('k'), 'the wallet will be asked; %', '... but the wallet can be asked then');
SELECT results_eq($$ SELECT reason, lookup_first, first_sent_at FROM settlement.deferred WHERE trade_id = 'k' $$,
    $$ VALUES ('needs_lookup', true, timestamptz '-infinity') $$, '... and nothing is sent, whatever it says');
SELECT alike((SELECT string_agg(e, ' ') FROM settlement.explain('k') e), '%not sent again by itself, because its row was gone%', '... explain() says so');

-- many at once
DELETE FROM settlement.dlq;
SELECT count(pg_temp.dead('m' || i, code => 'INSUFFICIENT_BALANCE', final => true, value => i, died => i * interval '1 hour'))
FROM generate_series(1, 10) i;
SELECT count(pg_temp.dead('n' || i, 'UNKNOWN', 'network_timeout', maybe_executed => true, symbol => 'ETH/USDT'))
FROM generate_series(1, 3) i;
SELECT throws_ok($$ SELECT * FROM settlement.redrive_where() $$, '22023', 'no filter was given', 'an empty filter is refused');
SELECT results_eq($$ SELECT trade_status, matching, redriven FROM settlement.redrive_where(all_rows => true) $$,
    $$ VALUES ('FAILED', 10::bigint, 0::bigint) $$, '... unless it is meant; UNKNOWN is not in it; a dry run is the default');
SELECT is((SELECT count(*) FROM settlement.dlq), 13::bigint, '... which changes nothing');
SELECT throws_ok($$ SELECT * FROM settlement.redrive_where(class => 'rejected', dry_run => false) $$, '22023',
    'a reason is required', 'acting takes a reason');
SELECT throws_ok($$ SELECT * FROM settlement.redrive_where(status => 'SETTLED') $$, '22023', NULL, 'a status that no dead letter has');
SELECT results_eq($$ SELECT matching FROM settlement.redrive_where(code => 'INSUFFICIENT_BALANCE', min_value => 3, max_value => 7) $$,
    $$ VALUES (5::bigint) $$, 'filter by value');
SELECT results_eq($$ SELECT value, sample FROM settlement.redrive_where(code => 'INSUFFICIENT_BALANCE') $$,
    $$ VALUES (55::numeric, '{m1,m2,m3,m4,m5}'::text[]) $$, 'a dry run says what they are worth, and shows some');
SELECT results_eq($$ SELECT matching FROM settlement.redrive_where(older_than => '4 hours', newer_than => '8 hours', user_id => 's') $$,
    $$ VALUES (5::bigint) $$, 'filter by age and user');
SELECT results_eq($$ SELECT matching, redriven, skipped FROM settlement.redrive_where(class => 'rejected', max => 2, dry_run => false, reason => 'x') $$,
    $$ VALUES (10::bigint, 2::bigint, 0::bigint) $$, 'max takes the oldest');
SELECT is(pg_temp.place('m1') || pg_temp.place('m3'), 'queuedlq', '... of them');
DELETE FROM shop.trades WHERE trade_id = 'm4';
CREATE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF new.trade_id = 'm5' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN new; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON shop.trades FOR EACH ROW EXECUTE FUNCTION shop.refuse();
SELECT results_eq($$ SELECT redriven, skipped, note FROM settlement.redrive_where(class => 'rejected', dry_run => false, reason => 'slowly') $$,
    $$ VALUES (6::bigint, 2::bigint, 'not this one; trade row no longer exists') $$, 'one that cannot be redriven does not stop the others');
SELECT results_eq($$ SELECT trade_status, redriven FROM settlement.redrive_where(status => 'UNKNOWN', symbol => 'ETH/USDT', max => 1, dry_run => false, reason => 'x') $$,
    $$ VALUES ('UNKNOWN', 1::bigint) $$, 'UNKNOWN ones when they are named');
SELECT results_eq($$ SELECT resolved FROM settlement.resolve_where(symbol => 'ETH/USDT', dry_run => false, reason => 'ask') $$,
    $$ VALUES (2::bigint) $$, 'resolve_where asks the wallet about UNKNOWN ones');
SELECT is(pg_temp.place('n2'), 'deferred:needs_lookup', '... by a look-up');
SELECT is((SELECT count FROM settlement.audit_log WHERE act = 'redrive_where' AND reason = 'slowly'), 6::bigint, 'the whole is in the audit log');

-- resolve
DELETE FROM settlement.dlq;
SELECT count(pg_temp.dead('r' || i, 'UNKNOWN', maybe_executed => true)) FROM generate_series(1, 3) i;
SELECT throws_ok($$ SELECT settlement.resolve('r1', 'DONE', 'ref', 'x') $$, '22023', NULL, 'resolve as something else');
SELECT throws_ok($$ SELECT settlement.resolve('r1', 'SETTLED', '', 'x') $$, '22023', NULL, 'resolve as SETTLED without a reference');
SELECT throws_ok($$ SELECT settlement.resolve('r1', 'FAILED', NULL, 'x') $$, '22023', NULL, 'resolve an unknown trade as FAILED without a reference');
SELECT throws_ok($$ SELECT settlement.resolve('b', 'FAILED', 'ref', 'x') $$, '42704', NULL, 'resolve a queued trade');
SELECT is(settlement.resolve('r1', 'SETTLED', 'S-1', 'in the books'), 'done', 'resolve as SETTLED');
SELECT results_eq($$ SELECT settlement_status, settlement_id, settled_at IS NOT NULL, settlement_error, pg_temp.place('r1') FROM shop.trades WHERE trade_id = 'r1' $$,
    $$ VALUES ('SETTLED', 'S-1', true, NULL::text, NULL::text) $$, '... writes the row and takes the trade out');
SELECT results_eq($$ SELECT settlement.resolve('r2', 'FAILED', 'ticket 7', 'not in the books'), pg_temp.row_status('r2') $$,
    $$ VALUES ('done', 'FAILED') $$, 'resolve as FAILED');
SELECT is((SELECT details ->> 'reference' FROM settlement.audit_log WHERE act = 'resolve' AND trade_id = 'r2'), 'ticket 7',
    '... with its reference in the audit log');
SELECT is(settlement.resolve('n2', 'FAILED', 'ticket 8', 'not in the books'), 'done', 'resolve a trade that waits for a look-up');

-- purge
SELECT throws_ok($$ SELECT * FROM settlement.dlq_purge(status => 'UNKNOWN') $$, '55000', NULL, 'UNKNOWN cannot be purged');
SELECT lives_ok($$ SELECT pg_temp.dead('p') $$, 'a FAILED trade');
SELECT results_eq($$ SELECT purged FROM settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'old') $$,
    $$ VALUES (1::bigint) $$, 'purge takes FAILED ones only');
SELECT results_eq($$ SELECT trade_id, details ->> 'class' FROM settlement.audit_log WHERE act = 'dlq_purge' $$,
    $$ VALUES ('p', 'rejected') $$, '... and keeps what was known in the audit log');

SELECT * FROM finish();
ROLLBACK;
