-- explain.sql: what is going on with one trade, in plain sentences.
--
-- explain() is SECURITY INVOKER: find.sql says why.  What our tables know comes
-- from the functions beginning with _, which run as the owner.

-- When its turn comes, if that takes a while.
CREATE FUNCTION settlement._explain_turn(q settlement.queue) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before bigint := q.id - coalesce((SELECT s.frontier FROM settlement._database_state() s), 0) - 1;
    pace numeric := (SELECT r.settled / r.window_s FROM settlement._recent() r);
BEGIN
    before := least(before, (SELECT z.queue FROM settlement._sizes() z));
    IF before >= 1000 THEN
        RETURN NEXT format('About %s trades are before it%s.', settlement._compact(before),
            CASE WHEN pace > 0 THEN format('; at the pace of the last minute (%s settled a second) its turn comes in about %s',
                                           settlement._compact(pace), settlement._span(before / pace * interval '1 second'))
                 ELSE ', and none was settled within the last minute' END);
    END IF;
END $$;
COMMENT ON FUNCTION settlement._explain_turn(settlement.queue) IS 'Internal: sentence on when a ready trade has its turn.';

CREATE FUNCTION settlement._explain_flight(attempt integer, slot integer, since timestamptz, phase text) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    waits_for text := (SELECT x.waits_for FROM settlement._workers() w JOIN settlement._waits() x ON x.pid = w.pid
                       WHERE w.slot = _explain_flight.slot LIMIT 1);
BEGIN
    IF phase = 'waiting for standby' THEN
        RETURN NEXT format('Worker %s claimed it at %s for attempt %s; it is sent as soon as the synchronous standbys have that claim (settlement.send_after).',
            _explain_flight.slot, settlement._moment(since), attempt);
    ELSIF phase = 'replied' THEN
        RETURN NEXT format('It is in flight: worker %s claimed it at %s for attempt %s; the wallet has answered, and the answer is being recorded%s.',
            _explain_flight.slot, settlement._moment(since), attempt, coalesce('; the worker waits for: ' || waits_for, ''));
    ELSIF phase IN ('sent', 'replying') THEN
        RETURN NEXT format('It is in flight: worker %s claimed it at %s for attempt %s and has sent the request; the wallet''s answer is waited for.',
            _explain_flight.slot, settlement._moment(since), attempt);
        RETURN NEXT format('Its outcome is recorded as soon as the wallet answers or settlement.request_timeout (%s) is over.', settlement._setting('request_timeout'));
    ELSE
        RETURN NEXT format('It is in flight: worker %s claimed it at %s for attempt %s; the request has not left yet%s.',
            _explain_flight.slot, settlement._moment(since), attempt, coalesce('; the worker waits for: ' || waits_for, ''));
    END IF;
END $$;
COMMENT ON FUNCTION settlement._explain_flight(integer, integer, timestamptz, text) IS 'Internal: sentences on a trade in flight.';

-- As it is now, not as of the snapshot: VOLATILE.
CREATE FUNCTION settlement._is_still_queued(id bigint) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM settlement.queue q WHERE q.id = _is_still_queued.id)
$$;
COMMENT ON FUNCTION settlement._is_still_queued(bigint) IS 'Internal: is the row of the queue still there?';

-- What is in flight is read from shared memory after the snapshot was taken.
CREATE FUNCTION settlement._explain_queued(q settlement.queue) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    flight record;
    claim record;
