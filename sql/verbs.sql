-- verbs.sql: what the verbs of an operator share: a reason, the audit log, which trade
-- is meant and where it is, and the right to decide on what may have been paid.
--
-- Every verb on trades runs as its owner (SECURITY DEFINER, fixed search_path), so that
-- EXECUTE is all an operator needs and nobody needs rights on the tables.  None
-- of them touches a user's table except through apply_outcome, which writes as
-- that table's owner.  A trade leaves a table only by a DELETE of rows that the
-- same transaction has locked, so that two operators, or an operator and a
-- worker, cannot both move it.  Functions whose name starts with _ are internal.

CREATE FUNCTION settlement._audit(act text, attached_id integer, trade_id text, details jsonb,
    count bigint, reason text, role name DEFAULT session_user) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO settlement.audit_log (act, attached_id, trade_id, details, count, reason, role)
    VALUES (_audit.act, _audit.attached_id, _audit.trade_id,
            coalesce(jsonb_strip_nulls(_audit.details), '{}'), _audit.count, _audit.reason, _audit.role);
    SELECT settlement._log_act(_audit.act, _audit.trade_id, jsonb_strip_nulls(_audit.details)::text,
                               _audit.count, _audit.reason)
$$;
COMMENT ON FUNCTION settlement._audit(text, integer, text, jsonb, bigint, text, name) IS 'Internal: record an act of an operator; role is another when a worker does what that role has asked for.';

