-- explain.sql: what is going on with one trade, in plain sentences.
--
-- explain() and timeline() are SECURITY INVOKER: they read the trade row, and
-- that with the caller's own rights, so that no type, policy or rule of a user's
-- table runs as our owner.  What our tables know comes from the functions
-- beginning with _, which run as the owner.

CREATE FUNCTION settlement._span(span interval) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN s < 1 THEN 'less than a second'
                WHEN s < 120 THEN s::bigint || ' s'
                WHEN s < 7200 THEN (s::bigint / 60) || ' min'
                WHEN s < 172800 THEN (s::bigint / 3600) || ' h'
                ELSE (s::bigint / 86400) || ' days' END
    FROM (SELECT abs(extract(epoch FROM span)) AS s) x
$$;
COMMENT ON FUNCTION settlement._span(interval) IS 'Internal: a duration for people.';

CREATE FUNCTION settlement._moment(at timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT isfinite(at) THEN 'never'
                ELSE to_char(at, 'YYYY-MM-DD HH24:MI:SS TZ') || CASE
                    WHEN at > clock_timestamp() THEN ' (in ' || settlement._span(at - clock_timestamp()) || ')'
                    ELSE ' (' || settlement._span(clock_timestamp() - at) || ' ago)' END END
$$;
COMMENT ON FUNCTION settlement._moment(timestamptz) IS 'Internal: a time for people.';

-- What stands between a ready trade and the wallet; nothing when all is well.
CREATE FUNCTION settlement._obstacles(symbol text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    p record;
BEGIN
    SELECT * INTO s FROM settlement._database_state();
    IF s.send_state IS NULL THEN
        RETURN NEXT 'Nothing is sent: settlement is not in shared_preload_libraries.';
        RETURN;
    END IF;
    IF s.workers = 0 THEN
        RETURN NEXT format('No worker runs for this database (%s wanted)%s.', s.workers_wanted,
                           CASE WHEN s.holds > 0 THEN ': DDL on the database or the extension holds them back' ELSE '' END);
    ELSIF s.send_state <> 'ok' THEN
        RETURN NEXT CASE s.send_state
            WHEN 'starting' THEN 'The workers are starting.'
            WHEN 'disabled' THEN 'Nothing is sent: settlement.enabled is off.'
            WHEN 'no wallet_url' THEN 'Nothing is sent: settlement.wallet_url is not set.'
            WHEN 'bad configuration' THEN 'Nothing is sent: a setting of the wallet cannot be used; the server log says which.'
            WHEN 'version mismatch' THEN 'Nothing is sent: the library and the SQL objects of the extension have different versions.'
            WHEN 'fenced' THEN format('Nothing is sent: this database is not known to be the one that may send%s; if it is, settlement.adopt(reason) says so.',
                coalesce(' (' || settlement._identity_problem() || ')', ''))
            WHEN 'stale epoch' THEN 'Nothing is sent: the wallet has been told of a newer primary than this one.'
            WHEN 'standby' THEN 'Nothing is sent from a standby.'
            ELSE 'Nothing is sent: ' || s.send_state || '.' END;
    END IF;
    FOR p IN SELECT * FROM settlement.pauses u
             WHERE u.symbol IN ('*', _obstacles.symbol) AND (u.until IS NULL OR u.until > clock_timestamp())
             ORDER BY u.symbol
    LOOP
        RETURN NEXT format('%s paused by %s since %s, %s: %s.  settlement.resume(%s) ends it.',
            CASE p.symbol WHEN '*' THEN 'Everything is' ELSE 'The symbol ' || p.symbol || ' is' END,
            p."by", settlement._moment(p.at),
            coalesce('until ' || settlement._moment(p.until), 'without an end'), p.reason,
            CASE p.symbol WHEN '*' THEN '' ELSE quote_literal(p.symbol) END);
    END LOOP;
    IF s.breaker_manual THEN
        RETURN NEXT format('The circuit breaker was opened by hand at %s: settlement.breaker_close() closes it.',
                           settlement._moment(s.breaker_changed_at));
    ELSIF s.breaker <> 'closed' THEN
        RETURN NEXT format('The circuit breaker is %s since %s because the wallet fails%s.', s.breaker,
                           settlement._moment(s.breaker_changed_at),
                           coalesce('; the next probe may leave at ' || settlement._moment(s.breaker_open_until), ''));
    END IF;
    IF s.limited_until IS NOT NULL THEN
        RETURN NEXT format('The wallet wants fewer requests: none is sent before %s.',
                           settlement._moment(s.limited_until));
    END IF;
    IF s.held_since < clock_timestamp() - interval '1 second' THEN
        RETURN NEXT format('Nothing is sent: no synchronous standby has confirmed what was claimed at %s.',
                           settlement._moment(s.held_since));
    END IF;
    IF NOT s.recovered AND s.send_state IN ('ok', 'starting') AND s.workers > 0 THEN
        RETURN NEXT 'What the last server start had in flight is being taken over first.';
    END IF;
END $$;
COMMENT ON FUNCTION settlement._obstacles(text) IS 'Internal: why ready trades are not sent.';

CREATE FUNCTION settlement._describe_failure(class text, code text, http_status integer, message text)
RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(', ', class, code, 'HTTP ' || http_status) || coalesce(': ' || message, '')
$$;
COMMENT ON FUNCTION settlement._describe_failure(text, text, integer, text) IS 'Internal: a failure in one line.';

CREATE FUNCTION settlement._explain_queued(q settlement.queue) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    flight record;
    claim record;
BEGIN
    SELECT * INTO flight FROM settlement._flights() f WHERE f.queue_id = q.id;
    SELECT * INTO claim FROM settlement.claims c WHERE q.id = ANY (c.ids);
    IF flight.phase = 'waiting for standby' THEN
        RETURN NEXT format('Worker %s claimed it at %s for attempt %s; it is sent as soon as the synchronous standbys have that claim (settlement.send_after).',
            flight.slot, settlement._moment(flight.since), q.attempts + 1);
        RETURN QUERY SELECT * FROM settlement._obstacles(q.symbol);
    ELSIF flight.queue_id IS NOT NULL THEN
        RETURN NEXT format('It is in flight: worker %s claimed it at %s for attempt %s; the request is at "%s".',
            flight.slot, settlement._moment(flight.since), q.attempts + 1, flight.phase);
        RETURN NEXT 'Its outcome is recorded as soon as the wallet answers or settlement.request_timeout is over.';
    ELSIF claim.token IS NOT NULL THEN
        RETURN NEXT format('It was claimed at %s by a worker that is gone: another worker takes it over and sends it again under the same key.',
            settlement._moment(claim.claimed_at));
        RETURN QUERY SELECT * FROM settlement._obstacles(q.symbol);
    ELSE
        RETURN NEXT format('It is ready for attempt %s; it was enqueued at %s.', q.attempts + 1,
            settlement._moment(q.enqueued_at));
        RETURN QUERY SELECT * FROM settlement._obstacles(q.symbol);
        RETURN NEXT CASE WHEN q.lookup_first
            THEN 'Next, a worker claims it and asks the wallet what it knows of its key.'
            ELSE 'Next, a worker claims it and sends it.' END;
    END IF;
END $$;
COMMENT ON FUNCTION settlement._explain_queued(settlement.queue) IS 'Internal: sentences on a queued trade.';

CREATE FUNCTION settlement._explain_deferred(d settlement.deferred) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    failure text := settlement._describe_failure(d.last_class, d.last_code, d.last_status, d.last_message);
    forgotten boolean := d.first_sent_at IS NOT NULL AND settlement._may_be_forgotten(d.first_sent_at);
BEGIN
    RETURN NEXT CASE d.reason
        WHEN 'retry' THEN format('It waits for attempt %s.', d.attempts + 1)
        WHEN 'pending' THEN 'The wallet answered that it has not finished yet; it is asked again under the same key.'
        WHEN 'recovered' THEN 'The worker that had it in flight is gone; it is sent again under the same key.'
        WHEN 'paused' THEN 'It was put aside by a pause of its symbol.'
        WHEN 'needs_lookup' THEN format('The wallet has to be asked what it knows of this trade before it may be sent again%s.',
            CASE WHEN forgotten THEN ', because settlement.idempotency_window has passed since it was first sent (or the clock was set back)' ELSE '' END)
        END;
    IF failure <> '' THEN
        RETURN NEXT format('The last attempt%s failed: %s.', coalesce(' at ' || settlement._moment(d.last_sent_at), ''), failure);
    END IF;
    RETURN NEXT format('%s sent so far, %s of %s charged to the trade; the wallet %s.',
        CASE d.attempts WHEN 1 THEN '1 request was' ELSE d.attempts || ' requests were' END,
        d.charged, settlement._setting('max_attempts'),
        CASE WHEN d.maybe_executed THEN 'may have moved its money' ELSE 'has not moved its money' END);
    IF d.reason = 'paused' THEN
        RETURN NEXT CASE WHEN EXISTS (SELECT FROM settlement.pauses p
                                      WHERE p.symbol = d.symbol AND (p.until IS NULL OR p.until > clock_timestamp()))
            THEN 'It goes back to the queue when the pause ends.'
            ELSE 'That pause is over: it goes back to the queue, between the new trades.' END;
    ELSIF isfinite(d.retry_at) THEN
        RETURN NEXT format('%s %s.', CASE WHEN d.retry_at > clock_timestamp() THEN 'Next, it goes back to the queue at'
                                         ELSE 'It has been due since' END, settlement._moment(d.retry_at));
    ELSIF d.reason = 'needs_lookup' THEN
        RETURN NEXT format('Nothing happens by itself: settlement.resolve(%L, ...) it from the wallet''s books%s.', d.trade_id,
            CASE settlement._setting('wallet_lookup') WHEN 'on' THEN format(', or settlement.lookup(%L)', d.trade_id) ELSE '' END);
    END IF;
    RETURN QUERY SELECT * FROM settlement._obstacles(d.symbol);
END $$;
COMMENT ON FUNCTION settlement._explain_deferred(settlement.deferred) IS 'Internal: sentences on a waiting trade.';

CREATE FUNCTION settlement._explain_dead(d settlement.dlq) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    forgotten boolean := d.first_sent_at IS NOT NULL AND settlement._may_be_forgotten(d.first_sent_at);
BEGIN
    RETURN NEXT format('It is dead (in the DLQ) since %s after %s: %s.', settlement._moment(d.died_at),
        CASE d.attempts WHEN 1 THEN '1 request' ELSE d.attempts || ' requests' END,
        settlement._describe_failure(d.class, d.code, d.http_status, d.message));
    RETURN NEXT CASE WHEN d.status = 'UNKNOWN' THEN 'The wallet may have moved its money.'
                     WHEN d.safe_to_discard THEN 'The wallet certainly did not move its money.'
                     ELSE 'The wallet had not moved its money when this database was adopted; it may have since, for where it came from.' END;
    RETURN NEXT CASE
        WHEN d.class = 'key_conflict'
        THEN format('The wallet has this key with other content: compare its books with the trade row, then settlement.resolve(%L, ...).', d.trade_id)
        WHEN d.status = 'UNKNOWN' AND forgotten
        THEN format('settlement.idempotency_window has passed, so it is not sent again before the wallet was asked: settlement.lookup(%1$L), or settlement.resolve(%1$L, ...) from its books.', d.trade_id)
        WHEN d.status = 'UNKNOWN'
        THEN format('settlement.lookup(%1$L) asks the wallet; settlement.redrive(%1$L, ...) sends it again under the same key, which the wallet executes at most once; settlement.resolve(%1$L, ...) records what its books say.', d.trade_id)
        WHEN d.class = 'invalid_trade'
        THEN format('Correct the trade row and settlement.redrive(%1$L, ...), which reads it anew; or settlement.dlq_purge(trade_id => %1$L, ...).', d.trade_id)
        WHEN d.final_rejection
        THEN format('When the cause is mended, settlement.redrive(%1$L, ...) tries it under a new key; settlement.dlq_purge(trade_id => %1$L, ...) gives it up.', d.trade_id)
        ELSE format('settlement.redrive(%1$L, ...) tries it again; settlement.dlq_purge(trade_id => %1$L, ...) gives it up.', d.trade_id)
        END;
END $$;
COMMENT ON FUNCTION settlement._explain_dead(settlement.dlq) IS 'Internal: sentences on a dead trade.';

-- What the trade row alone tells: the trade is in no state table.
CREATE FUNCTION settlement._explain_row(trade_id text, attached_id integer, row_found boolean, status text,
    settlement_id text, settled_at timestamptz, error text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    act record;
BEGIN
    SELECT * INTO act FROM settlement.audit_log a
    WHERE a.trade_id = _explain_row.trade_id AND a.attached_id = _explain_row.attached_id
    ORDER BY a.id DESC LIMIT 1;
    IF row_found IS NULL THEN
        RETURN NEXT 'It is not queued, deferred or dead, and its row could not be read with your privileges.';
    ELSIF NOT row_found THEN
        RETURN NEXT 'There is no such trade row, or its INSERT is not committed; nothing of it is queued, deferred or dead.';
    ELSIF status IS NULL THEN
        RETURN NEXT 'Its settlement status is NULL: it is older than settlement.attach() and none of our business.';
    ELSIF status = 'SETTLED' THEN
        RETURN NEXT format('It was settled%s as %s.', coalesce(' at ' || settlement._moment(settled_at), ''),
                           coalesce(settlement_id, 'an unknown settlement'));
        RETURN NEXT 'Nothing more happens.';
    ELSIF status = 'REVERSED' THEN
        RETURN NEXT 'It was settled and then reversed.';
    ELSIF status = 'PENDING' THEN
        RETURN NEXT 'Its row says PENDING, but it is queued nowhere, so nothing will happen by itself.';
        RETURN NEXT 'That is so after a restore, or for rows inserted while the trigger was disabled: settlement.enqueue_pending() takes them up.';
    ELSE
        RETURN NEXT format('Its row says %s%s, and it is not in the DLQ any more.', status, coalesce(' (' || error || ')', ''));
    END IF;
    IF act.id IS NOT NULL THEN
        RETURN NEXT format('The last act of an operator on it was %s by %s at %s%s.', act.act, act.role,
                           settlement._moment(act.at), coalesce(': ' || act.reason, ''));
    END IF;
END $$;
COMMENT ON FUNCTION settlement._explain_row(text, integer, boolean, text, text, timestamptz, text) IS 'Internal: sentences on a trade that is in no state table.';

CREATE FUNCTION settlement._explain(trade_id text, attached_id integer, row_found boolean, status text,
    settlement_id text, settled_at timestamptz, error text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
    places integer := 0;
    trace text;
BEGIN
    FOR r IN SELECT q AS queued FROM settlement.queue q
             WHERE q.trade_id = _explain.trade_id AND q.attached_id = _explain.attached_id LOOP
        places := places + 1;
        trace := (r.queued).trace_id;
        RETURN QUERY SELECT * FROM settlement._explain_queued(r.queued);
    END LOOP;
    FOR r IN SELECT d AS waiting FROM settlement.deferred d
             WHERE d.trade_id = _explain.trade_id AND d.attached_id = _explain.attached_id LOOP
        places := places + 1;
        trace := (r.waiting).trace_id;
        RETURN QUERY SELECT * FROM settlement._explain_deferred(r.waiting);
    END LOOP;
    FOR r IN SELECT d AS dead FROM settlement.dlq d
             WHERE d.trade_id = _explain.trade_id AND d.attached_id = _explain.attached_id LOOP
        places := places + 1;
        trace := (r.dead).trace_id;
        RETURN QUERY SELECT * FROM settlement._explain_dead(r.dead);
    END LOOP;
    FOR r IN SELECT u.* FROM settlement.unapplied u
             WHERE u.trade_id = _explain.trade_id AND u.attached_id = _explain.attached_id LOOP
        places := places + 1;
        RETURN NEXT format('The outcome %s is recorded since %s but not yet written to the trade row%s; next try at %s.  Nothing is sent again for it.',
            r.status || coalesce(' (' || r.settlement_id || ')', ''), settlement._moment(r.recorded_at),
            CASE WHEN r.failures > 0 THEN format(': failed %s times, last with "%s"', r.failures, r.last_failure) ELSE '' END,
            settlement._moment(r.next_apply_at));
        trace := coalesce(trace, r.trace_id);
    END LOOP;
    IF places > 0 THEN
        trace := settlement._trace_id(attached_id, trade_id, trace);
        IF trace IS NOT NULL THEN
            RETURN NEXT format('Its requests have the trace id %s.', trace);
        END IF;
    END IF;
    IF places = 0 THEN
        RETURN QUERY SELECT * FROM settlement._explain_row(trade_id, attached_id, row_found, status,
                                                           settlement_id, settled_at, error);
    ELSIF status = 'SETTLED' THEN
        RETURN NEXT format('Its row says SETTLED%s already: this is a second entry of the same trade, and its key settles only once.',
                           coalesce(' (' || settlement_id || ')', ''));
    END IF;
    FOR r IN SELECT d.* FROM settlement.discrepancies d
             WHERE d.trade_id = _explain.trade_id AND d.attached_id = _explain.attached_id LOOP
        RETURN NEXT format('A person has to look at it: %s at %s, %s.', r.kind, settlement._moment(r.at), r.details);
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._explain(text, integer, boolean, text, text, timestamptz, text) IS 'Internal: all sentences on a trade of one table.';

-- The attached tables to look at, with the statements that read their rows.  They
-- compare in the column's base type, so that the key's index can be used.
CREATE FUNCTION settlement._trade_tables(relation regclass,
    OUT attached_id integer, OUT relid regclass, OUT row_query text,
    OUT pending_query text, OUT still_pending_query text) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one CONSTANT integer := CASE WHEN relation IS NOT NULL THEN settlement._attached_id(relation) END;
    a record;
    key_type regtype;
BEGIN
    FOR a IN SELECT t.* FROM settlement.attached t
             WHERE one IS NULL OR t.attached_id = one ORDER BY t.attached_id
    LOOP
        attached_id := a.attached_id;
        relid := a.relid;
        row_query := NULL;
        pending_query := NULL;
        still_pending_query := NULL;
        SELECT settlement._base_type(c.atttypid) INTO key_type FROM pg_attribute c
        WHERE c.attrelid = a.relid AND c.attname = a.columns ->> 'trade_id' AND NOT c.attisdropped;
        IF FOUND THEN
            row_query := format(
                'SELECT %I::text AS status, %I::text AS settlement_id, %I::timestamptz AS settled_at, %I::text AS error FROM %s WHERE %I = $1::%s LIMIT 1',
                a.columns ->> 'status', a.columns ->> 'settlement_id', a.columns ->> 'settled_at',
                a.columns ->> 'error', a.relid, a.columns ->> 'trade_id', key_type);
            pending_query := format(
                'SELECT coalesce(array_agg(x.id), ''{}'') FROM (SELECT %I::text AS id FROM %s WHERE %I::text = ''PENDING'' LIMIT $1) x',
                a.columns ->> 'trade_id', a.relid, a.columns ->> 'status');
            still_pending_query := format(
                'SELECT coalesce(array_agg(%1$I::text), ''{}'') FROM %2$s WHERE %1$I = ANY ($1::%3$s[]) AND %4$I::text = ''PENDING''',
                a.columns ->> 'trade_id', a.relid, key_type, a.columns ->> 'status');
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._trade_tables(regclass) IS 'Internal: attached tables, with the statements that read their rows.';

-- The row of a trade, with the caller's rights.  row_found is NULL when it cannot be
-- read: no privilege, or the table is gone.
CREATE FUNCTION settlement._trade_row(row_query text, trade_id text, OUT row_found boolean,
    OUT status text, OUT settlement_id text, OUT settled_at timestamptz, OUT error text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
BEGIN
    EXECUTE row_query INTO r USING trade_id;
    GET DIAGNOSTICS row_found = ROW_COUNT;
    status := r.status;
    settlement_id := r.settlement_id;
    settled_at := r.settled_at;
    error := r.error;
EXCEPTION
    WHEN null_value_not_allowed OR insufficient_privilege OR undefined_table OR undefined_column
         OR syntax_error THEN
        row_found := NULL;
    WHEN invalid_text_representation OR numeric_value_out_of_range THEN
        row_found := false;         -- no id of this table's type
END $$;
COMMENT ON FUNCTION settlement._trade_row(text, text) IS 'Internal: read the row of a trade with the caller''s rights.';

CREATE FUNCTION settlement.explain(trade_id text, relation regclass DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    r record;
    known boolean := false;
    tables text[] := '{}';
BEGIN
    FOR t IN SELECT * FROM settlement._trade_tables(relation) LOOP
        SELECT * INTO r FROM settlement._trade_row(t.row_query, explain.trade_id);
        tables := tables || t.relid::text;
        CONTINUE WHEN r.row_found IS NOT TRUE AND relation IS NULL
            AND NOT settlement._is_known(explain.trade_id, t.attached_id);
        known := true;
        RETURN NEXT format('Trade %s of table %s%s:', explain.trade_id, t.relid,
                           coalesce(', whose row says ' || r.status, ''));
        RETURN QUERY SELECT * FROM settlement._explain(explain.trade_id, t.attached_id, r.row_found,
            r.status, r.settlement_id, r.settled_at, r.error);
    END LOOP;
    IF cardinality(tables) = 0 THEN
        RETURN NEXT 'No table is attached: settlement.attach() says which tables hold trades.';
    ELSIF NOT known THEN
        RETURN NEXT format('Trade %s is not known: neither queued, deferred nor dead, and no row of %s that you can read has this id.',
                           explain.trade_id, array_to_string(tables, ', '));
        RETURN NEXT 'Either its INSERT is not committed, or it is in a table that is not attached.';
    END IF;
END $$;
COMMENT ON FUNCTION settlement.explain(text, regclass) IS 'Where a trade is, why, since when, and what happens next, in plain sentences.  Reads the trade row with the caller''s privileges.';

-- Do our tables say anything of it?
CREATE FUNCTION settlement._is_known(trade_id text, attached_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM settlement._places(_is_known.trade_id, _is_known.attached_id))
        OR EXISTS (SELECT FROM settlement.audit_log a
                   WHERE a.trade_id = _is_known.trade_id AND a.attached_id = _is_known.attached_id)
        OR EXISTS (SELECT FROM settlement.attempts a
                   WHERE a.trade_id = _is_known.trade_id AND a.attached_id = _is_known.attached_id)
$$;
COMMENT ON FUNCTION settlement._is_known(text, integer) IS 'Internal: is anything recorded of a trade?';

-- ---------------------------------------------------------------- timeline

CREATE FUNCTION settlement._timeline(trade_id text, attached_id integer)
RETURNS TABLE (at timestamptz, what text, details text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH waiting AS (SELECT * FROM settlement.deferred d
                     WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id),
         queued AS (SELECT * FROM settlement.queue q
                    WHERE q.trade_id = _timeline.trade_id AND q.attached_id = _timeline.attached_id),
         dead AS (SELECT * FROM settlement.dlq d
                  WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id),
         enqueued AS (SELECT enqueued_at FROM waiting UNION SELECT enqueued_at FROM queued
                      UNION SELECT enqueued_at FROM dead)
    SELECT min(e.enqueued_at), 'enqueued', NULL FROM enqueued e HAVING min(e.enqueued_at) IS NOT NULL
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
    FROM queued q JOIN settlement.claims c ON q.id = ANY (c.ids)
    UNION ALL
    SELECT w.retry_at, CASE WHEN w.retry_at > clock_timestamp() THEN 'will be due' ELSE 'due' END, w.reason
    FROM waiting w WHERE isfinite(w.retry_at)
    UNION ALL
    SELECT d.died_at, 'dead: ' || d.status, settlement._describe_failure(d.class, d.code, d.http_status, d.message)
    FROM dead d
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
COMMENT ON FUNCTION settlement._timeline(text, integer) IS 'Internal: what our tables know of the life of a trade.';

CREATE FUNCTION settlement.timeline(trade_id text, relation regclass DEFAULT NULL)
RETURNS TABLE (at timestamptz, what text, details text)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    r record;
    n integer := 0;
    found_in record;
BEGIN
    FOR t IN SELECT * FROM settlement._trade_tables(relation) LOOP
        SELECT * INTO r FROM settlement._trade_row(t.row_query, timeline.trade_id);
        CONTINUE WHEN r.row_found IS NOT TRUE AND NOT settlement._is_known(timeline.trade_id, t.attached_id);
        n := n + 1;
        found_in := ROW (t.attached_id, r.status, r.settlement_id, r.settled_at);
    END LOOP;
    IF n > 1 THEN
        RAISE EXCEPTION 'trade "%" exists in more than one attached table', timeline.trade_id
            USING ERRCODE = 'ambiguous_parameter',
                  HINT = 'Say which one is meant: relation => ''name of the table''.';
    ELSIF n = 0 THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT * FROM settlement._timeline(timeline.trade_id, found_in.f1)
    UNION ALL
    SELECT found_in.f4, 'settled', found_in.f3::text
    WHERE found_in.f2 = 'SETTLED' AND found_in.f4 IS NOT NULL
    ORDER BY 1, 2;
END $$;
COMMENT ON FUNCTION settlement.timeline(text, regclass) IS 'What happened to a trade and when: requests (successful ones only with settlement.attempt_history = all), acts of operators, death, settlement.';