BEGIN
    SELECT * INTO claim FROM settlement.claims c WHERE q.id = ANY (c.ids);
    SELECT * INTO flight FROM settlement._flights() f WHERE f.queue_id = q.id;
    IF flight.queue_id IS NULL AND NOT settlement._is_still_queued(q.id) THEN
        RETURN NEXT 'It has left the queue while it was looked for: ask again.';
        RETURN;
    END IF;
    IF flight.queue_id IS NOT NULL THEN
        RETURN QUERY SELECT * FROM settlement._explain_flight(q.attempts + 1, flight.slot, flight.since, flight.phase);
    ELSIF claim.token IS NOT NULL THEN
        RETURN NEXT format('It was claimed at %s by a worker that is gone: another worker takes it over and sends it again under the same key.',
            settlement._moment(claim.claimed_at));
    ELSE
        RETURN NEXT format('It is ready for attempt %s; it was enqueued at %s.', q.attempts + 1,
            settlement._moment(q.enqueued_at));
    END IF;
    RETURN QUERY SELECT * FROM settlement._explain_obstacles(q.symbol);
    IF flight.queue_id IS NULL AND claim.token IS NULL THEN
        RETURN QUERY SELECT * FROM settlement._explain_turn(q);
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
            CASE WHEN d.first_sent_at = '-infinity' THEN '; it is not sent again by itself, because its row was gone, the clock was set back, or nobody knows when it was first sent'
                 WHEN forgotten THEN ', because settlement.idempotency_window has passed since it was first sent (or the clock was set back)' ELSE '' END)
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
    RETURN QUERY SELECT * FROM settlement._explain_obstacles(d.symbol);
END $$;
COMMENT ON FUNCTION settlement._explain_deferred(settlement.deferred) IS 'Internal: sentences on a waiting trade.';

-- What the workers do with a dead trade by themselves.
CREATE FUNCTION settlement._explain_redrives(d settlement.dlq) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r settlement.redrives;
    p record;
    what text;
    goes_on boolean := false;
BEGIN
    FOR r IN SELECT * FROM settlement._redrives_for(d) LOOP
        goes_on := true;
        RETURN NEXT format('Redrive %s is under way (%s) and %s it in its turn%s%s: settlement.redrive_progress says how far it is.', r.id, r.reason,
            CASE WHEN r.look_up THEN 'has the wallet asked about' ELSE 'takes' END,
            CASE WHEN r.state = 'canary' AND r.redriven >= r.canary THEN ', once its canary is settled' ELSE '' END,
            coalesce(', unless it has taken ' || r.max || ' before', ''));
    END LOOP;
    FOR p IN SELECT * FROM settlement._policies_for(d) LOOP
        what := CASE WHEN p.look_up THEN 'has the wallet asked about it' ELSE 'redrives it by itself' END;
        goes_on := goes_on OR p.state IN ('due', 'breaker');
        RETURN NEXT format('The policy "%s" %s.%s', p.policy, CASE
            WHEN p.state = 'used up'
            THEN format('has redriven it %s, as often as it may, and does not take it again',
                        CASE p.times WHEN 1 THEN 'once' ELSE p.times || ' times' END)
            WHEN p.state = 'not taken' THEN 'names it and does not take it: the wallet may have moved its money'
            ELSE format('%s%s, time %s of %s', what,
                CASE WHEN p.state = 'breaker' THEN ' when the circuit breaker closes next' ELSE '' END
                || CASE WHEN p.due_at > clock_timestamp()
                        THEN CASE p.state WHEN 'breaker' THEN ', not before ' ELSE ' at ' END || settlement._moment(p.due_at)
                        WHEN p.state = 'due' THEN ' as soon as a worker comes to it' ELSE '' END,
                p.times + 1, p.at_most) END,
            coalesce('  The last time it could not: ' || p.note || '.', ''));
    END LOOP;
    IF goes_on THEN
        RETURN QUERY SELECT * FROM settlement._explain_obstacles(d.symbol);
    END IF;
END $$;
COMMENT ON FUNCTION settlement._explain_redrives(settlement.dlq) IS 'Internal: sentences on the redrives and policies that come to a dead trade.';

CREATE FUNCTION settlement._explain_dead(d settlement.dlq) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    forgotten boolean := d.first_sent_at IS NOT NULL AND settlement._may_be_forgotten(d.first_sent_at);
    give_up text := format(CASE WHEN d.safe_to_discard THEN 'settlement.dlq_purge(trade_id => %L, ...)'
                                ELSE 'settlement.resolve(%L, ...)' END, d.trade_id);
