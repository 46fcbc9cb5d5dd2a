-- explain(), timeline() and doctor(): each state in words.
BEGIN;
SET client_min_messages = error;
SELECT plan(45);

CREATE ROLE settlement_test_owner;
CREATE SCHEMA shop AUTHORIZATION settlement_test_owner;
CREATE DOMAIN shop.number AS bigint CHECK (value > 0);
CREATE TABLE shop."Trades" ("tradeNo" shop.number PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric,
    buyer_fee numeric, seller_fee numeric);
ALTER TABLE shop."Trades" OWNER TO settlement_test_owner;
INSERT INTO shop."Trades" VALUES (1, 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 0, 0);
SELECT is(settlement.explain('1'), 'No table is attached: settlement.attach() says which tables hold trades.', 'nothing attached');
SELECT settlement.attach('shop."Trades"', '{"trade_id": "tradeNo"}') IS NOT NULL AS attached;

CREATE FUNCTION pg_temp.said(id text) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(e, E'\n') FROM settlement.explain(id) e $$;
CREATE FUNCTION pg_temp.found(what text) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(status || ': ' || detail, E'\n') FROM settlement.doctor() WHERE component = what $$;

SELECT alike(pg_temp.said('1'), '%older than settlement.attach()%', 'a row older than attach');
SELECT alike(pg_temp.said('99'), '%is not known%', 'no such trade');
SELECT alike(pg_temp.said('not a number'), '%is not known%', 'no such id');
SELECT throws_ok($$ SELECT settlement.explain('1', 'pg_class') $$, '42704', NULL, 'a table that is not attached');

INSERT INTO shop."Trades" VALUES (2, 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 0, 0);
SELECT alike(pg_temp.said('2'), 'Trade 2 of table shop."Trades", whose row says PENDING:%It is ready for attempt 1%', 'a ready trade');
SELECT settlement.pause('maintenance', 'BTC/USDT') IS NOT NULL AS paused;
SELECT alike(pg_temp.said('2'), '%The symbol BTC/USDT is paused by % maintenance.%', 'its symbol is paused');
SELECT alike(pg_temp.found('pauses'), 'warn: BTC/USDT is paused by %', '... doctor says so');
SELECT settlement.resume('BTC/USDT') IS NOT NULL AS resumed;
SELECT settlement.pause('night', until => now() + interval '1 hour') IS NOT NULL AS paused;
SELECT alike(pg_temp.said('2'), '%Everything is paused by %, until %(in %): night.%', 'everything is paused');
SELECT alike(pg_temp.found('sending'), '%Everything is paused%', '... doctor says so');
SELECT settlement.resume() IS NOT NULL AS resumed;
SELECT unalike(pg_temp.said('2'), '%paused%', 'nothing is paused any more');
SELECT settlement.breaker_open('test');
SELECT alike(pg_temp.said('2'), '%circuit breaker was opened by hand%', 'the breaker is open');
SELECT settlement.breaker_close();

-- a trade from state to state
CREATE FUNCTION pg_temp.move(reason text, retry_at timestamptz, maybe boolean DEFAULT true, sent interval DEFAULT '1 min')
RETURNS void LANGUAGE sql AS $$
    DELETE FROM settlement.deferred;
    INSERT INTO settlement.deferred (reason, retry_at, last_sent_at, last_class, last_status, enqueued_at, attached_id, leaf,
        attempts, charged, maybe_executed, trade_id, symbol, buyer_id, seller_id, buyer_order_id,
        seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee, first_sent_at)
    SELECT move.reason, move.retry_at, now(), 'wallet_error', 503, now(), attached_id, relid,
        2, 1, maybe, '1', 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 100, 0, 0, now() - sent
    FROM settlement.attached
$$;
SELECT pg_temp.move('retry', now() + interval '1 min');
SELECT alike(pg_temp.said('1'), '%waits for attempt 3%wallet_error, HTTP 503%2 requests were sent so far, 1 of 3 charged%may have moved%back to the queue at%(in %', 'a retry');
SELECT pg_temp.move('retry', now() - interval '10 min', false);
SELECT alike(pg_temp.said('1'), '%has not moved its money%has been due since%', 'an overdue retry');
SELECT alike(pg_temp.found('deferred'), 'warn: %not moved on', '... doctor says so');
SELECT pg_temp.move('needs_lookup', 'infinity', sent => '2 days');
SELECT alike(pg_temp.said('1'), '%idempotency_window has passed%Nothing happens by itself: settlement.resolve(%', 'a trade that needs a person');
SELECT alike(pg_temp.found('needs_lookup'), 'warn: %: 1, of them for a person: 1', '... doctor says so');
SELECT pg_temp.move('paused', 'infinity');
SELECT alike(pg_temp.said('1'), '%That pause is over: it goes back%', 'put aside by a pause that is over');
SELECT alike(pg_temp.found('pauses'), 'ok: %a pause that is over, % queue: 1', '... doctor says so');
DELETE FROM settlement.deferred;

INSERT INTO settlement.attempts (at, attached_id, trade_id, generation, attempt, verb, outcome, class, phase, http_status, duration, slot)
SELECT now() - interval '1 min', attached_id, '1', 0, 1, 'settle', 'unknown', 'wallet_error', 'replied', 503, '12 ms', 0
FROM settlement.attached;
INSERT INTO settlement.dlq (status, class, message, enqueued_at, attached_id, leaf, attempts, maybe_executed, trade_id, symbol,
    buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee, first_sent_at)
SELECT 'UNKNOWN', 'network_timeout', 'no reply', now() - interval '5 min', attached_id, relid, 3, true, '1', 'BTC/USDT',
    'b', 's', 'bo', 'so', 10, 10, 100, 0, 0, now() FROM settlement.attached;
