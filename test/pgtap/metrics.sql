-- What settlement.metrics says, and how prometheus() spells it.
BEGIN;
SET client_min_messages = error;
SELECT no_plan();

SELECT columns_are('settlement', 'metrics', '{name,labels,kind,value,help}'::name[], 'the columns of the view');
SELECT set_eq('SELECT DISTINCT kind FROM settlement.metrics', '{counter,gauge,histogram,quantile,alias}'::text[], 'the kinds');
SELECT is_empty($$ SELECT name FROM settlement.metrics WHERE name !~ '^[a-z0-9_]+$' OR help !~ '^[A-Z].*\.$' $$,
    'each has a plain name and says what it is');
SELECT is_empty($$ SELECT name, labels FROM settlement.metrics GROUP BY 1, 2 HAVING count(*) > 1 $$, 'no two are the same');
SELECT is_empty($$ SELECT name FROM settlement.metrics WHERE value IS NULL AND kind <> 'quantile' $$,
    'each has a value, also where nothing has happened yet');
SELECT is_empty($$ SELECT name FROM settlement.metrics WHERE kind = 'gauge' AND name ~ '_(total|count|sum|bucket)$' $$,
    'none looks like what it is not');

-- histograms
CREATE TEMP TABLE bucket AS
SELECT regexp_replace(name, '_bucket$', '') AS name, (labels ->> 'le')::double precision AS le, value
FROM settlement.metrics WHERE name LIKE '%\_bucket';
SELECT set_eq('SELECT DISTINCT name FROM bucket',
    '{queue_wait_duration_seconds,request_duration_seconds,settle_duration_seconds,turn_duration_seconds,claim_size_trades}'::text[],
    'the histograms');
SELECT is_empty($$ SELECT * FROM (SELECT name, le, value, lag(value) OVER (PARTITION BY name ORDER BY le) AS before FROM bucket) b
                   WHERE value < before $$, 'buckets are cumulative');
SELECT is_empty($$ SELECT * FROM (SELECT name, le, lag(le) OVER (PARTITION BY name ORDER BY le) AS before FROM bucket) b
                   WHERE le NOT IN (2 * before, 4 * before, 8 * before, 'infinity') $$, '... and end at powers of two');
SELECT is_empty($$ SELECT b.name FROM bucket b JOIN settlement.metrics m ON m.name = b.name || '_count'
                   WHERE b.le = 'infinity' AND b.value > m.value $$, 'the last one is all of them');
SELECT is((SELECT max(le) FROM bucket WHERE name = 'claim_size_trades' AND le < 'infinity'),
    (SELECT max_val::double precision FROM pg_settings WHERE name = 'settlement.concurrency'), 'no claim is larger than the largest bucket');

SELECT ok((SELECT to_timestamp(value) BETWEEN pg_postmaster_start_time() - interval '1 minute' AND clock_timestamp()
           FROM settlement.metrics WHERE name = 'stats_reset_timestamp_seconds'), 'counting began when the database was first used');

-- the oldest that should be on its way
CREATE FUNCTION pg_temp.oldest(held_since timestamptz DEFAULT NULL) RETURNS text LANGUAGE sql AS
$$ SELECT concat_ws(' ', round(ready / 60), round(pending / 60)) FROM settlement._oldest_pending(0, held_since) $$;
CREATE FUNCTION pg_temp.defer(reason text, age interval) RETURNS void LANGUAGE sql AS $$
    INSERT INTO settlement.deferred (retry_at, reason, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
                                     buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
    VALUES (now(), reason, now() - age, 0, 'pg_class', reason, 'BTC/USDT', 'b', 's', 'bo', 'so', 1, 1, 1, 0, 0) $$;
SELECT is(pg_temp.oldest(), '0 0', 'none, when nothing waits');
SELECT lives_ok($$ SELECT pg_temp.defer('paused', '5 hours'), pg_temp.defer('needs_lookup', '4 hours') $$, 'trades that wait for something else');
SELECT is(pg_temp.oldest(), '0 0', 'not one that is put aside, nor one that waits for the wallet''s books');
SELECT lives_ok($$ SELECT pg_temp.defer('retry', '10 min'), pg_temp.defer('pending', '3 min') $$, 'and for another attempt');
SELECT is(pg_temp.oldest(), '0 10', 'the oldest of these');
SELECT is(pg_temp.oldest(now() - interval '20 min'), '0 20', 'one that is held for a standby');
INSERT INTO settlement.queue (enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
                              buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
VALUES (now() - interval '30 min', 0, 'pg_class', 'q', 'BTC/USDT', 'b', 's', 'bo', 'so', 1, 1, 1, 0, 0);
SELECT is(pg_temp.oldest(now() - interval '20 min'), '30 30', 'or one that is ready');

-- exposition
SELECT is(settlement._label(E'a "quote", a \\ and\na line'), E'"a \\"quote\\", a \\\\ and\\na line"', 'label values are escaped');
CREATE TEMP TABLE line AS
SELECT n, l, substring(l from '^(?:# (?:HELP|TYPE) )?(\w+)') AS name
FROM regexp_split_to_table(rtrim(settlement.prometheus(), E'\n'), E'\n') WITH ORDINALITY AS x (l, n);
SELECT is_empty($$ SELECT name FROM line WHERE l LIKE '# TYPE%' GROUP BY name HAVING count(*) > 1 $$, 'each metric is described once');
SELECT is_empty($$ SELECT l FROM line x WHERE l NOT LIKE '#%'
                   AND NOT EXISTS (SELECT FROM line t WHERE t.l LIKE '# TYPE%' AND t.n < x.n
                                   AND t.name IN (x.name, regexp_replace(x.name, '_(bucket|sum|count)$', ''))) $$,
    '... before its values');
SELECT set_eq($$ SELECT DISTINCT name FROM line WHERE l NOT LIKE '#%' $$,
    $$ SELECT 'settlement_' || name || CASE kind WHEN 'counter' THEN '_total' ELSE '' END
       FROM settlement.metrics WHERE kind IN ('counter', 'gauge', 'histogram') $$, 'prometheus() has all of the view');

SELECT * FROM finish();
ROLLBACK;
