-- What a monitor and an operator can do, and what they cannot.
BEGIN;
SET client_min_messages = error;
SELECT plan(21);

CREATE ROLE settlement_test_monitor IN ROLE pg_monitor;
CREATE ROLE settlement_test_operator;
CREATE ROLE settlement_test_nobody;
SELECT settlement.grant_operator('settlement_test_operator');

CREATE TABLE public.guarded_trades (trade_id text PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric);
SELECT settlement.attach('public.guarded_trades') IS NOT NULL AS attached;
INSERT INTO public.guarded_trades VALUES ('t', 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 0, 0);
DELETE FROM settlement.queue;
INSERT INTO settlement.dlq (status, class, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
    buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
SELECT 'FAILED', 'queue_full', now(), attached_id, relid, 't', 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 100, 0, 0
FROM settlement.attached WHERE relid = 'public.guarded_trades'::regclass;
-- pgTAP itself has to work for them
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE FUNCTION pg_temp.try(statement text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement;
    RETURN 'done';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;

SET LOCAL ROLE settlement_test_nobody;
SELECT is(pg_temp.try('TABLE settlement.status'), '42501', 'nobody may look');
SELECT is(pg_temp.try('SELECT settlement.pause(''x'')'), '42501', 'nobody may act');

SET LOCAL ROLE settlement_test_monitor;
SELECT is(pg_temp.try('TABLE settlement.status'), 'done', 'a monitor reads status');
SELECT is(pg_temp.try('TABLE settlement.workers'), 'done', '... workers');
SELECT is(pg_temp.try('TABLE settlement.in_flight'), 'done', '... in_flight');
SELECT is(pg_temp.try('TABLE settlement.metrics'), 'done', '... metrics');
SELECT is(pg_temp.try('TABLE settlement.dlq_summary'), 'done', '... dlq_summary');
SELECT is(pg_temp.try('SELECT settlement.prometheus()'), 'done', '... prometheus()');
SELECT is(pg_temp.try('SELECT * FROM settlement.doctor()'), 'done', '... doctor()');
SELECT is(pg_temp.try('TABLE settlement.dlq'), '42501', '... not single trades');
SELECT is(pg_temp.try('SELECT settlement.redrive(''t'', ''x'')'), '42501', '... and does not act');

SET LOCAL ROLE settlement_test_operator;
SELECT is(pg_temp.try('TABLE settlement.dlq'), 'done', 'an operator reads dead letters');
SELECT is(pg_temp.try('DELETE FROM settlement.dlq'), '42501', '... but does not change them by hand');
SELECT is(pg_temp.try('TABLE public.guarded_trades'), '42501', '... nor reads the trade table by itself');
SELECT ok((SELECT bool_or(e LIKE 'It is dead%') AND NOT bool_or(e LIKE '%whose row says%')
           FROM settlement.explain('t') e), 'explain() does not read it on the operator''s behalf');
SELECT is(pg_temp.try('SELECT * FROM settlement.timeline(''t'')'), 'done', 'timeline()');
SELECT is(pg_temp.try('SELECT * FROM settlement.doctor(true)'), 'done', 'doctor(deep)');
SELECT is(settlement.redrive('t', 'room again'), 'queue', 'an operator redrives');
SELECT is(pg_temp.try('SELECT settlement.pause(''x'', ''BTC/USDT''); SELECT settlement.resume(''BTC/USDT'')'), 'done', '... pauses and resumes');
SELECT is(pg_temp.try('SELECT settlement._requeue(NULL)'), '42501', '... has no internal function that acts');
SELECT is(pg_temp.try('SELECT settlement.adopt(''x'')'), '42501', '... does not adopt');

RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
