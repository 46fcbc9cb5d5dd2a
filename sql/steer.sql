-- steer.sql: stop, go on, and mend the workers by hand.
--
-- pause() and resume() only write settlement.pauses; workers act on it when it
-- is committed.  So pause() cannot wait for them itself: wait_paused() does, in
-- a transaction of its own.  drain() is a procedure because it commits between
-- its looks: it holds no snapshot while it waits.  What changes shared memory
-- (breaker, rescan, restart_worker) takes effect at once, whether or not the
-- transaction commits.

-- Whoever writes it.
CREATE FUNCTION settlement._pauses_changed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM settlement._announce_pauses();
    RETURN NULL;
END $$;
COMMENT ON FUNCTION settlement._pauses_changed() IS 'Internal: trigger of settlement.pauses that lets workers read it again.';
CREATE TRIGGER pauses_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON settlement.pauses
    FOR EACH STATEMENT EXECUTE FUNCTION settlement._pauses_changed();
ALTER TABLE settlement.pauses ENABLE ALWAYS TRIGGER pauses_changed;

CREATE FUNCTION settlement.pause(reason text, symbol text DEFAULT NULL, until timestamptz DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    what CONSTANT text := coalesce(pause.symbol, '*');
    n bigint;
BEGIN
    PERFORM settlement._require_reason(reason);
    IF what = '' OR pause.until <= clock_timestamp() THEN
        RAISE EXCEPTION 'a pause needs a symbol that is not empty and an end that lies ahead'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Leave out symbol to pause everything, and until to pause without an end.';
    END IF;
    INSERT INTO settlement.pauses AS p (symbol, reason, until)
    VALUES (what, pause.reason, pause.until)
    ON CONFLICT ON CONSTRAINT pauses_pkey DO UPDATE
    SET reason = excluded.reason, until = excluded.until, by = excluded.by, at = excluded.at;
    PERFORM settlement._audit('pause', NULL, NULL,
                              jsonb_build_object('symbol', what, 'until', pause.until), NULL, reason);
    SELECT count(*) INTO n
    FROM settlement._flights() f LEFT JOIN settlement.queue q ON q.id = f.queue_id
    WHERE what = '*' OR q.symbol = what;
    RETURN format('%s paused%s from the commit on; %s in flight now will be finished',
                  CASE what WHEN '*' THEN 'everything is' ELSE what || ' is' END,
                  ' until ' || pause.until,
                  CASE n WHEN 1 THEN '1 trade' ELSE n || ' trades' END);
END $$;
COMMENT ON FUNCTION settlement.pause(text, text, timestamptz) IS 'Stop sending: of one symbol, or of everything; until a time, or until settlement.resume().  New trades are still accepted.  Takes effect at commit; settlement.wait_paused() waits until the workers have acknowledged it.';

CREATE FUNCTION settlement.wait_paused(timeout interval DEFAULT '10 seconds',
    OUT acknowledged boolean, OUT in_flight integer)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    SELECT w.acknowledged, w.in_flight INTO acknowledged, in_flight
    FROM settlement._wait_paused(least(extract(epoch FROM timeout) * 1000, 86400000)::integer) w;
END $$;
COMMENT ON FUNCTION settlement.wait_paused(interval) IS 'Wait until every worker acts on the pauses as they are committed.  Returns whether all do, and how many trades are still in flight.';

CREATE FUNCTION settlement.resume(symbol text DEFAULT NULL, reason text DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    what CONSTANT text := coalesce(resume.symbol, '*');
    others text;
    n bigint;
BEGIN
    DELETE FROM settlement.pauses p WHERE p.symbol = what;
    IF NOT FOUND THEN
        SELECT string_agg(p.symbol, ', ' ORDER BY p.symbol) INTO others FROM settlement.pauses p;
        RAISE EXCEPTION '% not paused',
            CASE what WHEN '*' THEN 'sending is' ELSE format('symbol "%s" is', what) END
            USING ERRCODE = 'undefined_object',
                  HINT = coalesce('Paused are: ' || others || '.', 'Nothing is paused.');
    END IF;
    -- The workers move them, however many, as no pause of their symbol is in force.
    SELECT count(*) INTO n FROM settlement.deferred d WHERE d.reason = 'paused' AND d.symbol = what;
    PERFORM settlement._announce_work();
    PERFORM settlement._audit('resume', NULL, NULL, jsonb_build_object('symbol', what), n, reason);
    SELECT string_agg(CASE p.symbol WHEN '*' THEN 'everything' ELSE p.symbol END, ', ' ORDER BY p.symbol)
    INTO others FROM settlement.pauses p WHERE p.until IS NULL OR p.until > now();
    RETURN format('%s resumed; %s put aside go back to the queue%s',
                  CASE what WHEN '*' THEN 'everything is' ELSE what || ' is' END,
                  CASE n WHEN 1 THEN '1 trade' ELSE n || ' trades' END,
                  '; still paused: ' || others);
END $$;
COMMENT ON FUNCTION settlement.resume(text, text) IS 'End a pause: of one symbol, or the one of everything (pauses of single symbols stay).';

CREATE FUNCTION settlement._released() RETURNS SETOF text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- One look at the index per symbol, however many trades it has.
    WITH RECURSIVE s AS (
        SELECT (SELECT d.symbol FROM settlement.deferred d WHERE d.reason = 'paused'
                ORDER BY d.symbol LIMIT 1) AS symbol
        UNION ALL
        SELECT (SELECT d.symbol FROM settlement.deferred d WHERE d.reason = 'paused' AND d.symbol > s.symbol
                ORDER BY d.symbol LIMIT 1)
        FROM s WHERE s.symbol IS NOT NULL)
    SELECT s.symbol FROM s
    WHERE s.symbol IS NOT NULL
      AND NOT EXISTS (SELECT FROM settlement.pauses p
                      WHERE p.symbol = s.symbol AND (p.until IS NULL OR p.until > clock_timestamp()))
$$;
COMMENT ON FUNCTION settlement._released() IS 'Internal: symbols with trades put aside by a pause that is over.';

-- ---------------------------------------------------------------- drain

CREATE FUNCTION settlement._undrained(OUT drained boolean, OUT summary text, OUT rest bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    state text;
    queued bigint;
    waiting bigint;
BEGIN
    -- By the indexes: either table may hold many dead rows.
    drained := NOT EXISTS (SELECT FROM settlement.queue q WHERE q.id >= 0)
        AND NOT EXISTS (SELECT FROM settlement.deferred d WHERE d.retry_at > '-infinity' AND d.reason <> 'paused'
                        AND (d.reason IN ('retry', 'pending', 'recovered') OR d.retry_at <= clock_timestamp()))
        AND NOT EXISTS (SELECT FROM settlement._released());
    IF drained THEN
        RETURN;
    END IF;
    SELECT s.state, z.queue INTO state, queued FROM settlement.status s, settlement._sizes() z;
    SELECT count(*) INTO waiting
    FROM (SELECT FROM settlement.deferred d
          WHERE d.reason <> 'paused' AND (d.reason IN ('retry', 'pending', 'recovered') OR d.retry_at <= clock_timestamp())
          UNION ALL
          SELECT FROM settlement._released() r JOIN settlement.deferred d ON d.reason = 'paused' AND d.symbol = r
          LIMIT 10000) d;
    rest := queued + waiting;
    summary := format('%s queued or in flight, %s to be retried; state: %s', queued, waiting, state);
END $$;
COMMENT ON FUNCTION settlement._undrained() IS 'Internal: is nothing queued, in flight, due or to be retried?';

CREATE FUNCTION settlement._drained(drained boolean, summary text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT settlement._audit('drain', NULL, NULL,
        jsonb_build_object('drained', _drained.drained, 'summary', _drained.summary), NULL, NULL)
$$;
COMMENT ON FUNCTION settlement._drained(boolean, text) IS 'Internal: note how a drain ended.';

-- No SET clause and not SECURITY DEFINER: a procedure that has either cannot
-- commit.  Hence everything in it is qualified.
CREATE PROCEDURE settlement.drain(timeout interval DEFAULT '1 minute', INOUT drained boolean DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    deadline CONSTANT timestamptz := pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) timeout;
    summary text;
    rest bigint;
    total bigint;
BEGIN
    IF settlement._in_transaction_block() THEN
        RAISE EXCEPTION 'settlement.drain() cannot run inside a transaction block'
            USING ERRCODE = 'active_sql_transaction',
                  HINT = 'It commits between its looks, so as to hold no snapshot while it waits.';
    END IF;
    LOOP
        SELECT u.drained, u.summary, u.rest INTO drained, summary, rest FROM settlement._undrained() u;
        -- New trades come meanwhile: the most that there were.
        IF rest OPERATOR(pg_catalog.>) coalesce(total, 0) THEN
            total := rest;
            PERFORM settlement._progress_begin('drain', NULL, total);
        END IF;
        PERFORM settlement._progress(NULL, total OPERATOR(pg_catalog.-) rest, NULL);
        COMMIT;
        EXIT WHEN drained OR pg_catalog.clock_timestamp() OPERATOR(pg_catalog.>=) deadline;
        PERFORM pg_catalog.pg_sleep(0.1);
        COMMIT;
    END LOOP;
    PERFORM settlement._progress_end();
    PERFORM settlement._drained(drained, summary);
    IF NOT drained THEN
        RAISE NOTICE 'not drained: %', summary;
    END IF;
END $$;
COMMENT ON PROCEDURE settlement.drain(interval, boolean) IS 'CALL settlement.drain(''5 min'') waits until nothing is queued, in flight or to be retried, and says whether that came true.  Trades that are paused, need a look-up or are dead are not waited for.  Not inside a transaction block: it commits between its looks, so as to hold no snapshot.';

-- ---------------------------------------------------------------- breaker and workers

CREATE FUNCTION settlement.breaker_open(reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM settlement._require_reason(reason);
    PERFORM settlement._force_breaker(true);
    PERFORM settlement._audit('breaker_open', NULL, NULL, NULL, NULL, reason);
END $$;
COMMENT ON FUNCTION settlement.breaker_open(text) IS 'Stop sending to the wallet until settlement.breaker_close() or a server restart (settlement.pause() outlasts one).';

CREATE FUNCTION settlement.breaker_close(reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM settlement._force_breaker(false);
    PERFORM settlement._audit('breaker_close', NULL, NULL, NULL, NULL, reason);
END $$;
COMMENT ON FUNCTION settlement.breaker_close(text) IS 'Close the circuit breaker now; it opens again if the wallet still fails.';

CREATE FUNCTION settlement.rescan(reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM settlement._sweep_all();
    PERFORM settlement._count_dead();
    PERFORM settlement._audit('rescan', NULL, NULL, NULL, NULL, reason);
END $$;
COMMENT ON FUNCTION settlement.rescan(text) IS 'Let the workers look through the whole queue again, from its first row, and count the dead letters anew.';

CREATE FUNCTION settlement.restart_worker(slot integer, reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF settlement._stop_worker(slot) IS NOT TRUE THEN
        RAISE EXCEPTION 'slot % has no worker of this database', slot
            USING ERRCODE = 'undefined_object',
                  HINT = 'The view settlement.workers lists them.';
    END IF;
    PERFORM settlement._audit('restart_worker', NULL, NULL, jsonb_build_object('slot', slot), NULL, reason);
END $$;
COMMENT ON FUNCTION settlement.restart_worker(integer, text) IS 'Ask a worker to finish what it has in flight and leave; the launcher starts another one.';
