-- inspect.sql: where everything stands, for a person.
--
-- The views read our tables as their owner and shared memory through functions
-- whose names start with _ (internal).  Without shared_preload_libraries those
-- return no rows: the views still answer, and say so.  explain() and timeline()
-- read the trade row with the caller's own privileges; what is in our tables
-- they get from functions that run as the owner.
--
-- Nothing here takes longer when there is more to count: what is queued is
-- counted in shared memory, dead letters in their tally, and of what waits at
-- most ten thousand rows are looked at.

-- ---------------------------------------------------------------- numbers for people

CREATE FUNCTION settlement._compact(n numeric) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN n IS NULL THEN NULL
                WHEN abs(n) < 0.01 THEN trim_scale(round(n, 4))::text
                WHEN abs(n) < 1 THEN trim_scale(round(n, 2))::text
                WHEN abs(n) < 10 THEN trim_scale(round(n, 1))::text
                WHEN abs(n) < 10000 THEN round(n)::text
                WHEN abs(n) < 999500 THEN round(n / 1e3)::text || 'k'
                WHEN abs(n) < 9.995e7 THEN round(n / 1e6, 1)::text || 'M'
                WHEN abs(n) < 9.995e8 THEN round(n / 1e6)::text || 'M'
                WHEN abs(n) < 9.995e11 THEN round(n / 1e9, 1)::text || 'G'
                ELSE round(n / 1e12, 1)::text || 'T' END
$$;
COMMENT ON FUNCTION settlement._compact(numeric) IS 'Internal: a number in few characters.';

CREATE FUNCTION settlement._count(n bigint) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN n < 100000 THEN n::text ELSE settlement._compact(n) END
$$;
COMMENT ON FUNCTION settlement._count(bigint) IS 'Internal: a count, in few characters when it is large.';

CREATE FUNCTION settlement._brief(span interval) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN s < 100 THEN round(s) || ' s'
                WHEN s < 6000 THEN round(s / 60) || ' min'
                WHEN s < 172800 THEN round(s / 3600) || ' h'
                ELSE round(s / 86400) || ' d' END
    FROM (SELECT greatest(extract(epoch FROM span), 0)::numeric AS s) x
$$;
COMMENT ON FUNCTION settlement._brief(interval) IS 'Internal: a duration in few characters.';

-- Two durations in seconds, in one unit: 12/250ms, 1.2/4.9s.
CREATE FUNCTION settlement._pair(low double precision, high double precision) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN high < 0.9995 THEN settlement._compact((low * 1000)::numeric) || '/' || settlement._compact((high * 1000)::numeric) || 'ms'
                ELSE settlement._compact(low::numeric) || '/' || settlement._compact(high::numeric) || 's' END
$$;
COMMENT ON FUNCTION settlement._pair(double precision, double precision) IS 'Internal: two durations in few characters.';

-- ---------------------------------------------------------------- how many

-- Rows of a table without reading it: what the statistics have seen come and go,
-- or, after a crash, as dense as the last vacuum found it.
CREATE FUNCTION settlement._estimate(relation regclass) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(nullif(pg_stat_get_live_tuples(c.oid), 0),
                    (c.reltuples / nullif(c.relpages, 0) * pg_relation_size(c.oid) / current_setting('block_size')::integer)::bigint,
                    0)
    FROM pg_class c WHERE c.oid = relation
$$;
COMMENT ON FUNCTION settlement._estimate(regclass) IS 'Internal: about how many rows a table has.';

