-- What an operator sees: sums over the dead letters, what doctor() makes of the
-- wallet's answer, storage, progress, and numbers in few characters.
BEGIN;
SET client_min_messages = error;
SELECT no_plan();

\ir lib/shop.sql

-- ---------------------------------------------------------------- the tally

CREATE FUNCTION pg_temp.die(n integer, class text, symbol text, status text DEFAULT 'FAILED', code text DEFAULT NULL, http integer DEFAULT NULL)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO settlement.dlq (status, class, code, http_status, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
        buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee, maybe_executed, died_at)
    SELECT die.status, die.class, die.code, die.http, now() - i * interval '1 min', a.attached_id, a.relid, die.class || '-' || symbol || '-' || i,
           die.symbol, 'b', 's', 'bo', 'so', i, 2, 2 * i, 0, 0, die.status = 'UNKNOWN', now() - i * interval '1 sec'
    FROM settlement.attached a, generate_series(1, die.n) i
$$;
-- What the summary must be, counted.
CREATE FUNCTION pg_temp.counted() RETURNS TABLE (status text, class text, code text, http_status integer, symbol text, trades bigint,
    quote_value numeric, safe boolean) LANGUAGE sql AS $$
    SELECT d.status, d.class, d.code, d.http_status, d.symbol, count(*), coalesce(sum(d.quote_amount), 0), bool_and(d.safe_to_discard)
    FROM settlement.dlq d GROUP BY 1, 2, 3, 4, 5
