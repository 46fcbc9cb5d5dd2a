-- metrics.sql: numbers for machines.
--
-- Counters and histograms live in shared memory and outlast a stop of the
-- server, not a crash (stats_reset_timestamp_seconds); gauges are read when
-- asked.  settlement._metrics() is the one list of names, kinds and meanings;
-- the view and prometheus() only present it, and monitoring/ follows it.

-- The age of the oldest trade that should be on its way, claimed ones that are
-- held for a standby included.  Not of those that wait for the end of a symbol's
-- pause or for the wallet's books; of many that wait for a retry, the first 10000
-- are looked at.
CREATE FUNCTION settlement._oldest_pending(frontier bigint, held_since timestamptz,
    OUT ready double precision, OUT pending double precision)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(extract(epoch FROM clock_timestamp() - t.ready), 0),
           greatest(extract(epoch FROM clock_timestamp() - least(t.ready, t.deferred, held_since)), 0)
    FROM (SELECT (SELECT q.enqueued_at FROM settlement.queue q
                  WHERE q.id > coalesce(frontier, 0) ORDER BY q.id LIMIT 1) AS ready,
                 (SELECT min(d.enqueued_at) FILTER (WHERE d.reason <> 'needs_lookup')
                  FROM (SELECT x.enqueued_at, x.reason FROM settlement.deferred x
                        WHERE x.reason <> 'paused' ORDER BY x.retry_at LIMIT 10000) d) AS deferred) t
$$;
COMMENT ON FUNCTION settlement._oldest_pending(bigint, timestamptz) IS 'Internal: how long the next ready trade, and the oldest that should be on its way, has waited, in seconds.';

