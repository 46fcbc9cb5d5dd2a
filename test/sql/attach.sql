-- attach: finds columns, adds what is missing, leaves old rows alone
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE ROLE regress_settlement_owner;
CREATE SCHEMA attach_test AUTHORIZATION regress_settlement_owner;
SET search_path = attach_test;
RESET client_min_messages;

-- usual names; missing columns are added and old rows stay as they are
CREATE TABLE trades (
    id bigint PRIMARY KEY,
    symbol text, buyer_user_id uuid, seller_user_id uuid,
    buy_order_id uuid, sell_order_id uuid,
    price numeric(20,8), quantity numeric(20,8),
    buyer_fee numeric(20,8), seller_fee numeric(20,8),
    executed_at timestamptz);
ALTER TABLE trades OWNER TO regress_settlement_owner;
INSERT INTO trades (id) VALUES (1);
SELECT * FROM settlement.attach('trades');
SELECT id, settlement_status, settlement_id, settled_at, settlement_attempts, settlement_error FROM trades;
SELECT column_name, data_type, column_default FROM information_schema.columns
WHERE table_schema = 'attach_test' AND table_name = 'trades' AND ordinal_position > 11 ORDER BY ordinal_position;
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'trades'::regclass;
SELECT relid, source, key_columns, detached_at FROM settlement.attached WHERE relid = 'trades'::regclass;
SELECT count(*) FROM settlement.identity;
SELECT act, details - 'columns' AS details FROM settlement.audit_log ORDER BY id DESC LIMIT 1;

-- the mapped name wins over the usual one; quoted, mixed-case and hostile names
CREATE SCHEMA "Attach ""Test" AUTHORIZATION regress_settlement_owner;
CREATE TABLE "Attach ""Test"."Fills 'x'; --" (
    "Trade-Id" uuid PRIMARY KEY, id int UNIQUE,
    "Instrument" varchar(20), "Buyer" bigint, "Seller" bigint,
    "Buy Order" text, "sell""order" char(10),
    "Rate" numeric, price numeric, "Lots" bigint,
    "State" varchar(16) DEFAULT 'PENDING', "Wallet Ref" uuid, settled_at timestamp,
    settlement_attempts smallint, "Why" varchar(100)) WITH (fillfactor = 50);
ALTER TABLE "Attach ""Test"."Fills 'x'; --" OWNER TO regress_settlement_owner;
SELECT * FROM settlement.attach('"Attach ""Test"."Fills ''x''; --"', '{
    "trade_id": "Trade-Id", "symbol": "Instrument", "buyer_id": "Buyer", "seller_id": "Seller",
    "buyer_order_id": "Buy Order", "seller_order_id": "sell\"order", "price": "Rate", "quantity": "Lots",
    "status": "State", "settlement_id": "Wallet Ref", "error": "Why"}');
INSERT INTO "Attach ""Test"."Fills 'x'; --" ("Trade-Id", "Instrument", "Buyer", "Seller", "Buy Order", "sell""order", "Rate", "Lots")
VALUES ('00000000-0000-4000-8000-00000000000a', 'BTC_USDT', 1, -9223372036854775808, 'o 1', 'o2', 0.1, 3);
SELECT leaf, trade_id, row_key, symbol, buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee
FROM settlement.queue;
DELETE FROM settlement.queue;

-- an existing status column gets its default; another default is warned of
CREATE TABLE others (id int PRIMARY KEY, symbol text, buyer_id text, seller_id text, buyer_order_id text,
    seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric,
    settlement_status text, settlement_id text, settled_at timestamptz, settlement_attempts int,
    settlement_error text) WITH (fillfactor = 50);
ALTER TABLE others OWNER TO regress_settlement_owner;
CREATE INDEX others_open_idx ON others (id) WHERE settlement_status = 'PENDING';
SELECT count(*) FROM settlement.attach('others');
SELECT settlement.detach('others');
ALTER TABLE others ALTER settlement_status SET DEFAULT 'NEW';
SELECT count(*) FROM settlement.attach('others', '{"buyer_fee": null, "seller_fee": null}', source => 'node-1');
SELECT columns ? 'buyer_fee' AS has_fee, source FROM settlement.attached WHERE relid = 'others'::regclass;

-- what is worse than it could be
ALTER TABLE others RENAME TO others_before;
CREATE TABLE loose (id int, part int, symbol text, buyer_id text, seller_id text, buyer_order_id text,
    seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric, PRIMARY KEY (id, part));
SET client_min_messages = warning;
SET ROLE NONE;
ALTER TABLE loose OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('loose');
CREATE TABLE by_day (day date, id bigint, symbol text, buyer_id text, seller_id text, buyer_order_id text,
    seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric,
    PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
ALTER TABLE by_day OWNER TO regress_settlement_owner;
SET client_min_messages = notice;
SELECT count(*) FROM settlement.attach('by_day');
SET client_min_messages = warning;

SELECT count(settlement.detach(relid)) FROM settlement.attached WHERE detached_at IS NULL;
DROP SCHEMA attach_test, "Attach ""Test" CASCADE;
DROP ROLE regress_settlement_owner;
