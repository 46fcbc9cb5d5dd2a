-- Trades of which the wallet may have moved the money: seen, and kept.
BEGIN;
SET client_min_messages = error;
SELECT no_plan();

\ir lib/shop.sql

-- A trade with the row that a state table holds of it.
CREATE FUNCTION pg_temp.facts(id text, symbol text, amount numeric, enqueued interval, maybe_executed boolean)
RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO shop.trades VALUES (id, symbol, 'b', 's', 'bo', 'so', amount, 1, 0, 0, 'SETTLED') ON CONFLICT DO NOTHING;
    RETURN jsonb_build_object('enqueued_at', now() - enqueued, 'attached_id', (SELECT attached_id FROM settlement.attached),
        'leaf', 'shop.trades', 'attempts', 1, 'generation', 0, 'charged', 0, 'crashes', 0, 'format', 1,
        'maybe_executed', maybe_executed, 'lookup_first', false, 'trade_id', id, 'symbol', symbol, 'buyer_id', 'b',
        'seller_id', 's', 'buyer_order_id', 'bo', 'seller_order_id', 'so', 'price', amount, 'quantity', 1,
        'quote_amount', amount, 'buyer_fee', 0, 'seller_fee', 0, 'first_sent_at', now() - enqueued, 'pending_ms', 0);
END $$;
CREATE FUNCTION pg_temp.put(place text, id text, symbol text, amount numeric, enqueued interval DEFAULT '1 hour',
    maybe_executed boolean DEFAULT true, more jsonb DEFAULT '{}') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    facts jsonb := pg_temp.facts(id, symbol, amount, enqueued, maybe_executed) || more;
    names text;
BEGIN
    facts := facts || CASE place
        WHEN 'dlq' THEN jsonb_build_object('status', CASE WHEN maybe_executed THEN 'UNKNOWN' ELSE 'FAILED' END, 'class', 'x', 'died_at', now(), 'final_rejection', false)
        WHEN 'deferred' THEN jsonb_build_object('retry_at', 'infinity', 'reason', 'retry', 'chargeable', false) ELSE '{}' END || more;
    SELECT string_agg(quote_ident(k), ', ') INTO names FROM jsonb_object_keys(facts) k;
    EXECUTE format('INSERT INTO settlement.%I (%s) SELECT %s FROM jsonb_populate_record(NULL::settlement.%I, $1)', place, names, names, place)
    USING facts;
END $$;

SELECT is_empty('SELECT * FROM settlement.unknown', 'nothing is unknown at first');
SELECT lives_ok($$ SELECT
    pg_temp.put('dlq', 'd1', 'BTC/USDT', 100.5), pg_temp.put('dlq', 'd2', 'ETH-USDT', 20, '3 hours'), pg_temp.put('dlq', 'd3', 'ETH_BTC', 0.25),
    pg_temp.put('dlq', 'failed', 'BTC/USDT', 1000, maybe_executed => false),
    pg_temp.put('deferred', 'w1', 'BTC/USDT', 5), pg_temp.put('deferred', 'w2', 'BTC/USDT', 6, more => '{"reason": "needs_lookup"}'),
    pg_temp.put('deferred', 'w3', 'BTC/USDT', 7, more => '{"reason": "paused"}'),
    pg_temp.put('deferred', 'unsent', 'BTC/USDT', 1000, '5 hours', maybe_executed => false),
    pg_temp.put('queue', 'q1', 'BTC/USDT', 8), pg_temp.put('queue', 'q2', 'BTC/USDT', 1000, '5 hours', maybe_executed => false) $$,
    'unknown trades and others, in all places');
SELECT results_eq('SELECT place, currency, trades, value_at_risk, now() - oldest FROM settlement.unknown', $$ VALUES
    ('dlq', 'BTC', 1::bigint, 0.25, interval '1 hour'), ('dlq', 'USDT', 2, 120.5, '3 hours'),
    ('needs_lookup', 'USDT', 1, 6, '1 hour'), ('deferred', 'USDT', 2, 12, '1 hour'), ('queue', 'USDT', 1, 8, '1 hour') $$,
    'are seen by place and currency, with their value and the oldest');
SELECT results_eq($$ SELECT name, trunc(value / 60) FROM settlement.metrics WHERE name IN ('unknown', 'unknown_oldest_seconds', 'dlq_unknown') ORDER BY name $$,
    $$ VALUES ('dlq_unknown', 0::double precision), ('unknown', 0), ('unknown_oldest_seconds', 180) $$, '... in the metrics');
SELECT is((SELECT value FROM settlement.metrics WHERE name = 'unknown'), 7::double precision, '... which count them all');
SELECT ok(settlement.prometheus() ~ E'\nsettlement_value_at_risk\\{database="[^"]*",currency="BTC"\\} 0.25\nsettlement_value_at_risk\\{database="[^"]*",currency="USDT"\\} 146.5\n',
    '... and their value per currency');
SELECT results_eq($$ SELECT status, detail ~ ': 7, of them dead: 3; value at risk: 0.25 BTC, 146.5 USDT; .*3 h', hint ~ 'resolve' FROM settlement.doctor() WHERE component = 'unknown' $$,
    $$ VALUES ('fail', true, true) $$, 'doctor() says so and what to do');

