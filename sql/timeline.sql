-- timeline.sql: what happened to one trade, and when.

CREATE FUNCTION settlement._timeline(trade_id text, attached_id integer, queued settlement.queue[])
RETURNS TABLE (at timestamptz, what text, details text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH waiting AS (SELECT * FROM settlement.deferred d
                     WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id),
         ready AS (SELECT * FROM unnest(queued)),
         dead AS (SELECT * FROM settlement.dlq d
                  WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id),
         enqueued AS (SELECT enqueued_at, symbol FROM waiting UNION SELECT enqueued_at, symbol FROM ready
                      UNION SELECT enqueued_at, symbol FROM dead),
         -- While it was under way; of a trade that has settled, only what its attempts tell.
         life AS (SELECT min(e.enqueued_at) AS since, max(e.symbol) AS symbol FROM enqueued e)
    SELECT l.since, 'enqueued', NULL FROM life l WHERE l.since IS NOT NULL
    UNION ALL
    SELECT a.at, a.act || CASE a.details ->> 'symbol' WHEN '*' THEN ' of everything' ELSE coalesce(' of ' || (a.details ->> 'symbol'), '') END,
           concat_ws('; ', 'by ' || a.role, a.reason, 'until ' || (a.details ->> 'until'))
    FROM life l JOIN settlement.audit_log a
         ON a.trade_id IS NULL AND a.at >= l.since AND a.act IN ('pause', 'resume', 'breaker_open', 'breaker_close', 'adopt')
    WHERE coalesce(a.details ->> 'symbol', '*') IN ('*', l.symbol)
    UNION ALL                       -- in force before it came
    SELECT p.at, 'pause of ' || CASE p.symbol WHEN '*' THEN 'everything' ELSE p.symbol END,
           concat_ws('; ', 'by ' || p."by", p.reason, 'until ' || p.until)
    FROM life l JOIN settlement.pauses p ON p.at < l.since AND p.symbol IN ('*', l.symbol)
    UNION ALL
    SELECT a.at, a.verb || ': ' || a.outcome,
           concat_ws('; ', format('attempt %s, generation %s', a.attempt, a.generation),
                     nullif(settlement._describe_failure(a.class, a.code, a.http_status, a.message), ''),
                     'came as far as ' || a.phase,
                     round(extract(epoch FROM a.duration)::numeric * 1000, 1) || ' ms', 'worker ' || a.slot)
    FROM settlement.attempts a
    WHERE a.trade_id = _timeline.trade_id AND a.attached_id = _timeline.attached_id
    UNION ALL
    SELECT c.claimed_at, 'claimed', format('by worker %s for attempt %s', c.slot, q.attempts + 1)
    FROM ready q JOIN settlement.claims c ON q.id = ANY (c.ids)
    UNION ALL
    SELECT w.retry_at, CASE WHEN w.retry_at > clock_timestamp() THEN 'will be due' ELSE 'due' END, w.reason
    FROM waiting w WHERE isfinite(w.retry_at)
    UNION ALL
    SELECT d.died_at, 'dead: ' || d.status, settlement._describe_failure(d.class, d.code, d.http_status, d.message)
    FROM dead d
    UNION ALL
    SELECT CASE p.state WHEN 'due' THEN p.due_at WHEN 'used up' THEN p.last_at END,     -- NULL: nobody knows
           CASE WHEN p.state = 'used up' THEN 'not redriven any more'
                WHEN p.state = 'breaker' THEN 'will be redriven when the circuit breaker closes'
                WHEN p.due_at > clock_timestamp() THEN 'will be redriven' ELSE 'due to be redriven' END,
           concat_ws('; ', 'by policy ' || p.policy,
                     format('time %s of %s', CASE p.state WHEN 'used up' THEN p.times ELSE p.times + 1 END, p.at_most), p.note)
    FROM settlement.dlq d, LATERAL settlement._policies_for(d) p
    WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id AND p.state <> 'not taken'
    UNION ALL
    SELECT u.recorded_at, 'outcome recorded: ' || u.status,
           'not yet written to the trade row' || coalesce(': ' || u.last_failure, '')
    FROM settlement.unapplied u
    WHERE u.trade_id = _timeline.trade_id AND u.attached_id = _timeline.attached_id
    UNION ALL
    SELECT a.at, a.act, concat_ws('; ', 'by ' || a.role, a.reason,
                                  'to ' || (a.details ->> 'to'), a.details ->> 'outcome',
                                  'reference ' || (a.details ->> 'reference'))
    FROM settlement.audit_log a
    WHERE a.trade_id = _timeline.trade_id AND a.attached_id = _timeline.attached_id
    UNION ALL
    SELECT d.at, 'discrepancy: ' || d.kind, d.details::text FROM settlement.discrepancies d
    WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id
$$;
COMMENT ON FUNCTION settlement._timeline(text, integer, settlement.queue[]) IS 'Internal: what our tables know of the life of a trade.';

CREATE FUNCTION settlement.timeline(trade_id text, relation regclass DEFAULT NULL)
RETURNS TABLE (at timestamptz, what text, details text)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    WITH found AS MATERIALIZED (
             SELECT f.* FROM settlement._find(timeline.trade_id, relation, all_rows => false) f WHERE f.is_known),
         one AS MATERIALIZED (
             SELECT f.* FROM found f WHERE settlement._is_one(timeline.trade_id, (SELECT count(*) FROM found)))
    SELECT t.* FROM one o, LATERAL settlement._timeline(timeline.trade_id, o.attached_id, o.queued) t
    UNION ALL
    SELECT o.settled_at, 'settled', o.settlement_id FROM one o
    WHERE o.status = 'SETTLED' AND o.settled_at IS NOT NULL
    ORDER BY 1, 2;
END $$;
COMMENT ON FUNCTION settlement.timeline(text, regclass) IS 'What happened to a trade and when: requests (successful ones only with settlement.attempt_history = all), acts of operators on it, and on everything while it was under way, death, settlement; and what is due: the next attempt, or a redrive by a policy.';
