-- UNKNOWN trades are resolved by an imported statement of the wallet.
BEGIN;
SET client_min_messages = error;
SELECT plan(29);

CREATE SCHEMA shop;
CREATE TABLE shop.trades (trade_id text PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric,
    buyer_fee numeric, seller_fee numeric);
CREATE TABLE shop.others (LIKE shop.trades INCLUDING ALL);
SELECT settlement.attach('shop.trades', source => 'shop') IS NOT NULL, settlement.attach('shop.others', source => 'other') IS NOT NULL;

CREATE FUNCTION pg_temp.lost(id text, generation integer DEFAULT 0, relation regclass DEFAULT 'shop.trades', status text DEFAULT 'UNKNOWN')
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    result bigint;
BEGIN
    EXECUTE format('INSERT INTO %s VALUES ($1, ''BTC/USDT'', ''b'', ''s'', ''bo'', ''so'', 10, 10, 0, 0, $2) ON CONFLICT DO NOTHING', relation)
    USING id, status;
    INSERT INTO settlement.dlq (status, class, message, enqueued_at, attached_id, leaf, attempts, generation,
        format, maybe_executed, trade_id, symbol, buyer_id, seller_id, buyer_order_id, seller_order_id, price,
        quantity, quote_amount, buyer_fee, seller_fee, first_sent_at)
    SELECT status, 'network_timeout', 'why', now(), a.attached_id, a.relid, 3, generation, 1, status = 'UNKNOWN', id,
        'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 100, 0, 0, now()
    FROM settlement.attached a WHERE a.relid = relation RETURNING dlq.id INTO result;
    RETURN result;