BEGIN
    RETURN NEXT format('It is dead (in the DLQ) since %s after %s: %s.', settlement._moment(d.died_at),
        CASE d.attempts WHEN 1 THEN '1 request' ELSE d.attempts || ' requests' END,
        settlement._describe_failure(d.class, d.code, d.http_status, d.message));
    RETURN NEXT CASE WHEN d.status = 'UNKNOWN' THEN 'The wallet may have moved its money.'
                     WHEN d.safe_to_discard THEN 'The wallet certainly did not move its money.'
                     ELSE 'The wallet has not moved its money for this entry, but it may have done so for where this database, or its row, was restored or adopted from.' END;
    RETURN NEXT CASE
        WHEN d.class = 'key_conflict'
        THEN format('The wallet has this key with other content: compare its books with the trade row, then settlement.resolve(%L, ...).', d.trade_id)
        WHEN d.status = 'UNKNOWN' AND forgotten
        THEN format('settlement.idempotency_window has passed, so it is not sent again before the wallet was asked: settlement.lookup(%1$L), or settlement.resolve(%1$L, ...) from its books.', d.trade_id)
        WHEN d.status = 'UNKNOWN'
        THEN format('settlement.lookup(%1$L) asks the wallet; settlement.redrive(%1$L, ...) sends it again under the same key, which the wallet executes at most once; settlement.resolve(%1$L, ...) records what its books say.', d.trade_id)
        WHEN d.class = 'invalid_trade'
        THEN format('Correct the trade row and settlement.redrive(%1$L, ...), which reads it anew; or %2$s.', d.trade_id, give_up)
        WHEN d.final_rejection
        THEN format('When the cause is mended, settlement.redrive(%1$L, ...) tries it under a new key; %2$s gives it up.', d.trade_id, give_up)
        ELSE format('settlement.redrive(%1$L, ...) tries it again; %2$s gives it up.', d.trade_id, give_up)
        END;
    RETURN QUERY SELECT * FROM settlement._explain_redrives(d);
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
        RETURN NEXT format('That is so after a restore, or for rows inserted while the trigger was disabled: settlement.enqueue_pending(%L, dry_run => false) takes them up.',
                           (SELECT a.relid::text FROM settlement.attached a WHERE a.attached_id = _explain_row.attached_id));
    ELSE
        RETURN NEXT format('Its row says %s%s, and it is not in the DLQ any more.', status, coalesce(' (' || error || ')', ''));
    END IF;
    IF act.id IS NOT NULL THEN
        RETURN NEXT format('The last act of an operator on it was %s by %s at %s%s.', act.act, act.role,
                           settlement._moment(act.at), coalesce(': ' || act.reason, ''));
    END IF;
END $$;
COMMENT ON FUNCTION settlement._explain_row(text, integer, boolean, text, text, timestamptz, text) IS 'Internal: sentences on a trade that is in no state table.';

-- Nothing when neither the row nor our tables know of it and others may.
CREATE FUNCTION settlement._explain(trade_id text, attached_id integer, queued settlement.queue[], row_found boolean,
    status text, settlement_id text, settled_at timestamptz, error text, others boolean) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
    q settlement.queue;
    places integer := 0;
    trace text;
BEGIN
    FOREACH q IN ARRAY queued LOOP
        places := places + 1;
        trace := q.trace_id;
        RETURN QUERY SELECT * FROM settlement._explain_queued(q);
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
        IF row_found IS NOT TRUE AND others AND NOT settlement._was_known(trade_id, attached_id) THEN
            RETURN;
        END IF;
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
COMMENT ON FUNCTION settlement._explain(text, integer, settlement.queue[], boolean, text, text, timestamptz, text, boolean) IS 'Internal: all sentences on a trade of one table.';

CREATE FUNCTION settlement.explain(trade_id text, relation regclass DEFAULT NULL) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    f record;
    known boolean := false;
    tables text[] := '{}';
BEGIN
    FOR f IN SELECT x.relid, x.status,
                    ARRAY(SELECT * FROM settlement._explain(explain.trade_id, x.attached_id, x.queued, x.row_found,
                        x.status, x.settlement_id, x.settled_at, x.error, relation IS NULL)) AS sentences
             FROM settlement._find(explain.trade_id, relation, all_rows => false) x
    LOOP
        tables := tables || f.relid::text;
        CONTINUE WHEN f.sentences = '{}';
        known := true;
        RETURN NEXT format('Trade %s of table %s%s:', explain.trade_id, f.relid,
                           coalesce(', whose row says ' || f.status, ''));
        RETURN QUERY SELECT unnest(f.sentences);
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
