-- find.sql: where a trade is: its row, and our tables.
--
-- The trade row is read with the caller's own rights, so that no type, policy or
-- rule of a user's table runs as our owner.  What our tables know comes from
-- functions that run as the owner.
--
-- What is told of a trade is of one moment: a trade that moves meanwhile would
-- else be seen twice, or nowhere.  So everything here is STABLE, and who asks calls
-- it in one statement together with what makes an answer of it.

-- The queue has no index by trade id: nothing on the way of a trade needs one, and
-- no INSERT shall pay for one.  So it is read through, by several processes where
-- the server allows; once for all tables.
CREATE FUNCTION settlement._queued(trade_id text, attached_ids integer[]) RETURNS SETOF settlement.queue
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT q.* FROM settlement.queue q
    WHERE q.trade_id = _queued.trade_id AND q.attached_id = ANY (_queued.attached_ids)
$$;
COMMENT ON FUNCTION settlement._queued(text, integer[]) IS 'Internal: queue rows of a trade.';

-- The same within milliseconds, for a trade that was enqueued by the transaction
-- that wrote its row: queue ids are drawn in about the order of transaction ids, so
-- halving the ids leads to where that transaction drew its own, and the rows around
-- it are looked at.  Ids are missing where trades have left the queue, mostly the
-- lower ones.  That nothing is found means nothing: the trade may have come back
-- from a retry or a redrive, its row may have been written since, or its
-- transaction was long.
CREATE FUNCTION settlement._queued_by(trade_id text, attached_id integer, writer xid) RETURNS SETOF settlement.queue
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    stretch CONSTANT integer := 500;
    around CONSTANT integer := 5000;
    low bigint := 0;
    high bigint := (SELECT s.last_value FROM settlement.queue_id_seq s);
    middle bigint;
    is_later boolean;
BEGIN
    IF writer IS NULL THEN
        RETURN;
    END IF;
    WHILE high - low > stretch LOOP
        middle := (low + high) / 2;
        SELECT age(q.xmin) <= age(writer) INTO is_later
        FROM settlement.queue q WHERE q.id >= middle AND q.id < middle + stretch ORDER BY q.id LIMIT 1;
        IF is_later THEN
            high := middle;
        ELSE
            low := middle;
        END IF;
    END LOOP;
    RETURN QUERY SELECT q.* FROM settlement.queue q
    WHERE q.id BETWEEN low - around AND high + around
      AND q.trade_id = _queued_by.trade_id AND q.attached_id = _queued_by.attached_id;
END $$;
COMMENT ON FUNCTION settlement._queued_by(text, integer, xid) IS 'Internal: queue rows of a trade among those that a transaction, and others at its time, have written; a hint.';

CREATE FUNCTION settlement._was_known(trade_id text, attached_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM settlement.audit_log a
                   WHERE a.trade_id = _was_known.trade_id AND a.attached_id = _was_known.attached_id)
        OR EXISTS (SELECT FROM settlement.attempts a
                   WHERE a.trade_id = _was_known.trade_id AND a.attached_id = _was_known.attached_id)
$$;
COMMENT ON FUNCTION settlement._was_known(text, integer) IS 'Internal: is there an attempt or an act recorded of a trade?';

CREATE FUNCTION settlement._is_known(trade_id text, attached_id integer) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT settlement._was_known(_is_known.trade_id, _is_known.attached_id)
        OR EXISTS (SELECT FROM settlement.deferred d
                   WHERE d.trade_id = _is_known.trade_id AND d.attached_id = _is_known.attached_id)
        OR EXISTS (SELECT FROM settlement.dlq d
                   WHERE d.trade_id = _is_known.trade_id AND d.attached_id = _is_known.attached_id)
        OR EXISTS (SELECT FROM settlement.unapplied u
                   WHERE u.trade_id = _is_known.trade_id AND u.attached_id = _is_known.attached_id)
$$;
COMMENT ON FUNCTION settlement._is_known(text, integer) IS 'Internal: is anything recorded of a trade, beside the queue?';

-- The attached tables to look at, with the statements that read their rows.  They
-- compare in the column's base type, so that the key's index can be used.
CREATE FUNCTION settlement._trade_tables(relation regclass,
    OUT attached_id integer, OUT relid regclass, OUT row_query text, OUT writer_query text,
    OUT pending_query text, OUT still_pending_query text) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one CONSTANT integer := CASE WHEN relation IS NOT NULL THEN settlement._attached_id(relation) END;
    a record;
    key_type text;
