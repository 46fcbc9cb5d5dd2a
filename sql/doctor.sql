-- doctor.sql: what is wrong with the installation, and what to do about it.
--
-- ok: looked at and well.  warn: works, but a person should know.  fail: trades
-- are not settled, or need a person.  The parts run as the owner and read
-- catalogs and our own tables only; with deep, trade rows are read too, with
-- the caller's rights.  The wallet is really asked, before anything is read, so
-- that no lock on our tables is held meanwhile, and for three seconds at most.

CREATE FUNCTION settlement._doctor_server()
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    library text := settlement._library_version();
    objects text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'settlement');
    s record;
    r record;
BEGIN
    SELECT * INTO s FROM settlement._database_state();
    IF s.send_state IS NULL THEN
        RETURN QUERY SELECT 'library', 'fail',
            CASE WHEN current_setting('shared_preload_libraries') ~ '\msettlement\M'
                 THEN 'there is no room in shared memory for another database'
                 ELSE 'settlement is not in shared_preload_libraries: trades are queued and never sent' END,
            'Set shared_preload_libraries = ''settlement'' and restart the server.';
    ELSE
        RETURN QUERY SELECT 'library', 'ok', 'preloaded, version ' || library, NULL;
    END IF;
    IF library <> objects THEN
        RETURN QUERY SELECT 'version', 'fail',
            format('the library is version %s, the SQL objects are version %s: nothing is sent', library, objects),
            'ALTER EXTENSION settlement UPDATE, or restart the server if the library on disk is newer.';
    ELSE
        RETURN QUERY SELECT 'version', 'ok', 'library and SQL objects are both ' || library, NULL;
    END IF;

    FOR r IN SELECT * FROM (VALUES
            ('fsync', 'off', 'fail', 'a crash of the machine may lose claims, and a settled trade may be sent again later'),
            ('full_page_writes', 'off', 'warn', 'a crash of the machine may corrupt the queue'),
            ('track_counts', 'off', 'fail', 'autovacuum does not come to the queue'),
            ('autovacuum', 'off', 'warn', 'nothing clears away the dead rows of the queue')) AS v (name, bad, status, why)
        WHERE current_setting(v.name) = v.bad
    LOOP
        RETURN QUERY SELECT 'server', r.status, format('%s is %s: %s', r.name, r.bad, r.why),
                            format('ALTER SYSTEM SET %s = on, then reload the server.', r.name);
    END LOOP;
    FOR r IN SELECT x.* FROM settlement._storage() x WHERE x.status <> 'ok' AND x.what IN ('table', 'snapshot') LOOP
        RETURN QUERY SELECT CASE r.what WHEN 'table' THEN 'autovacuum' ELSE 'snapshot' END, r.status,
            format('%s: %s%s', r.object, r.detail, coalesce('; dead rows: ' || r.dead_rows, '')), r.hint;
    END LOOP;
    FOR r IN SELECT coalesce('role ' || o.rolname, '') || CASE WHEN x.setrole <> 0 AND x.setdatabase <> 0 THEN ' in ' ELSE '' END
                    || coalesce('database ' || d.datname, '') AS whom, c AS setting
             FROM pg_db_role_setting x CROSS JOIN unnest(x.setconfig) c
                  LEFT JOIN pg_roles o ON o.oid = x.setrole LEFT JOIN pg_database d ON d.oid = x.setdatabase
             WHERE c = 'session_replication_role=replica' AND (d.datname IS NULL OR d.datname = current_database())
    LOOP
        RETURN QUERY SELECT 'server', 'fail',
            format('%s has %s: its INSERTs do not fire the trigger, so their trades are not queued', r.whom, r.setting),
            'Reset it; settlement.enqueue_pending(table, dry_run => false) takes up what was missed.';
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._doctor_server() IS 'Internal: findings on the server.';

CREATE FUNCTION settlement._doctor_wallet()
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    url text := settlement._setting('wallet_url');
    problem text;
    r record;
