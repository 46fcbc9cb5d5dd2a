-- dlq.sql: the dead letter queue: what all verbs on it share, its views, and
-- what leaves it for good or is copied from it.  redrive.sql and resolve.sql let
-- trades go on, redrives.sql and policies.sql let the workers do so.
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

-- ---------------------------------------------------------------- filters
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

-- UNKNOWN dead letters match only a filter that names status.  Ages count from
-- as_of; only ids above `after` and up to `upto` are looked at.
CREATE FUNCTION settlement._dlq_matching(filter jsonb, as_of timestamptz DEFAULT now(),
    after bigint DEFAULT 0, upto bigint DEFAULT 9223372036854775807) RETURNS SETOF settlement.dlq
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT d.*
    FROM jsonb_to_record(filter) AS f (trade_id text, class text, code text, http_status integer,
             symbol text, user_id text, status text, older_than interval, newer_than interval,
             min_value numeric, max_value numeric, relation regclass)
         JOIN settlement.dlq d ON d.status = coalesce(f.status, 'FAILED')
    WHERE d.id > after AND d.id <= upto
      AND (f.trade_id IS NULL OR d.trade_id = f.trade_id)
      AND (f.class IS NULL OR d.class = f.class)
      AND (f.code IS NULL OR d.code = f.code)
      AND (f.http_status IS NULL OR d.http_status = f.http_status)
      AND (f.symbol IS NULL OR d.symbol = f.symbol)
      AND (f.user_id IS NULL OR f.user_id IN (d.buyer_id, d.seller_id))
      AND (f.older_than IS NULL OR d.died_at <= as_of - f.older_than)
      AND (f.newer_than IS NULL OR d.died_at >= as_of - f.newer_than)
      AND (f.min_value IS NULL OR d.quote_amount >= f.min_value)
      AND (f.max_value IS NULL OR d.quote_amount <= f.max_value)
      AND (f.relation IS NULL OR d.attached_id = settlement._attached_id(f.relation))
$$;
COMMENT ON FUNCTION settlement._dlq_matching(jsonb, timestamptz, bigint, bigint) IS 'Internal: dead letters that a filter names.';

-- ---------------------------------------------------------------- purge and export

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

CREATE FUNCTION settlement.dlq_export(class text DEFAULT NULL, code text DEFAULT NULL,
    http_status integer DEFAULT NULL, symbol text DEFAULT NULL, user_id text DEFAULT NULL,
    status text DEFAULT NULL, older_than interval DEFAULT NULL, newer_than interval DEFAULT NULL,
    min_value numeric DEFAULT NULL, max_value numeric DEFAULT NULL, relation regclass DEFAULT NULL,
    reason text DEFAULT NULL)
RETURNS SETOF jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    filter CONSTANT jsonb := settlement._require_filter(jsonb_build_object('class', class, 'code', code,
        'http_status', http_status, 'symbol', symbol, 'user_id', user_id, 'status', status,
        'older_than', older_than, 'newer_than', newer_than, 'min_value', min_value,
        'max_value', max_value, 'relation', relation), true);
    total bigint;
BEGIN
    RETURN QUERY
    SELECT jsonb_strip_nulls(jsonb_build_object('relation', a.relid::text,
               'key', settlement._idempotency_key(a.source, d.trade_id, d.generation))
               || to_jsonb(d) - '{id,attached_id,leaf,trade_tid,fingerprint,charged,format,pending_ms}'::text[])
    FROM unnest(CASE WHEN filter ? 'status' THEN ARRAY[filter ->> 'status'] ELSE '{FAILED,UNKNOWN}' END) s,
         settlement._dlq_matching(filter || jsonb_build_object('status', s)) d
         LEFT JOIN settlement.attached a ON a.attached_id = d.attached_id
    ORDER BY d.id;
    GET DIAGNOSTICS total = ROW_COUNT;
    -- It goes out of the house; on a standby nothing can be noted.
    IF NOT current_setting('transaction_read_only')::boolean THEN
        PERFORM settlement._audit('dlq_export', NULL, NULL, filter, total, reason);
    END IF;
END $$;
COMMENT ON FUNCTION settlement.dlq_export(text, text, integer, text, text, text, interval, interval, numeric, numeric, regclass, text) IS 'Dead letters that a filter names, FAILED and UNKNOWN, as jsonb, with their idempotency keys: COPY (SELECT settlement.dlq_export()) TO ... writes one line each.  Changes nothing.';

-- ---------------------------------------------------------------- unknown

-- Dead letters are summed already (tally.sql); deferred has an index that holds
-- these rows alone.  The queue has none (nothing on the hot path needs one): what
-- was sent before is at its tail, where a retry or a redrive has put it.
CREATE VIEW settlement.unknown AS
WITH u AS (
    SELECT 'dlq' AS place, s.symbol, sum(s.trades) AS trades, sum(s.quote_value) AS value,
           (SELECT d.enqueued_at FROM settlement.dlq d WHERE d.status = 'UNKNOWN' AND d.symbol = s.symbol
            ORDER BY d.enqueued_at LIMIT 1) AS oldest
    FROM settlement.dlq_summary s WHERE s.status = 'UNKNOWN' GROUP BY s.symbol
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
