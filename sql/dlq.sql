-- dlq.sql: what an operator does with trades that died or that wait.
--
-- Every verb runs as its owner (SECURITY DEFINER, fixed search_path), so that
-- EXECUTE is all an operator needs and nobody needs rights on the tables.  None
-- of them touches a user's table except through apply_outcome, which writes as
-- that table's owner.  A trade leaves a table only by a DELETE of rows that the
-- same transaction has locked, so that two operators, or an operator and a
-- worker, cannot both move it.  Functions whose name starts with _ are internal.
--
-- To send again, or to give up, what may have been paid takes a right of its own
-- besides EXECUTE on the verb.  A SECURITY DEFINER function cannot see who called
-- it, and the session's user is somebody else where an index expression or a
-- trigger is the caller.  But the default of an argument is evaluated with the
-- caller's rights: permit proves the right, once, and cannot be made up.

CREATE FUNCTION settlement._audit(act text, attached_id integer, trade_id text, details jsonb,
    count bigint, reason text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO settlement.audit_log (act, attached_id, trade_id, details, count, reason)
    VALUES (_audit.act, _audit.attached_id, _audit.trade_id,
            coalesce(jsonb_strip_nulls(_audit.details), '{}'), _audit.count, _audit.reason);
    SELECT settlement._log_act(_audit.act, _audit.trade_id, jsonb_strip_nulls(_audit.details)::text,
                               _audit.count, _audit.reason)
$$;
COMMENT ON FUNCTION settlement._audit(text, integer, text, jsonb, bigint, text) IS 'Internal: record an act of an operator.';

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

-- ---------------------------------------------------------------- redrive

-- What has been written on the trade row for a trade that goes on.
CREATE FUNCTION settlement._apply_pending(trade settlement.dlq) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT settlement.apply_outcome(trade.attached_id, trade.leaf, trade.trade_tid, trade.trade_id,
                                    trade.row_key, 'PENDING', NULL, NULL, trade.attempts, NULL)
$$;
COMMENT ON FUNCTION settlement._apply_pending(settlement.dlq) IS 'Internal: set the trade row of a dead letter back to PENDING.';

-- All dead letters of the trade that dlq_id belongs to, locked, as one: it may
-- have been enqueued twice.  Content is that of the row that was sent first, so
-- that a resend is the same byte for byte; facts are those of the latest key.
CREATE FUNCTION settlement._lock_dead(dlq_id bigint, OUT trade settlement.dlq, OUT ids bigint[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
    facts record;
BEGIN
    SELECT d.attached_id, d.trade_id INTO one FROM settlement.dlq d WHERE d.id = dlq_id;
    WITH locked AS (SELECT d.* FROM settlement.dlq d
                    WHERE d.attached_id = one.attached_id AND d.trade_id = one.trade_id
                    ORDER BY d.id FOR UPDATE),
         latest AS (SELECT * FROM locked l WHERE l.generation = (SELECT max(generation) FROM locked))
    SELECT (SELECT array_agg(l.id) FROM locked l) AS ids,
           (SELECT l FROM latest l ORDER BY l.first_sent_at, l.id LIMIT 1) AS content,
           max(l.attempts) AS attempts, max(l.crashes) AS crashes,
           bool_or(l.maybe_executed) AS maybe_executed, bool_or(l.lookup_first) AS lookup_first,
           min(l.first_sent_at) AS first_sent_at,
           bool_and(l.final_rejection AND l.status = 'FAILED') AS final_rejection,
           max(l.status) AS status
    INTO facts FROM latest l;
    IF facts.ids IS NULL OR NOT dlq_id = ANY (facts.ids) THEN
        RETURN;
    END IF;
    trade := facts.content;
    trade.attempts := facts.attempts;
    trade.crashes := facts.crashes;
    trade.maybe_executed := facts.maybe_executed;
    trade.lookup_first := facts.lookup_first;
    trade.first_sent_at := facts.first_sent_at;
    trade.final_rejection := facts.final_rejection;
    trade.status := facts.status;  -- UNKNOWN sorts after FAILED
    ids := facts.ids;
END $$;
COMMENT ON FUNCTION settlement._lock_dead(bigint) IS 'Internal: lock the dead letters of one trade and merge their facts.';

-- Put a trade into the queue.
CREATE FUNCTION settlement._requeue(trade settlement.dlq) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO settlement.queue (enqueued_at, attached_id, leaf, attempts, generation, charged,
        crashes, format, maybe_executed, lookup_first, trade_tid, trade_id, row_key, symbol,
        buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, quote_amount,
        buyer_fee, seller_fee, trace_id, first_sent_at, pending_ms, fingerprint)
    VALUES (trade.enqueued_at, trade.attached_id, trade.leaf, trade.attempts, trade.generation, 0,
        trade.crashes, trade.format, trade.maybe_executed, trade.lookup_first, trade.trade_tid,
        trade.trade_id, trade.row_key, trade.symbol, trade.buyer_id, trade.seller_id,
        trade.buyer_order_id, trade.seller_order_id, trade.price, trade.quantity,
        trade.quote_amount, trade.buyer_fee, trade.seller_fee, trade.trace_id,
        trade.first_sent_at, 0, trade.fingerprint)
$$;
COMMENT ON FUNCTION settlement._requeue(settlement.dlq) IS 'Internal: insert a trade into the queue with its facts.';

-- Let a trade wait until retry_at.
CREATE FUNCTION settlement._defer(trade settlement.dlq, reason text, retry_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO settlement.deferred (retry_at, reason, last_class, last_code, last_status,
        last_message, enqueued_at, attached_id, leaf, attempts, generation, charged, crashes,
        format, maybe_executed, lookup_first, trade_tid, trade_id, row_key, symbol, buyer_id,
        seller_id, buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee,
        seller_fee, trace_id, first_sent_at, pending_ms, fingerprint)
    VALUES (_defer.retry_at, _defer.reason, trade.class, trade.code, trade.http_status,
        trade.message, trade.enqueued_at, trade.attached_id, trade.leaf, trade.attempts,
        trade.generation, 0, trade.crashes, trade.format, trade.maybe_executed,
        trade.lookup_first, trade.trade_tid, trade.trade_id, trade.row_key, trade.symbol,
        trade.buyer_id, trade.seller_id, trade.buyer_order_id, trade.seller_order_id,
        trade.price, trade.quantity, trade.quote_amount, trade.buyer_fee, trade.seller_fee,
        trade.trace_id, trade.first_sent_at, 0, trade.fingerprint);
    PERFORM settlement._announce_work();
END $$;
COMMENT ON FUNCTION settlement._defer(settlement.dlq, text, timestamptz) IS 'Internal: insert a trade into deferred with its facts.';

-- An invalid trade that never left: its row may have been corrected since, so it
-- is read and checked again, as the trigger does.  The look-up first that is the
-- rule for rows taken up later does not apply: nothing was ever sent.
CREATE FUNCTION settlement._revive(trade settlement.dlq, ids bigint[], retry_at timestamptz)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    leaf regclass;
    ctid tid;
    fresh settlement.dlq;
    taken settlement.deferred;
    query text;
    result text := settlement._apply_pending(trade);
BEGIN
    IF result IS DISTINCT FROM 'done' THEN
        RETURN result;
    END IF;
    DELETE FROM settlement.unapplied u
    WHERE u.attached_id = trade.attached_id AND u.trade_id = trade.trade_id;
    DELETE FROM settlement.dlq d WHERE d.id = ANY (ids);

    -- Built-in types and their own comparison only: this runs as our owner.
    SELECT format('SELECT tableoid::regclass, ctid FROM %s WHERE %I = $1::%s AND %I::text = ''PENDING'' LIMIT 1',
                  a.relid, c.attname, settlement._base_type(c.atttypid), a.columns ->> 'status')
    INTO query
    FROM settlement.attached a
         JOIN pg_attribute c ON c.attrelid = a.relid AND c.attname = a.columns ->> 'trade_id'
    WHERE a.attached_id = trade.attached_id;
    EXECUTE query INTO leaf, ctid USING trade.trade_id;
    IF leaf IS NULL OR NOT settlement._enqueue_row(leaf, ctid) THEN
        RAISE EXCEPTION 'the row of the trade does not say PENDING'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    SELECT d.* INTO fresh FROM settlement.dlq d
    WHERE d.attached_id = trade.attached_id AND d.trade_id = trade.trade_id;
    IF FOUND THEN
        RAISE EXCEPTION 'the trade is still invalid: %', fresh.message
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Correct the trade row first; or give the trade up with settlement.dlq_purge().';
    END IF;
    DELETE FROM settlement.deferred d
    WHERE d.attached_id = trade.attached_id AND d.trade_id = trade.trade_id RETURNING d.* INTO STRICT taken;
    fresh := jsonb_populate_record(NULL::settlement.dlq, to_jsonb(taken) - 'reason');
    fresh.enqueued_at := trade.enqueued_at;
    fresh.attempts := trade.attempts;
    fresh.generation := trade.generation;
    fresh.maybe_executed := false;
    fresh.lookup_first := false;
    IF retry_at IS NOT NULL THEN
        PERFORM settlement._defer(fresh, 'retry', retry_at);
        RETURN 'deferred';
    END IF;
    PERFORM settlement._requeue(fresh);
    RETURN 'queue';
END $$;
COMMENT ON FUNCTION settlement._revive(settlement.dlq, bigint[], timestamptz) IS 'Internal: redrive an invalid trade from its corrected row.';

-- Take one trade out of the DLQ and let it go on: into the queue, or into
-- deferred until retry_at, or, with look_up or when the wallet may have
-- forgotten its key, into deferred as needs_lookup.  Returns where it went
-- (queue, deferred, needs_lookup) or why it did not: moved (somebody else was
-- faster), invalid, settled, or what apply_outcome said (kept, locked, gone, refused).
-- What may have been paid needs may_repay, unless the wallet is asked first.
CREATE FUNCTION settlement._redrive(dlq_id bigint, retry_at timestamptz, look_up boolean, reason text,
    may_repay boolean)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    locked record;
    trade settlement.dlq;
    ids bigint[];
    result text;
BEGIN
    IF EXISTS (SELECT FROM settlement.dlq d WHERE d.id = dlq_id AND d.trade_id IS NULL) THEN
        RETURN 'invalid';
    END IF;
    SELECT * INTO locked FROM settlement._lock_dead(dlq_id);
    trade := locked.trade;
    ids := locked.ids;
    IF ids IS NULL THEN
        RETURN 'moved';
    END IF;
    IF (trade.status = 'UNKNOWN' OR trade.maybe_executed) AND NOT look_up AND may_repay IS NOT TRUE THEN
        PERFORM settlement._raise_not_permitted(format('redrive trade "%s"', trade.trade_id));
    END IF;

    -- An outcome not yet written to the trade row is overtaken by PENDING.
    PERFORM FROM settlement.unapplied u
    WHERE u.attached_id = trade.attached_id AND u.trade_id = trade.trade_id FOR UPDATE;
    IF EXISTS (SELECT FROM settlement.unapplied u
               WHERE u.attached_id = trade.attached_id AND u.trade_id = trade.trade_id
                 AND u.status IN ('SETTLED', 'REVERSED')) THEN
        RETURN 'settled';
    END IF;
    IF trade.class = 'invalid_trade' AND trade.first_sent_at IS NULL AND NOT trade.maybe_executed THEN
        result := settlement._revive(trade, ids, retry_at);
        IF result IN ('queue', 'deferred') THEN
            PERFORM settlement._audit('redrive', trade.attached_id, trade.trade_id,
                jsonb_build_object('to', result, 'status', trade.status, 'class', trade.class,
                                   'message', trade.message, 'died_at', trade.died_at), 1, reason);
        END IF;
        RETURN result;
    END IF;

    result := settlement._apply_pending(trade);
    IF result IS DISTINCT FROM 'done' THEN
        RETURN result;
    END IF;
    DELETE FROM settlement.unapplied u
    WHERE u.attached_id = trade.attached_id AND u.trade_id = trade.trade_id;
    DELETE FROM settlement.dlq d WHERE d.id = ANY (ids);

    IF trade.final_rejection THEN
        -- Since adopt() the new key too may have been sent, from where this came.
        trade.generation := trade.generation + 1;
        trade.maybe_executed := trade.lookup_first;
        trade.first_sent_at := CASE WHEN trade.lookup_first THEN trade.first_sent_at END;
        trade.fingerprint := NULL;
        trade.format := 0;
    END IF;
    IF look_up OR ((trade.status = 'UNKNOWN' OR trade.maybe_executed)
                   AND settlement._may_be_forgotten(trade.first_sent_at)) THEN
        trade.lookup_first := true;
        IF trade.first_sent_at > settlement._clock_latest() + interval '1 minute' THEN
            trade.first_sent_at := '-infinity';     -- and stays so when the clock comes by again
        END IF;
        PERFORM settlement._defer(trade, 'needs_lookup', coalesce(retry_at, clock_timestamp()));
        result := 'needs_lookup';
    ELSIF retry_at IS NOT NULL THEN
        PERFORM settlement._defer(trade, 'retry', retry_at);
        result := 'deferred';
    ELSE
        PERFORM settlement._requeue(trade);
        result := 'queue';
    END IF;
    PERFORM settlement._audit(CASE WHEN look_up THEN 'lookup' ELSE 'redrive' END,
        trade.attached_id, trade.trade_id,
        jsonb_build_object('to', result, 'status', trade.status, 'class', trade.class,
                           'code', trade.code, 'died_at', trade.died_at,
                           'generation', trade.generation), 1, reason);
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement._redrive(bigint, timestamptz, boolean, text, boolean) IS 'Internal: take one trade out of the DLQ and let it go on.';

-- What the results of _redrive mean to a person.
CREATE FUNCTION settlement._redrive_problem(result text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE result
        WHEN 'moved' THEN 'taken out of the DLQ by somebody else'
        WHEN 'invalid' THEN 'invalid trade without a trade id'
        WHEN 'settled' THEN 'settled: only its trade row is not written yet'
        WHEN 'kept' THEN 'its trade row says SETTLED or REVERSED'
        WHEN 'locked' THEN 'trade row is locked by another session'
        WHEN 'gone' THEN 'trade row no longer exists'
        WHEN 'refused' THEN 'a trigger of the trade table suppressed the update'
        ELSE result END
$$;
COMMENT ON FUNCTION settlement._redrive_problem(text) IS 'Internal: why a trade was not redriven.';

CREATE FUNCTION settlement._raise_not_redriven(trade_id text, result text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'trade "%" was not redriven: %', trade_id, settlement._redrive_problem(result)
        USING ERRCODE = CASE result WHEN 'locked' THEN 'lock_not_available'
                                    ELSE 'object_not_in_prerequisite_state' END,
              HINT = CASE result
                  WHEN 'locked' THEN 'Try again when that session has ended its transaction.'
                  WHEN 'invalid' THEN 'Correct the trade row, settlement.dlq_purge() the dead letter, set settlement_status to PENDING, then settlement.enqueue_pending() takes it up.'
                  WHEN 'kept' THEN 'If it is right, settlement.resolve() it as SETTLED; if not, set settlement_status to PENDING first.'
                  WHEN 'gone' THEN 'settlement.resolve() it, or settlement.dlq_purge() it.'
                  WHEN 'refused' THEN 'See what that trigger does with an UPDATE of the settlement columns.'
                  ELSE format('See SELECT settlement.explain(%L).', trade_id) END;
END $$;
COMMENT ON FUNCTION settlement._raise_not_redriven(text, text) IS 'Internal: error for a trade that was not redriven.';

CREATE FUNCTION settlement.redrive(trade_id text, reason text, relation regclass DEFAULT NULL,
    permit bigint DEFAULT settlement._permit())
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    attached integer;
    dlq_id bigint;
    result text;
BEGIN
    PERFORM settlement._require_reason(reason);
    attached := settlement._which_attached(redrive.trade_id, relation,
        ARRAY(SELECT DISTINCT d.attached_id FROM settlement.dlq d WHERE d.trade_id = redrive.trade_id));
    SELECT d.id INTO dlq_id FROM settlement.dlq d
    WHERE d.trade_id = redrive.trade_id AND d.attached_id = attached ORDER BY d.id LIMIT 1;
    IF dlq_id IS NULL THEN
        PERFORM settlement._raise_not_there(redrive.trade_id, attached, 'settlement.dlq');
    END IF;
    result := settlement._redrive(dlq_id, NULL, false, reason, settlement._redeem_permit(permit));
    IF result NOT IN ('queue', 'needs_lookup') THEN
        PERFORM settlement._raise_not_redriven(redrive.trade_id, result);
    END IF;
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement.redrive(text, text, regclass, bigint) IS 'Let a dead trade go on.  Returns queue (it is sent again) or needs_lookup (the wallet may have forgotten its key, so it is asked first).  The same key is used again, except after a final rejection.  What may have been paid takes grant_operator(..., may_repay => true): leave permit to its default, which proves that.';

-- ---------------------------------------------------------------- many at once
--
-- A filter travels as jsonb, as it goes into the audit log: keys that are
-- absent or null do not restrict.

CREATE FUNCTION settlement._require_filter(filter jsonb, all_rows boolean) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    filter := jsonb_strip_nulls(filter);
    IF filter = '{}' AND all_rows IS NOT TRUE THEN
        RAISE EXCEPTION 'no filter was given'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Name a filter such as class => ''rejected'', or pass all_rows => true.';
    END IF;
    IF filter ->> 'status' NOT IN ('FAILED', 'UNKNOWN') THEN
        RAISE EXCEPTION 'invalid status "%"', filter ->> 'status'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Dead letters are FAILED or UNKNOWN.';
    END IF;
    RETURN filter;
END $$;
COMMENT ON FUNCTION settlement._require_filter(jsonb, boolean) IS 'Internal: refuse an empty filter.';

-- UNKNOWN dead letters match only a filter that names status.
CREATE FUNCTION settlement._dlq_matching(filter jsonb) RETURNS SETOF settlement.dlq
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.*
    FROM jsonb_to_record(filter) AS f (trade_id text, class text, code text, http_status integer,
             symbol text, user_id text, status text, older_than interval, newer_than interval,
             min_value numeric, max_value numeric, relation regclass)
         JOIN settlement.dlq d ON d.status = coalesce(f.status, 'FAILED')
    WHERE (f.trade_id IS NULL OR d.trade_id = f.trade_id)
      AND (f.class IS NULL OR d.class = f.class)
      AND (f.code IS NULL OR d.code = f.code)
      AND (f.http_status IS NULL OR d.http_status = f.http_status)
      AND (f.symbol IS NULL OR d.symbol = f.symbol)
      AND (f.user_id IS NULL OR f.user_id IN (d.buyer_id, d.seller_id))
      AND (f.older_than IS NULL OR d.died_at <= now() - f.older_than)
      AND (f.newer_than IS NULL OR d.died_at >= now() - f.newer_than)
      AND (f.min_value IS NULL OR d.quote_amount >= f.min_value)
      AND (f.max_value IS NULL OR d.quote_amount <= f.max_value)
      AND (f.relation IS NULL OR d.attached_id = settlement._attached_id(f.relation))
$$;
COMMENT ON FUNCTION settlement._dlq_matching(jsonb) IS 'Internal: dead letters that a filter names.';

-- Redrive each, whatever happens to the others.  A user's trigger may raise for
-- one of them, so rows run in subtransactions, five hundred to one; only a
-- batch that failed is done again row by row.
CREATE FUNCTION settlement._redrive_each(ids bigint[], per_second numeric, look_up boolean, reason text,
    may_repay boolean)
RETURNS TABLE (dlq_id bigint, result text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch CONSTANT integer := 500;
    start_at CONSTANT timestamptz := clock_timestamp();
    results text[] := '{}';
    done integer := 0;
    upto integer;
    singly_until integer := 0;
BEGIN
    WHILE done < cardinality(ids) LOOP
        upto := CASE WHEN done < singly_until THEN done + 1
                     ELSE least(done + batch, cardinality(ids)) END;
        BEGIN
            FOR i IN done + 1 .. upto LOOP
                results[i] := settlement._redrive(ids[i],
                    CASE WHEN per_second IS NOT NULL
                         THEN start_at + (i - 1) / per_second * interval '1 second' END,
                    look_up, reason, may_repay);
            END LOOP;
            done := upto;
        EXCEPTION WHEN OTHERS THEN
            IF upto - done = 1 THEN
                results[upto] := SQLERRM;
                done := upto;
            ELSE
                singly_until := upto;
            END IF;
        END;
    END LOOP;
    RETURN QUERY SELECT i.id, i.result FROM unnest(ids, results) AS i (id, result);
END $$;
COMMENT ON FUNCTION settlement._redrive_each(bigint[], numeric, boolean, text, boolean) IS 'Internal: redrive many trades, each by itself.';

CREATE FUNCTION settlement._redrive_where(act text, filter jsonb, dry_run boolean, max bigint,
    per_second numeric, look_up boolean, reason text, may_repay boolean)
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint,
    redriven bigint, skipped bigint, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    went CONSTANT text[] := '{queue,deferred,needs_lookup}';
    total bigint := 0;
BEGIN
    IF per_second <= 0 OR max < 0 THEN
        RAISE EXCEPTION 'max and per_second must be positive'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF dry_run IS NOT FALSE THEN
        RETURN QUERY
        SELECT d.class, d.code, d.status, count(*), 0::bigint, 0::bigint,
               CASE WHEN d.class = 'invalid_trade' THEN 'read again from the trade row' END
        FROM settlement._dlq_matching(filter) d GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
        RETURN;
    END IF;

    PERFORM settlement._require_reason(reason);
    IF filter ->> 'status' = 'UNKNOWN' AND NOT look_up AND may_repay IS NOT TRUE THEN
        PERFORM settlement._raise_not_permitted('redrive UNKNOWN trades');
    END IF;
    FOR error_class, error_code, trade_status, matching, redriven, skipped, note IN
        WITH matched AS MATERIALIZED (SELECT d.id, d.class, d.code, d.status
                                      FROM settlement._dlq_matching(filter) d),
             tried AS MATERIALIZED (SELECT t.* FROM settlement._redrive_each(
                          ARRAY(SELECT m.id FROM matched m ORDER BY m.id LIMIT _redrive_where.max),
                          per_second, look_up, reason, may_repay) t)
        SELECT m.class, m.code, m.status, count(*),
               count(*) FILTER (WHERE t.result = ANY (went)),
               count(*) FILTER (WHERE t.result <> ALL (went)),
               left(string_agg(DISTINCT settlement._redrive_problem(t.result), '; ')
                    FILTER (WHERE t.result <> ALL (went)), 1000)
        FROM matched m LEFT JOIN tried t ON t.dlq_id = m.id
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    LOOP
        total := total + redriven;
        RETURN NEXT;
    END LOOP;
    PERFORM settlement._audit(act, NULL, NULL, filter, total, reason);
END $$;
COMMENT ON FUNCTION settlement._redrive_where(text, jsonb, boolean, bigint, numeric, boolean, text, boolean) IS 'Internal: redrive what a filter names.';

CREATE FUNCTION settlement.redrive_where(class text DEFAULT NULL, code text DEFAULT NULL,
    http_status integer DEFAULT NULL, symbol text DEFAULT NULL, user_id text DEFAULT NULL,
    status text DEFAULT NULL, older_than interval DEFAULT NULL, newer_than interval DEFAULT NULL,
    min_value numeric DEFAULT NULL, max_value numeric DEFAULT NULL, relation regclass DEFAULT NULL,
    all_rows boolean DEFAULT false, dry_run boolean DEFAULT true, max bigint DEFAULT NULL,
    per_second numeric DEFAULT NULL, reason text DEFAULT NULL,
    permit bigint DEFAULT settlement._permit())
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint,
    redriven bigint, skipped bigint, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM settlement._redrive_where('redrive_where',
        settlement._require_filter(jsonb_build_object('class', class, 'code', code,
            'http_status', http_status, 'symbol', symbol, 'user_id', user_id, 'status', status,
            'older_than', older_than, 'newer_than', newer_than, 'min_value', min_value,
            'max_value', max_value, 'relation', relation), all_rows),
        dry_run, max, per_second, false, reason, settlement._redeem_permit(permit));
END $$;
COMMENT ON FUNCTION settlement.redrive_where(text, text, integer, text, text, text, interval, interval, numeric, numeric, regclass, boolean, boolean, bigint, numeric, text, bigint) IS 'Let the dead trades that a filter names go on; by default only say what matches (dry_run => false acts).  UNKNOWN ones match only with status => ''UNKNOWN'', and take grant_operator(..., may_repay => true): leave permit to its default, which proves that.  user_id is buyer or seller, the values are quote amounts, max takes the oldest, per_second spreads them over time.';

CREATE FUNCTION settlement.resolve_where(class text DEFAULT NULL, code text DEFAULT NULL,
    http_status integer DEFAULT NULL, symbol text DEFAULT NULL, user_id text DEFAULT NULL,
    older_than interval DEFAULT NULL, newer_than interval DEFAULT NULL,
    min_value numeric DEFAULT NULL, max_value numeric DEFAULT NULL, relation regclass DEFAULT NULL,
    all_rows boolean DEFAULT false, dry_run boolean DEFAULT true, max bigint DEFAULT NULL,
    per_second numeric DEFAULT NULL, reason text DEFAULT NULL)
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint,
    redriven bigint, skipped bigint, note text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM settlement._redrive_where('resolve_where',
        settlement._require_filter(jsonb_build_object('class', class, 'code', code,
            'http_status', http_status, 'symbol', symbol, 'user_id', user_id,
            'older_than', older_than, 'newer_than', newer_than, 'min_value', min_value,
            'max_value', max_value, 'relation', relation), all_rows)
            || '{"status": "UNKNOWN"}',
        dry_run, max, per_second, true, reason, false);
END $$;
COMMENT ON FUNCTION settlement.resolve_where(text, text, integer, text, text, interval, interval, numeric, numeric, regclass, boolean, boolean, bigint, numeric, text) IS 'Ask the wallet what became of the UNKNOWN dead letters that a filter names, and record what it says; what it does not know is sent again under the same key, or, past settlement.idempotency_window, waits in deferred.  By default only say what matches (dry_run => false acts).';

CREATE FUNCTION settlement.dlq_purge(trade_id text DEFAULT NULL, class text DEFAULT NULL,
    code text DEFAULT NULL, http_status integer DEFAULT NULL, symbol text DEFAULT NULL,
    user_id text DEFAULT NULL, status text DEFAULT NULL, older_than interval DEFAULT NULL,
    newer_than interval DEFAULT NULL, min_value numeric DEFAULT NULL,
    max_value numeric DEFAULT NULL, relation regclass DEFAULT NULL,
    all_rows boolean DEFAULT false, dry_run boolean DEFAULT true, reason text DEFAULT NULL)
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint, purged bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    filter jsonb;
    total bigint := 0;
BEGIN
    IF status = 'UNKNOWN' THEN
        RAISE EXCEPTION 'an UNKNOWN trade cannot be purged'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The wallet may have moved its money.',
                  HINT = 'settlement.lookup() or settlement.resolve() it first.';
    END IF;
    filter := settlement._require_filter(jsonb_build_object('trade_id', trade_id, 'class', class,
        'code', code, 'http_status', http_status, 'symbol', symbol, 'user_id', user_id,
        'status', status, 'older_than', older_than, 'newer_than', newer_than,
        'min_value', min_value, 'max_value', max_value, 'relation', relation), all_rows);
    IF EXISTS (SELECT FROM settlement.dlq d WHERE d.trade_id = dlq_purge.trade_id AND NOT d.safe_to_discard
               AND (relation IS NULL OR d.attached_id = settlement._attached_id(relation))) THEN
        RAISE EXCEPTION 'trade "%" is not safe to discard', trade_id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The wallet may have moved its money.',
                  HINT = 'settlement.lookup() or settlement.resolve() it first.';
    END IF;
    IF dry_run IS NOT FALSE THEN
        RETURN QUERY SELECT d.class, d.code, d.status, count(*), 0::bigint
                     FROM settlement._dlq_matching(filter) d WHERE d.safe_to_discard
                     GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
        RETURN;
    END IF;

    PERFORM settlement._require_reason(reason);
    FOR error_class, error_code, trade_status, matching, purged IN
        WITH gone AS (DELETE FROM settlement.dlq d USING settlement._dlq_matching(filter) m
                      WHERE d.id = m.id AND d.safe_to_discard RETURNING d.*),
             noted AS (INSERT INTO settlement.audit_log (act, attached_id, trade_id, details, count, reason)
                       SELECT 'dlq_purge', g.attached_id, g.trade_id,
                              jsonb_strip_nulls(to_jsonb(g)), 1, dlq_purge.reason FROM gone g)
        SELECT g.class, g.code, g.status, count(*), count(*) FROM gone g GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    LOOP
        total := total + purged;
        RETURN NEXT;
    END LOOP;
    PERFORM settlement._audit('dlq_purge_where', NULL, NULL, filter, total, reason);
END $$;
COMMENT ON FUNCTION settlement.dlq_purge(text, text, text, integer, text, text, text, interval, interval, numeric, numeric, regclass, boolean, boolean, text) IS 'Forget dead letters that are safe_to_discard; their trade rows stay FAILED and what is known of them goes to the audit log.  By default only say what matches (dry_run => false acts).';

-- ---------------------------------------------------------------- resolve

CREATE FUNCTION settlement.resolve(trade_id text, outcome text, reference text, reason text,
    relation regclass DEFAULT NULL, permit bigint DEFAULT settlement._permit())
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    attached integer;
    trade record;
    result text;
    error text := 'resolved: ' || reason;
    may_repay CONSTANT boolean := settlement._redeem_permit(permit);
BEGIN
    PERFORM settlement._require_reason(reason);
    reference := nullif(btrim(reference), '');
    IF outcome IS NULL OR outcome NOT IN ('SETTLED', 'FAILED') THEN
        RAISE EXCEPTION 'invalid outcome "%"', outcome
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'A trade is resolved as SETTLED or as FAILED.';
    END IF;
    attached := settlement._which_attached(resolve.trade_id, relation,
        ARRAY(SELECT DISTINCT p.place_attached_id FROM settlement._places(resolve.trade_id, NULL) p
              WHERE p.place IN ('dlq', 'deferred')));

    WITH dead AS (DELETE FROM settlement.dlq d
                  WHERE d.attached_id = attached AND d.trade_id = resolve.trade_id RETURNING d.*),
         waiting AS (DELETE FROM settlement.deferred d
                     WHERE d.attached_id = attached AND d.trade_id = resolve.trade_id RETURNING d.*),
         taken AS (SELECT 'dlq' AS place, NOT d.safe_to_discard AS unknown, d.leaf, d.trade_tid,
                          d.row_key, d.attempts, to_jsonb(d) AS facts FROM dead d
                   UNION ALL
                   SELECT 'deferred', d.maybe_executed OR d.reason = 'needs_lookup', d.leaf,
                          d.trade_tid, d.row_key, d.attempts, to_jsonb(d) FROM waiting d)
    SELECT count(*) AS n, bool_or(t.unknown) AS unknown, max(t.attempts) AS attempts,
           jsonb_agg(jsonb_strip_nulls(t.facts) || jsonb_build_object('place', t.place)) AS facts,
           max(t.facts ->> 'trace_id') AS trace_id,
           (array_agg(t.leaf))[1] AS leaf, (array_agg(t.trade_tid))[1] AS trade_tid,
           (SELECT u.row_key FROM taken u LIMIT 1) AS row_key
    INTO trade FROM taken t;

    IF trade.n = 0 THEN
        PERFORM settlement._raise_not_there(resolve.trade_id, attached,
                                            'settlement.dlq or settlement.deferred');
    END IF;
    IF EXISTS (SELECT FROM settlement.queue q
               WHERE q.attached_id = attached AND q.trade_id = resolve.trade_id) THEN
        RAISE EXCEPTION 'trade "%" is queued or in flight', resolve.trade_id
            USING ERRCODE = 'object_in_use',
                  HINT = 'settlement.pause() its symbol and wait for settlement.wait_paused().';
    END IF;
    IF trade.unknown AND NOT may_repay THEN
        PERFORM settlement._raise_not_permitted(format('resolve trade "%s"', resolve.trade_id));
    END IF;
    IF reference IS NULL AND (outcome = 'SETTLED' OR trade.unknown) THEN
        RAISE EXCEPTION 'a reference is required to resolve trade "%"', resolve.trade_id
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = CASE WHEN outcome = 'SETTLED' THEN 'It becomes the trade''s settlement_id.'
                                ELSE 'The wallet may have moved its money.' END,
                  HINT = 'Pass what the wallet''s books say: a settlement id, or the ticket under which they were searched.';
    END IF;

    -- What was to be written to the trade row is overtaken, unless it settled.
    PERFORM FROM settlement.unapplied u
    WHERE u.attached_id = attached AND u.trade_id = resolve.trade_id FOR UPDATE;
    IF EXISTS (SELECT FROM settlement.unapplied u
               WHERE u.attached_id = attached AND u.trade_id = resolve.trade_id
                 AND u.status IN ('SETTLED', 'REVERSED')) THEN
        PERFORM settlement._raise_not_redriven(resolve.trade_id, 'settled');
    END IF;
    DELETE FROM settlement.unapplied u
    WHERE u.attached_id = attached AND u.trade_id = resolve.trade_id;

    result := settlement.apply_outcome(attached, trade.leaf, trade.trade_tid, resolve.trade_id,
        trade.row_key, outcome,
        CASE outcome WHEN 'SETTLED' THEN reference END,
        CASE outcome WHEN 'SETTLED' THEN clock_timestamp() END,
        trade.attempts, CASE outcome WHEN 'FAILED' THEN error END);
    IF result IN ('locked', 'refused') THEN
        INSERT INTO settlement.unapplied (attached_id, leaf, trade_tid, trade_id, row_key, status,
            settlement_id, settled_at, attempts, error, failures, last_failure, last_failed_at, trace_id)
        VALUES (attached, trade.leaf, trade.trade_tid, resolve.trade_id, trade.row_key, outcome,
            CASE outcome WHEN 'SETTLED' THEN reference END,
            CASE outcome WHEN 'SETTLED' THEN clock_timestamp() END,
            trade.attempts, CASE outcome WHEN 'FAILED' THEN error END, 1,
            settlement._redrive_problem(result), clock_timestamp(), trade.trace_id);
        PERFORM settlement._announce_work();
        RAISE NOTICE 'the outcome is recorded; it could not be written to the trade row yet: %',
            settlement._redrive_problem(result)
            USING HINT = 'It waits in settlement.unapplied; a worker writes it.';
    ELSIF result IN ('gone', 'kept') THEN
        RAISE NOTICE 'the outcome is recorded in the audit log only: %',
            settlement._redrive_problem(result);
    END IF;
    PERFORM settlement._audit('resolve', attached, resolve.trade_id,
        jsonb_build_object('outcome', outcome, 'reference', reference, 'applied', result,
                           'facts', trade.facts), 1, reason);
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement.resolve(text, text, text, text, regclass, bigint) IS 'Say by hand how a dead or waiting trade ended: SETTLED (reference becomes its settlement_id) or FAILED.  An UNKNOWN trade needs a reference for both, and takes grant_operator(..., may_repay => true): leave permit to its default, which proves that.  Returns what became of the trade row: done, locked or refused (a worker writes it later), gone or kept (the audit log only).';

-- ---------------------------------------------------------------- lookup

CREATE FUNCTION settlement.lookup(trade_id text, relation regclass DEFAULT NULL)
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    attached integer;
    dead record;
    result text;
    n bigint;
BEGIN
    IF NOT settlement._setting('wallet_lookup')::boolean THEN
        RAISE EXCEPTION 'this wallet has no look-up'
            USING ERRCODE = 'feature_not_supported',
                  DETAIL = 'settlement.wallet_lookup is off.',
                  HINT = 'settlement.resolve() the trade from the wallet''s books.';
    END IF;
    attached := settlement._which_attached(lookup.trade_id, relation,
        ARRAY(SELECT DISTINCT p.place_attached_id FROM settlement._places(lookup.trade_id, NULL) p
              WHERE p.place IN ('dlq', 'deferred')));

    SELECT d.id, d.safe_to_discard INTO dead FROM settlement.dlq d
    WHERE d.attached_id = attached AND d.trade_id = lookup.trade_id
    ORDER BY d.safe_to_discard, d.id LIMIT 1;
    IF dead.safe_to_discard THEN
        RAISE EXCEPTION 'there is nothing to look up: trade "%" is FAILED', lookup.trade_id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The wallet certainly did not move its money.',
                  HINT = 'settlement.redrive() it to try again.';
    ELSIF dead.id IS NOT NULL THEN
        result := settlement._redrive(dead.id, NULL, true, NULL, false);
        IF result <> 'needs_lookup' THEN
            PERFORM settlement._raise_not_redriven(lookup.trade_id, result);
        END IF;
        RETURN 'the wallet will be asked; if it does not know the key, the trade is sent again under the same key, or, past settlement.idempotency_window, waits in settlement.deferred';
    END IF;

    -- A paused one is asked about when its pause ends.
    UPDATE settlement.deferred d
    SET lookup_first = true,
        retry_at = CASE d.reason WHEN 'paused' THEN d.retry_at ELSE clock_timestamp() END
    WHERE d.attached_id = attached AND d.trade_id = lookup.trade_id;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n = 0 THEN
        PERFORM settlement._raise_not_there(lookup.trade_id, attached,
                                            'settlement.dlq or settlement.deferred');
    END IF;
    PERFORM settlement._announce_work();
    PERFORM settlement._audit('lookup', attached, lookup.trade_id, NULL, n, NULL);
    RETURN 'the wallet will be asked before anything is sent again';
END $$;
COMMENT ON FUNCTION settlement.lookup(text, regclass) IS 'Let a worker ask the wallet what became of a trade that is UNKNOWN or waits, and record what it says; as settlement.resolve_where() for one trade.';

-- ---------------------------------------------------------------- summary

CREATE VIEW settlement.dlq_summary AS
SELECT d.status, d.class, d.code, d.http_status, d.symbol, count(*) AS trades,
       sum(d.quote_amount) AS quote_value, min(d.died_at) AS first_died_at,
       max(d.died_at) AS last_died_at, bool_and(d.safe_to_discard) AS safe_to_discard
FROM settlement.dlq d
GROUP BY d.status, d.class, d.code, d.http_status, d.symbol
ORDER BY trades DESC, last_died_at DESC;
COMMENT ON VIEW settlement.dlq_summary IS 'Dead letters by what they died of and by symbol.  safe_to_discard: of all of them the wallet certainly did not move the money.';

-- ---------------------------------------------------------------- unknown

-- From partial indexes that hold these rows alone, whatever else is dead or waits.
-- The queue has none (nothing on the hot path needs one): what was sent before
-- is at its tail, where a retry or a redrive has put it.
CREATE VIEW settlement.unknown AS
WITH u AS (
    SELECT 'dlq' AS place, d.symbol, count(*) AS trades, sum(d.quote_amount) AS value, min(d.enqueued_at) AS oldest
    FROM settlement.dlq d WHERE d.status = 'UNKNOWN' GROUP BY d.symbol
    UNION ALL
    SELECT CASE d.reason WHEN 'needs_lookup' THEN 'needs_lookup' ELSE 'deferred' END,
           d.symbol, count(*), sum(d.quote_amount), min(d.enqueued_at)
    FROM settlement.deferred d WHERE d.maybe_executed GROUP BY d.symbol, d.reason
    UNION ALL
    SELECT 'queue', q.symbol, count(*), sum(q.quote_amount), min(q.enqueued_at)
    FROM (SELECT * FROM settlement.queue ORDER BY id DESC LIMIT 10000) q WHERE q.maybe_executed GROUP BY q.symbol
)
SELECT u.place, coalesce(substring(u.symbol from '[/_-](.*)$'), u.symbol) AS currency,
       sum(u.trades)::bigint AS trades, sum(u.value) AS value_at_risk, min(u.oldest) AS oldest
FROM u GROUP BY 1, 2 ORDER BY array_position('{dlq,needs_lookup,deferred,queue}', u.place), 2;
COMMENT ON VIEW settlement.unknown IS 'Trades of which the wallet may have moved the money, by place and quote currency.  dlq: a person, or resolve_where(), has to find out; needs_lookup: only the wallet''s books can tell; deferred, queue: sent again under the same key by themselves (of the queue the newest 10000 rows are looked at).  oldest: when the oldest of the trades was enqueued.';