BEGIN
    IF url = '' THEN
        RETURN QUERY SELECT 'wallet_url', 'fail', 'settlement.wallet_url is not set: nothing is sent',
            format('ALTER DATABASE %I SET settlement.wallet_url = ''https://...'';', current_database());
    ELSE
        problem := settlement._wallet_url_problem(url);
        RETURN QUERY SELECT 'wallet_url',
            CASE WHEN problem IS NOT NULL THEN 'fail'
                 WHEN url ~* '^http:' AND url !~* '^http://(localhost|127(\.\d+){3}|\[::1\])([:/]|$)' THEN
                     CASE settlement._setting('plain_http') WHEN 'always' THEN 'warn' ELSE 'fail' END
                 ELSE 'ok' END,
            CASE WHEN problem IS NOT NULL THEN 'settlement.wallet_url cannot be used: ' || problem
                 WHEN url ~* '^http:' AND url !~* '^http://(localhost|127(\.\d+){3}|\[::1\])([:/]|$)'
                 THEN 'trades and credentials would cross the network without TLS'
                 ELSE regexp_replace(url, '^(https?://)[^/@]*@', '\1') END,
            CASE WHEN problem IS NOT NULL OR url ~* '^http:' AND url !~* '^http://(localhost|127(\.\d+){3}|\[::1\])([:/]|$)'
                 THEN 'Use an https URL (settlement.plain_http says where plain http is allowed).' END;
    END IF;
    FOR r IN SELECT p.name, p.source FROM pg_settings p
             WHERE p.name = 'settlement.wallet_url' AND p.source IN ('user', 'database user', 'client', 'session')
    LOOP
        RETURN QUERY SELECT 'wallet_url', 'warn',
            format('this session has its own value (from: %s); the workers may have another', r.source),
            'Set it for the database or in postgresql.conf.';
    END LOOP;
    FOR r IN SELECT * FROM settlement._wallet_files() LOOP
        RETURN QUERY SELECT 'files',
            CASE WHEN r.problem IS NULL THEN 'ok' WHEN r.problem LIKE 'others%' THEN 'warn' ELSE 'fail' END,
            format('the file that %s names %s', r.setting, CASE WHEN r.problem IS NULL THEN 'can be read' ELSE 'cannot be used as it is: ' || r.problem END),
            CASE WHEN r.problem LIKE 'others%' THEN 'chmod 600; it belongs to the user that the server runs as.'
                 WHEN r.problem IS NOT NULL THEN 'Put it there for the user that the server runs as, and reload the server.' END;
        RETURN QUERY SELECT 'tls', CASE WHEN r.until < clock_timestamp() THEN 'fail' WHEN r.until < clock_timestamp() + interval '14 days' THEN 'warn' ELSE 'ok' END,
            format('our own certificate %s at %s', CASE WHEN r.until < clock_timestamp() THEN 'ended' ELSE 'ends' END, settlement._moment(r.until)),
            CASE WHEN r.until < clock_timestamp() + interval '14 days'
                 THEN 'Have it renewed, put it into the file that settlement.wallet_cert_file names, and reload: without it the wallet takes no connection.' END
        WHERE r.until IS NOT NULL;
    END LOOP;
    IF settlement._setting('wallet_lookup') = 'off' THEN
        RETURN QUERY SELECT 'wallet_lookup', 'warn',
            'settlement.wallet_lookup is off: an unknown trade past settlement.idempotency_window has to be resolved by hand',
            'Turn it on as soon as the wallet has a look-up; until then, settlement.resolve() from its books.';
    END IF;
    IF settlement._setting('batch_size')::int > settlement._setting('concurrency')::int THEN
        RETURN QUERY SELECT 'batch_size', 'warn',
            format('settlement.batch_size is %s, and a worker has at most settlement.concurrency = %s trades in flight: no batch is longer',
                   settlement._setting('batch_size'), settlement._setting('concurrency')),
            'Set settlement.concurrency to settlement.batch_size times the requests that a worker shall have under way.';
    END IF;
    FOR r IN SELECT s.batch_refused_at AS at, s.batch_refused_status AS http FROM settlement._database_state() s
             WHERE s.batch_refused_at IS NOT NULL AND settlement._setting('batch_size')::int > 1
    LOOP
        RETURN QUERY SELECT 'batch_size', 'warn',
            format('the wallet refused a batch at %s with HTTP status %s, and has answered none since: %s', settlement._moment(r.at), r.http,
                   CASE WHEN r.http IN (404, 405, 413, 415, 501) THEN 'trades are sent singly, and a batch is tried each minute'
                        ELSE 'its trades were sent again, each alone' END),
            CASE WHEN r.http IN (404, 405, 501) THEN 'The wallet has no POST /api/wallets/settle-batch: set settlement.batch_size = 1, or add it there.'
                 WHEN r.http = 413 THEN 'Set settlement.batch_size lower, or let the wallet take longer requests.'
                 ELSE 'settlement.attempts of the class wallet_batch say what it answered.' END;
    END LOOP;
    IF settlement._setting('dead_letter_on_outage') = 'on' THEN
        RETURN QUERY SELECT 'dead_letter_on_outage', 'warn',
            'an outage of the wallet sends trades to the DLQ after settlement.max_attempts',
            'Turn settlement.dead_letter_on_outage off to let them wait instead.';
    END IF;
END $$;
COMMENT ON FUNCTION settlement._doctor_wallet() IS 'Internal: findings on the wallet''s settings.';

-- What the wallet said when it was asked just now.
CREATE FUNCTION settlement._doctor_probe(verdict text, http_status integer, message text, duration_s double precision,
    wallet_clock timestamptz, asked_at timestamptz, certificate_until timestamptz)
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    said CONSTANT text := settlement._describe_failure(verdict, NULL, http_status, message);
    skew CONSTANT interval := wallet_clock - asked_at;