SELECT alike(pg_temp.said('1'), '%It is dead%3 requests: network_timeout: no reply.%may have moved%settlement.lookup(''1'')%', 'an unknown trade');
SELECT alike(pg_temp.found('unknown'), 'fail: %: 1, of them dead: 1; value at risk: %', '... doctor says so');
SELECT results_eq($$ SELECT what FROM settlement.timeline('1') $$,
    $$ VALUES ('enqueued'), ('settle: unknown'), ('dead: UNKNOWN'), ('pause of BTC/USDT'), ('resume of BTC/USDT'),
              ('pause of everything'), ('resume of everything'), ('breaker_open'), ('breaker_close') $$,
    'its timeline, with the acts that held it up');
SELECT is(settlement.resolve('1', 'SETTLED', 'S-9', 'books'), 'done', 'resolved');
SELECT alike(pg_temp.said('1'), '%It was settled at % as S-9.%last act of an operator on it was resolve%books.', 'a settled trade');
SELECT results_eq($$ SELECT what FROM settlement.timeline('1') WHERE what IN ('settled', 'resolve') ORDER BY 1 $$,
    $$ VALUES ('resolve'), ('settled') $$, 'its timeline');

INSERT INTO settlement.unapplied (attached_id, leaf, trade_id, status, settlement_id, failures, last_failure)
SELECT attached_id, relid, '2', 'SETTLED', 'S-2', 4, 'a trigger said no' FROM settlement.attached;
DELETE FROM settlement.queue;
SELECT alike(pg_temp.said('2'), '%The outcome SETTLED (S-2) is recorded%failed 4 times, last with "a trigger said no"%', 'an outcome that cannot be written');
SELECT alike(pg_temp.found('unapplied'), 'fail: %a trigger said no%', '... doctor says so');
DELETE FROM settlement.unapplied;
SELECT alike(pg_temp.said('2'), '%says PENDING, but it is queued nowhere%', 'a lost trade');
SELECT results_eq($$ SELECT status, detail LIKE '%queued nowhere: 1 (for example 2)' FROM settlement.doctor(true)
                     WHERE component LIKE 'pending in %' $$, $$ VALUES ('fail', true) $$, '... a deep look finds it');
INSERT INTO settlement.discrepancies (attached_id, trade_id, kind) SELECT attached_id, '2', 'test' FROM settlement.attached;
SELECT alike(pg_temp.said('2'), '%A person has to look at it: test%', 'a discrepancy');
SELECT alike(pg_temp.found('discrepancies'), 'fail: %: 1', '... doctor says so');

-- doctor on attached tables
SELECT is(pg_temp.found('table shop."Trades"'), 'ok: attached with source "shop."Trades""', 'a table that is well');
ALTER TABLE shop."Trades" DISABLE TRIGGER ALL;
SELECT alike(pg_temp.found('table shop."Trades"'), 'fail: trigger % is disabled%', 'a disabled trigger');
ALTER TABLE shop."Trades" ENABLE TRIGGER ALL;
CREATE INDEX pending ON shop."Trades" ("tradeNo") WHERE settlement_status = 'PENDING';
SELECT alike(pg_temp.found('table shop."Trades"'), 'warn: index % uses a column that settlement writes%', 'an index that ends HOT updates');
ALTER TABLE shop."Trades" OWNER TO CURRENT_USER;
SELECT alike(pg_temp.found('table shop."Trades"'), '%is superuser%', 'an owner that is a superuser');
CREATE ROLE former_owner;
CREATE ROLE new_owner;
GRANT CREATE, USAGE ON SCHEMA shop TO former_owner, new_owner;
CREATE TABLE shop.parts (trade_id bigint PRIMARY KEY, symbol text, buyer_user_id text, seller_user_id text, buy_order_id text,
    sell_order_id text, price numeric, quantity numeric) PARTITION BY RANGE (trade_id);
ALTER TABLE shop.parts OWNER TO former_owner;
SELECT lives_ok($$ SELECT settlement.attach('shop.parts') $$, 'a partitioned table');
SELECT is(pg_temp.found('table shop.parts'), 'ok: attached with source "shop.parts"', '... is well');
ALTER TABLE shop.parts OWNER TO new_owner;
SELECT is(pg_temp.found('table shop.parts'), 'fail: the owner of shop.parts, new_owner, cannot create partitions: EXECUTE on the trigger''s function is missing',
    '... a new owner cannot create partitions');
SET ROLE new_owner;
SELECT throws_ok($$ CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (1) $$, '42501', NULL, '... indeed');
RESET ROLE;
SELECT lives_ok((SELECT rtrim(hint, ';') FROM settlement.doctor() WHERE component = 'table shop.parts'), '... the hint helps');
SET ROLE new_owner;
SELECT lives_ok($$ CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (1) $$, '... indeed');
RESET ROLE;
CREATE PUBLICATION everything FOR TABLE shop."Trades";
ALTER TABLE shop."Trades" REPLICA IDENTITY NOTHING;
SELECT alike(pg_temp.found('table shop."Trades"'), '%no replica identity%', 'a publication without a replica identity');
ALTER TABLE shop."Trades" DROP COLUMN settlement_error;
SELECT alike(pg_temp.found('table shop."Trades"'), '%column settlement_error (error) of % does not exist%', 'a dropped column');
DROP TABLE shop."Trades" CASCADE;
SELECT lives_ok($$ SELECT count(*) FROM settlement.doctor(true) $$, 'a dropped table');
SELECT lives_ok($$ SELECT settlement.explain('2') $$, '... and its trades');

SELECT * FROM finish();
ROLLBACK;
