-- explain(), timeline() and evidence() find a trade wherever it is, whatever else is
-- true of it: what is easily found is a hint, and the whole queue the truth.
BEGIN;
SET client_min_messages = error;
SELECT plan(30);

CREATE SCHEMA shop;
CREATE TABLE shop.trades (trade_id text PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric,
    buyer_fee numeric, seller_fee numeric);
CREATE TABLE shop.others (LIKE shop.trades INCLUDING ALL);
SELECT settlement.attach('shop.trades') IS NOT NULL AS attached;
SELECT settlement.attach('shop.others') IS NOT NULL AS attached;

CREATE FUNCTION pg_temp.id_of(relation regclass) RETURNS integer LANGUAGE sql AS
    $$ SELECT attached_id FROM settlement.attached WHERE relid = relation $$;
CREATE FUNCTION pg_temp.said(id text) RETURNS text LANGUAGE sql AS
    $$ SELECT string_agg(e, E'\n') FROM settlement.explain(id) e $$;
-- what the hint finds: trades of shop.trades
CREATE FUNCTION pg_temp.hinted(id text) RETURNS bigint LANGUAGE sql AS
    $$ SELECT count(*) FROM settlement._queued_by(id, pg_temp.id_of('shop.trades'), (SELECT t.xmin FROM shop.trades t WHERE t.trade_id = id)) $$;

-- Each in a transaction of its own, and many others between the first and the last.
CREATE FUNCTION pg_temp.trade(id text, relation regclass DEFAULT 'shop.trades') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %s VALUES ($1, ''BTC/USDT'', ''b'', ''s'', ''bo'', ''so'', 10, 10, 0, 0)', relation) USING id;
EXCEPTION WHEN division_by_zero THEN        -- a subtransaction
    RAISE;
