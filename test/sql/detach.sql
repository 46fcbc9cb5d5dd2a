-- detach, attach again, and enqueue_pending
SET client_min_messages = warning;
\set SHOW_CONTEXT never
CREATE EXTENSION IF NOT EXISTS settlement;
CREATE ROLE regress_settlement_owner;
CREATE SCHEMA detach_test AUTHORIZATION regress_settlement_owner;
SET search_path = detach_test;
CREATE TABLE trades (
    id int PRIMARY KEY, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'alice', seller_id text DEFAULT 'bob',
    buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 2,
    created_at timestamptz DEFAULT now()) WITH (fillfactor = 50);
ALTER TABLE trades OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('trades', source => 'mine');
RESET client_min_messages;

-- nothing is queued after it; columns stay; what was queued keeps its source
INSERT INTO trades (id) VALUES (1);
SELECT settlement.detach('trades');
INSERT INTO trades (id) VALUES (2);
SELECT trade_id FROM settlement.queue;
SELECT id, settlement_status FROM trades ORDER BY id;
SELECT relid, source, detached_at IS NOT NULL AS detached FROM settlement.attached WHERE source = 'mine';
SELECT settlement.detach('trades');
SELECT act, count FROM settlement.audit_log WHERE act = 'detach' ORDER BY id DESC LIMIT 1;

-- another source would give queued trades another key
SELECT settlement.attach('trades');
SELECT attached_id AS before FROM settlement.attached WHERE source = 'mine' \gset
SELECT count(*) FROM settlement.attach('trades', source => 'mine');
SELECT attached_id = :before AS same, detached_at FROM settlement.attached WHERE source = 'mine';

-- with nothing left, nothing stays
DELETE FROM settlement.queue;
SELECT settlement.detach('trades');
SELECT count(*) FROM settlement.attached WHERE source = 'mine';

-- a table made anew takes over the source
SET client_min_messages = warning;
SELECT count(*) FROM settlement.attach('trades', source => 'mine');
INSERT INTO trades (id) VALUES (3);
CREATE TABLE again (LIKE trades INCLUDING ALL) WITH (fillfactor = 50);
ALTER TABLE again OWNER TO regress_settlement_owner;
DROP TABLE trades;
ALTER TABLE again RENAME TO trades;
SELECT attached_id AS before FROM settlement.attached WHERE source = 'mine' \gset
SELECT count(*) FROM settlement.attach('trades', source => 'mine');
SELECT relid, source, attached_id = :before AS same FROM settlement.attached WHERE source = 'mine';
DELETE FROM settlement.queue;

-- enqueue_pending: PENDING and queued nowhere
INSERT INTO trades (id, created_at) SELECT g, '2024-01-01'::timestamptz + g * interval '1 hour' FROM generate_series(1, 4) g;
ALTER TABLE trades DISABLE TRIGGER settlement_enqueue;
INSERT INTO trades (id, created_at, price, settlement_status) VALUES
    (5, '2024-01-02', 1, DEFAULT), (6, '2024-01-03', 1, DEFAULT), (7, '2024-01-04', 1, DEFAULT),
    (8, '2024-01-05', 0, DEFAULT), (9, '2024-01-05', 1, 'SETTLED'), (10, '2024-01-05', 1, NULL);
ALTER TABLE trades ENABLE TRIGGER settlement_enqueue;
SELECT settlement.enqueue_pending('trades');
SELECT settlement.enqueue_pending('trades', since => '2024-01-03');
SELECT settlement.enqueue_pending('trades', max => 3);
SELECT count(*) FROM settlement.deferred;
BEGIN;
SELECT settlement.enqueue_pending('trades', dry_run => false, max => 1);
SELECT settlement.enqueue_pending('trades', dry_run => false);
SELECT settlement.enqueue_pending('trades', dry_run => false);
SELECT retry_at <= now() AS due, reason, maybe_executed, lookup_first, attempts, trade_id, quote_amount, first_sent_at,
       (SELECT ctid = trade_tid FROM trades t WHERE t.id::text = trade_id) AS here
