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

CREATE FUNCTION settlement._describe_failure(class text, code text, http_status integer, message text)
RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(', ', class, code, 'HTTP ' || http_status) || coalesce(': ' || message, '')
$$;
COMMENT ON FUNCTION settlement._describe_failure(text, text, integer, text) IS 'Internal: a failure in one line.';

-- What helps against a failure of the wallet, by its class (docs/reliability.md).
CREATE FUNCTION settlement._fault_hint(class text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE class
        WHEN 'wallet_auth' THEN 'Put credentials that the wallet accepts into the file that settlement.wallet_auth_file names (or its client certificate), and reload the server.'
        WHEN 'network' THEN 'See that the wallet runs, and that this host reaches it at settlement.wallet_url.'
        WHEN 'network_timeout' THEN 'See why the wallet does not answer within settlement.request_timeout; raise that only if it needs longer by nature.'
        WHEN 'wallet_path' THEN 'See whether settlement.wallet_url leads to the wallet: something answers that does not know the path.'
        WHEN 'wallet_redirect' THEN 'Set settlement.wallet_url to where the wallet is: redirects are not followed.'
        WHEN 'wallet_reply' THEN 'See what answers at settlement.wallet_url: it is not what docs/wallet-contract.md describes.'
        WHEN 'rate_limited' THEN 'Set settlement.rate_limit to what the wallet grants, or settlement.adaptive_concurrency = on.'
        ELSE 'See what is wrong at the wallet: settlement.attempts has its answers.' END
$$;
COMMENT ON FUNCTION settlement._fault_hint(text) IS 'Internal: what to do about a failure of the wallet.';

-- Why this database sends nothing at all, and what helps.
CREATE FUNCTION settlement._send_state_words(send_state text, OUT sentence text, OUT hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    sentence := CASE send_state
        WHEN 'starting' THEN 'The workers are starting.'
        WHEN 'disabled' THEN 'Nothing is sent: settlement.enabled is off.'
        WHEN 'no wallet_url' THEN 'Nothing is sent: settlement.wallet_url is not set.'
        WHEN 'bad configuration' THEN 'Nothing is sent: a setting of the wallet cannot be used; the server log says which.'
        WHEN 'version mismatch' THEN 'Nothing is sent: the library and the SQL objects of the extension have different versions.'
        WHEN 'fenced' THEN format('Nothing is sent: this database is not known to be the one that may send%s; if it is, settlement.adopt(reason) says so.',
            coalesce(' (' || settlement._identity_problem() || ')', ''))
        WHEN 'stale epoch' THEN 'Nothing is sent: the wallet has been told of a newer primary than this one.'
        WHEN 'standby' THEN 'Nothing is sent from a standby.'
        ELSE 'Nothing is sent: ' || send_state || '.' END;
    hint := CASE send_state
        WHEN 'starting' THEN 'Wait some seconds; the server log says what keeps them.'
        WHEN 'disabled' THEN 'ALTER SYSTEM SET settlement.enabled = on, then reload the server.'
        WHEN 'no wallet_url' THEN format('ALTER DATABASE %I SET settlement.wallet_url = ''https://...'';', current_database())
        WHEN 'bad configuration' THEN 'The rows wallet, files and wallet_url of settlement.doctor() say more.'
        WHEN 'version mismatch' THEN 'ALTER EXTENSION settlement UPDATE, or restart the server if the library on disk is newer.'
        WHEN 'fenced' THEN coalesce(settlement._identity_hint(), 'SELECT settlement.adopt(''why this is the one'');')
        WHEN 'stale epoch' THEN 'Find the other primary; SELECT settlement.adopt(''why'') only if this is the right one.'
        WHEN 'standby' THEN 'Look at the primary; after a promotion this server sends by itself.' END;
END $$;
COMMENT ON FUNCTION settlement._send_state_words(text) IS 'Internal: why a database sends nothing.';

-- Breaker, limiter and the wallet's pace.
CREATE FUNCTION settlement._wallet_obstacles(OUT kind text, OUT sentence text, OUT hint text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    r record;
    last_failure text;
BEGIN
    SELECT * INTO s FROM settlement._database_state();
    SELECT * INTO r FROM settlement._recent();
    last_failure := settlement._describe_failure(s.failed_class, NULL, s.failed_status, nullif(s.failed_message, ''));
    IF s.breaker_manual THEN
        kind := 'breaker';
        sentence := format('The circuit breaker was opened by hand at %s.', settlement._moment(s.breaker_changed_at));
        hint := 'SELECT settlement.breaker_close();';
        RETURN NEXT;
    ELSIF s.breaker <> 'closed' THEN
        kind := 'breaker';
        sentence := format('The circuit breaker is %s because the wallet fails since %s%s%s.', s.breaker,
            settlement._moment(coalesce(s.failing_since, s.breaker_changed_at)), coalesce(': ' || nullif(last_failure, ''), ''),
            coalesce('; the next probe may leave at ' || settlement._moment(s.breaker_open_until), ''));
        hint := settlement._fault_hint(s.failed_class) || '  Trades wait meanwhile, uncharged, and go on by themselves.';
        RETURN NEXT;
    END IF;
    IF s.limited_until IS NOT NULL THEN
        kind := 'rate limited';
        sentence := format('The wallet wants fewer requests: none is sent before %s%s.', settlement._moment(s.limited_until),
                           coalesce('; it last said ' || nullif(last_failure, ''), ''));
        hint := settlement._fault_hint('rate_limited') || '  Trades go on by themselves.';
        RETURN NEXT;
    ELSIF s.throttled THEN
        kind := 'rate limited';
        sentence := format('settlement.rate_limit is reached: %s requests a second.', settlement._setting('rate_limit'));
        hint := 'Raise settlement.rate_limit and reload the server, if the wallet takes more; trades go on by themselves.';
        RETURN NEXT;
    END IF;
    IF settlement._is_slow(r.answered, r.request_p50) THEN
        kind := 'slow';
        sentence := format('The wallet is slow: half of its %s answers of the last minute took %s s or more, one in a hundred %s s.',
            r.answered, round(r.request_p50::numeric, 1), round(r.request_p99::numeric, 1));
        hint := 'More requests at a time (settlement.concurrency, settlement.workers) help only if the wallet can take them; see what slows it.';
        RETURN NEXT;
    END IF;
END $$;
COMMENT ON FUNCTION settlement._wallet_obstacles() IS 'Internal: what the wallet, or its protection, does to the pace.';

-- What stands between a ready trade and the wallet, most general first; nothing
-- when all is well.  symbol NULL: what concerns every trade.
CREATE FUNCTION settlement._obstacles(symbol text, OUT kind text, OUT sentence text, OUT hint text) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    p record;
BEGIN
    SELECT * INTO s FROM settlement._database_state();
    IF s.send_state IS NULL THEN
        RETURN QUERY SELECT 'library', 'Nothing is sent: settlement is not in shared_preload_libraries.',
                            'Set shared_preload_libraries = ''settlement'' and restart the server.';
        RETURN;
    END IF;
    IF s.send_state NOT IN ('ok', 'starting') THEN
        RETURN QUERY SELECT s.send_state, w.* FROM settlement._send_state_words(s.send_state) w;
    END IF;
    IF s.workers = 0 THEN
        RETURN QUERY SELECT 'no workers', format('No worker runs for this database (%s wanted)%s.', s.workers_wanted,
                CASE WHEN s.holds > 0 THEN ': DDL on the database or the extension holds them back' ELSE '' END),
            CASE WHEN s.holds > 0 THEN 'End the transaction with that DDL.'
                 WHEN s.workers_wanted = 0 THEN 'See settlement.workers and settlement.databases, also of this database (ALTER DATABASE).'
                 WHEN s.register_failures > 0 THEN 'Raise max_worker_processes and restart the server.'
                 ELSE 'They start by themselves; the server log says what keeps them.' END;
    ELSIF s.send_state = 'starting' THEN
        RETURN QUERY SELECT s.send_state, w.* FROM settlement._send_state_words(s.send_state) w;
    END IF;
    FOR p IN SELECT * FROM settlement.pauses u
             WHERE u.symbol IN ('*', _obstacles.symbol) AND (u.until IS NULL OR u.until > clock_timestamp())
             ORDER BY u.symbol
    LOOP
        RETURN QUERY SELECT 'paused', format('%s paused by %s since %s, %s: %s.',
                CASE p.symbol WHEN '*' THEN 'Everything is' ELSE 'The symbol ' || p.symbol || ' is' END,
                p."by", settlement._moment(p.at),
                coalesce('until ' || settlement._moment(p.until), 'without an end'), p.reason),
            format('SELECT settlement.resume(%s);', CASE p.symbol WHEN '*' THEN '' ELSE quote_literal(p.symbol) END);
    END LOOP;
    RETURN QUERY SELECT * FROM settlement._wallet_obstacles();
    IF s.held_since < clock_timestamp() - interval '1 second' THEN
        RETURN QUERY SELECT 'standby', format('Nothing is sent: no synchronous standby has confirmed what was claimed at %s.',
                                              settlement._moment(s.held_since)),
            'pg_stat_replication shows the standbys; one that synchronous_standby_names lists must be streaming.';
    END IF;
    IF NOT s.recovered AND s.send_state IN ('ok', 'starting') AND s.workers > 0 THEN
        RETURN QUERY SELECT 'recovery', 'What the last server start had in flight is being taken over first.', 'Wait some seconds.';
    END IF;
END $$;
COMMENT ON FUNCTION settlement._obstacles(text) IS 'Internal: why ready trades are not sent, and what to do about it.';

-- The queue has no index by trade id (nothing on the hot path needs one), so it is
-- read through, by several processes where the server allows.
CREATE FUNCTION settlement._queued(trade_id text, attached_id integer) RETURNS SETOF settlement.queue
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT q.* FROM settlement.queue q
    WHERE q.trade_id = _queued.trade_id AND q.attached_id = _queued.attached_id
$$;
COMMENT ON FUNCTION settlement._queued(text, integer) IS 'Internal: queue rows of a trade.';

-- Obstacles as sentences, each with what helps.
CREATE FUNCTION settlement._explain_obstacles(symbol text) RETURNS SETOF text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT o.sentence || coalesce('  ' || o.hint, '') FROM settlement._obstacles(symbol) o
$$;
COMMENT ON FUNCTION settlement._explain_obstacles(text) IS 'Internal: sentences on what stands between a trade and the wallet.';

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

CREATE FUNCTION settlement._explain_queued(q settlement.queue) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    flight record;
    claim record;
BEGIN
    SELECT * INTO flight FROM settlement._flights() f WHERE f.queue_id = q.id;
    SELECT * INTO claim FROM settlement.claims c WHERE q.id = ANY (c.ids);
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
    RETURN QUERY SELECT * FROM settlement._explain_obstacles(d.symbol);
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

CREATE FUNCTION settlement._was_known(trade_id text, attached_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM settlement.audit_log a
                   WHERE a.trade_id = _was_known.trade_id AND a.attached_id = _was_known.attached_id)
        OR EXISTS (SELECT FROM settlement.attempts a
                   WHERE a.trade_id = _was_known.trade_id AND a.attached_id = _was_known.attached_id)
$$;
COMMENT ON FUNCTION settlement._was_known(text, integer) IS 'Internal: is there an attempt or an act recorded of a trade?';

-- Nothing when neither the row nor our tables know of it and others may.
CREATE FUNCTION settlement._explain(trade_id text, attached_id integer, row_found boolean, status text,
    settlement_id text, settled_at timestamptz, error text, others boolean) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
    places integer := 0;
    trace text;
BEGIN
    FOR r IN SELECT q AS queued FROM settlement._queued(trade_id, attached_id) q LOOP
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
COMMENT ON FUNCTION settlement._explain(text, integer, boolean, text, text, timestamptz, text, boolean) IS 'Internal: all sentences on a trade of one table.';

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
    sentences text[];
BEGIN
    FOR t IN SELECT * FROM settlement._trade_tables(relation) LOOP
        SELECT * INTO r FROM settlement._trade_row(t.row_query, explain.trade_id);
        tables := tables || t.relid::text;
        sentences := ARRAY(SELECT * FROM settlement._explain(explain.trade_id, t.attached_id, r.row_found,
            r.status, r.settlement_id, r.settled_at, r.error, relation IS NULL));
        CONTINUE WHEN sentences = '{}';
        known := true;
        RETURN NEXT format('Trade %s of table %s%s:', explain.trade_id, t.relid,
                           coalesce(', whose row says ' || r.status, ''));
        RETURN QUERY SELECT unnest(sentences);
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

CREATE FUNCTION settlement._is_known(trade_id text, attached_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT settlement._was_known(_is_known.trade_id, _is_known.attached_id)
        OR EXISTS (SELECT FROM settlement._places(_is_known.trade_id, _is_known.attached_id))
$$;
COMMENT ON FUNCTION settlement._is_known(text, integer) IS 'Internal: is anything recorded of a trade?';

-- ---------------------------------------------------------------- timeline

CREATE FUNCTION settlement._timeline(trade_id text, attached_id integer)
RETURNS TABLE (at timestamptz, what text, details text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH waiting AS (SELECT * FROM settlement.deferred d
                     WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id),
         queued AS MATERIALIZED (SELECT * FROM settlement._queued(_timeline.trade_id, _timeline.attached_id)),
         dead AS (SELECT * FROM settlement.dlq d
                  WHERE d.trade_id = _timeline.trade_id AND d.attached_id = _timeline.attached_id),
         enqueued AS (SELECT enqueued_at, symbol FROM waiting UNION SELECT enqueued_at, symbol FROM queued
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
COMMENT ON FUNCTION settlement.timeline(text, regclass) IS 'What happened to a trade and when: requests (successful ones only with settlement.attempt_history = all), acts of operators on it, and on everything while it was under way, death, settlement.';

-- ---------------------------------------------------------------- evidence

-- What is recorded of a trade, with the request that its snapshot makes.
CREATE FUNCTION settlement._evidence(trade_id text, attached_id integer, trade_row jsonb, OUT evidence jsonb)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a settlement.attached;
    copies jsonb;
    snapshot settlement.queue;
    generation integer;
    body bytea;
BEGIN
    SELECT * INTO a FROM settlement.attached t WHERE t.attached_id = _evidence.attached_id;
    SELECT jsonb_agg(c.facts) INTO copies FROM (
        SELECT to_jsonb(q) || '{"place": "queue"}' AS facts FROM settlement._queued(_evidence.trade_id, _evidence.attached_id) q
        UNION ALL
        SELECT to_jsonb(d) || '{"place": "deferred"}' FROM settlement.deferred d
        WHERE d.trade_id = _evidence.trade_id AND d.attached_id = _evidence.attached_id
        UNION ALL
        SELECT to_jsonb(d) || '{"place": "dlq"}' FROM settlement.dlq d
        WHERE d.trade_id = _evidence.trade_id AND d.attached_id = _evidence.attached_id) c;
    snapshot := jsonb_populate_record(NULL::settlement.queue, coalesce(copies -> 0, trade_row));
    body := settlement._request_body(snapshot);
    generation := coalesce(snapshot.generation::integer, (
        SELECT max(g.n) FROM (
            SELECT t.generation::integer AS n FROM settlement.attempts t
            WHERE t.trade_id = _evidence.trade_id AND t.attached_id = _evidence.attached_id
            UNION ALL
            SELECT (l.details ->> 'generation')::integer FROM settlement.audit_log l
            WHERE l.trade_id = _evidence.trade_id AND l.attached_id = _evidence.attached_id) g), 0);
    evidence := jsonb_build_object(
        'trade_id', _evidence.trade_id, 'table', a.relid::text, 'source', a.source, 'collected_at', clock_timestamp(),
        'places', (SELECT jsonb_agg(jsonb_strip_nulls(c - '{id,leaf,trade_tid,row_key,attached_id}'::text[])) FROM jsonb_array_elements(copies) c),
        'idempotency_key', settlement._idempotency_key(a.source, _evidence.trade_id, generation),
        'generation', generation,
        'request', CASE WHEN body IS NOT NULL THEN jsonb_build_object(
            'method', 'POST', 'url', rtrim(settlement._setting('wallet_url'), '/') || settlement._settle_path(),
            'made_from', CASE WHEN copies IS NULL THEN 'the trade row as it is now' ELSE 'the copy that was made when it was enqueued' END,
            'body', convert_from(body, 'UTF8'), 'bytes', octet_length(body),
            'sha256', encode(sha256(body), 'hex'), 'sha256_when_first_sent', encode(snapshot.fingerprint, 'hex')) END,
        'replies', (SELECT jsonb_agg(to_jsonb(t) - 'attached_id' - 'trade_id' ORDER BY t.at)
                    FROM settlement.attempts t WHERE t.trade_id = _evidence.trade_id AND t.attached_id = _evidence.attached_id),
        'unapplied', (SELECT jsonb_agg(to_jsonb(u) ORDER BY u.id) FROM settlement.unapplied u
                      WHERE u.trade_id = _evidence.trade_id AND u.attached_id = _evidence.attached_id),
        'acts', (SELECT jsonb_agg(to_jsonb(l) - 'trade_id' - 'attached_id' ORDER BY l.id)
                 FROM settlement.audit_log l WHERE l.trade_id = _evidence.trade_id AND l.attached_id = _evidence.attached_id),
        'discrepancies', (SELECT jsonb_agg(to_jsonb(d) - 'trade_id' - 'attached_id' ORDER BY d.at)
                          FROM settlement.discrepancies d WHERE d.trade_id = _evidence.trade_id AND d.attached_id = _evidence.attached_id));
END $$;
COMMENT ON FUNCTION settlement._evidence(text, integer, jsonb) IS 'Internal: what our tables hold of a trade.';

-- The content of a trade row under the names of the queue, with the caller's rights.
CREATE FUNCTION settlement._content_query(attached_id integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'SELECT jsonb_build_object('
           || string_agg(format('%L, t.%I::text', e.key, e.value), ', ' ORDER BY e.key)
           || format(', ''quote_amount'', t.%I::text::numeric * t.%I::text::numeric) FROM %s t WHERE t.%I = $1::%s LIMIT 1',
                     a.columns ->> 'price', a.columns ->> 'quantity', a.relid, a.columns ->> 'trade_id',
                     (SELECT settlement._base_type(c.atttypid) FROM pg_attribute c
                      WHERE c.attrelid = a.relid AND c.attname = a.columns ->> 'trade_id' AND NOT c.attisdropped))
    FROM settlement.attached a, jsonb_each_text(a.columns) e
    WHERE a.attached_id = _content_query.attached_id
      AND e.key IN ('trade_id', 'symbol', 'buyer_id', 'seller_id', 'buyer_order_id', 'seller_order_id',
                    'price', 'quantity', 'buyer_fee', 'seller_fee')
    GROUP BY a.attached_id, a.columns, a.relid
$$;
COMMENT ON FUNCTION settlement._content_query(integer) IS 'Internal: the statement that reads the content of a trade row.';

CREATE FUNCTION settlement._content(attached_id integer, trade_id text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    content jsonb;
BEGIN
    EXECUTE settlement._content_query(attached_id) INTO content USING trade_id;
    RETURN '{"buyer_fee": "0", "seller_fee": "0"}'::jsonb || content;
EXCEPTION
    WHEN null_value_not_allowed OR insufficient_privilege OR undefined_table OR undefined_column OR syntax_error
         OR invalid_text_representation OR numeric_value_out_of_range THEN
        RETURN NULL;
END $$;
COMMENT ON FUNCTION settlement._content(integer, text) IS 'Internal: the content of a trade row, with the caller''s rights.';

CREATE FUNCTION settlement.evidence(trade_id text, relation regclass DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    r record;
    found_in integer;
    found_row jsonb;
    n integer := 0;
BEGIN
    FOR t IN SELECT * FROM settlement._trade_tables(relation) LOOP
        SELECT * INTO r FROM settlement._trade_row(t.row_query, evidence.trade_id);
        CONTINUE WHEN r.row_found IS NOT TRUE AND NOT settlement._is_known(evidence.trade_id, t.attached_id);
        n := n + 1;
        found_in := t.attached_id;
        found_row := jsonb_build_object('found', r.row_found, 'status', r.status, 'settlement_id', r.settlement_id,
                                        'settled_at', r.settled_at, 'error', r.error);
    END LOOP;
    IF n > 1 THEN
        RAISE EXCEPTION 'trade "%" exists in more than one attached table', evidence.trade_id
            USING ERRCODE = 'ambiguous_parameter',
                  HINT = 'Say which one is meant: relation => ''name of the table''.';
    ELSIF n = 0 THEN
        RETURN NULL;
    END IF;
    RETURN settlement._evidence(evidence.trade_id, found_in, settlement._content(found_in, evidence.trade_id))
        || jsonb_build_object('trade_row', found_row);
END $$;
COMMENT ON FUNCTION settlement.evidence(text, regclass) IS 'All that is kept of a trade, as one document: where it is, its idempotency key, the bytes of its request with their SHA-256 and the one that was noted when they first left, the wallet''s replies (code, status, up to 512 bytes of message), acts of operators, contradictions.  The request of a trade that is not settled is made from the copy of the trade in our tables, byte for byte as it is sent; that of a settled one from the trade row as it is now, since the copy is gone.  No secret is in it.  NULL: the trade is not known.  Reads the trade row with the caller''s privileges.';