END $$;
CREATE FUNCTION pg_temp.crowd(n integer, m integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        BEGIN
            INSERT INTO settlement.queue (attached_id, leaf, trade_id, symbol, buyer_id, seller_id, buyer_order_id,
                seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
            SELECT pg_temp.id_of('shop.trades'), 'shop.trades', 'crowd-' || j, 'BTC/USDT', 'b', 's', 'bo', 'so', 1, 1, 1, 0, 0
            FROM generate_series(1, m) j;
        EXCEPTION WHEN division_by_zero THEN
            RAISE;
        END;
    END LOOP;
END $$;
SELECT pg_temp.trade('first');
SELECT pg_temp.crowd(50, 400);
SELECT pg_temp.trade('middle');
SELECT pg_temp.crowd(50, 400);
SELECT pg_temp.trade('last');
DELETE FROM settlement.queue WHERE trade_id LIKE 'crowd%' AND id % 100 <> 0;

-- by the transaction that wrote the row
SELECT is(pg_temp.hinted(id), 1::bigint, 'found by its transaction: ' || id) FROM unnest('{first,middle,last}'::text[]) id;
SELECT alike(pg_temp.said(id), 'Trade ' || id || ' of table shop.trades, whose row says PENDING:%It is ready for attempt 1;%', 'explain() says so: ' || id)
FROM unnest('{first,middle,last}'::text[]) id;
SELECT is_empty($$ SELECT * FROM settlement._queued_by('middle', pg_temp.id_of('shop.trades'), NULL) $$, 'without a transaction there is no hint');

-- a hint that leads nowhere
SAVEPOINT later;
UPDATE shop.trades SET price = price WHERE trade_id = 'first';
RELEASE later;
SELECT is(pg_temp.hinted('first'), 0::bigint, 'its row was written later: the hint leads elsewhere');
SELECT alike(pg_temp.said('first'), '%It is ready for attempt 1;%', '... explain() finds it all the same');
SELECT results_eq($$ SELECT what FROM settlement.timeline('first') $$, $$ VALUES ('enqueued') $$, '... timeline()');
SELECT is(settlement.evidence('first') #>> '{places,0,place}', 'queue', '... and evidence()');

-- a row that only some columns may be read of, or none
CREATE ROLE settlement_test_operator;
SELECT settlement.grant_operator('settlement_test_operator');
GRANT USAGE ON SCHEMA shop TO settlement_test_operator;
SET LOCAL ROLE settlement_test_operator;
SELECT alike(pg_temp.said('middle'), 'Trade middle of table shop.trades:%It is ready for attempt 1;%', 'its row cannot be read: it is found');
RESET ROLE;
GRANT SELECT (trade_id, settlement_status, settlement_id, settled_at, settlement_error) ON shop.trades TO settlement_test_operator;
SET LOCAL ROLE settlement_test_operator;
SELECT alike(pg_temp.said('middle'), 'Trade middle of table shop.trades, whose row says PENDING:%It is ready for attempt 1;%', '... nor its xmin');
SELECT isnt(settlement.evidence('middle'), NULL, '... evidence() too');
RESET ROLE;

-- enqueued twice: beside a dead letter, and twice in the queue
INSERT INTO settlement.dlq (status, class, enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id,
    buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
SELECT 'FAILED', 'queue_full', now(), attached_id, relid, 'last', 'BTC/USDT', 'b', 's', 'bo', 'so', 10, 10, 100, 0, 0
FROM settlement.attached WHERE relid = 'shop.trades'::regclass;
SELECT alike(pg_temp.said('last'), '%It is ready for attempt 1;%It is dead (in the DLQ)%', 'queued beside a dead letter: both are told');
UPDATE shop.trades SET settlement_status = 'FAILED' WHERE trade_id = 'last';
SELECT alike(pg_temp.said('last'), '%It is ready for attempt 1;%It is dead (in the DLQ)%', '... also when its row says FAILED');
SELECT is(jsonb_path_query_array(settlement.evidence('last'), '$.places[*].place'), '["queue", "dlq"]', '... by evidence() too');
SELECT pg_temp.crowd(1, 12000);
INSERT INTO settlement.queue (enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id, buyer_order_id,
    seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee)
SELECT enqueued_at, attached_id, leaf, trade_id, symbol, buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity,
    quote_amount, buyer_fee, seller_fee FROM settlement.queue WHERE trade_id = 'middle';
SELECT alike(pg_temp.said('middle'), '%It is ready for attempt 1;%', 'twice in the queue: explain() has one of them');
SELECT is(jsonb_array_length(settlement.evidence('middle') -> 'places'), 2, '... evidence() has both');

-- its row is gone
DELETE FROM shop.trades WHERE trade_id = 'first';
SELECT alike(pg_temp.said('first'), 'Trade first of table shop.trades:%It is ready for attempt 1;%', 'a queued trade without a row');
SELECT results_eq($$ SELECT what FROM settlement.timeline('first') $$, $$ VALUES ('enqueued') $$, '... its timeline');
SELECT is(settlement.evidence('first') #>> '{trade_row,found}', 'false', '... its evidence');

-- the same id in two tables
SELECT is((SELECT count(*) FROM settlement.explain('middle') e WHERE e LIKE 'Trade %'), 1::bigint, 'an id of one table is not told of the other');
SELECT pg_temp.trade('middle', 'shop.others');
SELECT alike(pg_temp.said('middle'), 'Trade middle of table shop.trades,%It is ready%Trade middle of table shop.others,%It is ready%', 'an id of two tables: both are told');
SELECT unalike((SELECT string_agg(e, ' ') FROM settlement.explain('middle', 'shop.others') e), '%shop.trades%', '... or the one that is meant');
SELECT throws_ok($$ SELECT * FROM settlement.timeline('middle') $$, '42P08', 'trade "middle" exists in more than one attached table', 'timeline() asks which');
SELECT throws_ok($$ SELECT settlement.evidence('middle') $$, '42P08', 'trade "middle" exists in more than one attached table', 'evidence() too');
SELECT is(settlement.evidence('middle', 'shop.others') ->> 'table', 'shop.others', '... or is told');

-- the verbs that want a dead or a deferred one
SELECT throws_like($$ SELECT settlement.lookup('first', reason => 'x') $$, 'trade "first" is not in %', 'lookup() of a queued trade');
SELECT throws_like($$ SELECT settlement.resolve('first', 'FAILED', NULL, 'x') $$, 'trade "first" is not in %', 'resolve()');

SELECT * FROM finish();
ROLLBACK;