BEGIN
    RETURN QUERY SELECT 'wallet', CASE
            WHEN verdict = 'ok' THEN CASE WHEN duration_s < 1 THEN 'ok' ELSE 'warn' END
            WHEN verdict = 'not tried' OR http_status IS NULL OR verdict IN ('wallet_auth', 'wallet_redirect') THEN 'fail'
            WHEN settlement._setting('wallet_lookup') = 'off' AND http_status < 500 THEN 'ok'
            ELSE 'warn' END,
        CASE WHEN verdict = 'ok' AND duration_s < 1 THEN format('asked just now, it answered within %s ms', round((duration_s * 1000)::numeric, 1))
             WHEN verdict = 'ok' THEN format('asked just now, it needed %s s to answer', round(duration_s::numeric, 1))
             WHEN verdict = 'not tried' THEN 'it cannot be asked: ' || message
             WHEN http_status IS NULL THEN 'asked just now, it did not answer: ' || said
             WHEN settlement._setting('wallet_lookup') = 'off' AND http_status < 500 AND verdict NOT IN ('wallet_auth', 'wallet_redirect')
             THEN format('asked just now, it answered with HTTP %s (it has no look-up)', http_status)
             ELSE 'asked just now for a key that nobody has, it answered: ' || said END,
        CASE WHEN verdict = 'ok' AND duration_s < 1 THEN NULL
             WHEN verdict = 'ok' THEN 'See what slows it; settlement.status shows the last minute''s p50 and p99.'
             WHEN verdict = 'not tried' THEN 'The rows wallet_url and files say which setting.'
             WHEN settlement._setting('wallet_lookup') = 'off' AND http_status < 500 AND verdict NOT IN ('wallet_auth', 'wallet_redirect') THEN NULL
             ELSE settlement._fault_hint(verdict)
                 || CASE WHEN http_status = 404 THEN '  If it has no look-up: settlement.wallet_lookup = off.' ELSE '' END END;
    -- A Date header is cut to the second.
    RETURN QUERY SELECT 'clock', CASE WHEN skew < interval '-6 seconds' OR skew > interval '5 seconds' THEN 'warn' ELSE 'ok' END,
        CASE WHEN skew < interval '-6 seconds' OR skew > interval '5 seconds'
             THEN format('the wallet''s clock is %s %s ours', settlement._span(skew), CASE WHEN skew > interval '0' THEN 'ahead of' ELSE 'behind' END)
             ELSE 'the wallet''s clock and ours agree' END,
        CASE WHEN skew < interval '-6 seconds' OR skew > interval '5 seconds'
             THEN 'Let both follow a time server (chronyc tracking); keep settlement.idempotency_window shorter than the wallet''s by the difference.' END
    WHERE skew IS NOT NULL;
    RETURN QUERY SELECT 'tls', CASE WHEN certificate_until < clock_timestamp() + interval '14 days' THEN 'warn' ELSE 'ok' END,
        'the wallet''s certificate ends at ' || settlement._moment(certificate_until),
        CASE WHEN certificate_until < clock_timestamp() + interval '14 days' THEN 'Have the wallet''s people renew it: afterwards nothing is sent.' END
    WHERE certificate_until IS NOT NULL;
END $$;
COMMENT ON FUNCTION settlement._doctor_probe(text, integer, text, double precision, timestamptz, timestamptz, timestamptz) IS 'Internal: findings on the wallet''s answer, its clock and its certificate.';

CREATE FUNCTION settlement._doctor_workers()
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
    w record;
BEGIN
    SELECT * INTO s FROM settlement._database_state();
    IF s.send_state IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT 'launcher', CASE WHEN s.launcher_pid IS NULL THEN 'fail' ELSE 'ok' END,
        coalesce('runs as process ' || s.launcher_pid, 'the settlement launcher does not run'),
        CASE WHEN s.launcher_pid IS NULL THEN 'See the server log; it starts again by itself, unless max_worker_processes is used up.' END;
    RETURN QUERY SELECT 'workers',
        CASE WHEN s.workers = 0 THEN 'fail' WHEN s.workers < s.workers_wanted THEN 'warn' ELSE 'ok' END,
        format('%s of %s run', s.workers, s.workers_wanted),
        CASE WHEN s.workers >= greatest(s.workers_wanted, 1) THEN NULL
             WHEN s.holds > 0 THEN 'DDL on the database or the extension holds them back.'
             WHEN s.workers_wanted = 0 THEN 'See settlement.workers and settlement.databases.'
             ELSE format('max_worker_processes is %s and settlement.max_workers is %s, for all databases together.',
                         current_setting('max_worker_processes'), settlement._setting('max_workers')) END;
    IF s.register_failures > 0 THEN
        RETURN QUERY SELECT 'max_worker_processes', 'fail',
            format('max_worker_processes is %s and all are in use: settlement cannot start its workers, or look for databases',
                   current_setting('max_worker_processes')),
            format('Raise it by at least %s (settlement.max_workers and two more) and restart the server.',
                   settlement._setting('max_workers')::int + 2);
    ELSIF current_setting('max_worker_processes')::integer < settlement._setting('max_workers')::integer + 2 THEN
        RETURN QUERY SELECT 'max_worker_processes', 'warn',
            format('max_worker_processes is %s: too few for settlement.max_workers = %s, its launcher and a probe',
                   current_setting('max_worker_processes'), settlement._setting('max_workers')),
            'Raise it, leaving room for parallel queries and logical replication, and restart the server.';
    END IF;
    FOR w IN SELECT * FROM settlement._workers() x
             WHERE x.state = 'orphaned' OR x.heartbeat < clock_timestamp() - interval '30 seconds'
    LOOP
        RETURN QUERY SELECT 'workers', 'warn',
            format('worker %s %s', w.slot, CASE w.state WHEN 'orphaned' THEN 'is gone and its trades are not taken over yet'
                ELSE format('(process %s) has shown no sign of life since %s', w.pid, settlement._moment(w.heartbeat)) END),
            CASE WHEN w.state = 'orphaned' THEN 'Another worker takes them over by itself; if none does, see the row "launcher" and the server log.'
                 ELSE format('SELECT settlement.restart_worker(%s); if that does not help, end the process.', w.slot) END;
    END LOOP;

    RETURN QUERY SELECT 'sending', CASE WHEN o.kind IN ('paused', 'rate limited', 'slow', 'recovery', 'starting', 'disabled')
                                        OR o.kind = 'breaker' AND s.breaker_manual THEN 'warn' ELSE 'fail' END,
                        rtrim(o.sentence, '.'), o.hint FROM settlement._obstacles(NULL) o;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'sending', 'ok', 'nothing stands between a trade and the wallet', NULL;
    END IF;
    RETURN QUERY SELECT 'pauses', 'warn', format('%s is paused by %s since %s: %s',
            p.symbol, p.by, settlement._moment(p.at), p.reason), format('SELECT settlement.resume(%L);', p.symbol)
        FROM settlement.pauses p WHERE p.symbol <> '*' AND (p.until IS NULL OR p.until > now());
