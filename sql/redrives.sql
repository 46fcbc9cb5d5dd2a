-- redrives.sql: redrives that outlast the call: at a pace, or with a canary first.
--
-- redrive_where() writes a row into settlement.redrives; from its commit on the
-- workers work it off in their upkeep, a bounded step at a time, each step one
-- transaction with the trades that it moves.  So a restart goes on where the last
-- commit was.  It walks the DLQ by id up to the last one of its beginning: what
-- dies again comes behind that and is not taken twice.  A step waits for nobody:
-- what another session has locked it skips.

CREATE FUNCTION settlement._redrive_begin(act text, filter jsonb, max bigint, per_second numeric,
    canary integer, look_up boolean, reason text, may_repay boolean) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job bigint;
BEGIN
    INSERT INTO settlement.redrives (state, act, filter, look_up, may_repay, max, per_second, canary,
                                     reason, matching, upto_id)
    SELECT CASE WHEN canary > 0 THEN 'canary' ELSE 'running' END, act, filter, look_up, may_repay, max,
           per_second, canary, reason, count(*), coalesce(max(d.id), 0)
    FROM settlement._dlq_matching(filter) d
    RETURNING id INTO job;
    PERFORM settlement._audit(act, NULL, NULL,
        filter || jsonb_build_object('redrive', job, 'max', max, 'per_second', per_second, 'canary', canary),
        (SELECT r.matching FROM settlement.redrives r WHERE r.id = job), reason);
    PERFORM settlement._announce_work();
    RETURN job;
END $$;
COMMENT ON FUNCTION settlement._redrive_begin(text, jsonb, bigint, numeric, integer, boolean, text, boolean) IS 'Internal: leave a redrive to the workers.';

