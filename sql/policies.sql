-- policies.sql: dead letters that are redriven by themselves.
--
-- There are none until an operator sets one.  A policy is a filter and limits; the
-- workers walk the DLQ with it, a bounded number of rows at a time and round and
-- round, and redrive what is due.  UNKNOWN trades are taken only by a policy whose
-- filter says so, and FAILED ones only when the wallet certainly did not move the
-- money: that is checked here, again, whoever wrote the row.

CREATE FUNCTION settlement.redrive_policy_set(name text, reason text, class text DEFAULT NULL,
    code text DEFAULT NULL, http_status integer DEFAULT NULL, symbol text DEFAULT NULL,
    user_id text DEFAULT NULL, status text DEFAULT NULL, min_value numeric DEFAULT NULL,
    max_value numeric DEFAULT NULL, relation regclass DEFAULT NULL, all_rows boolean DEFAULT false,
    after interval DEFAULT '10 minutes', at_most integer DEFAULT 5,
    on_breaker_close boolean DEFAULT false, look_up boolean DEFAULT false,
    permit bigint DEFAULT settlement._permit())
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    may_repay CONSTANT boolean := settlement._redeem_permit(permit);
    filter jsonb;
    n bigint;
BEGIN
    PERFORM settlement._require_reason(reason);
    filter := settlement._require_filter(jsonb_build_object('class', class, 'code', code,
        'http_status', http_status, 'symbol', symbol, 'user_id', user_id, 'status', status,
        'min_value', min_value, 'max_value', max_value, 'relation', relation), all_rows);
    IF coalesce(btrim(name), '') = '' OR after IS NULL OR after < '0' OR at_most IS NULL OR at_most NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'a policy needs a name, an interval that is not negative, and at_most from 1 to 1000'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'For example after => ''10 min'', at_most => 5.';
    END IF;
    IF look_up AND filter ->> 'status' IS DISTINCT FROM 'UNKNOWN' THEN
        RAISE EXCEPTION 'there is nothing to look up: FAILED trades were certainly not paid'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'look_up => true goes with status => ''UNKNOWN''.';
    END IF;
    IF filter ->> 'status' = 'UNKNOWN' AND look_up IS NOT TRUE AND NOT may_repay THEN
        PERFORM settlement._raise_not_permitted('let UNKNOWN trades be redriven');
    END IF;
    INSERT INTO settlement.policies AS p (name, filter, after, at_most, on_breaker_close, look_up, may_repay, reason)
    VALUES (redrive_policy_set.name, filter, redrive_policy_set.after, redrive_policy_set.at_most,
            coalesce(redrive_policy_set.on_breaker_close, false), coalesce(redrive_policy_set.look_up, false),
            may_repay, redrive_policy_set.reason)
    ON CONFLICT ON CONSTRAINT policies_pkey DO UPDATE
    SET filter = excluded.filter, after = excluded.after, at_most = excluded.at_most,
        on_breaker_close = excluded.on_breaker_close, look_up = excluded.look_up,
        may_repay = excluded.may_repay, reason = excluded.reason, by = excluded.by, at = excluded.at, last_id = 0,
        crashes = 0, not_before = '-infinity', note = NULL;
    SELECT count(*) INTO n FROM settlement._dlq_matching(filter);
    PERFORM settlement._audit('redrive_policy_set', NULL, NULL,
        jsonb_build_object('policy', name, 'filter', filter, 'after', after, 'at_most', at_most,
                           'on_breaker_close', on_breaker_close, 'look_up', look_up), n, reason);
    PERFORM settlement._announce_work();
    RETURN format('policy "%s" is set; %s match it now', name,
                  CASE n WHEN 1 THEN '1 dead trade' ELSE n || ' dead trades' END);