END $$;
COMMENT ON FUNCTION settlement._doctor_workers() IS 'Internal: findings on the workers.';

-- Where a claim must be before its requests leave.
CREATE FUNCTION settlement._doctor_standby()
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    names CONSTANT text := current_setting('synchronous_standby_names');
    sends_after CONSTANT text := settlement._setting('send_after');
    held_since CONSTANT timestamptz := (SELECT s.held_since FROM settlement._database_state() s);
    n bigint;
BEGIN
    SELECT count(*) INTO n FROM pg_stat_replication r WHERE r.sync_state IN ('sync', 'quorum');
    IF sends_after = 'standby' AND names = '' THEN
        RETURN QUERY SELECT 'standby', 'fail',
            'settlement.send_after is standby, and there is no synchronous standby: nothing is sent',
            'Set synchronous_standby_names, or settlement.send_after = local, and reload.';
    ELSIF held_since < clock_timestamp() - interval '1 second' THEN
        RETURN QUERY SELECT 'standby', 'fail',
            format('no synchronous standby has confirmed what was claimed at %s: nothing is sent; synchronous standbys that stream now: %s',
                   settlement._moment(held_since), n),
            'pg_stat_replication shows the standbys; one that synchronous_standby_names lists must be streaming.';
    ELSIF sends_after = 'standby' THEN
        RETURN QUERY SELECT 'standby', CASE n WHEN 0 THEN 'warn' ELSE 'ok' END,
            'requests leave once a synchronous standby has the claim; synchronous standbys that stream now: ' || n,
            CASE n WHEN 0 THEN 'Nothing will be sent until one of synchronous_standby_names is back; pg_stat_replication shows them.' END;
    END IF;
    SELECT count(*) INTO n FROM settlement._workers() w JOIN pg_stat_activity a USING (pid) WHERE a.wait_event = 'SyncRep';
    IF n > 0 AND sends_after = 'local' THEN
        RETURN QUERY SELECT 'standby', 'warn',
            format('%s of the workers wait for a synchronous standby to confirm a commit', n),
            'pg_stat_replication shows the standbys; one that synchronous_standby_names lists must be streaming.';
    END IF;
    -- A reply is at most wal_receiver_status_interval old.
    RETURN QUERY SELECT 'clock', 'warn',
        format('the clock of standby %s is %s', coalesce(nullif(r.application_name, ''), r.pid::text),
               CASE WHEN r.reply_time > clock_timestamp() THEN settlement._span(r.reply_time - clock_timestamp()) || ' ahead of ours'
                    ELSE 'behind ours, or it has not replied for ' || settlement._span(clock_timestamp() - r.reply_time) END),
        'Let both follow a time server: after a failover, retries, pauses and settlement.idempotency_window go by its clock.'
    FROM pg_stat_replication r
    WHERE r.state = 'streaming' AND (r.reply_time > clock_timestamp() + interval '2 seconds' OR r.reply_time < clock_timestamp() - interval '1 minute');
    RETURN QUERY SELECT 'clock', 'warn',
        format('the clock was set back by %s since the server started', settlement._span(settlement._clock_latest() - clock_timestamp())),
        'Trades first sent before then count as older than they are; see "The clock" in docs/operations.md.'
    WHERE settlement._clock_latest() > clock_timestamp() + interval '2 seconds';
    RETURN QUERY SELECT 'replication', 'warn',
        format('replication slot "%s" is not in use and keeps %s of WAL', r.slot_name, pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), r.restart_lsn))),
        'Bring its standby back, or pg_drop_replication_slot() it before the disk is full; max_slot_wal_keep_size bounds it.'
    FROM pg_replication_slots r
    WHERE NOT pg_is_in_recovery() AND NOT r.active AND pg_wal_lsn_diff(pg_current_wal_lsn(), r.restart_lsn) > 1073741824;
