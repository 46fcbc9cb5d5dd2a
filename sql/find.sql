-- find.sql: where a trade is: its row, and our tables.
--
-- The trade row is read with the caller's own rights, so that no type, policy or
-- rule of a user's table runs as our owner.  What our tables know comes from
-- functions that run as the owner.

-- The queue has no index by trade id (nothing on the hot path needs one), so it is
-- read through, by several processes where the server allows.
CREATE FUNCTION settlement._queued(trade_id text, attached_id integer) RETURNS SETOF settlement.queue
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT q.* FROM settlement.queue q
    WHERE q.trade_id = _queued.trade_id AND q.attached_id = _queued.attached_id
$$;
COMMENT ON FUNCTION settlement._queued(text, integer) IS 'Internal: queue rows of a trade.';

CREATE FUNCTION settlement._was_known(trade_id text, attached_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM settlement.audit_log a
                   WHERE a.trade_id = _was_known.trade_id AND a.attached_id = _was_known.attached_id)
        OR EXISTS (SELECT FROM settlement.attempts a
                   WHERE a.trade_id = _was_known.trade_id AND a.attached_id = _was_known.attached_id)
$$;
COMMENT ON FUNCTION settlement._was_known(text, integer) IS 'Internal: is there an attempt or an act recorded of a trade?';

-- The attached tables to look at, with the statements that read their rows.  They
-- compare in the column's base type, so that the key's index can be used.
CREATE FUNCTION settlement._trade_tables(relation regclass,
    OUT attached_id integer, OUT relid regclass, OUT row_query text,
    OUT pending_query text, OUT still_pending_query text) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one CONSTANT integer := CASE WHEN relation IS NOT NULL THEN settlement._attached_id(relation) END;
    a record;
    key_type regtype;
BEGIN
    FOR a IN SELECT t.* FROM settlement.attached t
             WHERE one IS NULL OR t.attached_id = one ORDER BY t.attached_id
    LOOP
        attached_id := a.attached_id;
        relid := a.relid;
        row_query := NULL;
        pending_query := NULL;
        still_pending_query := NULL;
        SELECT settlement._base_type(c.atttypid) INTO key_type FROM pg_attribute c
        WHERE c.attrelid = a.relid AND c.attname = a.columns ->> 'trade_id' AND NOT c.attisdropped;
        IF FOUND THEN
            row_query := format(
                'SELECT %I::text AS status, %I::text AS settlement_id, %I::timestamptz AS settled_at, %I::text AS error FROM %s WHERE %I = $1::%s LIMIT 1',
                a.columns ->> 'status', a.columns ->> 'settlement_id', a.columns ->> 'settled_at',
                a.columns ->> 'error', a.relid, a.columns ->> 'trade_id', key_type);
            pending_query := format(
                'SELECT coalesce(array_agg(x.id), ''{}'') FROM (SELECT %I::text AS id FROM %s WHERE %I::text = ''PENDING'' LIMIT $1) x',
                a.columns ->> 'trade_id', a.relid, a.columns ->> 'status');
            still_pending_query := format(
                'SELECT coalesce(array_agg(%1$I::text), ''{}'') FROM %2$s WHERE %1$I = ANY ($1::%3$s[]) AND %4$I::text = ''PENDING''',
                a.columns ->> 'trade_id', a.relid, key_type, a.columns ->> 'status');
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._trade_tables(regclass) IS 'Internal: attached tables, with the statements that read their rows.';

-- The row of a trade, with the caller's rights.  row_found is NULL when it cannot be
-- read: no privilege, or the table is gone.
CREATE FUNCTION settlement._trade_row(row_query text, trade_id text, OUT row_found boolean,
    OUT status text, OUT settlement_id text, OUT settled_at timestamptz, OUT error text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r record;
BEGIN
    EXECUTE row_query INTO r USING trade_id;
    GET DIAGNOSTICS row_found = ROW_COUNT;
    status := r.status;
    settlement_id := r.settlement_id;
    settled_at := r.settled_at;
    error := r.error;
EXCEPTION
    WHEN null_value_not_allowed OR insufficient_privilege OR undefined_table OR undefined_column
         OR syntax_error THEN
        row_found := NULL;
    WHEN invalid_text_representation OR numeric_value_out_of_range THEN
        row_found := false;         -- no id of this table's type
END $$;
COMMENT ON FUNCTION settlement._trade_row(text, text) IS 'Internal: read the row of a trade with the caller''s rights.';

CREATE FUNCTION settlement._is_known(trade_id text, attached_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT settlement._was_known(_is_known.trade_id, _is_known.attached_id)
        OR EXISTS (SELECT FROM settlement._places(_is_known.trade_id, _is_known.attached_id))
$$;
COMMENT ON FUNCTION settlement._is_known(text, integer) IS 'Internal: is anything recorded of a trade?';