END $$;
COMMENT ON FUNCTION settlement.redrive_policy_set(text, text, text, text, integer, text, text, text, numeric, numeric, regclass, boolean, interval, integer, boolean, boolean, bigint) IS 'Let dead trades that a filter names be redriven by themselves: each time `after` its death, each at most so many times; with on_breaker_close when the circuit breaker closes (after is 10 minutes by default here too).  UNKNOWN ones only with status => ''UNKNOWN'', which takes look_up => true (the wallet is asked first) or grant_operator(..., may_repay => true).  A policy of that name is replaced.';

CREATE FUNCTION settlement.redrive_policy_drop(name text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    p settlement.policies;
BEGIN
    PERFORM settlement._require_reason(reason);
    DELETE FROM settlement.policies d WHERE d.name = redrive_policy_drop.name RETURNING d.* INTO p;
    IF p.name IS NULL THEN
        RAISE EXCEPTION 'there is no policy "%"', redrive_policy_drop.name
            USING ERRCODE = 'undefined_object',
                  HINT = 'settlement.redrive_policies lists them.';
    END IF;
    PERFORM settlement._audit('redrive_policy_drop', NULL, NULL,
        jsonb_build_object('policy', p.name, 'filter', p.filter), p.redriven, reason);
END $$;
COMMENT ON FUNCTION settlement.redrive_policy_drop(text, text) IS 'End a policy; how often it has redriven which trade is forgotten.';

-- ---------------------------------------------------------------- steps

-- A policy for the breaker notes when it closed, so that its work survives a
-- restart in the middle.  That it was open is noted too: a crash ends an opening
-- that nobody saw end.
CREATE FUNCTION settlement._policy_breaker(p settlement.policies) RETURNS settlement.policies
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s record;
BEGIN
    SELECT d.breaker, d.breaker_changed_at, d.breaker_times_opened INTO s FROM settlement._database_state() d;
    IF s.breaker <> 'closed' AND NOT p.breaker_open THEN
        p.breaker_open := true;
    ELSIF s.breaker = 'closed' AND (p.breaker_open OR s.breaker_times_opened > 0
                                    AND s.breaker_changed_at > greatest(p.breaker_closed_at, p.at)) THEN
        p.breaker_open := false;
        p.breaker_closed_at := CASE WHEN s.breaker_times_opened > 0 THEN s.breaker_changed_at ELSE clock_timestamp() END;
        p.last_id := 0;
    ELSE
        RETURN p;
    END IF;
    UPDATE settlement.policies u
    SET breaker_open = p.breaker_open, breaker_closed_at = p.breaker_closed_at, last_id = p.last_id
    WHERE u.name = p.name;
    RETURN p;
END $$;
COMMENT ON FUNCTION settlement._policy_breaker(settlement.policies) IS 'Internal: note whether the breaker has closed.';

-- Dead letters among those up to `reached` that the policy may redrive now.
CREATE FUNCTION settlement._policy_due(p settlement.policies, reached bigint) RETURNS SETOF settlement.dlq
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.*
    FROM settlement._dlq_matching(p.filter, now(), p.last_id, reached) d
         LEFT JOIN settlement.policy_tries t
         ON t.policy = p.name AND t.attached_id = d.attached_id AND t.trade_id = d.trade_id
    WHERE d.trade_id IS NOT NULL
      AND d.died_at <= clock_timestamp() - p.after
      AND (NOT p.on_breaker_close OR d.died_at <= p.breaker_closed_at)
      AND (d.safe_to_discard OR p.filter ->> 'status' = 'UNKNOWN' AND (p.look_up OR p.may_repay))
      AND coalesce(t.times < p.at_most AND t.not_before <= clock_timestamp(), true)
    ORDER BY d.id
$$;
COMMENT ON FUNCTION settlement._policy_due(settlement.policies, bigint) IS 'Internal: dead letters that a policy redrives now.';

-- One step of one policy: looks at the next 2000 dead letters and redrives at
-- most 100 of them.  Returns whether there is more to do at once.
CREATE FUNCTION settlement._policy_work(p settlement.policies) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch CONSTANT integer := 100;
    before CONSTANT bigint := p.last_id;
    looked record;
    due bigint[];
    ids bigint[];
    went bigint;
BEGIN
    IF p.on_breaker_close THEN
        p := settlement._policy_breaker(p);
        IF p.breaker_open OR p.breaker_closed_at IS NULL THEN
            RETURN false;
        END IF;
    END IF;
    SELECT max(x.id) AS reached, count(*) AS n INTO looked
    FROM (SELECT d.id FROM settlement.dlq d WHERE d.id > p.last_id ORDER BY d.id LIMIT 2000) x;
    due := ARRAY(SELECT d.id FROM settlement._policy_due(p, looked.reached) d LIMIT batch);
    p.last_id := CASE WHEN cardinality(due) = batch THEN due[batch]
                      WHEN looked.n = 2000 THEN looked.reached
                      ELSE 0 END;
    ids := ARRAY(SELECT d.id FROM settlement.dlq d WHERE d.id = ANY (due) ORDER BY d.id FOR UPDATE SKIP LOCKED);
    WITH trade AS MATERIALIZED (SELECT d.id, d.attached_id, d.trade_id FROM settlement.dlq d WHERE d.id = ANY (ids)),
         tried AS MATERIALIZED (SELECT t.dlq_id, t.result, t.result IN ('queue', 'needs_lookup') AS went
                                FROM settlement._redrive_each(ids, p.look_up, p.reason, p.may_repay,
                                         jsonb_build_object('policy', p.name), p."by") t),
         noted AS (INSERT INTO settlement.policy_tries AS y (policy, attached_id, trade_id, times, not_before, note)
                   SELECT p.name, d.attached_id, d.trade_id, bool_or(t.went)::integer,
                          CASE WHEN bool_or(t.went) THEN '-infinity' ELSE clock_timestamp() + interval '1 minute' END,
                          max(settlement._redrive_problem(t.result)) FILTER (WHERE NOT t.went)
                   FROM trade d JOIN tried t ON t.dlq_id = d.id GROUP BY d.attached_id, d.trade_id
                   ON CONFLICT ON CONSTRAINT policy_tries_pkey DO UPDATE
                   SET times = y.times + excluded.times, not_before = excluded.not_before,
                       note = excluded.note, at = excluded.at)
    SELECT count(*) FILTER (WHERE t.went) INTO went FROM tried t;
    IF went > 0 OR p.last_id <> before OR p.crashes > 0 THEN
        UPDATE settlement.policies u
        SET last_id = p.last_id, note = NULL, crashes = 0, redriven = u.redriven + went,
            redriven_at = CASE WHEN went > 0 THEN clock_timestamp() ELSE u.redriven_at END
        WHERE u.name = p.name;
    END IF;
    RETURN cardinality(due) = batch;
END $$;
COMMENT ON FUNCTION settlement._policy_work(settlement.policies) IS 'Internal: one step of a policy.';

-- Some of the policies, in any order: each has its turn soon.  One that fails
-- waits and says so.  A query cancel is the worker's own timer, which rings once: the
-- others are for the next step.  Returns the ms until the next look, NULL when there
-- is no policy.
CREATE FUNCTION settlement._policies_work() RETURNS integer
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    p settlement.policies;
    more boolean := false;
    n integer := 0;
BEGIN
    FOR p IN SELECT u.* FROM settlement.policies u WHERE u.not_before <= clock_timestamp()
             ORDER BY random() LIMIT 5 FOR UPDATE SKIP LOCKED LOOP
        n := n + 1;
        BEGIN
            more := settlement._policy_work(p) OR more;
        EXCEPTION WHEN query_canceled OR OTHERS THEN
            UPDATE settlement.policies u
            SET not_before = clock_timestamp() + interval '1 minute',
                note = left(CASE SQLSTATE WHEN '57014' THEN 'one step took longer than settlement.apply_timeout'
                                          ELSE SQLERRM END, 1000)
            WHERE u.name = p.name;
            IF SQLSTATE = '57014' THEN
                RETURN 0;
            END IF;
        END;
    END LOOP;
    IF n > 0 THEN
        DELETE FROM settlement.policy_tries t
        WHERE t.ctid = ANY (ARRAY(SELECT y.ctid FROM settlement.policy_tries y
                                  WHERE y.at < now() - settlement._setting('attempt_retention')::interval
                                  ORDER BY y.at LIMIT 1000));
    END IF;
    RETURN CASE WHEN more THEN 0
                WHEN EXISTS (SELECT FROM settlement.policies) THEN 1000 END;
END $$;
COMMENT ON FUNCTION settlement._policies_work() IS 'Internal: follow the policies.';

-- ---------------------------------------------------------------- what comes

-- What each policy that names a dead letter does with it next, by the rules of
-- _policy_due().  due: takes it at due_at, or as soon as a worker comes to it;
-- breaker: when the breaker closes, and not before due_at; used up; not taken: the
-- wallet may have moved its money.  A filter that cannot be followed names nothing.
CREATE FUNCTION settlement._policies_for(d settlement.dlq, OUT policy text, OUT state text, OUT due_at timestamptz,
    OUT look_up boolean, OUT times integer, OUT at_most integer, OUT last_at timestamptz, OUT note text) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    p settlement.policies;
    t settlement.policy_tries;
BEGIN
    FOR p IN SELECT u.* FROM settlement.policies u ORDER BY u.name LOOP
        BEGIN
            CONTINUE WHEN NOT EXISTS (SELECT FROM settlement._dlq_matching(p.filter, now(), d.id - 1, d.id));
        EXCEPTION WHEN OTHERS THEN
            CONTINUE;
        END;
        SELECT y.* INTO t FROM settlement.policy_tries y
        WHERE y.policy = p.name AND y.attached_id = d.attached_id AND y.trade_id = d.trade_id;
        policy := p.name;
        look_up := p.look_up;
        times := coalesce(t.times, 0);
        at_most := p.at_most;
        last_at := t.at;
        due_at := greatest(d.died_at + p.after, t.not_before, p.not_before);
        note := CASE WHEN t.not_before > clock_timestamp() THEN t.note
                     WHEN p.not_before > clock_timestamp() THEN p.note END;
        state := CASE
            WHEN times >= p.at_most THEN 'used up'
            WHEN (d.safe_to_discard OR p.filter ->> 'status' = 'UNKNOWN' AND (p.look_up OR p.may_repay)) IS NOT TRUE THEN 'not taken'
            WHEN p.on_breaker_close AND (p.breaker_open OR p.breaker_closed_at IS NULL OR d.died_at > p.breaker_closed_at) THEN 'breaker'
            ELSE 'due' END;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._policies_for(settlement.dlq) IS 'Internal: what the policies do next with a dead letter.';

CREATE VIEW settlement.redrive_policies AS
SELECT p.name, p.filter, coalesce(p.filter ->> 'status', 'FAILED') AS status,
       p.after, p.at_most, p.on_breaker_close, p.look_up, p.redriven, p.redriven_at,
       (SELECT count(*) FROM settlement.policy_tries t WHERE t.policy = p.name AND t.times >= p.at_most) AS used_up,
       p.note, p.by, p.at, p.reason
FROM settlement.policies p ORDER BY p.name;
COMMENT ON VIEW settlement.redrive_policies IS 'Which dead trades are redriven by themselves.  redrive_policy_set() sets one, redrive_policy_drop() ends it.';
COMMENT ON COLUMN settlement.redrive_policies.status IS 'Which dead letters: FAILED, or UNKNOWN when the policy says so.';
COMMENT ON COLUMN settlement.redrive_policies.used_up IS 'Trades that it has redriven as often as it may.';
COMMENT ON COLUMN settlement.redrive_policies.note IS 'Why its last step failed; it is tried again a minute later, or, if the server crashed in it, later each time.';