END $$;
COMMENT ON FUNCTION settlement._doctor_standby() IS 'Internal: findings on standbys, their slots and the clocks.';

-- One attached table: problems only.
CREATE FUNCTION settlement._doctor_table(a settlement.attached)
RETURNS TABLE (status text, detail text, hint text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH trigger_functions AS (
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'settlement'::regnamespace AND p.prorettype = 'trigger'::regtype),
    members AS (
        SELECT c.oid, c.oid::regclass AS name, c.relkind, c.relowner, c.relpersistence, c.relreplident
        FROM pg_class c
        WHERE c.oid = a.relid OR c.oid IN (SELECT t.relid FROM pg_partition_tree(a.relid) t)),
    written AS (
        SELECT e.value AS name FROM jsonb_each_text(a.columns) e
        WHERE e.key IN ('status', 'settlement_id', 'settled_at', 'attempts', 'error'))
    SELECT 'fail', format('%s has no settlement trigger: its new trades are not queued', m.name),
           format('SELECT settlement.attach(%L);', a.relid::text)
    FROM members m
    WHERE NOT EXISTS (SELECT FROM pg_trigger t
                      WHERE t.tgrelid = m.oid AND t.tgfoid IN (SELECT f.oid FROM trigger_functions f))
    UNION ALL
    SELECT 'fail', format('trigger %s of %s is disabled: its new trades are not queued', t.tgname, m.name),
           format('ALTER TABLE %s ENABLE TRIGGER %I; then settlement.enqueue_pending(%L, dry_run => false) takes up what was missed.',
                  m.name, t.tgname, a.relid::text)
    FROM members m JOIN pg_trigger t ON t.tgrelid = m.oid
    WHERE t.tgfoid IN (SELECT f.oid FROM trigger_functions f) AND t.tgenabled IN ('D', 'R')
    UNION ALL
    SELECT 'fail', format('column %I (%s) of %s does not exist any more', e.value, e.key, a.relid),
           format('Add it again, or SELECT settlement.attach(%L, ...) with another mapping.', a.relid::text)
    FROM jsonb_each_text(a.columns) e
    WHERE e.value IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_attribute c WHERE c.attrelid = a.relid AND c.attname = e.value
                      AND c.attnum > 0 AND NOT c.attisdropped)
    UNION ALL
    SELECT 'warn', format('column %I of %s has no default PENDING: only rows that say PENDING are settled', a.columns ->> 'status', a.relid),
           format('ALTER TABLE %s ALTER %I SET DEFAULT ''PENDING'';', a.relid, a.columns ->> 'status')
    WHERE EXISTS (SELECT FROM members)
      AND NOT EXISTS (SELECT FROM pg_attrdef d JOIN pg_attribute c ON c.attrelid = d.adrelid AND c.attnum = d.adnum
                      WHERE d.adrelid = a.relid AND c.attname = a.columns ->> 'status'
                        AND pg_get_expr(d.adbin, d.adrelid) ~ '''PENDING''')
    UNION ALL
    SELECT 'fail', format('the primary key of %s is not (%s) any more', a.relid, array_to_string(a.key_columns, ', ')),
           format('SELECT settlement.detach(%L), then attach it again.', a.relid::text)
    WHERE EXISTS (SELECT FROM members)
      AND a.key_columns IS DISTINCT FROM ARRAY(
          SELECT c.attname FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n)
               JOIN pg_attribute c ON c.attrelid = i.indrelid AND c.attnum = k.attnum
          WHERE i.indrelid = a.relid AND i.indisprimary AND k.n <= i.indnkeyatts ORDER BY k.n)
    UNION ALL
    SELECT 'fail', format('%s is unlogged: a crash may lose trades that were paid', m.name),
           format('ALTER TABLE %s SET LOGGED;', m.name)
    FROM members m WHERE m.relpersistence = 'u'
    UNION ALL
    SELECT 'warn', format('the owner of %s is superuser %s: outcomes are written, and the table''s triggers run, as that role', min(m.name::text), r.rolname),
           'ALTER TABLE ... OWNER TO a role without SUPERUSER.'
    FROM members m JOIN pg_roles r ON r.oid = m.relowner WHERE r.rolsuper GROUP BY r.rolname
    UNION ALL
    SELECT 'fail', format('the owner of %s, %s, cannot create partitions: EXECUTE on the trigger''s function is missing', min(m.name::text), r.rolname),
           format('GRANT EXECUTE ON FUNCTION settlement.enqueue() TO %I;', r.rolname)
    FROM members m JOIN pg_roles r ON r.oid = m.relowner
    WHERE m.relkind = 'p' AND NOT has_function_privilege(m.relowner, 'settlement.enqueue()', 'EXECUTE') GROUP BY r.rolname
    UNION ALL
    SELECT DISTINCT 'warn', format('index %s of %s uses a column that settlement writes: each update is several times as dear (no HOT)', d.objid::regclass, m.name),
           'Look for trades by status in settlement''s views instead, and drop the index.'
    FROM members m
         JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = m.oid
         JOIN pg_class i ON i.oid = d.objid AND i.relkind IN ('i', 'I')
         JOIN pg_attribute c ON c.attrelid = m.oid AND c.attnum = d.refobjsubid
    WHERE c.attname IN (SELECT w.name FROM written w)
    UNION ALL
    SELECT DISTINCT 'fail', format('%s is published with updates (%s) and has no replica identity: outcomes cannot be written', m.name, p.pubname),
           format('ALTER TABLE %s REPLICA IDENTITY DEFAULT;', m.name)
    FROM members m JOIN pg_publication_tables t ON (quote_ident(t.schemaname) || '.' || quote_ident(t.tablename))::regclass = m.oid
         JOIN pg_publication p ON p.pubname = t.pubname
    WHERE p.pubupdate AND m.relkind = 'r'
      AND (m.relreplident = 'n' OR m.relreplident = 'd'
           AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = m.oid AND i.indisprimary))
    UNION ALL
    SELECT 'fail', format('the table with source "%s" was dropped, and trades refer to it', a.source),
           'settlement.resolve() or settlement.dlq_purge() what is left of it.'
    WHERE NOT EXISTS (SELECT FROM members)
      AND (EXISTS (SELECT FROM settlement.queue q WHERE q.attached_id = a.attached_id)
           OR EXISTS (SELECT FROM settlement.deferred d WHERE d.attached_id = a.attached_id)
           OR EXISTS (SELECT FROM settlement.dlq d WHERE d.attached_id = a.attached_id))