CREATE FUNCTION settlement._require_reason(reason text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF reason IS NULL OR btrim(reason) = '' THEN
        RAISE EXCEPTION 'a reason is required'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'It is kept in settlement.audit_log: pass reason => ''why''.';
    END IF;
END $$;
COMMENT ON FUNCTION settlement._require_reason(text) IS 'Internal: refuse an act without a reason.';

-- ---------------------------------------------------------------- which trade

-- The attached table that a table or one of its partitions belongs to.
CREATE FUNCTION settlement._attached_id(relation regclass) RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_id integer;
BEGIN
    SELECT a.attached_id INTO found_id FROM settlement.attached a
    WHERE a.relid = relation OR a.relid IN (SELECT pg_partition_ancestors(relation));
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'table % is not attached', relation
            USING ERRCODE = 'undefined_object',
                  HINT = 'settlement.attached lists the attached tables.';
    END IF;
    RETURN found_id;
END $$;
COMMENT ON FUNCTION settlement._attached_id(regclass) IS 'Internal: attached_id of an attached table or of one of its partitions.';

-- Which of the tables that may hold the id is meant.  NULL when none was found.
CREATE FUNCTION settlement._which_attached(trade_id text, relation regclass, candidates integer[])
RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    names text;
BEGIN
    IF trade_id IS NULL THEN
        RAISE EXCEPTION 'a trade id is required' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF relation IS NOT NULL THEN
        RETURN settlement._attached_id(relation);
    END IF;
    IF cardinality(candidates) > 1 THEN
        SELECT string_agg(a.relid::text, ', ' ORDER BY a.attached_id) INTO names
        FROM settlement.attached a WHERE a.attached_id = ANY (candidates);
        RAISE EXCEPTION 'trade "%" exists in more than one attached table', trade_id
            USING ERRCODE = 'ambiguous_parameter',
                  DETAIL = format('Tables: %s.', names),
                  HINT = 'Say which one is meant: relation => ''name of the table''.';
    END IF;
    RETURN candidates[1];
END $$;
COMMENT ON FUNCTION settlement._which_attached(text, regclass, integer[]) IS 'Internal: resolve the optional relation argument.';

-- Where a trade is: every state table that has it.  The queue has no index by
-- trade id (nothing on the hot path needs one), so this reads it through.
CREATE FUNCTION settlement._places(trade_id text, attached_id integer)
RETURNS TABLE (place text, place_attached_id integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'queue', q.attached_id FROM settlement.queue q
    WHERE q.trade_id = _places.trade_id AND (_places.attached_id IS NULL OR q.attached_id = _places.attached_id)
    UNION
    SELECT 'deferred', d.attached_id FROM settlement.deferred d
    WHERE d.trade_id = _places.trade_id AND (_places.attached_id IS NULL OR d.attached_id = _places.attached_id)
    UNION
    SELECT 'dlq', d.attached_id FROM settlement.dlq d
    WHERE d.trade_id = _places.trade_id AND (_places.attached_id IS NULL OR d.attached_id = _places.attached_id)
    UNION
    SELECT 'unapplied', u.attached_id FROM settlement.unapplied u
    WHERE u.trade_id = _places.trade_id AND (_places.attached_id IS NULL OR u.attached_id = _places.attached_id)
$$;
COMMENT ON FUNCTION settlement._places(text, integer) IS 'Internal: state tables that hold a trade.';

-- The trade is not where the verb can act on it: say where it is instead.
CREATE FUNCTION settlement._raise_not_there(trade_id text, attached_id integer, wanted text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    places text[] := ARRAY(SELECT DISTINCT p.place FROM settlement._places(trade_id, attached_id) p
                           ORDER BY p.place);
BEGIN
    RAISE EXCEPTION 'trade "%" is not in %', trade_id, wanted
        USING ERRCODE = 'undefined_object',
              HINT = CASE
                  WHEN cardinality(places) = 0
                  THEN format('It is in no table of settlement: see SELECT settlement.explain(%L).', trade_id)
                  WHEN 'queue' = ANY (places)
                  THEN 'It is queued or in flight: the workers are about to settle it.'
                  WHEN 'deferred' = ANY (places)
                  THEN format('It is in settlement.deferred and will be tried again: see SELECT settlement.explain(%L).', trade_id)
                  WHEN 'dlq' = ANY (places)
                  THEN 'It is in settlement.dlq: settlement.redrive() or settlement.resolve() it.'
                  ELSE 'Its outcome is known and waits in settlement.unapplied to be written to the trade row.'
              END;
END $$;
COMMENT ON FUNCTION settlement._raise_not_there(text, integer, text) IS 'Internal: error that says where a trade is.';

-- ---------------------------------------------------------------- how old a key is

CREATE FUNCTION settlement._clock_latest() RETURNS timestamptz
    AS 'MODULE_PATHNAME', 'settlement_clock_latest'
    LANGUAGE c VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION settlement._clock_latest() IS 'Internal: the time, had the clock never been set back since the server started.';

-- May the wallet have forgotten a key by now?  As past_idempotency_window() in C:
-- a first send ahead of the clock, which was set back then, counts as long ago.
CREATE FUNCTION settlement._may_be_forgotten(first_sent_at timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT first_sent_at IS NULL
        OR first_sent_at < settlement._clock_latest() - settlement._setting('idempotency_window')::interval
        OR first_sent_at > settlement._clock_latest() + interval '1 minute'
$$;
COMMENT ON FUNCTION settlement._may_be_forgotten(timestamptz) IS 'Internal: is the idempotency window of a key over, or not known?';

-- ---------------------------------------------------------------- may have been paid
--
-- To send again, or to give up, what may have been paid takes a right of its own
-- besides EXECUTE on the verb.  A SECURITY DEFINER function cannot see who called
-- it, and the session's user is somebody else where an index expression or a
-- trigger is the caller.  But the default of an argument is evaluated with the
-- caller's rights: permit proves the right, once, and cannot be made up.

CREATE FUNCTION settlement._issue_permit() RETURNS bigint
    AS 'MODULE_PATHNAME', 'settlement_issue_permit'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._issue_permit() IS 'Internal: EXECUTE on it is the right to redrive or give up what may have been paid; returns the proof.';

CREATE FUNCTION settlement._permit() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF has_function_privilege('settlement._issue_permit()', 'EXECUTE') THEN
        RETURN settlement._issue_permit();
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION settlement._permit() IS 'Internal: proof that the caller may redrive or give up what may have been paid; NULL when not.';

CREATE FUNCTION settlement._redeem_permit(permit bigint) RETURNS boolean
    AS 'MODULE_PATHNAME', 'settlement_redeem_permit'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._redeem_permit(bigint) IS 'Internal: whether a proof is the one issued last; it is used up.';

CREATE FUNCTION settlement._raise_not_permitted(act text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'permission denied to %', act
        USING ERRCODE = 'insufficient_privilege',
              DETAIL = 'The wallet may have moved its money.',
              HINT = 'settlement.lookup() and settlement.resolve_where() ask the wallet.  To decide without it takes settlement.grant_operator(role, may_repay => true).';
END $$;
COMMENT ON FUNCTION settlement._raise_not_permitted(text) IS 'Internal: error for who may not decide on what may have been paid.';