CREATE FUNCTION settlement._metric_counters()
RETURNS TABLE (name text, kind text, value double precision, help text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.name, 'counter', coalesce(c.value, 0)::double precision, m.help
    FROM (VALUES
        ('submitted', 'Trades enqueued.'),
        ('processed', 'Trades that reached an end.'),
        ('settled', 'Trades settled.'),
        ('failed', 'Trades dead-lettered by a worker.'),
        ('rejected', 'Trades dead-lettered because the wallet finally refused them.'),
        ('requests', 'Trades sent to the wallet, alone or in a batch.'),
        ('request_failures', 'Trades sent to the wallet that did not settle by it.'),
        ('batches', 'Requests that carried several trades.'),
        ('retries', 'Trades put off for another attempt.'),
        ('lookups', 'Keys looked up at the wallet.'),
        ('recovered', 'Trades taken over from a worker that died.'),
        ('late_settled', 'Settlements reported by a worker that had lost its claim.'),
        ('turns', 'Transactions of workers.'),
        ('turn_aborts', 'Transactions of workers that were rolled back.'),
        ('apply_failures', 'Outcomes that could not be written to their trade row at once.'),
        ('sweeps', 'Scans of the queue behind the frontier.'),
        ('duplicates', 'Queue rows dropped because their trade was queued twice.')) AS m (name, help)
        LEFT JOIN settlement._counters() c ON c.name = m.name
    UNION ALL
    SELECT m.name, 'alias', coalesce(c.value, 0)::double precision, m.help
    FROM (VALUES
        ('total_settlements', 'processed', 'The same as processed.'),
        ('failed_settlements', 'failed', 'The same as failed.')) AS m (name, counter, help)
        LEFT JOIN settlement._counters() c ON c.name = m.counter
$$;
COMMENT ON FUNCTION settlement._metric_counters() IS 'Internal: the counters among the metrics.';

CREATE FUNCTION settlement._metric_gauges()
RETURNS TABLE (name text, kind text, value double precision, help text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    state record;
    size record;
    oldest record;
BEGIN
    SELECT * INTO state FROM settlement._database_state();
    SELECT * INTO size FROM settlement._sizes();
    SELECT * INTO oldest FROM settlement._oldest_pending(state.frontier, state.held_since);
    RETURN QUERY
    SELECT m.name, m.kind, m.value::double precision, m.help
    FROM (VALUES
        ('stats_reset_timestamp_seconds', 'gauge', extract(epoch FROM settlement._stats_reset())::numeric,
            'When counters and histograms began, in seconds since 1970: at first use, or after the last crash.'),
        ('standby', 'gauge', pg_is_in_recovery()::integer, 'This server is a standby, which sends nothing.'),
        ('sending', 'gauge', coalesce(state.send_state = 'ok' AND state.workers > 0 AND
                     (state.held_since < clock_timestamp() - interval '1 second') IS NOT TRUE, false)::integer,
            'Workers may send: 1; 0: see the view status.'),
        ('fenced', 'gauge', coalesce(state.send_state IN ('fenced', 'stale epoch'), false)::integer,
            'This database may not be the one that sends: it is a copy, or the wallet knows a later epoch.'),
        ('paused', 'gauge', (EXISTS (SELECT FROM settlement.pauses p WHERE p.symbol = '*'
                            AND (p.until IS NULL OR p.until > now())))::integer,
            'Everything is paused.'),
        ('breaker_state', 'gauge', CASE state.breaker WHEN 'open' THEN 2 WHEN 'half_open' THEN 1 ELSE 0 END,
            'Circuit breaker: 0 closed, 1 half open, 2 open.'),
        ('breaker_opened', 'counter', coalesce(state.breaker_times_opened, 0), 'Times the circuit breaker opened.'),
        ('workers', 'gauge', coalesce(state.workers, 0), 'Workers that run.'),
        ('workers_wanted', 'gauge', coalesce(state.workers_wanted, 0), 'Workers that should run.'),
        ('concurrency_limit', 'gauge', (SELECT coalesce(sum(w.concurrency_limit), 0) FROM settlement._workers() w),
            'Trades that the workers let themselves have in flight.'),
        ('queue_depth', 'gauge', size.queue, 'Trades that are ready or in flight.'),
        ('in_flight', 'gauge', coalesce(state.in_flight, 0), 'Trades in flight.'),
        ('oldest_ready_seconds', 'gauge', oldest.ready::numeric, 'How long the next ready trade has waited.'),
        ('oldest_pending_seconds', 'gauge', oldest.pending::numeric,
            'How long the oldest trade has waited that is ready, held for a standby, or waits for another attempt.'),
        ('deferred', 'gauge', size.deferred, 'Trades that wait for an attempt, a pause or a look-up.'),
        ('deferred_paused', 'gauge', size.paused, 'Trades put aside by a pause of their symbol.'),
        ('deferred_needs_lookup', 'gauge', size.needs_lookup, 'Trades that wait for the wallet''s books.'),
        ('dlq_size', 'gauge', size.dlq, 'Dead letters.'),
        ('dlq_unknown', 'gauge', size.unknown, 'Dead letters of which the wallet may have moved the money.'),
        ('unapplied', 'gauge', size.unapplied, 'Outcomes not yet written to their trade row.'),
        ('discrepancies', 'gauge', (SELECT count(*) FROM (SELECT FROM settlement.discrepancies LIMIT 10000) d),
            'Contradictions that need a person.')) AS m (name, kind, value, help);
END $$;
COMMENT ON FUNCTION settlement._metric_gauges() IS 'Internal: those of the metrics that are read when asked, and have no labels.';

-- kind: counter, gauge, histogram, quantile (not exported: the histogram is) or
-- alias (a second name, not exported).
CREATE FUNCTION settlement._metrics()
RETURNS TABLE (name text, labels jsonb, kind text, value double precision, help text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH histogram AS MATERIALIZED (
        SELECT m.metric, m.help, h.le, h.counts, h.sum
        FROM (VALUES
            ('queue_wait', 'queue_wait_duration_seconds', 'From enqueue to claim.'),
            ('request', 'request_duration_seconds', 'From the submission of a request to its reply.'),
            ('settle', 'settle_duration_seconds', 'From enqueue to settled.'),
            ('turn', 'turn_duration_seconds', 'From begin to the end of commit of a worker''s transaction.'),
            ('claim_size', 'claim_size_trades', 'Trades that one claim took.')) AS m (name, metric, help)
            JOIN settlement._histograms() h ON h.name = m.name),
    unknown AS MATERIALIZED (SELECT * FROM settlement.unknown)
    SELECT c.name, '{}'::jsonb, c.kind, c.value, c.help FROM settlement._metric_counters() c
    UNION ALL
    SELECT g.name, '{}'::jsonb, g.kind, g.value, g.help FROM settlement._metric_gauges() g
    UNION ALL
    SELECT 'unknown', '{}'::jsonb, 'gauge', coalesce(sum(u.trades), 0)::double precision,
           'Trades, dead or not, of which the wallet may have moved the money.'
    FROM unknown u
    UNION ALL
    SELECT 'unknown_oldest_seconds', '{}'::jsonb, 'gauge',
           coalesce(greatest(extract(epoch FROM clock_timestamp() - min(u.oldest)), 0), 0)::double precision,
           'Age of the oldest of the unknown trades.'
    FROM unknown u
    UNION ALL
    SELECT 'value_at_risk', jsonb_build_object('currency', u.currency), 'gauge', sum(u.value_at_risk)::double precision,
           'Quote amounts of the unknown trades.'
    FROM unknown u GROUP BY u.currency
    UNION ALL
    SELECT h.metric || '_bucket', jsonb_build_object('le', CASE b.le WHEN 'infinity' THEN '+Inf' ELSE b.le::text END),
           'histogram', b.count::double precision, h.help
    FROM histogram h, unnest(h.le, h.counts) AS b (le, count)
    UNION ALL
    SELECT h.metric || v.suffix, '{}'::jsonb, 'histogram', v.value, h.help
    FROM histogram h,
         LATERAL (VALUES ('_sum', h.sum), ('_count', h.counts[cardinality(h.counts)]::double precision)) AS v (suffix, value)
    UNION ALL
    SELECT d.name || '_' || q.name || '_seconds', '{}'::jsonb, 'quantile', q.value, format('Duration %s, %s.', d.name, q.name)
    FROM settlement._durations() d,
         LATERAL (VALUES ('p50', d.p50), ('p95', d.p95), ('p99', d.p99), ('max', d.max)) AS q (name, value)
$$;
COMMENT ON FUNCTION settlement._metrics() IS 'Internal: all metrics with their kind and meaning.';

CREATE VIEW settlement.metrics AS
SELECT m.name, m.labels, m.kind, m.value, m.help FROM settlement._metrics() m;
COMMENT ON VIEW settlement.metrics IS 'Counters, gauges and histograms of this database; durations in seconds.  Counters and histograms outlast a restart; after a crash of the server they begin at zero, which stats_reset_timestamp_seconds tells.  prometheus() calls them settlement_NAME, counters settlement_NAME_total; it leaves out quantiles, which the histograms give, and aliases, which are second names.';

-- A label's value in the text exposition format.
CREATE FUNCTION settlement._label(value text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '"' || replace(replace(replace(value, '\', '\\'), '"', '\"'), E'\n', '\n') || '"'
$$;
COMMENT ON FUNCTION settlement._label(text) IS 'Internal: a label''s value in Prometheus'' text exposition format.';

CREATE FUNCTION settlement.prometheus() RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH line AS (
        SELECT CASE m.kind WHEN 'histogram' THEN regexp_replace(n.name, '_(bucket|sum|count)$', '') ELSE n.name END AS family,
               m.kind, m.help, n.name, m.labels,
               format(E'%s{database=%s%s} %s\n', n.name, settlement._label(current_database()),
                      (SELECT string_agg(format(',%s=%s', l.key, settlement._label(l.value)), '' ORDER BY l.key)
                       FROM jsonb_each_text(m.labels) l), m.value) AS text
        FROM settlement._metrics() m,
             LATERAL (SELECT 'settlement_' || m.name || CASE m.kind WHEN 'counter' THEN '_total' ELSE '' END AS name) n
        WHERE m.kind IN ('counter', 'gauge', 'histogram') AND m.value IS NOT NULL)
    SELECT string_agg(f.text, '' ORDER BY f.family)
    FROM (SELECT l.family,
                 format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s\n', l.family, l.help, l.kind)
                 || string_agg(l.text, '' ORDER BY l.name, (l.labels ->> 'le')::double precision, l.labels) AS text
          FROM line l GROUP BY l.family, l.help, l.kind) f
$$;
COMMENT ON FUNCTION settlement.prometheus() IS 'The metrics in Prometheus'' text exposition format, labelled with the database.';
