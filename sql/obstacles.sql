-- obstacles.sql: what stands between a trade and the wallet, and what helps
-- against it: for explain() and for doctor().

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

-- Obstacles as sentences, each with what helps.
CREATE FUNCTION settlement._explain_obstacles(symbol text) RETURNS SETOF text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT o.sentence || coalesce('  ' || o.hint, '') FROM settlement._obstacles(symbol) o
$$;
COMMENT ON FUNCTION settlement._explain_obstacles(text) IS 'Internal: sentences on what stands between a trade and the wallet.';
