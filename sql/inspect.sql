-- inspect.sql: where everything stands, for a person.
--
-- The views read our tables as their owner and shared memory through functions
-- whose names start with _ (internal).  Without shared_preload_libraries those
-- return no rows: the views still answer, and say so.  explain() and timeline()
-- read the trade row with the caller's own privileges; what is in our tables
-- they get from functions that run as the owner.

-- Sizes of the tables: exact up to 10000 rows, and the statistics' estimate
-- beyond, so that asking stays cheap when there is trouble.  Each is the length
-- of a bounded scan; what is rare and urgent (UNKNOWN) has its own index.
CREATE FUNCTION settlement._sizes(OUT queue bigint, OUT deferred bigint, OUT needs_lookup bigint,
    OUT paused bigint, OUT dlq bigint, OUT unknown bigint, OUT unapplied bigint,
    OUT unapplied_failing bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound CONSTANT integer := 10000;
BEGIN
    -- Counted once after a server start, then kept up to date in shared memory.
    queue := settlement._queue_depth();
    IF queue IS NULL THEN
        SELECT count(*) INTO queue FROM (SELECT FROM settlement.queue LIMIT bound + 1) q;
        IF queue > bound THEN
            SELECT greatest(queue, c.reltuples) INTO queue FROM pg_class c WHERE c.oid = 'settlement.queue'::regclass;
        END IF;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE d.reason = 'needs_lookup'),
           count(*) FILTER (WHERE d.reason = 'paused')
    INTO deferred, needs_lookup, paused
    FROM (SELECT reason FROM settlement.deferred LIMIT bound + 1) d;
    SELECT count(*) INTO dlq FROM (SELECT FROM settlement.dlq LIMIT bound + 1) d;
    SELECT count(*) INTO unknown
    FROM (SELECT FROM settlement.dlq WHERE status = 'UNKNOWN' LIMIT bound + 1) d;
    SELECT count(*), count(*) FILTER (WHERE u.failures > 0) INTO unapplied, unapplied_failing
    FROM (SELECT failures FROM settlement.unapplied LIMIT bound + 1) u;

    SELECT CASE WHEN deferred > bound THEN greatest(deferred, max(c.reltuples) FILTER (WHERE c.relname = 'deferred')) ELSE deferred END,
           CASE WHEN dlq > bound THEN greatest(dlq, max(c.reltuples) FILTER (WHERE c.relname = 'dlq')) ELSE dlq END,
           CASE WHEN unapplied > bound THEN greatest(unapplied, max(c.reltuples) FILTER (WHERE c.relname = 'unapplied')) ELSE unapplied END
    INTO deferred, dlq, unapplied
    FROM pg_class c WHERE c.relnamespace = 'settlement'::regnamespace AND c.relkind = 'r';
END $$;
COMMENT ON FUNCTION settlement._sizes() IS 'Internal: rows in the state tables, exact up to 10000.';

CREATE VIEW settlement.status AS
SELECT CASE
           WHEN s.send_state IS NULL THEN 'not preloaded'
           WHEN s.send_state NOT IN ('ok', 'starting') THEN s.send_state
           WHEN s.workers = 0 THEN 'no workers'
           WHEN s.send_state <> 'ok' THEN s.send_state
           WHEN s.pause_all OR EXISTS (SELECT FROM settlement.pauses p
                                       WHERE p.symbol = '*' AND (p.until IS NULL OR p.until > now()))
               THEN 'paused'
           WHEN s.breaker <> 'closed' THEN 'breaker ' || s.breaker
           WHEN s.held_since < clock_timestamp() - interval '1 second' THEN 'waiting for standby'
           ELSE 'ok'
       END AS state,
       greatest(z.queue - coalesce(s.in_flight, 0), 0) AS ready,
       coalesce(s.in_flight, 0) AS in_flight,
       z.deferred, z.needs_lookup AS lookup, z.dlq, z.unknown, z.unapplied,
       (SELECT greatest(date_trunc('second', clock_timestamp() - q.enqueued_at), interval '0')
        FROM settlement.queue q WHERE q.id > coalesce(s.frontier, 0)
        ORDER BY q.id LIMIT 1) AS oldest,
       (SELECT coalesce(sum(c.value), 0)::bigint FROM settlement._counters() c
        WHERE c.name = 'settled') AS settled,
       CASE WHEN s.send_state IS NULL THEN '0/0'
            ELSE s.workers || '/' || s.workers_wanted END AS workers
FROM settlement._sizes() z LEFT JOIN settlement._database_state() s ON true;
COMMENT ON VIEW settlement.status IS 'One row for \watch.  state: ok, or why nothing is sent; lookup: deferred trades that wait for the wallet''s books; oldest: how long the next ready trade has waited; settled: since the server start.  Counts above 10000 are estimates, except ready and in_flight.';

CREATE VIEW settlement.workers AS
SELECT w.slot, w.pid, CASE WHEN w.stopping THEN 'stopping' ELSE w.state END AS state, w.in_flight,
       clock_timestamp() - w.heartbeat AS heartbeat_age, w.settled, w.failed, w.started_at,
       w.concurrency_limit
FROM settlement._workers() w;
COMMENT ON VIEW settlement.workers IS 'The workers of this database.  orphaned: the process is gone and its trades wait to be taken over.  concurrency_limit: trades that it lets itself have in flight; moves with settlement.adaptive_concurrency.';

CREATE VIEW settlement.in_flight AS
SELECT q.trade_id, a.relid AS relation, q.symbol, f.since, clock_timestamp() - f.since AS age,
       f.phase, q.attempts + 1 AS attempt, f.slot, f.queue_id,
       settlement._trace_id(q.attached_id, q.trade_id, q.trace_id) AS trace_id
FROM settlement._flights() f
     LEFT JOIN settlement.queue q ON q.id = f.queue_id
     LEFT JOIN settlement.attached a ON a.attached_id = q.attached_id;
COMMENT ON VIEW settlement.in_flight IS 'Trades that a worker has claimed and not finished.  phase: how far the request came (replied = not recorded yet).';
