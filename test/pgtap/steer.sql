-- Pause, resume, breaker, workers; status and metrics show it.
BEGIN;
SET client_min_messages = error;
SELECT plan(31);

SELECT throws_ok($$ SELECT settlement.pause('') $$, '22023', NULL, 'a pause takes a reason');
SELECT throws_ok($$ SELECT settlement.pause('x', until => now() - interval '1 s') $$, '22023', NULL, 'a pause ends in the future');
SELECT throws_ok($$ SELECT settlement.pause('x', '') $$, '22023', NULL, 'a pause of no symbol');
SELECT alike(settlement.pause('x', 'BTC/USDT'), 'BTC/USDT is paused from the commit on; 0 trades %', 'pause a symbol');
SELECT alike(settlement.pause('y', 'BTC/USDT', now() + interval '1 day'), 'BTC/USDT is paused until %', 'pause it for longer');
SELECT results_eq($$ SELECT symbol, reason, until IS NOT NULL, by = session_user FROM settlement.pauses $$,
    $$ VALUES ('BTC/USDT', 'y', true, true) $$, 'there is one pause of a symbol');
SELECT throws_ok($$ SELECT settlement.resume('ETH/USDT') $$, '42704', 'symbol "ETH/USDT" is not paused', 'resume what is not paused');
SELECT throws_ok($$ SELECT settlement.resume() $$, '42704', 'sending is not paused', 'resume when not everything is paused');
SELECT alike(settlement.pause('night'), 'everything is paused from the commit on%', 'pause everything');
SELECT throws_ok($$ SELECT * FROM settlement.wait_paused('1 s') $$, '25001', NULL, 'waiting in the same transaction would never end');
SELECT is((SELECT value FROM settlement.metrics WHERE name = 'paused'), 1::double precision, 'a metric shows the pause');

INSERT INTO settlement.deferred (reason, retry_at, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
    buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
SELECT 'paused', 'infinity', now(), 0, 'pg_class', 't' || i, s, 'b', 's', 'bo', 'so', 1, 1, 1, 0, 0
FROM unnest('{BTC/USDT,ETH/USDT}'::text[]) WITH ORDINALITY AS u (s, i);
SELECT alike(settlement.resume(), 'everything is resumed; 0 trades put aside %; still paused: BTC/USDT', 'resume everything');
SELECT results_eq('SELECT settlement._released()', $$ VALUES ('ETH/USDT') $$, '... but not the symbol that is paused by itself');
SELECT alike(settlement.resume('BTC/USDT'), 'BTC/USDT is resumed; 1 trade put aside go back to the queue', 'resume it');
SELECT results_eq('SELECT settlement._released()', $$ VALUES ('BTC/USDT'), ('ETH/USDT') $$, '... and what it has put aside goes on');
SELECT results_eq($$ SELECT act FROM settlement.audit_log ORDER BY id $$,
    $$ VALUES ('pause'), ('pause'), ('pause'), ('resume'), ('resume') $$, 'all is in the audit log');

SELECT throws_ok($$ SELECT settlement.breaker_open(NULL) $$, '22023', NULL, 'opening the breaker takes a reason');
SELECT lives_ok($$ SELECT settlement.breaker_open('test') $$, 'open the breaker');
SELECT is((SELECT value FROM settlement.metrics WHERE name = 'breaker_state'), 2::double precision, '... a metric shows it');
SELECT lives_ok($$ SELECT settlement.breaker_close() $$, 'close the breaker');
SELECT is((SELECT value FROM settlement.metrics WHERE name = 'breaker_state'), 0::double precision, '... a metric shows it');
SELECT lives_ok($$ SELECT settlement.rescan() $$, 'rescan');
SELECT throws_ok($$ SELECT settlement.restart_worker(1000) $$, '42704', NULL, 'restart a worker that is not there');
SELECT throws_ok($$ SELECT settlement.restart_worker(-1) $$, '42704', NULL, '... or cannot be');

SELECT is((SELECT count(*) FROM settlement.status), 1::bigint, 'status is one row');
SELECT cmp_ok((SELECT sum(length(a.attname) + 3)::int - 1 FROM pg_attribute a
               WHERE a.attrelid = 'settlement.status'::regclass AND a.attnum > 0), '<=', 105, '... and not wide');
SELECT is((SELECT dlq FROM settlement.status), '0', '... that counts');
SELECT set_has($$ SELECT name FROM settlement.metrics $$,
    $$ SELECT unnest('{submitted,processed,failed,total_settlements,failed_settlements,dlq_size}'::text[]) $$,
    'the metrics that dashboards of the old service know');

CREATE TEMP TABLE exposition AS
SELECT l FROM regexp_split_to_table(rtrim(settlement.prometheus(), E'\n'), E'\n') l;
SELECT is_empty($$ SELECT l FROM exposition WHERE l !~ '^# (HELP|TYPE) settlement_[a-z0-9_]+ .+$'
                   AND l !~ '^settlement_[a-z0-9_]+\{database="[^"]+"(,le="([0-9.]+|\+Inf)")?\} [0-9.eE+-]+$' $$,
    'prometheus() is well formed');
SELECT is_empty($$ SELECT l FROM exposition WHERE l ~ '^# TYPE .* counter$' AND l !~ '_total counter$' $$, 'counters end in _total');
SELECT is((SELECT count(*) FROM exposition WHERE l ~ 'le="\+Inf"'), 5::bigint, 'each histogram has an infinite bucket');

SELECT * FROM finish();
ROLLBACK;