$$;
CREATE FUNCTION pg_temp.agrees(what text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT bag_eq('SELECT status, class, code, http_status, symbol, trades, quote_value, safe_to_discard FROM settlement.dlq_summary',
                  'SELECT * FROM pg_temp.counted()', what)
    UNION ALL
    SELECT is((SELECT (dlq, unknown) FROM settlement._sizes()),
              (SELECT (count(*), count(*) FILTER (WHERE d.status = 'UNKNOWN')) FROM settlement.dlq d), '... and so do the sizes')
$$;

SELECT is_empty('SELECT * FROM settlement.dlq_summary', 'nothing is dead');
SELECT pg_temp.die(40, 'insufficient_balance', 'BTC/USDT', code => 'INSUFFICIENT_BALANCE', http => 422),
       pg_temp.die(7, 'network_timeout', 'ETH/USDT', 'UNKNOWN'), pg_temp.die(3, 'queue_full', 'BTC/USDT');
SELECT pg_temp.agrees('the summary is that of a count');
INSERT INTO shop.trades VALUES ('no-separator', 'BTCUSDT', 'b', 's', 'bo', 'so', 1, 1, 0, 0), ('no-price', 'BTC/USDT', 'b', 's', 'bo', 'so', NULL, 1, 0, 0),
    ('no-symbol', NULL, 'b', 's', 'bo', 'so', 1, 1, 0, 0);
SELECT is((SELECT sum(trades) FROM settlement.dlq_summary WHERE class = 'invalid_trade'), 3::numeric, 'invalid trades are counted where they are inserted');
SELECT pg_temp.agrees('... with symbol and value');
DELETE FROM settlement.dlq WHERE class = 'insufficient_balance' AND quantity * price > 60;
SELECT pg_temp.agrees('after a DELETE');
UPDATE settlement.dlq SET lookup_first = true WHERE class IN ('queue_full', 'insufficient_balance');
SELECT pg_temp.agrees('after an UPDATE');
SAVEPOINT before;
DELETE FROM settlement.dlq;
SELECT is_empty('SELECT * FROM settlement.dlq_summary', 'after all are gone');
ROLLBACK TO before;
SELECT pg_temp.agrees('after a rollback');
SET LOCAL session_replication_role = replica;
SELECT pg_temp.die(2, 'wallet_error', 'SOL/USDT', http => 500);
SET LOCAL session_replication_role = origin;
SELECT pg_temp.agrees('also what a replica session writes');
ALTER TABLE settlement.dlq DISABLE TRIGGER ALL;
SELECT pg_temp.die(5, 'restored', 'SOL/USDT');
DELETE FROM settlement.dlq_tally;
SELECT results_eq($$ SELECT status, hint FROM settlement.doctor(probe => false) WHERE detail ~ 'tally' $$,
    $$ VALUES ('warn', 'SELECT settlement.rescan();') $$, 'doctor() sees what came without the triggers');
SELECT lives_ok('SELECT settlement.rescan()', '... and rescan() counts anew');
ALTER TABLE settlement.dlq ENABLE ALWAYS TRIGGER tally_come, ENABLE ALWAYS TRIGGER tally_go, ENABLE ALWAYS TRIGGER tally_change, ENABLE ALWAYS TRIGGER tally_empty;
SELECT pg_temp.agrees('... as it is');
SELECT is((SELECT (trades, value_at_risk, oldest) FROM settlement.unknown WHERE place = 'dlq' AND currency = 'USDT'),
          (SELECT (count(*), sum(quote_amount), min(enqueued_at)) FROM settlement.dlq WHERE status = 'UNKNOWN'), 'the unknown ones, with the oldest');
SELECT results_eq($$ SELECT detail ~ '^dead letters: \d+ \(\d+ insufficient_balance, 7 network_timeout, 5 restored, ' FROM settlement.doctor(probe => false) WHERE component = 'dlq' $$,
    $$ VALUES (true) $$, 'doctor() names the classes');
TRUNCATE settlement.dlq;
SELECT is_empty('SELECT * FROM settlement.dlq_summary', 'after TRUNCATE');

-- ---------------------------------------------------------------- the wallet's answer

CREATE FUNCTION pg_temp.finding(verdict text, http integer, message text, duration double precision DEFAULT 0.012,
    skew interval DEFAULT '0', ends interval DEFAULT NULL) RETURNS TABLE (said text) LANGUAGE sql AS $$
    SELECT concat_ws(' ', component || ':', status, detail, '->', hint)
    FROM settlement._doctor_probe(verdict, http, message, duration, now() + skew, now(), clock_timestamp() + ends)
$$;
SELECT results_eq($$ SELECT * FROM pg_temp.finding('ok', 404, NULL) $$,
    $$ VALUES ('wallet: ok asked just now, it answered within 12.0 ms ->'), ('clock: ok the wallet''s clock and ours agree ->') $$, 'a wallet that is well');
SELECT alike((SELECT * FROM pg_temp.finding('ok', 404, NULL, 2.5) LIMIT 1), 'wallet: warn asked just now, it needed 2.5 s to answer ->%', 'a slow one');
SELECT alike((SELECT * FROM pg_temp.finding('wallet_auth', 401, 'go away') LIMIT 1), 'wallet: fail %wallet_auth, HTTP 401: go away -> Put credentials%', 'wrong credentials');
SELECT alike((SELECT * FROM pg_temp.finding('network', NULL, 'connection refused') LIMIT 1), 'wallet: fail %did not answer: network: connection refused -> See that the wallet runs%', 'a wallet that is away');
SELECT alike((SELECT * FROM pg_temp.finding('wallet_path', 404, NULL) LIMIT 1), 'wallet: warn %wallet_path, HTTP 404 -> %If it has no look-up: settlement.wallet_lookup = off.', 'somebody else');
SELECT alike((SELECT * FROM pg_temp.finding('not tried', NULL, 'no wallet URL is set') LIMIT 1), 'wallet: fail it cannot be asked: no wallet URL is set -> %', 'one that cannot be asked');
SELECT alike(f, 'clock: warn the wallet''s clock is 1%', 'a clock that differs: ' || f) FROM (VALUES ('10 s'), ('-10 s')) v (skew), LATERAL pg_temp.finding('ok', 404, NULL, skew => skew::interval) f WHERE f LIKE 'clock%';
SELECT alike(f, v.expected || '%', 'a certificate that ends in ' || v.ends) FROM (VALUES ('3 days', 'tls: warn'), ('90 days', 'tls: ok')) v (ends, expected),
    LATERAL pg_temp.finding('ok', 404, NULL, ends => v.ends::interval) f WHERE f LIKE 'tls%';

SELECT set_config('settlement.wallet_url', 'http://127.0.0.1:1', true) IS NOT NULL AS nobody_listens_there;
SELECT results_eq($$ SELECT verdict, http_status, duration_s < 10 FROM settlement._probe_wallet() $$, $$ VALUES ('network', NULL::integer, true) $$, 'a real probe');
SELECT alike((SELECT detail FROM settlement.doctor() WHERE component = 'wallet'), '%did not answer: network%', '... by doctor()');
SELECT is_empty($$ SELECT * FROM settlement.doctor(probe => false) WHERE component = 'wallet' $$, '... unless it is told not to');
SELECT is_empty('SELECT * FROM settlement._wallet_files()', 'no file is set');

-- ---------------------------------------------------------------- evidence

INSERT INTO shop.trades VALUES ('t1', 'BTC/USDT', 'alice', 'bob "the seller"', 'bo', 'so', 0.10, 3.000, 0.001, 0);
SELECT is(settlement.evidence('t1') #>> '{request,body}',
    '{"trade_id":"t1","buyer_id":"alice","seller_id":"bob \"the seller\"","buyer_order_id":"bo","seller_order_id":"so","base_currency":"BTC","quote_currency":"USDT","base_amount":"3","quote_amount":"0.3","price":"0.1","buyer_fee":"0.001","seller_fee":"0"}',
    'evidence() of a queued trade: the bytes of its request');
SELECT is(settlement.evidence('t1') #>> '{request,sha256}', encode(sha256(convert_to(settlement.evidence('t1') #>> '{request,body}', 'UTF8')), 'hex'), '... and their hash');
SELECT is(settlement.evidence('t1') #>> '{places,0,place}', 'queue', '... where it is');
CREATE TEMP TABLE before AS SELECT settlement.evidence('t1') AS e;
DELETE FROM settlement.queue;
UPDATE shop.trades SET settlement_status = 'SETTLED', settlement_id = 'S-1' WHERE trade_id = 't1';
SELECT is(settlement.evidence('t1') #>> '{request,body}', e #>> '{request,body}', 'of a settled one: made from its row, the same') FROM before;
SELECT is(settlement.evidence('t1') ->> 'idempotency_key', e ->> 'idempotency_key', '... under the same key') FROM before;
SELECT is(settlement.evidence('t1') #>> '{request,made_from}', 'the trade row as it is now', '... and it says so');
SELECT is(settlement.evidence('no-price') -> 'request', 'null'::jsonb, 'of an invalid one: it has no request');
SELECT is(settlement.evidence('nobody'), NULL, 'of one that nobody knows: nothing');

-- ---------------------------------------------------------------- storage, progress, numbers

SELECT set_has($$ SELECT what, object FROM settlement.storage_health $$, $$ VALUES ('table', 'settlement.queue'), ('table', 'settlement.dlq'),
    ('index', 'settlement.queue_pkey'), ('table', 'shop.trades'), ('fillfactor', 'shop.trades') $$, 'storage_health has our tables and the trades');
SELECT is_empty($$ SELECT * FROM settlement.storage_health WHERE what = 'index' AND status <> 'ok' $$, 'no index is in the way');
SELECT matches((SELECT hint FROM settlement.storage_health WHERE what = 'fillfactor'), '^ALTER TABLE shop\.trades SET \(fillfactor = 40\);', 'it advises the fillfactor that attach() does');
CREATE INDEX by_status ON shop.trades (settlement_status);
SELECT results_eq($$ SELECT object, status FROM settlement.storage_health WHERE what = 'index' AND status <> 'ok' $$, $$ VALUES ('shop.by_status', 'warn') $$, '... but this one');
ALTER TABLE settlement.queue SET (autovacuum_enabled = off);
SELECT alike((SELECT detail || hint FROM settlement.doctor(probe => false) WHERE component = 'autovacuum'), 'settlement.queue: %autovacuum is off for it%RESET (autovacuum_enabled)%', 'doctor() misses autovacuum');

-- ---------------------------------------------------------------- other findings of doctor()

CREATE FUNCTION pg_temp.found(what text) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT concat_ws(' ', status, detail, '->', hint) FROM settlement.doctor(probe => false) WHERE component = what AND status <> 'ok'
$$;
SELECT alike((SELECT pg_temp.found('server')), 'fail fsync is off: a crash of the machine may lose claims% -> ALTER SYSTEM SET fsync = on%', 'doctor() looks at the server''s settings');
CREATE ROLE settlement_test_replayer;
ALTER ROLE settlement_test_replayer SET session_replication_role = replica;
SELECT set_has($$ SELECT f ~ 'role settlement_test_replayer has session_replication_role=replica: .*enqueue_pending' FROM pg_temp.found('server') f $$, $$ VALUES (true) $$,
    '... at roles whose trades are not queued');
SELECT is_empty($$ SELECT pg_temp.found('queue') $$, '... at what waits');
INSERT INTO shop.trades VALUES ('old', 'BTC/USDT', 'b', 's', 'bo', 'so', 1, 1, 0, 0);
UPDATE settlement.queue SET enqueued_at = now() - interval '11 minutes';
SELECT alike((SELECT pg_temp.found('queue')), 'fail the next ready trade has waited since % -> See the row "sending".', '... and for how long');
SELECT alike((SELECT pg_temp.found('wallet_url')), 'warn this session has its own value (from: session)% -> %', '... at the wallet''s address, which this session has set for itself');
SELECT is_empty($$ SELECT * FROM settlement.doctor(deep => true, probe => false) WHERE status <> 'ok' AND coalesce(hint, '') = '' $$, '... and has a hint for each');

-- ---------------------------------------------------------------- who did what

SELECT results_eq($$ SELECT details ->> 'source' FROM settlement.audit_log WHERE act = 'attach' $$, $$ VALUES ('shop.trades') $$, 'attach() is in the audit log');
SAVEPOINT attached;
SELECT lives_ok($$ SELECT settlement.detach('shop.trades') $$, 'detach() ...');
SELECT results_eq($$ SELECT count > 0 FROM settlement.audit_log WHERE act = 'detach' $$, $$ VALUES (true) $$, '... too, with what was left');
ROLLBACK TO attached;

SELECT is_empty('SELECT * FROM settlement.progress', 'no long act is under way');
SELECT settlement._progress_begin('redrive', 'a reason', 200), settlement._progress('first', 50, 3);
SELECT results_eq($$ SELECT pid, act, target, phase, done, total, failed, percent, remaining >= interval '0' FROM settlement.progress $$,
    $$ VALUES (pg_backend_pid(), 'redrive', 'a reason', 'first', 50::bigint, 200::bigint, 3::bigint, 25.0, true) $$, 'a long act shows how far it is');
SELECT settlement._progress_begin('enqueue_pending', repeat('ä', 200), NULL);
SELECT results_eq($$ SELECT act, left(target, 3), total, percent FROM settlement.progress $$, $$ VALUES ('enqueue_pending', 'äää', NULL::bigint, NULL::numeric) $$,
    'the next one takes its place');
SELECT settlement._progress_end();
SELECT is_empty('SELECT * FROM settlement.progress', 'and is gone when it ends');

SELECT results_eq($$ SELECT settlement._compact(n) FROM unnest('{0,0.0012,0.7267,9.94,12.3,9999,10000,999499,999500,10000000,187500000,5e12}'::numeric[]) n $$,
    $$ VALUES ('0'), ('0.0012'), ('0.73'), ('9.9'), ('12'), ('9999'), ('10k'), ('999k'), ('1.0M'), ('10.0M'), ('188M'), ('5.0T') $$, 'numbers');
SELECT results_eq($$ SELECT settlement._count(n) FROM unnest('{0,99999,100000,10000000}'::bigint[]) n $$, $$ VALUES ('0'), ('99999'), ('100k'), ('10.0M') $$, 'counts');
SELECT results_eq($$ SELECT settlement._pair(0.0123, 0.25), settlement._pair(0.5, 1.2), settlement._brief('90 s'), settlement._brief('3 h'), settlement._brief('-1 s') $$,
    $$ VALUES ('12/250ms', '0.5/1.2s', '90 s', '3 h', '0 s') $$, 'durations');

SELECT * FROM finish();
ROLLBACK;
