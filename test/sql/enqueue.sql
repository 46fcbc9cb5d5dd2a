-- the trigger: what is queued, exactly when the INSERT commits
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE ROLE regress_settlement_owner;
CREATE SCHEMA enqueue_test AUTHORIZATION regress_settlement_owner;
SET search_path = enqueue_test;
CREATE TABLE trades (
    id bigint PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'alice', seller_id text DEFAULT 'bob',
    buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1',
    price numeric DEFAULT 100, quantity numeric DEFAULT 2, buyer_fee numeric DEFAULT 0.2, seller_fee numeric DEFAULT 0.1,
    trace_id text) WITH (fillfactor = 50);
ALTER TABLE trades OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('trades');
CREATE VIEW queued AS SELECT string_agg(trade_id, ' ' ORDER BY id) AS ids FROM settlement.queue;
CREATE VIEW dead AS SELECT string_agg(trade_id || ':' || class, ' ' ORDER BY id) AS ids FROM settlement.dlq;

-- the whole content, and the place of the row
INSERT INTO trades (id, trace_id) VALUES (1, '4bf92f3577b34da6a3ce929d0e0e4736');
SELECT q.leaf, q.attempts, q.generation, q.charged, q.crashes, q.format, q.maybe_executed, q.lookup_first,
       q.trade_tid = t.ctid AS tid, q.enqueued_at <= now() AS enqueued, q.trade_id, q.row_key, q.symbol,
       q.buyer_id, q.seller_id, q.buyer_order_id, q.seller_order_id,
       q.price, q.quantity, q.quote_amount, q.buyer_fee, q.seller_fee, q.trace_id,
       q.first_sent_at, q.pending_ms, q.fingerprint
FROM settlement.queue q JOIN trades t ON t.id::text = q.trade_id \gx

-- what is sent does not depend on the row any more
UPDATE trades SET price = 1, quantity = 1 WHERE id = 1;
SELECT price, quantity, quote_amount FROM settlement.queue;
DELETE FROM settlement.queue;

-- quote = price x quantity, exactly
INSERT INTO trades (id, price, quantity, buyer_fee, seller_fee) VALUES
    (10, 0.1, 3, 0, 0), (11, 12345678901234567890.123456789, 98765432109876543210.987654321, 0, 0),
    (12, 0.00000001, 0.00000001, 0, 0), (13, 1e20, 1e-20, 0, 0), (14, 33333.333333333333333333, 3, 0, 0);
SELECT trade_id, quote_amount, quote_amount = t.price * t.quantity AS exact
FROM settlement.queue q JOIN trades t ON t.id::text = q.trade_id ORDER BY q.id;
DELETE FROM settlement.queue;

-- a status other than PENDING is none of our business, NULL neither
INSERT INTO trades (id, settlement_status, price) VALUES
    (20, 'SETTLED', 1), (21, 'pending', 1), (22, NULL, -1), (23, '', -1), (24, 'PENDING ', 1), (25, 'FAILED', 'NaN'), (26, 'PENDING', 1);
SELECT * FROM queued, dead;
UPDATE trades SET settlement_status = 'PENDING' WHERE id = 20;
SELECT * FROM queued, dead;
DELETE FROM settlement.queue;

-- multi-row INSERT, INSERT ... SELECT, COPY
INSERT INTO trades (id) VALUES (30), (31);
INSERT INTO trades (id) SELECT g FROM generate_series(32, 34) g;
COPY trades (id, price) FROM stdin;
35	7
36	8
\.
SELECT * FROM queued;
SELECT sum(quote_amount) FROM settlement.queue;
DELETE FROM settlement.queue;

-- ON CONFLICT: only rows that were really inserted
INSERT INTO trades (id) VALUES (30), (40), (31) ON CONFLICT DO NOTHING;
INSERT INTO trades (id) VALUES (30), (41) ON CONFLICT (id) DO UPDATE SET price = 5;
SELECT * FROM queued;
DELETE FROM settlement.queue;

-- a failed statement, rollback, savepoints
INSERT INTO trades (id) VALUES (50), (50);
BEGIN;
INSERT INTO trades (id) VALUES (51);
INSERT INTO trades (id, price) VALUES (52, 0);
ROLLBACK;
SELECT * FROM queued, dead;
BEGIN;
INSERT INTO trades (id) VALUES (53);
SAVEPOINT a;
INSERT INTO trades (id) VALUES (54);
SAVEPOINT b;
INSERT INTO trades (id) VALUES (55);
ROLLBACK TO b;
INSERT INTO trades (id) VALUES (56);
RELEASE a;
SAVEPOINT c;
INSERT INTO trades (id, quantity) VALUES (57, 0);
ROLLBACK TO c;
INSERT INTO trades (id) VALUES (58);
COMMIT;
SELECT * FROM queued, dead;
DO $$
BEGIN
    INSERT INTO trades (id) VALUES (59);
    BEGIN
        INSERT INTO trades (id) VALUES (60);
        RAISE EXCEPTION 'no';
    EXCEPTION WHEN raise_exception THEN
        INSERT INTO trades (id) VALUES (61);
    END;
END $$;
SELECT * FROM queued;
DELETE FROM settlement.queue;

-- serializable and repeatable read transactions
BEGIN ISOLATION LEVEL SERIALIZABLE;
INSERT INTO trades (id) VALUES (70);
COMMIT;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM trades WHERE id = 71;
INSERT INTO trades (id) VALUES (71);
COMMIT;
SELECT * FROM queued;
DELETE FROM settlement.queue;

-- generated columns, domains, and other types for everything
CREATE DOMAIN trade_key AS uuid;
CREATE DOMAIN money_amount AS numeric(20,6) CHECK (VALUE < 1e12);
CREATE TABLE typed (
    trade_id trade_key PRIMARY KEY, base text, quote text,
    market text GENERATED ALWAYS AS (base || '-' || quote) STORED,
    buyer_user_id smallint, seller_user_id integer, buy_order_id varchar(12), sell_order_id char(12),
    price bigint, qty money_amount, buy_fee smallint, sell_fee integer, trace_id uuid,
    settlement_status char(12)) WITH (fillfactor = 50);
ALTER TABLE typed OWNER TO regress_settlement_owner;
SELECT * FROM settlement.attach('typed');
INSERT INTO typed VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'ETH', 'EUR', DEFAULT, -32768, 2147483647, 'x', 'y  z ', 3, 1.5, 1, 2,
    'ffffffff-ffff-ffff-ffff-ffffffffffff', 'PENDING');
SELECT trade_id, row_key, symbol, buyer_id, seller_id, buyer_order_id, '[' || seller_order_id || ']' AS seller_order_id,
       price, quantity, quote_amount, buyer_fee, seller_fee, trace_id FROM settlement.queue \gx
DELETE FROM settlement.queue;

-- the mapping follows a new attach in sessions that are connected already
SELECT settlement.detach('typed');
ALTER TABLE typed ADD other_price numeric;
SELECT count(*) FROM settlement.attach('typed', '{"price": "other_price", "buyer_fee": null}');
INSERT INTO typed (trade_id, base, quote, buyer_user_id, seller_user_id, buy_order_id, sell_order_id, price, qty, buy_fee, other_price)
VALUES ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12', 'ETH', 'EUR', 1, 2, '3', '4', 5, 6, 7, 80);
SELECT price, quote_amount, buyer_fee FROM settlement.queue;
DELETE FROM settlement.queue;

SELECT count(settlement.detach(relid)) FROM settlement.attached WHERE detached_at IS NULL;
DROP SCHEMA enqueue_test CASCADE;
DROP ROLE regress_settlement_owner;