BEGIN
    FOR a IN SELECT t.* FROM settlement.attached t
             WHERE one IS NULL OR t.attached_id = one ORDER BY t.attached_id
    LOOP
        attached_id := a.attached_id;
        relid := a.relid;
        row_query := NULL;
        writer_query := NULL;
        pending_query := NULL;
        still_pending_query := NULL;
        SELECT format_type(settlement._base_type(c.atttypid), -1) INTO key_type FROM pg_attribute c
        WHERE c.attrelid = a.relid AND c.attname = a.columns ->> 'trade_id' AND NOT c.attisdropped;
        IF FOUND THEN
            row_query := format(
                'SELECT %I::text AS status, %I::text AS settlement_id, %I::timestamptz AS settled_at, %I::text AS error FROM %s WHERE %I = $1::%s LIMIT 1',
                a.columns ->> 'status', a.columns ->> 'settlement_id', a.columns ->> 'settled_at',
                a.columns ->> 'error', a.relid, a.columns ->> 'trade_id', key_type);
            writer_query := format('SELECT xmin FROM %s WHERE %I = $1::%s LIMIT 1',
                a.relid, a.columns ->> 'trade_id', key_type);
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

-- The transaction that wrote the row of a trade.  On its own, as reading xmin takes a
-- right on the whole table, and the columns alone may be granted.
CREATE FUNCTION settlement._trade_writer(writer_query text, trade_id text) RETURNS xid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    writer xid;
BEGIN
    EXECUTE writer_query INTO writer USING trade_id;
    RETURN writer;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;                    -- it helps to find the trade, no more
END $$;
COMMENT ON FUNCTION settlement._trade_writer(text, text) IS 'Internal: xmin of the row of a trade, with the caller''s rights; NULL when it cannot be read.';

-- Each attached table with what it, and the queue, have of the trade.  A row of the
-- queue that is easily found is enough, unless `all_rows`: there is a second one
-- only if the trade was enqueued twice, and its key settles only once.  An id that
-- is found in one table is not looked for in others that have nothing of it.
CREATE FUNCTION settlement._find(trade_id text, relation regclass, all_rows boolean)
RETURNS TABLE (attached_id integer, relid regclass, row_found boolean, status text, settlement_id text,
    settled_at timestamptz, error text, queued settlement.queue[], is_known boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH seen AS MATERIALIZED (
        SELECT t.attached_id, t.relid, r.*,
               CASE WHEN r.status = 'PENDING' AND NOT all_rows
                    THEN ARRAY(SELECT q FROM settlement._queued_by(_find.trade_id, t.attached_id,
                                   settlement._trade_writer(t.writer_query, _find.trade_id)) q)
                    ELSE '{}' END AS easily
        FROM settlement._trade_tables(relation) t, LATERAL settlement._trade_row(t.row_query, _find.trade_id) r),
    rest AS (
        SELECT array_agg(s.attached_id) AS attached_ids FROM seen s
        WHERE cardinality(s.easily) = 0
          AND NOT (s.row_found IS FALSE AND EXISTS (SELECT FROM seen o WHERE cardinality(o.easily) > 0)
                   AND NOT settlement._is_known(_find.trade_id, s.attached_id))),
    searched AS MATERIALIZED (
        SELECT q FROM rest, LATERAL settlement._queued(_find.trade_id, rest.attached_ids) q
        WHERE rest.attached_ids IS NOT NULL)
    SELECT s.attached_id, s.relid, s.row_found, s.status, s.settlement_id, s.settled_at, s.error, e.queued,
           s.row_found IS TRUE OR cardinality(e.queued) > 0 OR settlement._is_known(_find.trade_id, s.attached_id)
    FROM seen s, LATERAL (SELECT s.easily || ARRAY(SELECT x.q FROM searched x WHERE (x.q).attached_id = s.attached_id) AS queued) e
    ORDER BY s.attached_id
$$;
COMMENT ON FUNCTION settlement._find(text, regclass, boolean) IS 'Internal: what the attached tables and the queue have of a trade.';

CREATE FUNCTION settlement._is_one(trade_id text, n bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF n > 1 THEN
        RAISE EXCEPTION 'trade "%" exists in more than one attached table', trade_id
            USING ERRCODE = 'ambiguous_parameter',
                  HINT = 'Say which one is meant: relation => ''name of the table''.';
    END IF;
    RETURN n = 1;
END $$;
COMMENT ON FUNCTION settlement._is_one(text, bigint) IS 'Internal: refuse an id that more than one table has.';
