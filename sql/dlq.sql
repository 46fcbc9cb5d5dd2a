-- dlq.sql: the dead letter queue: which dead letters a filter names, what leaves it
-- for good or is copied from it, and what may have been paid.  redrive.sql and
-- resolve.sql let trades go on, redrives.sql and policies.sql let the workers do so.

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
                  HINT = 'Name a filter such as class => ''insufficient_balance'', or pass all_rows => true.';
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
COMMENT ON FUNCTION settlement.dlq_export(text, text, integer, text, text, text, interval, interval, numeric, numeric, regclass, text) IS 'Dead letters that a filter names, FAILED and UNKNOWN, as jsonb, with their idempotency keys: COPY (SELECT settlement.dlq_export()) TO ... writes one line each.  Changes nothing but the audit log.';

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
