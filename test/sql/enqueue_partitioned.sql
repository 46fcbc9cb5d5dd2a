-- partitioned tables and composite keys
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE ROLE regress_settlement_owner;
CREATE SCHEMA part_test AUTHORIZATION regress_settlement_owner;
SET search_path = part_test;
SET ROLE regress_settlement_owner;
CREATE TABLE trades (
    id bigint, executed_at timestamptz, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'alice', seller_id text DEFAULT 'bob',
    buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1',
    price numeric DEFAULT 100, quantity numeric DEFAULT 2, buyer_fee numeric DEFAULT 0.2, seller_fee numeric DEFAULT 0.1,
    PRIMARY KEY (executed_at, id)) PARTITION BY RANGE (executed_at);
CREATE TABLE trades_old PARTITION OF trades FOR VALUES FROM (MINVALUE) TO ('2024-01-01 00:00+00') WITH (fillfactor = 50);
-- other column order, a dropped column, two levels
CREATE TABLE trades_new (price numeric, gone int, id bigint NOT NULL, quantity numeric, executed_at timestamptz NOT NULL,
    symbol text, buyer_id text, seller_id text, buyer_order_id text, seller_order_id text, buyer_fee numeric, seller_fee numeric)
    PARTITION BY HASH (id);
ALTER TABLE trades_new DROP gone;
CREATE TABLE trades_new_0 PARTITION OF trades_new FOR VALUES WITH (MODULUS 2, REMAINDER 0) WITH (fillfactor = 50);
CREATE TABLE trades_new_1 PARTITION OF trades_new FOR VALUES WITH (MODULUS 2, REMAINDER 1) WITH (fillfactor = 50);
ALTER TABLE trades ATTACH PARTITION trades_new FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00');
INSERT INTO trades (id, executed_at) VALUES (1, '2020-01-01');
RESET ROLE;
SELECT count(*) FROM settlement.attach('trades');
SELECT settlement_status FROM trades;
SELECT key_columns FROM settlement.attached WHERE relid = 'trades'::regclass;

-- keys are written the same whatever the session's settings are
SET timezone = 'Asia/Kathmandu';
SET datestyle = 'SQL, DMY';
INSERT INTO trades (id, executed_at) VALUES
    (2, '2023-12-31 23:59:59.999999+00'), (3, '2024-01-01 00:00+00'), (4, '2024-06-01 12:00:00.5+02'),
    (5, '-infinity'), (6, '0044-03-15 10:00:00+00 BC');
RESET timezone;
RESET datestyle;
SELECT leaf, trade_id, row_key, quote_amount,
       (SELECT tableoid = leaf AND ctid = trade_tid FROM trades t WHERE t.id::text = trade_id) AS here
FROM settlement.queue ORDER BY id;
SELECT trade_id, row_key[1]::timestamptz = t.executed_at AS reads_back
FROM settlement.queue q JOIN trades t ON t.id::text = q.trade_id ORDER BY q.id;
DELETE FROM settlement.queue;

-- directly into a leaf; an invalid one
INSERT INTO trades_new (id, executed_at, symbol, buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity)
VALUES (7, '2024-02-01', 'A/B', 'x', 'y', '1', '2', 3, 4);
BEGIN;
INSERT INTO trades (id, executed_at, price) VALUES (8, '2024-02-02 00:00+00', 0);
SELECT leaf, trade_id, row_key, class, message FROM settlement.dlq;
SELECT leaf, trade_id, row_key, status, error FROM settlement.unapplied;
ROLLBACK;
SELECT leaf, trade_id FROM settlement.queue ORDER BY id;
DELETE FROM settlement.queue;

-- partitions that come later, made by the owner: created, and attached without
-- the default
SET ROLE regress_settlement_owner;
CREATE TABLE trades_2025 PARTITION OF trades FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2026-01-01 00:00+00');
CREATE TABLE trades_2026 (LIKE trades);
ALTER TABLE trades ATTACH PARTITION trades_2026 FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2027-01-01 00:00+00');
RESET ROLE;
INSERT INTO trades (id, executed_at) VALUES (10, '2025-03-01'), (11, '2026-03-01');
SELECT leaf, trade_id FROM settlement.queue ORDER BY id;
DELETE FROM settlement.queue;

