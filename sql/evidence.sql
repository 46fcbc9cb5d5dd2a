-- evidence.sql: all that is kept of one trade, as one document.

-- What is recorded of a trade, with the request that its snapshot makes.
CREATE FUNCTION settlement._evidence(trade_id text, attached_id integer, queued settlement.queue[], trade_row jsonb,
    OUT evidence jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    a settlement.attached;
    copies jsonb;
    snapshot settlement.queue;
    generation integer;
    body bytea;
BEGIN
    SELECT * INTO a FROM settlement.attached t WHERE t.attached_id = _evidence.attached_id;
    SELECT jsonb_agg(c.facts) INTO copies FROM (
        SELECT to_jsonb(q) || '{"place": "queue"}' AS facts FROM unnest(queued) q
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
COMMENT ON FUNCTION settlement._evidence(text, integer, settlement.queue[], jsonb) IS 'Internal: what our tables hold of a trade.';

-- The content of a trade row under the names of the queue, with the caller's rights.
CREATE FUNCTION settlement._content_query(attached_id integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'SELECT jsonb_build_object('
           || string_agg(format('%L, t.%I::text', e.key, e.value), ', ' ORDER BY e.key)
           || format(', ''quote_amount'', t.%I::text::numeric * t.%I::text::numeric) FROM %s t WHERE t.%I = $1::%s LIMIT 1',
                     a.columns ->> 'price', a.columns ->> 'quantity', a.relid, a.columns ->> 'trade_id',
                     (SELECT format_type(settlement._base_type(c.atttypid), -1) FROM pg_attribute c
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
BEGIN
    RETURN (
        WITH found AS MATERIALIZED (
                 SELECT f.* FROM settlement._find(evidence.trade_id, relation, all_rows => true) f WHERE f.is_known)
        SELECT settlement._evidence(evidence.trade_id, f.attached_id, f.queued,
                                    settlement._content(f.attached_id, evidence.trade_id))
            || jsonb_build_object('trade_row', jsonb_build_object('found', f.row_found, 'status', f.status,
                   'settlement_id', f.settlement_id, 'settled_at', f.settled_at, 'error', f.error))
        FROM found f WHERE settlement._is_one(evidence.trade_id, (SELECT count(*) FROM found)));
END $$;
COMMENT ON FUNCTION settlement.evidence(text, regclass) IS 'All that is kept of a trade, as one document: where it is, its idempotency key, the bytes of its request with their SHA-256 and the one that was noted when they first left, the wallet''s replies (code, status, up to 512 bytes of message), acts of operators, contradictions.  The request of a trade that is not settled is made from the copy of the trade in our tables, byte for byte as it is sent; that of a settled one from the trade row as it is now, since the copy is gone.  No secret is in it.  NULL: the trade is not known.  Reads the trade row with the caller''s privileges.';