FROM settlement.deferred ORDER BY id;
SELECT trade_id, class, message, lookup_first, first_sent_at, safe_to_discard FROM settlement.dlq;
SELECT sum(trades), sum(discardable) FROM settlement.dlq_tally;
SELECT trade_id, status FROM settlement.unapplied;
SELECT details, count FROM settlement.audit_log WHERE act = 'enqueue_pending' ORDER BY id DESC LIMIT 3;
ROLLBACK;
SELECT settlement.enqueue_pending('trades', max => -1);
SELECT settlement.enqueue_pending('pg_class');

-- since needs a column
DELETE FROM settlement.queue;
SELECT settlement.detach('trades');
SELECT count(*) FROM settlement.attach('trades', '{"executed_at": null}');
SELECT settlement.enqueue_pending('trades', since => '2024-01-03');
SET client_min_messages = notice;
SELECT settlement.enqueue_pending('trades');
SET client_min_messages = warning;

-- when it may have been sent: at any time, if nobody knows when it was executed; never,
-- if somebody says so; by the easternmost clock, if the time has no zone
BEGIN;
SELECT settlement.enqueue_pending('trades', dry_run => false, max => 1);
SELECT settlement.enqueue_pending('trades', dry_run => false, max => 1, never_sent => true);
SELECT first_sent_at, count(*) FROM settlement.deferred GROUP BY 1 ORDER BY 1;
SELECT details FROM settlement.audit_log WHERE act = 'enqueue_pending' ORDER BY id DESC LIMIT 2;
DELETE FROM settlement.deferred;
SELECT settlement.detach('trades');
ALTER TABLE trades ADD traded_at timestamp DEFAULT '2024-01-02 15:00';
SELECT count(*) FROM settlement.attach('trades', '{"executed_at": "traded_at"}');
SELECT settlement.enqueue_pending('trades', dry_run => false, max => 1);
SELECT first_sent_at AT TIME ZONE 'UTC' AS first_sent_at FROM settlement.deferred;
ROLLBACK;

-- partitions, and ids that are not text
CREATE TABLE parts (trade_id uuid, day date, symbol text DEFAULT 'BTC/USDT', buyer_id text DEFAULT 'alice', seller_id text DEFAULT 'bob',
    buyer_order_id text DEFAULT 'b1', seller_order_id text DEFAULT 's1', price numeric DEFAULT 1, quantity numeric DEFAULT 2,
    settlement_status varchar(10), PRIMARY KEY (trade_id, day)) PARTITION BY RANGE (day);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2024-01-01') WITH (fillfactor = 50);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO (MAXVALUE) WITH (fillfactor = 50);
INSERT INTO parts (trade_id, day, settlement_status) VALUES
    ('00000000-0000-4000-8000-000000000001', '2023-01-01', 'PENDING'), ('00000000-0000-4000-8000-000000000002', '2024-01-01', 'PENDING');
ALTER TABLE parts OWNER TO regress_settlement_owner;
ALTER TABLE parts_1 OWNER TO regress_settlement_owner;
ALTER TABLE parts_2 OWNER TO regress_settlement_owner;
SELECT count(*) FROM settlement.attach('parts');
INSERT INTO parts (trade_id, day) VALUES ('00000000-0000-4000-8000-000000000003', '2024-01-01');
BEGIN;
SELECT settlement.enqueue_pending('parts', dry_run => false);
SELECT settlement.enqueue_pending('parts', dry_run => false);
SELECT leaf, trade_id, row_key FROM settlement.deferred ORDER BY trade_id;
ROLLBACK;

DELETE FROM settlement.queue;
SELECT count(settlement.detach(relid)) FROM settlement.attached WHERE detached_at IS NULL;
DROP SCHEMA detach_test CASCADE;
DROP ROLE regress_settlement_owner;