$$;
COMMENT ON FUNCTION settlement._doctor_table(settlement.attached) IS 'Internal: findings on one attached table.';

CREATE FUNCTION settlement._doctor_tables()
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a settlement.attached;
    name text;
    problem text;
    n integer := 0;
    problems integer;
BEGIN
    FOR a IN SELECT * FROM settlement.attached t WHERE t.detached_at IS NULL ORDER BY t.attached_id LOOP
        n := n + 1;
        name := 'table ' || a.relid;
        RETURN QUERY SELECT name, f.status, f.detail, f.hint FROM settlement._doctor_table(a) f;
        GET DIAGNOSTICS problems = ROW_COUNT;
        IF problems = 0 THEN
            RETURN QUERY SELECT name, 'ok', format('attached with source "%s"', a.source), NULL;
        END IF;
    END LOOP;
    IF n = 0 THEN
        RETURN QUERY SELECT 'tables', 'warn', 'no table is attached',
                            'SELECT settlement.attach(''schema.trades'');';
    END IF;
    problem := settlement._identity_problem();
    RETURN QUERY SELECT 'identity', CASE WHEN problem IS NOT NULL AND n > 0 THEN 'fail' ELSE 'ok' END,
        CASE WHEN problem IS NULL THEN format('may send from this place; epoch %s, adopted by %s at %s', i.epoch, i.adopted_by, settlement._moment(i.adopted_at))
             WHEN i.singleton IS NOT NULL THEN format('this database must not send: %s', problem)
             WHEN n > 0 THEN 'there is no identity: nothing is sent'
             ELSE 'none yet; attach() writes it' END,
        CASE WHEN problem IS NOT NULL AND n > 0 THEN settlement._identity_hint() END
    FROM (SELECT) one LEFT JOIN settlement.identity i ON true;
    RETURN QUERY SELECT 'replication', 'fail', format('subscription "%s" writes settlement''s table %s: its rows are another database''s', u.subname, r.srrelid::regclass),
        format('Leave schema settlement out of the publication, then ALTER SUBSCRIPTION %I REFRESH PUBLICATION;', u.subname)
    FROM pg_subscription_rel r JOIN pg_class c ON c.oid = r.srrelid JOIN pg_subscription u ON u.oid = r.srsubid
    WHERE c.relnamespace = 'settlement'::regnamespace;
    RETURN QUERY SELECT 'replication', 'warn', format('publication "%s" includes settlement''s own tables: a subscriber that has the extension would be fenced', p.pubname),
        CASE WHEN bool_or(x.puballtables) THEN 'Publish the trade tables by name, or their schemas, not FOR ALL TABLES.'
             ELSE 'ALTER PUBLICATION ... DROP what is in schema settlement.' END
    FROM pg_publication_tables p JOIN pg_publication x ON x.pubname = p.pubname
    WHERE p.schemaname = 'settlement' GROUP BY p.pubname;
END $$;
COMMENT ON FUNCTION settlement._doctor_tables() IS 'Internal: findings on the attached tables.';

CREATE FUNCTION settlement._doctor_trades()
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    z record;
    n bigint;
    at timestamptz;
    r record;
