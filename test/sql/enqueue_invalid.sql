-- an invalid trade goes to the DLQ, and the INSERT succeeds
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE ROLE regress_settlement_owner;
CREATE SCHEMA invalid_test AUTHORIZATION regress_settlement_owner;
SET search_path = invalid_test;
CREATE TABLE trades (
    row_no int PRIMARY KEY, trade_id text DEFAULT 't', symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'alice', seller_id text DEFAULT 'bob',
    buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1',
    price numeric DEFAULT 100, quantity numeric DEFAULT 2, buyer_fee numeric DEFAULT 0.2, seller_fee numeric DEFAULT 0.1,
    trace_id text) WITH (fillfactor = 50);
ALTER TABLE trades OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('trades');
CREATE VIEW dead AS
SELECT row_key, status, class, message, trade_id, symbol, price, quantity, quote_amount, buyer_fee, seller_fee
FROM settlement.dlq d ORDER BY id;

-- ids
BEGIN;
INSERT INTO trades (row_no, trade_id) VALUES (1, NULL), (2, ''), (3, repeat('x', 256));
INSERT INTO trades (row_no, buyer_id) VALUES (4, NULL), (5, ''), (6, repeat('x', 300000));
INSERT INTO trades (row_no, seller_id) VALUES (7, NULL);
INSERT INTO trades (row_no, buyer_order_id) VALUES (8, NULL);
INSERT INTO trades (row_no, seller_order_id) VALUES (9, '');
SELECT row_key, class, message, trade_id, buyer_id, seller_id, buyer_order_id, seller_order_id FROM settlement.dlq ORDER BY id;
-- the worker is to write FAILED to the row
SELECT leaf, trade_tid, trade_id, row_key, status, settlement_id, settled_at, attempts, error FROM settlement.unapplied ORDER BY id;
SELECT count(*) FROM settlement.queue;
ROLLBACK;

-- the longest id is fine; so are an odd trace id (it is left out) and buyer = seller
BEGIN;
INSERT INTO trades (row_no, trade_id, trace_id) VALUES (1, repeat('x', 255), repeat('y', 256)), (2, 'ö', '');
INSERT INTO trades (row_no, seller_id) VALUES (3, 'alice');
SELECT octet_length(trade_id), trace_id, buyer_id, seller_id FROM settlement.queue ORDER BY id;
SELECT count(*) FROM settlement.dlq;
ROLLBACK;

-- symbol
BEGIN;
INSERT INTO trades (row_no, symbol)
SELECT row_number() OVER (), s FROM unnest('{BTCUSDT,/USDT,BTC/,/,"",-,BTC:USDT,NULL}'::text[]) s;
SELECT row_key, message, symbol FROM settlement.dlq ORDER BY id;
SELECT count(*) FROM settlement.queue;
ROLLBACK;
BEGIN;
INSERT INTO trades (row_no, symbol)
SELECT row_number() OVER (), s FROM unnest('{BTC/USDT,BTC-USDT,BTC_USDT,B/U,1000SHIB/BTC,BTC/USDT-PERP,BTC/BTC}'::text[]) s;
SELECT symbol FROM settlement.queue ORDER BY id;
SELECT count(*) FROM settlement.dlq;
ROLLBACK;

-- amounts
BEGIN;
INSERT INTO trades (row_no, price)
SELECT row_number() OVER (), p FROM unnest('{0,-1,NaN,Infinity,-Infinity,NULL,0.000,1e60,1e131071,1e-41}'::numeric[]) p;
INSERT INTO trades (row_no, quantity)
SELECT 20 + row_number() OVER (), p FROM unnest('{0,-0.00000001,NaN,Infinity,NULL}'::numeric[]) p;
INSERT INTO trades (row_no, price) VALUES (30, repeat('9', 100000)::numeric), (31, ('0.' || repeat('9', 16000))::numeric);
-- each is bounded, the product is not
INSERT INTO trades (row_no, price, quantity) VALUES (32, 1e40, 1e40), (33, 1e-30, 1e-30);
SELECT row_key, message, price, quantity, quote_amount FROM dead;
SELECT count(*) FROM settlement.queue;
ROLLBACK;
BEGIN;
INSERT INTO trades (row_no, price, quantity) VALUES (1, repeat('9', 30)::numeric, repeat('9', 30)::numeric),
    (3, (1.5)::numeric(1000,900), 2);
INSERT INTO trades (row_no, price, quantity, buyer_fee, seller_fee) VALUES (2, 1e-20, 1e-20, 0, 1e-40);
SELECT price = trim_scale(price) AS bare, trim_scale(quote_amount) FROM settlement.queue ORDER BY id;
SELECT * FROM dead;
ROLLBACK;

-- fees
BEGIN;
INSERT INTO trades (row_no, buyer_fee, seller_fee) VALUES
    (1, -0.1, 0), (2, 0, -0.1), (3, 'NaN', 0), (4, 0, 'Infinity'), (5, 200.1, 0), (6, 0, 200.1), (7, 1e99, 0);
SELECT row_key, message, quote_amount, buyer_fee, seller_fee FROM dead;
INSERT INTO trades (row_no, buyer_fee, seller_fee) VALUES (8, 200, 200), (9, NULL, NULL), (10, 0, 0);
SELECT row_key, buyer_fee, seller_fee FROM settlement.queue ORDER BY id;
ROLLBACK;

-- several at once: the first is named
BEGIN;
INSERT INTO trades SELECT 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
SELECT * FROM dead;
ROLLBACK;

-- a good one among bad ones
INSERT INTO trades (row_no, trade_id, price) VALUES (1, 'a', 0), (2, 'b', 1), (3, 'c', -1);
SELECT trade_id FROM settlement.queue;
SELECT trade_id, message FROM dead;
DELETE FROM settlement.queue; DELETE FROM settlement.dlq; DELETE FROM settlement.unapplied; TRUNCATE trades;

-- columns that change after attach do not fail the INSERT, nor become zero fees
BEGIN;
ALTER TABLE trades RENAME buyer_fee TO commission;
INSERT INTO trades (row_no) VALUES (1);
ALTER TABLE trades RENAME commission TO buyer_fee;
INSERT INTO trades (row_no) VALUES (2);
ALTER TABLE trades ALTER price TYPE double precision;
INSERT INTO trades (row_no) VALUES (3);
ALTER TABLE trades DROP price;
INSERT INTO trades (row_no) VALUES (4);
ALTER TABLE trades DROP settlement_status;
INSERT INTO trades (row_no) VALUES (5);
SELECT row_key, message FROM dead;
SELECT row_key, trade_id FROM settlement.queue;
ROLLBACK;

-- a trade id that is the key and cannot be one of ours: by row key
CREATE TABLE keyed (LIKE trades INCLUDING DEFAULTS, PRIMARY KEY (trade_id)) WITH (fillfactor = 50);
ALTER TABLE keyed DROP row_no, OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('keyed');
BEGIN;
INSERT INTO keyed (trade_id) VALUES (''), (repeat('k', 256)), (repeat('k', 9000)), ('k');
SELECT trade_id, left(row_key[1], 10), octet_length(row_key[1]), trade_tid FROM settlement.unapplied ORDER BY id;
SELECT trade_id, row_key FROM settlement.queue;
ROLLBACK;

SELECT count(settlement.detach(relid)) FROM settlement.attached WHERE detached_at IS NULL;
DROP SCHEMA invalid_test CASCADE;
DROP ROLE regress_settlement_owner;