CREATE FUNCTION settlement._sizes(OUT queue bigint, OUT deferred bigint, OUT needs_lookup bigint,
    OUT paused bigint, OUT dlq bigint, OUT unknown bigint, OUT unapplied bigint,
    OUT unapplied_failing bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound CONSTANT integer := 10000;
    others bigint;
BEGIN
    queue := settlement._queue_depth();
    IF queue IS NULL THEN
        SELECT count(*) INTO queue FROM (SELECT FROM settlement.queue LIMIT bound + 1) q;
        IF queue > bound THEN
            queue := greatest(queue, settlement._estimate('settlement.queue'));
        END IF;
    END IF;

    -- By their indexes: whatever there is of the one does not hide the other.
    SELECT count(*), count(*) FILTER (WHERE d.reason = 'needs_lookup') INTO others, needs_lookup
    FROM (SELECT x.reason FROM settlement.deferred x
          WHERE x.reason <> 'paused' AND x.retry_at > '-infinity' LIMIT bound + 1) d;
    SELECT count(*) INTO paused
    FROM (SELECT FROM settlement.deferred x WHERE x.reason = 'paused' AND x.symbol >= '' LIMIT bound + 1) d;
    deferred := others + paused;
    IF others > bound OR paused > bound THEN
        deferred := greatest(deferred, settlement._estimate('settlement.deferred'));
        IF paused > bound THEN
            paused := greatest(paused, deferred - others);
        END IF;
    END IF;

    SELECT coalesce(sum(t.trades), 0), coalesce(sum(t.trades) FILTER (WHERE t.status = 'UNKNOWN'), 0)
    INTO dlq, unknown FROM settlement.dlq_tally t;
    SELECT count(*), count(*) FILTER (WHERE u.failures > 0) INTO unapplied, unapplied_failing
    FROM (SELECT x.failures FROM settlement.unapplied x LIMIT bound + 1) u;
    IF unapplied > bound THEN
        unapplied := greatest(unapplied, settlement._estimate('settlement.unapplied'));
    END IF;
END $$;
COMMENT ON FUNCTION settlement._sizes() IS 'Internal: rows in the state tables.  dlq and unknown are exact; queue is, once it was counted after a server start; the others up to 10000.';

-- ---------------------------------------------------------------- status

-- An answer in a second or more is slow, once there are enough of them to tell.
CREATE FUNCTION settlement._is_slow(answered bigint, p50 double precision) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(answered >= 20 AND p50 >= 1, false)
$$;
COMMENT ON FUNCTION settlement._is_slow(bigint, double precision) IS 'Internal: does the wallet answer slowly?';

CREATE FUNCTION settlement._state(ready bigint) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    r record;
    all_paused boolean;
    symbols bigint;
    state text;
BEGIN
    SELECT * INTO s FROM settlement._database_state();
    IF s.send_state IS NULL THEN
        RETURN 'not preloaded';
    END IF;
    SELECT * INTO r FROM settlement._recent();
    SELECT bool_or(p.symbol = '*'), count(*) FILTER (WHERE p.symbol <> '*') INTO all_paused, symbols
    FROM settlement.pauses p WHERE p.until IS NULL OR p.until > now();
    state := CASE
        WHEN s.send_state NOT IN ('ok', 'starting') THEN s.send_state
        WHEN s.workers = 0 THEN 'no workers'
        WHEN s.send_state <> 'ok' THEN s.send_state
        WHEN s.pause_all OR all_paused THEN 'paused'
        WHEN s.breaker_manual THEN 'breaker open'
        WHEN s.breaker <> 'closed' AND s.failed_class IS NOT NULL
            THEN 'breaker: ' || regexp_replace(s.failed_class, '^(wallet|network)_', '')
        WHEN s.breaker <> 'closed' THEN 'breaker ' || s.breaker
        WHEN s.held_since < clock_timestamp() - interval '1 second' THEN 'waiting for standby'
        WHEN s.limited_until IS NOT NULL OR s.throttled AND ready > 0 THEN 'rate limited'
        WHEN settlement._is_slow(r.answered, r.request_p50) THEN 'wallet slow'
        ELSE 'ok' END;
    RETURN state || CASE WHEN symbols > 0 AND state <> 'paused' THEN format(', %s paused', symbols) ELSE '' END;
END $$;
COMMENT ON FUNCTION settlement._state(bigint) IS 'Internal: ok, or why nothing is sent, in a word or two.';

CREATE VIEW settlement.status AS
SELECT settlement._state(ready.n) AS state, settlement._count(ready.n) AS ready,
       (SELECT settlement._brief(clock_timestamp() - q.enqueued_at)
        FROM settlement.queue q WHERE q.id > coalesce(s.frontier, 0)
        ORDER BY q.id LIMIT 1) AS oldest,
       coalesce(s.in_flight, 0) AS in_flight, settlement._count(z.deferred) AS deferred, settlement._count(z.dlq) AS dlq,
       coalesce((SELECT settlement._compact(sum(u.trades) OVER ()) || ' ' || settlement._compact(u.value) || ' ' || left(u.currency, 8)
                        || CASE count(*) OVER () WHEN 1 THEN '' ELSE '+' || count(*) OVER () - 1 END
                 FROM (SELECT x.currency, sum(x.trades) AS trades, sum(x.value_at_risk) AS value
                       FROM settlement.unknown x GROUP BY x.currency) u
                 ORDER BY u.trades DESC, u.currency LIMIT 1), '0') AS unknown,
       settlement._compact((r.submitted / r.window_s)::numeric) || '/'
           || settlement._compact((r.settled / r.window_s)::numeric) AS rate_1m,
       settlement._pair(r.request_p50, r.request_p99) AS p50_p99,
       settlement._count(z.unapplied) AS unapplied,
       CASE WHEN s.send_state IS NULL THEN '0/0' ELSE s.workers || '/' || s.workers_wanted END AS workers
FROM settlement._sizes() z LEFT JOIN settlement._database_state() s ON true
     LEFT JOIN settlement._recent() r ON true,
     LATERAL (SELECT greatest(z.queue - coalesce(s.in_flight, 0), 0) AS n) ready;
COMMENT ON VIEW settlement.status IS 'One row for people, for \watch, within 120 columns: a count of 100000 or more is rounded.  Numbers for machines are in settlement.metrics.';
COMMENT ON COLUMN settlement.status.state IS 'ok, or why nothing is sent: fenced, no workers, paused, breaker open (by hand), breaker: what the wallet last failed with, waiting for standby, rate limited; or that the wallet is slow (half of the last minute''s answers took a second).  Then how many symbols are paused.';
COMMENT ON COLUMN settlement.status.ready IS 'Trades that wait for a worker: exact; an estimate in the first seconds after a server start.';
COMMENT ON COLUMN settlement.status.oldest IS 'How long the next of them has waited.';
COMMENT ON COLUMN settlement.status.in_flight IS 'Trades that workers have claimed and not finished.';
COMMENT ON COLUMN settlement.status.deferred IS 'Trades that wait for the next attempt, the end of a pause or a look-up: exact up to 10000, then an estimate as old as the statistics.';
COMMENT ON COLUMN settlement.status.dlq IS 'Dead letters, exact.';
COMMENT ON COLUMN settlement.status.unknown IS 'Trades, dead or not, of which the wallet may have moved the money, and their value in the currency that most of them have; +n: and in n others (settlement.unknown).';
COMMENT ON COLUMN settlement.status.rate_1m IS 'Trades enqueued and settled per second, over the last minute or since the start.';
COMMENT ON COLUMN settlement.status.p50_p99 IS 'How long half, and 99 %, of the wallet''s answers of the last minute took at most.';
COMMENT ON COLUMN settlement.status.unapplied IS 'Outcomes not written to their trade rows yet: exact up to 10000, then an estimate.';
COMMENT ON COLUMN settlement.status.workers IS 'Workers that run, of those that should.';

-- ---------------------------------------------------------------- workers, in_flight

-- What keeps a worker's process, as the server sees it.
CREATE FUNCTION settlement._waits(OUT pid integer, OUT waits_for text) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.pid, CASE WHEN a.wait_event = 'SyncRep' THEN 'standby'
                       WHEN a.wait_event_type = 'Lock' THEN 'lock'
                       WHEN a.wait_event_type = 'IO' OR a.wait_event LIKE 'WALWrite%' THEN 'disk' END
    FROM settlement._workers() w JOIN pg_stat_activity a ON a.pid = w.pid
$$;
COMMENT ON FUNCTION settlement._waits() IS 'Internal: what the workers wait for.';

CREATE VIEW settlement.workers AS
SELECT w.slot, w.pid, CASE WHEN w.stopping THEN 'stopping' ELSE w.state END AS state, w.in_flight,
       clock_timestamp() - w.heartbeat AS heartbeat_age, w.settled, w.failed, w.started_at,
       w.concurrency_limit, x.waits_for
FROM settlement._workers() w LEFT JOIN settlement._waits() x ON x.pid = w.pid;
COMMENT ON VIEW settlement.workers IS 'The workers of this database.  orphaned: the process is gone and its trades wait to be taken over.  in_flight: trades that it has claimed, also those that it will send next.  concurrency_limit: how many it lets itself have at the wallet; moves with settlement.adaptive_concurrency.  waits_for: standby, disk or lock, if one of these keeps it at this moment.';

CREATE VIEW settlement.in_flight AS
SELECT q.trade_id, a.relid AS relation, q.symbol, f.since, clock_timestamp() - f.since AS age,
       p.phase, CASE WHEN f.phase = 'waiting for standby' THEN 'standby'
                     WHEN p.phase = 'waiting' THEN 'wallet'
                     WHEN p.phase = 'sending' AND x.waits_for IS NULL AND w.concurrency_limit <=
                          count(*) FILTER (WHERE p.phase = 'waiting') OVER (PARTITION BY f.slot) THEN 'concurrency'
                     ELSE x.waits_for END AS waits_for,
       q.attempts + 1 AS attempt, f.slot, f.queue_id,
       settlement._trace_id(q.attached_id, q.trade_id, q.trace_id) AS trace_id
FROM settlement._flights() f
     CROSS JOIN LATERAL (SELECT CASE WHEN f.phase IN ('sent', 'replying') THEN 'waiting'
                                     WHEN f.phase = 'replied' THEN 'answered' ELSE 'sending' END AS phase) p
     LEFT JOIN settlement.queue q ON q.id = f.queue_id
     LEFT JOIN settlement.attached a ON a.attached_id = q.attached_id
     LEFT JOIN settlement._workers() w ON w.slot = f.slot
     LEFT JOIN settlement._waits() x ON x.pid = w.pid;
COMMENT ON VIEW settlement.in_flight IS 'Trades that a worker has claimed and not finished.';
COMMENT ON COLUMN settlement.in_flight.phase IS 'sending: claimed, the request has not left; waiting: the request may have left, no answer is here; answered: not recorded yet.';
COMMENT ON COLUMN settlement.in_flight.waits_for IS 'wallet; standby: a synchronous standby has to confirm; concurrency: claimed ahead, it leaves when another request of its worker ends; disk, lock: what keeps its worker at this moment; NULL: nothing but its turn.';

-- ---------------------------------------------------------------- progress

-- Acts write to shared memory how far they are, so that others see it before the
-- transaction ends: settlement._progress_begin(act, target, total), then
-- _progress(phase, done, failed) now and then, then _progress_end().  An error or
-- the end of the session ends it too (src/shared/progress.h).
CREATE VIEW settlement.progress AS
SELECT p.pid, p.act, p.target, p.phase, p.done, p.total, p.failed,
       round(100.0 * p.done / nullif(p.total, 0), 1) AS percent,
       p.started_at, date_trunc('second', t.running) AS running,
       round(p.done / nullif(extract(epoch FROM t.running), 0)::numeric, 1) AS per_second,
       CASE WHEN p.done > 0 AND p.total >= p.done
            THEN date_trunc('second', t.running * ((p.total - p.done)::double precision / p.done)) END AS remaining
FROM (SELECT l.pid, l.act, l.target, l.phase, l.started_at, l.done, l.total, l.failed FROM settlement._progress_list() l
      UNION ALL
      SELECT NULL, 'redrive ' || r.id, r.reason, r.state, r.at, r.redriven + r.skipped, least(r.max, r.matching), r.skipped
      FROM settlement.redrives r WHERE r.state IN ('canary', 'running')) p,
     LATERAL (SELECT greatest(clock_timestamp() - p.started_at, interval '0') AS running) t;
COMMENT ON VIEW settlement.progress IS 'Long acts that are under way: redrives, look-ups of many, enqueue_pending (backfill), drain; of sessions, and redrives that the workers do.  A row goes when its act ends; redrive_progress shows the past ones, too.';
COMMENT ON COLUMN settlement.progress.pid IS 'The session; pg_cancel_backend(pid) cancels the act.  NULL: the workers do it; redrive_cancel() ends it.';
COMMENT ON COLUMN settlement.progress.target IS 'The table, or the reason that was given.';
COMMENT ON COLUMN settlement.progress.done IS 'Trades so far; of a drain: fewer than there were at most.';
COMMENT ON COLUMN settlement.progress.total IS 'NULL: not known beforehand.';
COMMENT ON COLUMN settlement.progress.remaining IS 'At the pace so far.';

-- ---------------------------------------------------------------- storage

-- Who holds the oldest snapshot: nothing that was deleted since can be vacuumed.
CREATE FUNCTION settlement._snapshot_holders(OUT holder text, OUT age_in_transactions integer,
    OUT since timestamptz, OUT advice text) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('process %s (%s)', a.pid, concat_ws(', ', a.usename, nullif(a.application_name, ''), a.state)),
           age(a.backend_xmin), a.xact_start, format('SELECT pg_terminate_backend(%s);  and set idle_in_transaction_session_timeout.', a.pid)
    FROM pg_stat_activity a WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid()
    UNION ALL
    SELECT format('prepared transaction "%s"', p.gid), age(p.transaction), p.prepared,
           'COMMIT PREPARED or ROLLBACK PREPARED it.'
    FROM pg_prepared_xacts p
    UNION ALL
    SELECT format('replication slot "%s"', r.slot_name), age(r.xmin), NULL,
           'Bring its standby back, or pg_drop_replication_slot() it.'
    FROM pg_replication_slots r WHERE r.xmin IS NOT NULL
    UNION ALL
    SELECT format('standby %s (%s)', r.pid, concat_ws(', ', nullif(r.application_name, ''), r.client_addr::text)), age(r.backend_xmin), NULL,
           'hot_standby_feedback: a query there runs for long; end it, or set a statement_timeout there.'
    FROM pg_stat_replication r WHERE r.backend_xmin IS NOT NULL
    ORDER BY 2 DESC
$$;
COMMENT ON FUNCTION settlement._snapshot_holders() IS 'Internal: what keeps dead rows from being vacuumed, oldest first.';

-- Bytes that the rows of a table need, from the widths that ANALYZE has found.
CREATE FUNCTION settlement._needed_bytes(relation oid, live bigint) RETURNS numeric
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT live * (28 + sum(s.avg_width * (1 - s.null_frac)))::numeric
           / (coalesce((SELECT o.option_value::integer FROM pg_class c, pg_options_to_table(c.reloptions) o
                        WHERE c.oid = relation AND o.option_name = 'fillfactor'), 100) / 100.0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
    WHERE c.oid = relation
    HAVING count(*) > 0
$$;
COMMENT ON FUNCTION settlement._needed_bytes(oid, bigint) IS 'Internal: about how large a table would be without dead and free space.';

-- Our own tables, and the attached ones with their partitions.
CREATE FUNCTION settlement._stored_tables(OUT oid oid, OUT ours boolean, OUT attached_id integer) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid, true, NULL::integer FROM pg_class c
    WHERE c.relnamespace = 'settlement'::regnamespace AND c.relkind = 'r'
      AND c.relname IN ('queue', 'claims', 'deferred', 'dlq', 'dlq_tally', 'unapplied', 'attempts', 'audit_log')
    UNION ALL
    SELECT c.oid, false, a.attached_id
    FROM settlement.attached a, pg_class c
    WHERE c.relkind = 'r' AND (c.oid = a.relid OR c.oid IN (SELECT t.relid FROM pg_partition_tree(a.relid) t))
$$;
COMMENT ON FUNCTION settlement._stored_tables() IS 'Internal: tables that settlement writes to.';

-- Indexes that hold a column which settlement writes: they end HOT updates.
CREATE FUNCTION settlement._settlement_indexes(OUT index regclass, OUT relation regclass) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT i.oid::regclass, t.oid::regclass
    FROM settlement._stored_tables() t JOIN settlement.attached a ON a.attached_id = t.attached_id
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid
         JOIN pg_class i ON i.oid = d.objid AND i.relkind = 'i'
         JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum = d.refobjsubid
         JOIN jsonb_each_text(a.columns) e ON e.value = c.attname
    WHERE e.key IN ('status', 'settlement_id', 'settled_at', 'attempts', 'error')
$$;
COMMENT ON FUNCTION settlement._settlement_indexes() IS 'Internal: indexes on columns that settlement writes.';

CREATE FUNCTION settlement._storage(OUT what text, OUT object text, OUT status text, OUT size text,
    OUT live_rows bigint, OUT dead_rows bigint, OUT free_percent integer, OUT detail text, OUT hint text)
    RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH t AS (
        SELECT x.oid, x.oid::regclass::text AS name, x.ours, pg_relation_size(x.oid) AS bytes,
               pg_stat_get_live_tuples(x.oid) AS live, pg_stat_get_dead_tuples(x.oid) AS dead,
               greatest(pg_stat_get_last_vacuum_time(x.oid), pg_stat_get_last_autovacuum_time(x.oid)) AS vacuumed,
               pg_stat_get_tuples_updated(x.oid) AS updates, pg_stat_get_tuples_hot_updated(x.oid) AS hot,
               coalesce((SELECT o.option_value::integer FROM pg_options_to_table(c.reloptions) o
                         WHERE o.option_name = 'fillfactor'), 100) AS fillfactor,
               EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o
                       WHERE o.option_name = 'autovacuum_enabled' AND o.option_value IN ('false', 'off', '0', 'no')) AS no_autovacuum
        FROM settlement._stored_tables() x JOIN pg_class c ON c.oid = x.oid),
    holder AS (SELECT * FROM settlement._snapshot_holders() LIMIT 1)
    SELECT 'table', t.name,
           CASE WHEN t.no_autovacuum OR t.dead > greatest(1000000, t.live) THEN 'warn' ELSE 'ok' END,
           pg_size_pretty(t.bytes), t.live, t.dead,
           CASE WHEN t.bytes > 1048576 AND n.bytes IS NOT NULL
                THEN greatest(0, least(100, round(100 - 100 * n.bytes / t.bytes)))::integer END,
           coalesce('vacuumed ' || settlement._brief(clock_timestamp() - t.vacuumed) || ' ago', 'not vacuumed since the statistics begin')
               || CASE WHEN t.no_autovacuum THEN '; autovacuum is off for it' ELSE '' END,
           CASE WHEN t.no_autovacuum THEN format('ALTER TABLE %s RESET (autovacuum_enabled);', t.name)
                WHEN t.dead > greatest(1000000, t.live)
                THEN format('VACUUM %s; if the dead rows stay, end what the row "snapshot" names.', t.name) END
    FROM t LEFT JOIN LATERAL (SELECT settlement._needed_bytes(t.oid, t.live) AS bytes) n ON true
    UNION ALL
    SELECT 'snapshot', h.holder, CASE WHEN h.age_in_transactions > 1000000 OR h.since < clock_timestamp() - interval '10 minutes' THEN 'warn' ELSE 'ok' END,
           NULL, NULL, NULL, NULL,
           format('holds the oldest snapshot, %s transactions old%s', h.age_in_transactions,
                  coalesce(', since ' || settlement._brief(clock_timestamp() - h.since), '')),
           CASE WHEN h.age_in_transactions > 1000000 OR h.since < clock_timestamp() - interval '10 minutes' THEN h.advice END
    FROM holder h
    UNION ALL
    SELECT 'index', x.indexrelid::regclass::text,
           CASE WHEN b.bytes > 1073741824 AND b.free > 80 THEN 'warn' ELSE 'ok' END, pg_size_pretty(b.bytes), t.live, NULL,
           CASE WHEN b.bytes > 1048576 THEN greatest(0, least(100, b.free)) END,
           format('primary key of %s', t.name),
           CASE WHEN b.bytes > 1073741824 AND b.free > 80 THEN format('REINDEX INDEX CONCURRENTLY %s;', x.indexrelid::regclass) END
    FROM t JOIN pg_index x ON x.indrelid = t.oid AND x.indisprimary AND t.ours,
         -- 20 bytes for a bigint and its place, in pages that are full by 90 %
         LATERAL (SELECT pg_relation_size(x.indexrelid) AS bytes,
                         round(100 - 100 * t.live * 20 / 0.9 / greatest(pg_relation_size(x.indexrelid), 1))::integer AS free) b
    UNION ALL
    SELECT 'index', i.index::text, 'warn', pg_size_pretty(pg_relation_size(i.index)), NULL, NULL, NULL,
           format('holds a column of %s that settlement writes: each update is several times as dear (no HOT)', i.relation),
           'Look for trades by status in settlement''s views instead, and drop the index.'
    FROM settlement._settlement_indexes() i
    UNION ALL
    SELECT 'fillfactor', t.name, CASE WHEN t.fillfactor > 80 AND t.updates >= 10000 AND t.hot < t.updates / 2 THEN 'warn' ELSE 'ok' END,
           NULL, NULL, NULL, NULL,
           format('%s; %s of %s updates were HOT', t.fillfactor, t.hot, t.updates),
           CASE WHEN t.fillfactor > 80 THEN format('ALTER TABLE %s SET (fillfactor = 40);  it holds for pages that are filled from then on.', t.name) END
    FROM t WHERE NOT t.ours
$$;
COMMENT ON FUNCTION settlement._storage() IS 'Internal: how well the tables that settlement writes to are kept.';

CREATE VIEW settlement.storage_health AS
SELECT s.* FROM settlement._storage() s
ORDER BY s.status DESC, array_position('{snapshot,table,index,fillfactor}', s.what), s.dead_rows DESC NULLS LAST, s.object;
COMMENT ON VIEW settlement.storage_health IS 'Tables that settlement writes to: dead rows, free space, what keeps them from being vacuumed, and what makes its updates dear.  From the statistics: nothing is read through.';
COMMENT ON COLUMN settlement.storage_health.what IS 'table; snapshot: the holder of the oldest one; index: a primary key of ours, or an index on a column that settlement writes; fillfactor: of a trade table.';
COMMENT ON COLUMN settlement.storage_health.free_percent IS 'Part of the file that its live rows do not need (bloat): an estimate, for tables from the widths that ANALYZE found; NULL: too small to matter, or never analyzed.';