-- a row that moves to another partition is not queued again: while it is PENDING
-- it is queued already, from its INSERT
INSERT INTO trades (id, executed_at) VALUES (15, '2025-03-01');
UPDATE trades SET executed_at = '2026-04-01' WHERE id = 15;
WITH moved AS (DELETE FROM trades WHERE id = 15 RETURNING *)
INSERT INTO trades (id, executed_at, settlement_status) SELECT id, '2025-04-01', settlement_status FROM moved;
SELECT leaf, trade_id FROM settlement.queue ORDER BY id;
DELETE FROM settlement.queue;
-- in the same transaction, as far as it is not rolled back
BEGIN;
SAVEPOINT a;
DELETE FROM trades WHERE id = 15;
RELEASE a;
SAVEPOINT b;
DELETE FROM trades WHERE id = 11;
ROLLBACK TO b;
INSERT INTO trades (id, executed_at) VALUES (15, '2025-05-02'), (11, '2025-05-03'), (16, '2025-05-04');
SELECT leaf, trade_id FROM settlement.queue ORDER BY id;
ROLLBACK;
BEGIN;
DELETE FROM trades WHERE id = 15;
COMMIT;
INSERT INTO trades (id, executed_at) VALUES (15, '2025-05-02');
SELECT leaf, trade_id FROM settlement.queue ORDER BY id;
DELETE FROM settlement.queue;
DELETE FROM trades WHERE id = 15;
-- nor is a settled one
UPDATE trades SET settlement_status = 'SETTLED';
UPDATE trades SET executed_at = '2025-05-01', price = 3 WHERE id = 10;
UPDATE trades SET executed_at = '2026-04-01' WHERE id = 10;
UPDATE trades SET executed_at = '2025-05-01' WHERE id = 10;
SELECT count(*) FROM settlement.queue;

-- a detached partition is a plain table again
ALTER TABLE trades DETACH PARTITION trades_2026;
INSERT INTO trades_2026 (id, executed_at, settlement_status) VALUES (12, '2026-03-02', 'PENDING');
SELECT count(*) FROM settlement.queue;
SELECT settlement.attach('trades_new');

-- ON CONFLICT and COPY through the root
INSERT INTO trades (id, executed_at) VALUES (20, '2024-03-01'), (10, '2025-05-01') ON CONFLICT DO NOTHING;
COPY trades (id, executed_at, price) FROM stdin;
21	2024-03-01 00:00+00	5
22	2025-03-01 00:00+00	6
\.
SELECT leaf, trade_id, price FROM settlement.queue ORDER BY id;
DELETE FROM settlement.queue;

-- other key types
CREATE TABLE keys (
    day date, at timestamp, n numeric(10,2), region char(4), venue varchar, book smallint, u uuid, trade_id text,
    symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'alice', seller_id text DEFAULT 'bob',
    buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 100, quantity numeric DEFAULT 2,
    PRIMARY KEY (day, at, n, region, venue, book, u, trade_id)) PARTITION BY LIST (region);
CREATE TABLE keys_eu PARTITION OF keys FOR VALUES IN ('eu') WITH (fillfactor = 50);
ALTER TABLE keys OWNER TO regress_settlement_owner;
ALTER TABLE keys_eu OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('keys');
SET datestyle = 'German';
INSERT INTO keys VALUES ('01.02.2024', '01.02.2024 03:04:05.6', 7.50, 'eu', 'v"1,{}', -1, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'k1'),
    ('infinity', '-infinity', -0.10, 'eu', '', 0, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'k2');
RESET datestyle;
SELECT row_key FROM settlement.queue ORDER BY id;
DELETE FROM settlement.queue;

SELECT count(settlement.detach(relid)) FROM settlement.attached WHERE detached_at IS NULL;
SELECT has_function_privilege('regress_settlement_owner', 'settlement.enqueue()', 'EXECUTE') AS may_create_trigger;
DROP SCHEMA part_test CASCADE;
DROP ROLE regress_settlement_owner;
