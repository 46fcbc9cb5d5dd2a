-- the engine needs INSERT on the trade table and nothing else
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE ROLE regress_settlement_owner;
CREATE ROLE regress_settlement_engine;
CREATE SCHEMA privilege_test AUTHORIZATION regress_settlement_owner;
SET search_path = privilege_test;
CREATE TABLE trades (
    id bigint PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'alice', seller_id text DEFAULT 'bob',
    buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric, quantity numeric) WITH (fillfactor = 50);
ALTER TABLE trades OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('trades');
GRANT USAGE ON SCHEMA privilege_test TO regress_settlement_engine;
GRANT INSERT ON trades TO regress_settlement_engine;

-- in a new session, so that nothing is cached from above
\c -
SET search_path = privilege_test;
SET ROLE regress_settlement_engine;
INSERT INTO trades (id, price, quantity) VALUES (1, 2, 3);
BEGIN;
INSERT INTO trades (id, price, quantity) VALUES (2, 0, 3);
RESET ROLE;
SELECT trade_id, class FROM settlement.dlq;
SELECT trade_id, status FROM settlement.unapplied;
ROLLBACK;
RESET ROLE;
SELECT trade_id, quote_amount FROM settlement.queue;

-- and has nothing else
SET ROLE regress_settlement_engine;
SELECT count(*) FROM settlement.queue;
SELECT nextval('settlement.queue_id_seq');
SELECT settlement.next_queue_id();
RESET ROLE;

-- no code of the owner runs with the engine's or our rights: the trigger calls none
SET ROLE regress_settlement_owner;
ALTER TABLE trades ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY engine ON trades FOR INSERT TO regress_settlement_engine WITH CHECK (true);
SET ROLE regress_settlement_engine;
INSERT INTO trades (id, price, quantity) VALUES (3, 2, 3);
RESET ROLE;
SELECT trade_id, quote_amount FROM settlement.queue ORDER BY id;

DELETE FROM settlement.queue;
SELECT settlement.detach('trades');
DROP SCHEMA privilege_test CASCADE;
DROP ROLE regress_settlement_owner, regress_settlement_engine;
