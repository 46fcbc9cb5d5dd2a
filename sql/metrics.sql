-- metrics.sql: numbers for machines.
--
-- Counters and durations count from the last server start and live in shared
-- memory; gauges are read when asked.  settlement._metrics() is the one list of
-- names, kinds and meanings; the view and prometheus() only present it.

-- kind: counter, gauge, quantile (not exported: the histogram is) or alias (a
-- second name, not exported).
CREATE FUNCTION settlement._metrics()
RETURNS TABLE (name text, kind text, value double precision, help text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    counts jsonb := (SELECT jsonb_object_agg(c.name, c.value) FROM settlement._counters() c);
    state record;
    size record;
    unknown record;
BEGIN
    SELECT * INTO state FROM settlement._database_state();
    SELECT * INTO size FROM settlement._sizes();
    SELECT coalesce(sum(u.trades), 0) AS trades,
           coalesce(greatest(extract(epoch FROM clock_timestamp() - min(u.oldest)), 0), 0)::numeric AS age
    INTO unknown FROM settlement.unknown u;
    RETURN QUERY
    SELECT m.name, 'counter', coalesce((counts ->> m.name)::double precision, 0), m.help
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
    UNION ALL
    SELECT 'breaker_opened', 'counter', coalesce(state.breaker_times_opened, 0), 'Times the circuit breaker opened.'
    UNION ALL
    SELECT m.name, 'alias', coalesce((counts ->> m.counter)::double precision, 0), m.help
    FROM (VALUES
        ('total_settlements', 'processed', 'The same as processed.'),
        ('failed_settlements', 'failed', 'The same as failed.')) AS m (name, counter, help)
    UNION ALL
    SELECT m.name, 'gauge', m.value::double precision, m.help
    FROM (VALUES
        ('sending', (state.send_state = 'ok' AND state.workers > 0 AND
                     (state.held_since < clock_timestamp() - interval '1 second') IS NOT TRUE)::integer::numeric,
            'Workers may send: 1; 0: see the view status.'),
        ('paused', (EXISTS (SELECT FROM settlement.pauses p WHERE p.symbol = '*'
                            AND (p.until IS NULL OR p.until > now())))::integer,
            'Everything is paused.'),
        ('breaker_state', CASE state.breaker WHEN 'closed' THEN 0 WHEN 'open' THEN 2 ELSE 1 END,
            'Circuit breaker: 0 closed, 1 half open, 2 open.'),
        ('workers', coalesce(state.workers, 0), 'Workers that run.'),
        ('workers_wanted', coalesce(state.workers_wanted, 0), 'Workers that should run.'),
        ('concurrency_limit', (SELECT coalesce(sum(w.concurrency_limit), 0) FROM settlement._workers() w),
            'Trades that the workers let themselves have in flight.'),
        ('queue_depth', size.queue, 'Trades that are ready or in flight.'),
        ('in_flight', coalesce(state.in_flight, 0), 'Trades in flight.'),
        ('oldest_ready_seconds',
            coalesce((SELECT greatest(extract(epoch FROM clock_timestamp() - q.enqueued_at), 0)::numeric
                      FROM settlement.queue q WHERE q.id > coalesce(state.frontier, 0)
                      ORDER BY q.id LIMIT 1), 0), 'How long the next ready trade has waited.'),
        ('deferred', size.deferred, 'Trades that wait for an attempt, a pause or a look-up.'),
        ('deferred_paused', size.paused, 'Trades put aside by a pause of their symbol.'),
        ('deferred_needs_lookup', size.needs_lookup, 'Trades that wait for the wallet''s books.'),
        ('dlq_size', size.dlq, 'Dead letters.'),
        ('dlq_unknown', size.unknown, 'Dead letters of which the wallet may have moved the money.'),
        ('unknown', unknown.trades, 'Trades, dead or not, of which the wallet may have moved the money.'),
        ('unknown_oldest_seconds', unknown.age, 'Age of the oldest of them.'),
        ('unapplied', size.unapplied, 'Outcomes not yet written to their trade row.'),
        ('discrepancies', (SELECT count(*) FROM (SELECT FROM settlement.discrepancies LIMIT 10000) d),
            'Contradictions that need a person.')) AS m (name, value, help)
    UNION ALL
    SELECT d.name || '_' || q.name || '_seconds', 'quantile', q.value,
           format('Duration %s, %s.', d.name, q.name)
    FROM settlement._durations() d,
         LATERAL (VALUES ('p50', d.p50), ('p95', d.p95), ('p99', d.p99), ('max', d.max)) AS q (name, value);
END $$;
COMMENT ON FUNCTION settlement._metrics() IS 'Internal: all metrics with their kind and meaning.';

CREATE VIEW settlement.metrics AS
SELECT m.name, m.value, m.kind, m.help AS description FROM settlement._metrics() m;
COMMENT ON VIEW settlement.metrics IS 'Counters and durations since the server start, and gauges; durations in seconds.';

CREATE FUNCTION settlement.prometheus() RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    label CONSTANT text := 'database="' ||
        replace(replace(replace(current_database(), '\', '\\'), '"', '\"'), E'\n', '\n') || '"';
    result text;
    risk text;
    duration record;
BEGIN
    SELECT string_agg(format(E'# HELP %1$s %2$s\n# TYPE %1$s %3$s\n%1$s{%4$s} %5$s\n',
                             n.name, m.help, m.kind, label, m.value), '' ORDER BY n.name)
    INTO result
    FROM settlement._metrics() m,
         LATERAL (SELECT 'settlement_' || m.name
                         || CASE m.kind WHEN 'counter' THEN '_total' ELSE '' END AS name) n
    WHERE m.kind IN ('counter', 'gauge') AND m.value IS NOT NULL;

    SELECT result || E'# HELP settlement_value_at_risk Quote amounts of the unknown trades.\n# TYPE settlement_value_at_risk gauge\n'
           || string_agg(format(E'settlement_value_at_risk{%s,currency="%s"} %s\n', label,
                                replace(replace(replace(v.currency, '\', '\\'), '"', '\"'), E'\n', '\n'),
                                v.value::double precision), '' ORDER BY v.currency)
    INTO risk
    FROM (SELECT u.currency, sum(u.value_at_risk) AS value FROM settlement.unknown u GROUP BY u.currency) v;
    result := coalesce(risk, result);

    FOR duration IN
        SELECT 'settlement_' || d.name || '_duration_seconds' AS name, d.sum,
               CASE d.name WHEN 'queue_wait' THEN 'From enqueue to claim.'
                           WHEN 'request' THEN 'From the submission of a request to its reply.'
                           WHEN 'settle' THEN 'From enqueue to settled.'
                           WHEN 'turn' THEN 'From begin to the end of commit of a worker''s transaction.'
               END AS help,
               string_agg(format(E'settlement_%s_duration_seconds_bucket{%s,le="%s"} %s\n', d.name, label,
                                 CASE b.le WHEN 'infinity' THEN '+Inf' ELSE b.le::text END, b.count),
                          '' ORDER BY b.le) AS buckets,
               max(b.count) AS total
        FROM settlement._durations() d JOIN settlement._duration_buckets() b ON b.name = d.name
        GROUP BY d.name, d.sum ORDER BY d.name
    LOOP
        result := result || format(E'# HELP %1$s %2$s\n# TYPE %1$s histogram\n%3$s%1$s_sum{%4$s} %5$s\n%1$s_count{%4$s} %6$s\n',
            duration.name, duration.help, duration.buckets, label, duration.sum, duration.total);
    END LOOP;
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement.prometheus() IS 'The metrics in Prometheus'' text exposition format, labelled with the database.';
