-- What an operator is told when a verb cannot do what it was asked for.
\set VERBOSITY default
\set SHOW_CONTEXT never
SET client_min_messages = error;
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE TABLE verb_trades (trade_id text PRIMARY KEY, symbol text, buyer_id text, seller_id text,
    buyer_order_id text, seller_order_id text, price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric);
CREATE TABLE verb_others (LIKE verb_trades INCLUDING ALL);
DO $$ BEGIN PERFORM settlement.attach('verb_trades'); PERFORM settlement.attach('verb_others'); END $$;
RESET client_min_messages;
INSERT INTO settlement.dlq (status, class, code, http_status, message, final_rejection, maybe_executed, enqueued_at,
    attached_id, leaf, attempts, trade_id, symbol, buyer_id, seller_id, buyer_order_id, seller_order_id, price,
    quantity, quote_amount, buyer_fee, seller_fee)
SELECT CASE v.id WHEN 'lost' THEN 'UNKNOWN' ELSE 'FAILED' END, v.class, v.code, v.http, v.message, v.id = 'poor',
    v.id = 'lost', '2026-01-01', a.attached_id, a.relid, 1, v.id, 'BTC/USDT', 'b', 's', 'bo', 'so', 1, 1, 1, 0, 0
FROM settlement.attached a JOIN (VALUES
    ('verb_trades'::regclass, 'poor', 'rejected', 'INSUFFICIENT_BALANCE', 400, 'not enough USDT'),
    ('verb_trades', 'lost', 'network_timeout', NULL, NULL, 'no reply'),
    ('verb_trades', 'twin', 'rejected', NULL, NULL, NULL),
    ('verb_others', 'twin', 'rejected', NULL, NULL, NULL)) v (relid, id, class, code, http, message) ON v.relid = a.relid;
INSERT INTO verb_trades (trade_id, settlement_status) VALUES ('poor', 'FAILED'), ('lost', 'UNKNOWN'), ('twin', 'FAILED');

-- which trade, and why
SELECT settlement.redrive('poor', '');
SELECT settlement.redrive('twin', 'paid in');
SELECT settlement.redrive('twin', 'paid in', 'verb_others');
SELECT settlement.redrive('nobody', 'paid in');
SELECT settlement.redrive('poor', 'paid in', 'pg_class');

-- many
SELECT * FROM settlement.redrive_where();
SELECT * FROM settlement.redrive_where(relation => 'verb_trades');
SELECT * FROM settlement.redrive_where(relation => 'verb_trades', dry_run => false);
SELECT * FROM settlement.redrive_where(status => 'SETTLED');
SELECT * FROM settlement.dlq_purge(status => 'UNKNOWN');

-- by hand
SELECT settlement.resolve('lost', 'PAID', 'S-1', 'books');
SELECT settlement.resolve('lost', 'SETTLED', NULL, 'books');
SELECT settlement.resolve('lost', 'FAILED', NULL, 'books');
SELECT settlement.resolve('lost', 'SETTLED', 'S-1', 'books');
SELECT settlement.resolve('lost', 'SETTLED', 'S-1', 'books');
SELECT settlement.lookup('poor');
SELECT trade_id, settlement_status, settlement_id FROM verb_trades ORDER BY 1;

-- steering
SELECT settlement.pause(NULL);
SELECT settlement.pause('audit', until => '2026-01-01');
SELECT settlement.resume('BTC/USDT');
SELECT settlement.breaker_open(' ');
SELECT settlement.restart_worker(9999);
BEGIN;
SELECT settlement.pause('audit', 'NO/SYMBOL');
SELECT * FROM settlement.wait_paused();
ROLLBACK;
BEGIN;
CALL settlement.drain('1 second');
ROLLBACK;

DELETE FROM settlement.dlq WHERE trade_id IN ('poor', 'twin');
DO $$ BEGIN PERFORM settlement.detach('verb_trades'); PERFORM settlement.detach('verb_others'); END $$;
DROP TABLE verb_trades, verb_others;