BEGIN
    SELECT * INTO z FROM settlement._sizes();
    RETURN QUERY
    WITH c AS (SELECT x.class, sum(x.trades) AS trades FROM settlement.dlq_summary x GROUP BY x.class ORDER BY 2 DESC, 1),
         d AS (SELECT string_agg(format('%s %s', y.trades, y.class), ', ' ORDER BY y.trades DESC, y.class) AS classes
               FROM (SELECT * FROM c LIMIT 6) y)
    SELECT 'dlq', CASE WHEN z.dlq > 0 THEN 'warn' ELSE 'ok' END,
        'dead letters: ' || z.dlq || coalesce(' (' || d.classes || CASE WHEN (SELECT count(*) FROM c) > 6 THEN ', ...' ELSE '' END || ')', ''),
        CASE WHEN z.dlq > 0 THEN format('settlement.dlq_summary has more; when a cause is mended: SELECT * FROM settlement.redrive_where(class => %L);',
                                        (SELECT c.class FROM c LIMIT 1)) END
    FROM d;
    IF (z.dlq > 0) <> EXISTS (SELECT FROM settlement.dlq x WHERE x.id >= 0) THEN
        RETURN QUERY SELECT 'dlq', 'warn', 'the tally of the dead letters is wrong: rows were restored or changed without their triggers',
                            'SELECT settlement.rescan();';
    END IF;
    -- What is sent again by itself is none of a person's business for ten minutes.
    RETURN QUERY
    WITH u AS (SELECT coalesce(sum(x.trades), 0) AS trades, coalesce(sum(x.trades) FILTER (WHERE x.place = 'dlq'), 0) AS dead,
                      min(x.oldest) AS oldest FROM settlement.unknown x),
         v AS (SELECT string_agg(y.value || ' ' || y.currency, ', ' ORDER BY y.currency) AS at_risk
               FROM (SELECT x.currency, sum(x.value_at_risk) AS value FROM settlement.unknown x GROUP BY x.currency
                     ORDER BY x.currency LIMIT 20) y)
    SELECT 'unknown', CASE WHEN u.dead > 0 THEN 'fail' WHEN u.oldest < clock_timestamp() - interval '10 minutes' THEN 'warn' ELSE 'ok' END,
        format('trades of which the wallet may have moved the money: %s, of them dead: %s', u.trades, u.dead)
            || CASE WHEN u.trades > 0 THEN format('; value at risk: %s; the oldest was enqueued at %s',
                                                  v.at_risk, settlement._moment(u.oldest)) ELSE '' END,
        CASE WHEN u.dead > 0 THEN 'settlement.resolve_where() asks the wallet; settlement.resolve() records what its books say. Do not discard or reverse them before.'
             WHEN u.oldest < clock_timestamp() - interval '10 minutes' THEN 'settlement.unknown says where they are; they are sent again under the same key when the wallet can be reached.' END
    FROM u, v;

    RETURN QUERY SELECT 'unapplied', CASE WHEN z.unapplied_failing > 0 THEN 'fail' ELSE 'ok' END,
        format('outcomes not written to their trade rows yet: %s, of them failed before: %s', z.unapplied, z.unapplied_failing)
            || coalesce((SELECT format(' (for example: %s)', u.last_failure) FROM settlement.unapplied u
                         WHERE u.failures > 0 ORDER BY u.id LIMIT 1), ''),
        CASE WHEN z.unapplied_failing > 0 THEN 'Remove what keeps the trade rows from being written (settlement.unapplied has the reasons); they are tried again by themselves, and nothing is sent again.' END;

    IF z.needs_lookup > 0 THEN
        SELECT count(*) INTO n FROM settlement.deferred d WHERE d.reason = 'needs_lookup' AND d.retry_at = 'infinity';
        RETURN QUERY SELECT 'needs_lookup', 'warn',
            format('trades that wait until the wallet says what it knows of them: %s, of them for a person: %s', z.needs_lookup, n),
            'settlement.resolve() those that the wallet''s books settle.';
    END IF;
    SELECT count(*) INTO n FROM settlement.deferred d
    WHERE d.reason = 'paused' AND d.symbol IN (SELECT settlement._released());
    IF n > 0 THEN
        RETURN QUERY SELECT 'pauses', 'ok', 'trades put aside by a pause that is over, which go back to the queue: ' || n,
                            NULL::text;
    END IF;
    SELECT min(d.retry_at) INTO at FROM settlement.deferred d WHERE d.reason <> 'paused';
    IF at < clock_timestamp() - interval '1 minute' THEN
        RETURN QUERY SELECT 'deferred', 'warn', format('trades are due since %s and not moved on', settlement._moment(at)),
                            'See the row "sending"; SELECT settlement.rescan() looks at everything again.';
    END IF;
    SELECT q.enqueued_at INTO at FROM settlement.queue q
    WHERE q.id > coalesce((SELECT s.frontier FROM settlement._database_state() s), 0) ORDER BY q.id LIMIT 1;
    RETURN QUERY SELECT 'queue', CASE WHEN at < clock_timestamp() - interval '10 minutes' THEN 'fail'
                                      WHEN at < clock_timestamp() - interval '1 minute' THEN 'warn' ELSE 'ok' END,
        coalesce('the next ready trade has waited since ' || settlement._moment(at), 'no trade waits'),
        CASE WHEN at < clock_timestamp() - interval '1 minute' THEN 'See the row "sending".' END;

    SELECT count(*) INTO n FROM (SELECT FROM settlement.discrepancies LIMIT 10000) d;
    RETURN QUERY SELECT 'discrepancies', CASE WHEN n > 0 THEN 'fail' ELSE 'ok' END, 'contradictions between what was recorded: ' || n,
        CASE WHEN n > 0 THEN 'settlement.discrepancies lists them; each needs a person.' END;

    FOR r IN SELECT x.gid, x.prepared FROM pg_prepared_xacts x
             WHERE x.database = current_database() AND x.prepared < clock_timestamp() - interval '5 minutes' LIMIT 10
    LOOP
        RETURN QUERY SELECT 'transactions', 'warn', format('transaction "%s" is prepared since %s: its trades wait for it, and nothing since then can be vacuumed',
            r.gid, settlement._moment(r.prepared)), 'COMMIT PREPARED or ROLLBACK PREPARED it.';
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._doctor_trades() IS 'Internal: findings on the trades.';