CREATE FUNCTION settlement._redrive_finish(job bigint, state text, why text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r settlement.redrives;
BEGIN
    UPDATE settlement.redrives u
    SET state = _redrive_finish.state, why = _redrive_finish.why, finished_at = clock_timestamp()
    WHERE u.id = job RETURNING u.* INTO STRICT r;
    PERFORM settlement._audit('redrive_' || state, NULL, NULL,
        jsonb_build_object('redrive', r.id, 'filter', r.filter, 'skipped', r.skipped, 'why', why),
        r.redriven, r.reason, CASE state WHEN 'cancelled' THEN session_user ELSE r."by" END);
END $$;
COMMENT ON FUNCTION settlement._redrive_finish(bigint, text, text) IS 'Internal: end a redrive.';

CREATE FUNCTION settlement.redrive_cancel(id bigint, reason text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r settlement.redrives;
BEGIN
    PERFORM settlement._require_reason(reason);
    SELECT u.* INTO r FROM settlement.redrives u WHERE u.id = redrive_cancel.id FOR UPDATE;
    IF r.id IS NULL OR r.state NOT IN ('canary', 'running') THEN
        RAISE EXCEPTION 'redrive % is not under way', redrive_cancel.id
            USING ERRCODE = 'undefined_object',
                  DETAIL = format('It is %s.', r.state),
                  HINT = 'settlement.redrives lists them.';
    END IF;
    PERFORM settlement._redrive_finish(r.id, 'cancelled', reason);
    RETURN format('redrive %s is cancelled; %s of its trades went on before', r.id, r.redriven);
END $$;
COMMENT ON FUNCTION settlement.redrive_cancel(bigint, text) IS 'End a redrive that the workers are at.  What has gone on already goes on.';

-- ---------------------------------------------------------------- canary

-- What became of a trade that was redriven: settled, waits, or why neither.
CREATE FUNCTION settlement._verdict(attached_id integer, leaf oid, trade_id text, row_key text[]) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    status text;
    read record;
BEGIN
    SELECT concat_ws(' ', 'died:', d.class, d.code, d.message) INTO status
    FROM settlement.dlq d
    WHERE d.attached_id = _verdict.attached_id AND d.trade_id = _verdict.trade_id LIMIT 1;
    IF FOUND THEN
        RETURN status;
    END IF;
    SELECT u.status INTO status FROM settlement.unapplied u
    WHERE u.attached_id = _verdict.attached_id AND u.trade_id = _verdict.trade_id
    ORDER BY u.status IN ('SETTLED', 'REVERSED') DESC LIMIT 1;
    IF NOT FOUND THEN
        SELECT * INTO read FROM settlement._read_row(attached_id, leaf, NULL, trade_id, row_key);
        IF read.result = 'gone' THEN
            RETURN 'its trade row is gone';
        ELSIF read.result = 'unsearched' THEN
            RETURN settlement._redrive_problem(read.result);
        ELSIF read.result = 'locked' THEN
            RETURN 'waits';
        END IF;
        status := read.status;
    END IF;
    RETURN CASE WHEN status IN ('SETTLED', 'REVERSED') THEN 'settled'
                WHEN status = 'PENDING' THEN 'waits'
                ELSE 'its trade row says ' || coalesce(status, 'nothing') END;
END $$;
COMMENT ON FUNCTION settlement._verdict(integer, oid, text, text[]) IS 'Internal: whether a redriven trade is settled, waits, or why it failed.';

-- Strike off the trades of the canary that are settled.  The first that failed
-- stops the whole.  Returns the redrive as it is then.
CREATE FUNCTION settlement._redrive_judge(r settlement.redrives) RETURNS settlement.redrives
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    trade record;
    verdict text;
    waiting jsonb := '[]';
BEGIN
    FOR trade IN SELECT t.attached_id, t.leaf, t.trade_id, t.row_key
                 FROM jsonb_to_recordset(r.canary_trades) AS t (attached_id integer, leaf oid, trade_id text, row_key text[]) LOOP
        verdict := settlement._verdict(trade.attached_id, trade.leaf, trade.trade_id, trade.row_key);
        IF verdict = 'settled' THEN
            r.canary_settled := r.canary_settled + 1;
        ELSIF verdict = 'waits' THEN
            waiting := waiting || to_jsonb(trade);
        ELSE
            PERFORM settlement._redrive_finish(r.id, 'stopped',
                format('trade "%s" of the canary: %s', trade.trade_id, verdict));
            SELECT u.* INTO r FROM settlement.redrives u WHERE u.id = r.id;
            RETURN r;
        END IF;
    END LOOP;
    r.canary_trades := waiting;
    IF r.canary_settled >= r.canary THEN
        r.state := 'running';
    END IF;
    RETURN r;
END $$;
COMMENT ON FUNCTION settlement._redrive_judge(settlement.redrives) IS 'Internal: how the canary of a redrive fares.';

-- ---------------------------------------------------------------- steps

-- How many it may take now: by its cap, its canary and its pace.
CREATE FUNCTION settlement._redrive_quota(r settlement.redrives) RETURNS integer
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(0, least(100,
        r.max - r.redriven,
        CASE r.state WHEN 'canary' THEN r.canary - r.redriven END,
        -- of a pause no more than a second is made up for
        ceil(r.per_second * least(greatest(extract(epoch FROM clock_timestamp() - r.worked_at)::numeric, 0.001), 1))))::integer
$$;
COMMENT ON FUNCTION settlement._redrive_quota(settlement.redrives) IS 'Internal: how many trades a redrive may take in one step.';

-- Dead letters that a walk by id comes to next: of those above `after` a bounded
-- number is looked at, at most `want` of them are returned, locked.  reached: all up to
-- it have been dealt with, of which `locked` are somebody else's just now; NULL at
-- the end.
CREATE FUNCTION settlement._dlq_next(filter jsonb, as_of timestamptz, after bigint, upto bigint, want integer,
    OUT ids bigint[], OUT locked integer, OUT reached bigint)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted bigint[];
BEGIN
    SELECT max(x.id) INTO reached
    FROM (SELECT d.id FROM settlement.dlq d WHERE d.id > after AND d.id <= upto ORDER BY d.id LIMIT 2000) x;
    wanted := ARRAY(SELECT m.id FROM settlement._dlq_matching(filter, as_of, after, reached) m
                    ORDER BY m.id LIMIT want);
    IF cardinality(wanted) = want THEN
        reached := wanted[want];
    END IF;
    ids := ARRAY(SELECT d.id FROM settlement.dlq d WHERE d.id = ANY (wanted) ORDER BY d.id FOR UPDATE SKIP LOCKED);
    locked := cardinality(wanted) - cardinality(ids);
END $$;
COMMENT ON FUNCTION settlement._dlq_next(jsonb, timestamptz, bigint, bigint, integer) IS 'Internal: the next dead letters of a walk.';

CREATE FUNCTION settlement._redrive_some(r settlement.redrives, want integer) RETURNS settlement.redrives
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    next record;
    went bigint;
    problems text;
    moved jsonb;
BEGIN
    SELECT * INTO next FROM settlement._dlq_next(r.filter, r.at, r.last_id, r.upto_id, want);
    IF next.reached IS NULL THEN
        r.last_id := r.upto_id;
        RETURN r;
    END IF;
    WITH trade AS MATERIALIZED (SELECT d.id, d.attached_id, d.leaf::oid, d.trade_id, d.row_key FROM settlement.dlq d WHERE d.id = ANY (next.ids)),
         tried AS MATERIALIZED (SELECT t.* FROM settlement._redrive_each(next.ids, r.look_up, r.reason, r.may_repay,
                                    jsonb_build_object('redrive', r.id), r."by") t)
    SELECT count(*) FILTER (WHERE t.result IN ('queue', 'needs_lookup')),
           string_agg(DISTINCT settlement._redrive_problem(t.result), '; ') FILTER (WHERE t.result NOT IN ('queue', 'needs_lookup')),
           coalesce(jsonb_agg(jsonb_build_object('attached_id', d.attached_id, 'leaf', d.leaf,
                                                 'trade_id', d.trade_id, 'row_key', d.row_key))
                    FILTER (WHERE t.result IN ('queue', 'needs_lookup')), '[]')
    INTO went, problems, moved
    FROM trade d JOIN tried t ON t.dlq_id = d.id;

    r.redriven := r.redriven + went;
    r.skipped := r.skipped + cardinality(next.ids) - went + next.locked;
    r.note := left(coalesce(problems, CASE WHEN next.locked > 0 THEN 'locked by another session' END, r.note), 1000);
    r.last_id := next.reached;
    IF r.state = 'canary' THEN
        r.canary_trades := r.canary_trades || moved;
    END IF;
    IF r.per_second IS NOT NULL AND went > 0 THEN
        r.wait := went / r.per_second * interval '1 second';
    END IF;
    RETURN r;
END $$;
COMMENT ON FUNCTION settlement._redrive_some(settlement.redrives, integer) IS 'Internal: redrive the next trades of a redrive.';

-- One step of one redrive.
CREATE FUNCTION settlement._redrive_work(r settlement.redrives) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    want integer;
    ended boolean;
BEGIN
    IF r.state = 'canary' THEN
        r := settlement._redrive_judge(r);
        IF r.state = 'stopped' THEN
            RETURN;
        END IF;
    END IF;
    want := settlement._redrive_quota(r);
    r.wait := CASE WHEN want > 0 THEN '0' ELSE '200 milliseconds' END;
    IF want > 0 THEN
        r := settlement._redrive_some(r, want);
    END IF;
    ended := r.last_id >= r.upto_id OR r.redriven >= r.max;
    -- A canary that finds too few is all there is.
    IF r.state = 'canary' AND ended AND jsonb_array_length(r.canary_trades) = 0 THEN
        r.state := 'running';
    ELSIF r.state = 'canary' AND (ended OR r.redriven >= r.canary) THEN
        r.wait := greatest(r.wait, interval '200 milliseconds');
    END IF;
    UPDATE settlement.redrives u
    SET state = r.state, redriven = r.redriven, skipped = r.skipped, note = r.note, last_id = r.last_id,
        canary_trades = r.canary_trades, canary_settled = r.canary_settled, crashes = 0,
        worked_at = clock_timestamp(), wait = r.wait
    WHERE u.id = r.id;
    IF r.state = 'running' AND ended THEN
        PERFORM settlement._redrive_finish(r.id, 'done', NULL);
    END IF;
END $$;
COMMENT ON FUNCTION settlement._redrive_work(settlement.redrives) IS 'Internal: one step of a redrive.';

-- Called by the workers.  Works on one redrive that is due and on the policies;
-- returns the ms until there is more to do, an hour when nothing is known to come.
-- What goes wrong in a redrive stops that one, so that it cannot keep the worker
-- from its other work.
CREATE FUNCTION settlement._steer() RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    r settlement.redrives;
    ms integer;
BEGIN
    SELECT u.* INTO r FROM settlement.redrives u
    WHERE u.state IN ('canary', 'running')
      -- the clock may have been set back
      AND (u.worked_at + u.wait <= clock_timestamp() OR u.worked_at > clock_timestamp() + interval '1 second')
    ORDER BY u.worked_at + u.wait LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        PERFORM settlement._handle(r.id);
        BEGIN
            PERFORM settlement._redrive_work(r);
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected OR insufficient_resources THEN
                UPDATE settlement.redrives u
                SET worked_at = clock_timestamp(), wait = '1 second', note = left(SQLERRM, 1000) WHERE u.id = r.id;
            -- The worker's own timer: see src/queue/redrives.c.
            WHEN query_canceled THEN
                PERFORM settlement._redrive_finish(r.id, 'stopped',
                    'one step took longer than settlement.apply_timeout: see what the triggers of the trade table do');
                RETURN 0;           -- it rings once: what comes next needs it again
            WHEN OTHERS THEN
                PERFORM settlement._redrive_finish(r.id, 'stopped', SQLERRM);
        END;
    END IF;
    PERFORM settlement._handle(0);
    ms := settlement._policies_work();
    RETURN least(ms, (SELECT min(ceil(extract(epoch FROM greatest(u.worked_at + u.wait - clock_timestamp(), '0')) * 1000))
                      FROM settlement.redrives u WHERE u.state IN ('canary', 'running')), 3600000)::integer;
END $$;
COMMENT ON FUNCTION settlement._steer() IS 'Internal: what the workers do of redrives and policies.';

-- A crash of the server cut short a step of these redrives, and (0) of policies; a
-- trigger of the trade table may have been why, or somebody else.  They are tried
-- again, later each time, and in the end not at all.  Policies, of which it is not
-- known which one, at times of their own: so those that are innocent go on.
CREATE FUNCTION settlement._steer_crashed(ids bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    said CONSTANT text := 'the server crashed in the midst of a step';
    r settlement.redrives;
BEGIN
    FOR r IN UPDATE settlement.redrives u
             SET crashes = u.crashes + 1, note = said,
                 worked_at = clock_timestamp(), wait = interval '1 second' * 10 ^ least(u.crashes, 3)
             WHERE u.id = ANY (ids) AND u.state IN ('canary', 'running') RETURNING u.* LOOP
        IF r.crashes >= 3 THEN
            PERFORM settlement._redrive_finish(r.id, 'stopped', format(
                'the server crashed in the midst of %s steps in a row: see what the triggers of the trade table do', r.crashes));
        END IF;
    END LOOP;
    IF 0 = ANY (ids) THEN
        UPDATE settlement.policies u
        SET crashes = u.crashes + 1, note = said,
            not_before = clock_timestamp() + interval '1 minute' * 10 ^ least(u.crashes, 3) * (0.5 + random())
        WHERE u.not_before <= clock_timestamp();
    END IF;
END $$;
COMMENT ON FUNCTION settlement._steer_crashed(bigint[]) IS 'Internal: put off, or stop, what crashed the server.';

-- ---------------------------------------------------------------- progress

-- Those under way that have a dead letter before them and may take it; a filter that
-- cannot be followed names nothing.
CREATE FUNCTION settlement._redrives_for(d settlement.dlq) RETURNS SETOF settlement.redrives
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r settlement.redrives;
BEGIN
    FOR r IN SELECT x.* FROM settlement.redrives x
             WHERE x.state IN ('canary', 'running') AND d.id > x.last_id AND d.id <= x.upto_id
               AND (x.look_up OR x.may_repay OR d.status = 'FAILED' AND NOT d.maybe_executed)
             ORDER BY x.id
    LOOP
        BEGIN
            CONTINUE WHEN NOT EXISTS (SELECT FROM settlement._dlq_matching(r.filter, r.at, d.id - 1, d.id));
        EXCEPTION WHEN OTHERS THEN
            CONTINUE;
        END;
        RETURN NEXT r;
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._redrives_for(settlement.dlq) IS 'Internal: redrives under way that come to a dead letter.';

CREATE VIEW settlement.redrive_progress AS
SELECT r.id, r.state, r.redriven, r.skipped, least(r.max, r.matching) AS total,
       round(100.0 * (r.redriven + r.skipped) / nullif(least(r.max, r.matching), 0), 1) AS percent,
       CASE WHEN r.canary IS NOT NULL THEN format('%s of %s settled', r.canary_settled, r.canary) END AS canary,
       r.per_second, r.by, r.reason, r.at AS started_at,
       coalesce(r.finished_at, CASE WHEN r.state = 'running' AND r.per_second > 0
           THEN clock_timestamp() + greatest(0, least(r.max, r.matching) - r.redriven - r.skipped) / r.per_second
                                    * interval '1 second' END) AS ends_at,
       coalesce(r.why, r.note) AS note
FROM settlement.redrives r
ORDER BY r.finished_at DESC NULLS FIRST, r.id DESC;
COMMENT ON VIEW settlement.redrive_progress IS 'Redrives that the workers do, those under way first.';
COMMENT ON COLUMN settlement.redrive_progress.state IS 'canary: the first trades have to settle; running; done; stopped or cancelled: note says why.';
COMMENT ON COLUMN settlement.redrive_progress.total IS 'Dead letters that it was to take when it began.';
COMMENT ON COLUMN settlement.redrive_progress.canary IS 'How many of the first trades are settled.';
COMMENT ON COLUMN settlement.redrive_progress.ends_at IS 'When it ended, or will at its pace.';
COMMENT ON COLUMN settlement.redrive_progress.note IS 'Why it ended, or why trades were skipped.';