-- what is unknown is not discarded
SELECT set_eq('SELECT trade_id FROM settlement.dlq WHERE safe_to_discard', $$ VALUES ('failed') $$, 'only what certainly did not move money is safe to discard');
SELECT results_eq('SELECT status, safe_to_discard FROM settlement.dlq_summary GROUP BY 1, 2 ORDER BY 1', $$ VALUES ('FAILED', true), ('UNKNOWN', false) $$, '... and dlq_summary says so');
SELECT throws_ok($$ SELECT * FROM settlement.dlq_purge(trade_id => 'd1', reason => 'x') $$, '55000', 'trade "d1" is not safe to discard', 'purge of an unknown trade is refused');
SELECT results_eq($$ SELECT trade_status, matching FROM settlement.dlq_purge(all_rows => true) $$, $$ VALUES ('FAILED', 1::bigint) $$, 'purge of all leaves them alone');

-- nor reversed, nor resolved without a reference
UPDATE shop.trades SET settlement_status = v.status FROM (VALUES ('d1', 'UNKNOWN'), ('failed', 'FAILED'), ('q1', 'PENDING')) v (id, status) WHERE trade_id = v.id;
SELECT throws_ok(format($$ SELECT settlement.apply_outcome((SELECT attached_id FROM settlement.attached), 'shop.trades', NULL, %L, NULL, 'REVERSED', NULL, NULL, 9, NULL) $$, id),
    '55000', format('cannot reverse trade "%s"', id), what)
FROM (VALUES ('d1', 'an unknown trade cannot be reversed'), ('failed', 'nor a failed one'), ('q1', 'nor a pending one')) v (id, what);
SELECT throws_ok($$ SELECT settlement.resolve('d1', 'FAILED', ' ', 'x') $$, '22023', 'a reference is required to resolve trade "d1"', 'resolve() needs a reference');
SELECT is(settlement.resolve('d1', 'FAILED', 'ticket 1', 'not in the books'), 'done', '... and takes it with one');
SELECT is((SELECT sum(trades) FROM settlement.unknown), 6::numeric, '... which makes it known');

-- adopted: what it says of the wallet is of another time
SELECT count(*) FROM settlement.dlq d, LATERAL (SELECT settlement._look_up_first()) x WHERE d.trade_id = 'failed' GROUP BY d.id;
SELECT is((SELECT safe_to_discard FROM settlement.dlq WHERE trade_id = 'failed'), false, 'after adopt() nothing is safe to discard');
SELECT is((SELECT string_agg(e, ' ') ~ 'adopted' FROM settlement.explain('failed') e), true, '... and explain() says why');
SELECT is_empty($$ SELECT * FROM settlement.dlq_purge(all_rows => true, dry_run => false, reason => 'x') $$, '... nor purged');
UPDATE settlement.dlq SET final_rejection = true WHERE trade_id = 'failed';
SELECT is(settlement.redrive('failed', 'try'), 'queue', 'redrive of a rejected trade then');
SELECT results_eq($$ SELECT generation::int, maybe_executed, lookup_first FROM settlement.queue WHERE trade_id = 'failed' $$,
    $$ VALUES (1, true, true) $$, '... asks for its new key first: it may have been used where this database came from');

-- a clock that was set back
SELECT lives_ok($$ SELECT pg_temp.put('dlq', 'ahead', 'BTC/USDT', 5, '-5 hours') $$, 'an unknown trade that was first sent in the future');
UPDATE shop.trades SET settlement_status = 'UNKNOWN' WHERE trade_id = 'ahead';
SELECT is(settlement.redrive('ahead', 'try'), 'needs_lookup', '... is not sent again before the wallet was asked');
SELECT is((SELECT first_sent_at FROM settlement.deferred WHERE trade_id = 'ahead'), '-infinity', '... ever, when the clock comes by again');

-- partial indexes hold what they should, whoever inserts
INSERT INTO shop.trades VALUES ('pending', 'BTC/USDT', 'b', 's', 'bo', 'so', 1, 1, 0, 0), ('invalid', 'BTC/USDT', 'b', 's', 'bo', 'so', -1, 1, 0, 0);
DELETE FROM settlement.queue WHERE trade_id = 'pending';
SELECT is(settlement.enqueue_pending('shop.trades', dry_run => false), 1::bigint, 'a trade that is taken up later');
SET LOCAL enable_seqscan = off;
SELECT is((SELECT count(*) FROM settlement.deferred WHERE symbol = 'BTC/USDT' AND reason = 'paused'), 1::bigint, '... is not among the paused ones');
SELECT is((SELECT count(*) FROM settlement.dlq WHERE symbol = 'BTC/USDT' AND status = 'UNKNOWN'), 0::bigint, '... nor an invalid one among the unknown');
SELECT is((SELECT safe_to_discard FROM settlement.dlq WHERE trade_id = 'invalid'), true, '... which is safe to discard');

SELECT * FROM finish();
ROLLBACK;
