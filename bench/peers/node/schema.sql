-- The hand-rolled queue: the keys of trades, leased with FOR UPDATE SKIP LOCKED.
-- fillfactor: the lease is a HOT update.  No index on leased_until, for the same
-- reason: the primary key's order is the order of the queue.
CREATE TABLE bench.jobs (
    trade_id bigint PRIMARY KEY,
    executed_at timestamptz NOT NULL,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    attempts int NOT NULL DEFAULT 0
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
