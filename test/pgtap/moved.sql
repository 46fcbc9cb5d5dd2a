-- Trades whose rows are deleted and inserted again in one transaction with many
-- savepoints: queued again are those whose deletion was rolled back, and no other.
BEGIN;
SET client_min_messages = error;
SELECT plan(5);

CREATE TABLE public.moved_trades (trade_id bigint PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'b',
    seller_id text DEFAULT 's', buyer_order_id text DEFAULT 'bo', seller_order_id text DEFAULT 'so',
    price numeric DEFAULT 10, quantity numeric DEFAULT 1, buyer_fee numeric DEFAULT 0, seller_fee numeric DEFAULT 0);
SELECT settlement.attach('public.moved_trades') IS NOT NULL AS attached;
INSERT INTO public.moved_trades SELECT generate_series(1, 1000);

-- What is deleted, for good as far as this table goes: it is rolled back with it.
CREATE TEMP TABLE gone (trade_id bigint PRIMARY KEY);
-- Sequences are not.
CREATE TEMP SEQUENCE steps;
CREATE TEMP SEQUENCE deletions;

CREATE FUNCTION pg_temp.delete_one(step bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    id CONSTANT bigint := 1 + step * 7919 % 1000;
BEGIN
    DELETE FROM public.moved_trades t WHERE t.trade_id = id;
    IF FOUND THEN
        PERFORM nextval('pg_temp.deletions');
        INSERT INTO gone VALUES (id) ON CONFLICT DO NOTHING;
    END IF;
END $$;

-- One that is gone comes back, and may be deleted once more.
CREATE FUNCTION pg_temp.insert_again(step bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO public.moved_trades
    SELECT g.trade_id FROM gone g ORDER BY abs(g.trade_id - step * 31 % 1000), g.trade_id LIMIT 1
    ON CONFLICT DO NOTHING
$$;

-- A tree of subtransactions; in each a row is deleted before those inside of it
-- begin, and one after they have ended.
CREATE FUNCTION pg_temp.wander(branches integer, depth integer, roll_back integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    step bigint;
BEGIN
    FOR i IN 1 .. branches LOOP
        BEGIN
            step := nextval('pg_temp.steps');
            IF step % 5 <> 0 THEN
                PERFORM pg_temp.delete_one(step);
            END IF;
            IF depth > 1 THEN
                PERFORM pg_temp.wander(branches, depth - 1, roll_back);
            END IF;
            PERFORM pg_temp.insert_again(step);
            PERFORM pg_temp.delete_one(nextval('pg_temp.steps'));
            IF step % roll_back = 0 THEN
                RAISE EXCEPTION 'roll back';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT pg_temp.wander(3, 5, 4);         -- a bush,
SELECT pg_temp.wander(300, 1, 3);       -- many side by side,
SELECT pg_temp.wander(1, 60, 23);       -- many inside of one another

SELECT cmp_ok(count(*), '>', 200::bigint, 'many rows are gone') FROM gone;
SELECT cmp_ok(currval('pg_temp.deletions') - count(*), '>', 200::bigint, 'many deletions were rolled back') FROM gone;
SELECT is(count(*), 1000::bigint, 'what came back is not queued again') FROM settlement.queue;

-- Rows that are settled can go without being noted; then all come again.
DELETE FROM settlement.queue;
UPDATE public.moved_trades SET settlement_status = 'SETTLED';
DELETE FROM public.moved_trades;
INSERT INTO public.moved_trades SELECT generate_series(1, 1000);
SELECT set_eq('SELECT trade_id::bigint FROM settlement.queue',
    'SELECT i::bigint FROM generate_series(1, 1000) i EXCEPT SELECT trade_id FROM gone',
    'nor is what comes back last, but for what was never gone');
SELECT is(count(DISTINCT trade_id), count(*), '... which is queued once') FROM settlement.queue;

SELECT finish();
ROLLBACK;