END $$;
CREATE FUNCTION pg_temp.says(statement jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', r.matching, r.resolved, r.skipped, r.note), '|')
    FROM settlement.resolve_where(statement => statement) r
$$;
CREATE FUNCTION pg_temp.act(statement jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', r.matching, r.resolved, r.skipped), '|')
    FROM settlement.resolve_where(statement => statement, dry_run => false, reason => 'statement of May') r
$$;
CREATE FUNCTION pg_temp.rows() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', trade_id, settlement_status, settlement_id), ', ' ORDER BY trade_id) FROM shop.trades
$$;

SELECT count(pg_temp.lost(n)) FROM unnest('{a,b,c}'::text[]) n;
SELECT pg_temp.lost('d', status => 'FAILED') IS NOT NULL;

-- what cannot be used
SELECT throws_ok($$ SELECT pg_temp.says('{}') $$, '22023', 'the statement is not a JSON array', 'an object is no statement');
SELECT throws_ok($$ SELECT pg_temp.says('[{"trade_id": "a", "outcome": "PAID", "reference": "r"}]') $$, '22023', NULL, 'no other outcome');
SELECT throws_ok($$ SELECT pg_temp.says('[{"trade_id": "a", "outcome": "FAILED"}]') $$, '22023', NULL, 'no line without a reference');
SELECT throws_ok($$ SELECT pg_temp.says('[{"outcome": "FAILED", "reference": "r"}]') $$, '22023', NULL, '... nor without a trade');
SELECT throws_ok($$ SELECT * FROM settlement.resolve_where(statement => '[]', per_second => 1) $$, '22023', NULL, 'no pace');
SELECT throws_ok($$ SELECT * FROM settlement.resolve_where(statement => '[]', dry_run => false) $$, '22023', 'a reason is required', 'acting takes a reason');

-- by trade id and by key; a dry run first
SELECT is(pg_temp.says('[{"trade_id": "a", "outcome": "settled", "reference": "S-1"}, {"trade_id": "d", "outcome": "SETTLED", "reference": "S-9"}]'),
    '3 0 0 the statement says of 1 SETTLED, of 0 FAILED, of 2 nothing that can be used', 'a dry run says what the statement says');
SELECT is(pg_temp.rows(), 'a UNKNOWN, b UNKNOWN, c UNKNOWN, d FAILED', '... and changes nothing');
SELECT is(pg_temp.act(jsonb_build_array(
    '{"trade_id": "a", "outcome": "settled", "reference": "S-1"}'::jsonb,
    jsonb_build_object('key', upper(settlement._idempotency_key('shop', 'b', 0)), 'outcome', 'FAILED', 'reference', 'page 7'))),
    '3 2 0', 'by trade id, and by key');
SELECT is(pg_temp.rows(), 'a SETTLED S-1, b FAILED, c UNKNOWN, d FAILED', '... it is written to the rows');
SELECT is((SELECT string_agg(trade_id, ' ' ORDER BY trade_id) FROM settlement.dlq), 'c d', '... and they leave the DLQ; what the statement does not name stays');
SELECT results_eq($$ SELECT count, details ->> 'statement' FROM settlement.audit_log WHERE act = 'resolve_where' $$, $$ VALUES (2::bigint, '2') $$, 'the whole is in the audit log');
SELECT is((SELECT count(*) FROM settlement.audit_log WHERE act = 'resolve' AND reason = 'statement of May'), 2::bigint, '... and each trade');

-- contradictions
SELECT is(pg_temp.act('[{"trade_id": "c", "outcome": "SETTLED", "reference": "S-3"}, {"trade_id": "c", "outcome": "FAILED", "reference": "S-3"}]'),
    '1 0 0', 'nothing is done where the statement contradicts itself');
SELECT is(pg_temp.act(jsonb_build_array(jsonb_build_object('key', settlement._idempotency_key('shop', 'a', 0), 'trade_id', 'c', 'outcome', 'FAILED', 'reference', 'r'))),
    '1 0 0', '... nor where key and trade id are of different trades');

-- the failure of an earlier key says nothing of the present one
SELECT pg_temp.lost('e', 1) IS NOT NULL;
SELECT matches(pg_temp.says('[{"trade_id": "e", "outcome": "FAILED", "reference": "r"}]'), 'it had more than one key: the line has to name the key', 'a trade with a second key');
SELECT is(pg_temp.act('[{"trade_id": "e", "outcome": "FAILED", "reference": "r"}]'), '2 0 0', '... is not failed by its id alone');
SELECT is(pg_temp.act(jsonb_build_array(jsonb_build_object('key', settlement._idempotency_key('shop', 'e', 0), 'outcome', 'FAILED', 'reference', 'r'))),
    '2 0 0', '... nor by the first key');
SELECT is((SELECT settlement_status FROM shop.trades WHERE trade_id = 'e'), 'UNKNOWN', '... it is still unknown');
SELECT is(pg_temp.act(jsonb_build_array(jsonb_build_object('key', settlement._idempotency_key('shop', 'e', 1), 'outcome', 'FAILED', 'reference', 'r'))),
    '2 1 0', '... but by its present key');
SELECT pg_temp.lost('f') < pg_temp.lost('f', 1);
SELECT is(pg_temp.act(jsonb_build_array(jsonb_build_object('key', settlement._idempotency_key('shop', 'f', 0), 'outcome', 'FAILED', 'reference', 'r'))),
    '2 0 0', 'nor is one of which another key may have been paid');
SELECT is(pg_temp.act('[{"trade_id": "f", "outcome": "SETTLED", "reference": "S-6"}]'), '2 1 0', 'a settlement is one whatever its key');

-- the same id in two tables
SELECT pg_temp.lost('g') < pg_temp.lost('g', relation => 'shop.others');
SELECT matches(pg_temp.says('[{"trade_id": "g", "outcome": "SETTLED", "reference": "S-7"}]'), 'more than one attached table has it', 'the same id in two tables');
SELECT is(pg_temp.act(jsonb_build_array(jsonb_build_object('key', settlement._idempotency_key('other', 'g', 0), 'outcome', 'SETTLED', 'reference', 'S-7'))),
    '3 1 0', '... the key tells them apart');
SELECT is((SELECT settlement_status FROM shop.trades WHERE trade_id = 'g') || (SELECT settlement_status FROM shop.others WHERE trade_id = 'g'),
    'UNKNOWNSETTLED', '... and the right one is settled');

-- many, and some that are queued besides: they stay, and the queue is read once for a batch
DELETE FROM settlement.dlq;
SELECT count(pg_temp.lost('m' || i)) FROM generate_series(1, 60) i;
CREATE FUNCTION pg_temp.all_settled(low integer, high integer) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_agg(jsonb_build_object('trade_id', 'm' || i, 'outcome', 'SETTLED', 'reference', 'S-m' || i)) FROM generate_series(low, high) i
$$;
CREATE FUNCTION pg_temp.scans() RETURNS bigint LANGUAGE sql AS
    $$ SELECT seq_scan + idx_scan FROM pg_stat_xact_user_tables WHERE relid = 'settlement.queue'::regclass $$;
SELECT pg_temp.scans() AS scans \gset
SELECT is(pg_temp.act(pg_temp.all_settled(1, 30)), '60 30 0', 'many at once');
SELECT is(pg_temp.scans() - :scans, 1::bigint, '... for which the queue is read once');
SELECT settlement._requeue(d) FROM settlement.dlq d WHERE trade_id IN ('m37', 'm55');
SELECT is(pg_temp.act(pg_temp.all_settled(31, 60)), '30 28 2', 'those that are queued besides are left alone, the others are not');
SELECT is((SELECT string_agg(trade_id, ' ' ORDER BY trade_id) FROM settlement.dlq), 'm37 m55', '... they stay');

SELECT * FROM finish();
ROLLBACK;