-- Of these trades, which are in no state table?
CREATE FUNCTION settlement._nowhere(attached_id integer, ids text[]) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(i), '{}') FROM unnest(ids) AS i
    WHERE i NOT IN (SELECT q.trade_id FROM settlement.queue q WHERE q.attached_id = _nowhere.attached_id)
      AND NOT EXISTS (SELECT FROM settlement.deferred d WHERE d.trade_id = i AND d.attached_id = _nowhere.attached_id)
      AND NOT EXISTS (SELECT FROM settlement.dlq d WHERE d.trade_id = i AND d.attached_id = _nowhere.attached_id)
      AND NOT EXISTS (SELECT FROM settlement.unapplied u WHERE u.trade_id = i AND u.attached_id = _nowhere.attached_id)
$$;
COMMENT ON FUNCTION settlement._nowhere(integer, text[]) IS 'Internal: trades that are in no state table.';

-- PENDING rows that nobody will settle.  Reads the trade table, which has no
-- index on the status by design: up to ten thousand PENDING rows, after however
-- many others.  A row that was settled between the looks is asked again.
CREATE FUNCTION settlement._doctor_deep()
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound CONSTANT integer := 10000;
    t record;
    ids text[];
    lost text[];
BEGIN
    FOR t IN SELECT * FROM settlement._trade_tables(NULL) x WHERE x.pending_query IS NOT NULL LOOP
        component := 'pending in ' || t.relid;
        hint := NULL;
        BEGIN
            EXECUTE t.pending_query INTO ids USING bound;
            lost := settlement._nowhere(t.attached_id, ids);
            IF cardinality(lost) > 0 THEN
                EXECUTE t.still_pending_query INTO lost USING lost;
                lost := settlement._nowhere(t.attached_id, lost);
            END IF;
            status := CASE WHEN cardinality(lost) > 0 THEN 'fail' ELSE 'ok' END;
            detail := format('PENDING rows looked at: %s%s, of them queued nowhere: %s%s', cardinality(ids),
                CASE WHEN cardinality(ids) = bound THEN ' (there may be more)' ELSE '' END, cardinality(lost),
                coalesce(' (for example ' || lost[1] || ')', ''));
            hint := CASE WHEN cardinality(lost) > 0 THEN format('SELECT settlement.enqueue_pending(%L, dry_run => false);', t.relid::text) END;
        EXCEPTION WHEN insufficient_privilege OR undefined_table OR undefined_column THEN
            status := 'warn';
            detail := 'could not be read: ' || SQLERRM;
        END;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._doctor_deep() IS 'Internal: findings on trade rows.';

CREATE FUNCTION settlement.doctor(deep boolean DEFAULT false, probe boolean DEFAULT true)
RETURNS TABLE (component text, status text, detail text, hint text)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- A copy asks nobody: the wallet is its original's.
    asked CONSTANT boolean := probe AND settlement._setting('wallet_url') <> ''
        AND coalesce((SELECT s.send_state FROM settlement._database_state() s), 'ok') NOT IN ('fenced', 'stale epoch');
    p record;
BEGIN
    IF asked THEN
        SELECT * INTO p FROM settlement._probe_wallet();
    END IF;
    RETURN QUERY SELECT * FROM settlement._doctor_server();
    RETURN QUERY SELECT * FROM settlement._doctor_wallet();
    IF asked THEN
        RETURN QUERY SELECT * FROM settlement._doctor_probe(p.verdict, p.http_status, p.message, p.duration_s,
                                                            p.wallet_clock, p.asked_at, p.certificate_until);
    END IF;
    RETURN QUERY SELECT * FROM settlement._doctor_workers();
    RETURN QUERY SELECT * FROM settlement._doctor_standby();
    RETURN QUERY SELECT * FROM settlement._doctor_tables();
    RETURN QUERY SELECT * FROM settlement._doctor_trades();
    IF deep THEN
        RETURN QUERY SELECT * FROM settlement._doctor_deep();
    END IF;
END $$;
COMMENT ON FUNCTION settlement.doctor(boolean, boolean) IS 'What is wrong and what to do about it: ok, warn or fail per component.  probe: ask the wallet, from this session, for a key that nobody has; three seconds at most; not from a database that must not send.  deep also looks for PENDING rows that are queued nowhere; it reads the trade tables, with the caller''s privileges.';
