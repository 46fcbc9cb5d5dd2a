-- resolve.sql: say, or find out, how a trade ended: by hand, by a statement of the
-- wallet's, or by asking it.
--
-- What is UNKNOWN leaves the DLQ here only with a reference to the wallet's books,
-- or by way of the wallet's own answer.

-- Asked after they were taken out of where they waited: who puts them into the queue
-- takes them from there.  It reads the queue, once for all.
CREATE FUNCTION settlement._refuse_queued(trades jsonb[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queued text;
BEGIN
    SELECT t ->> 'trade_id' INTO queued
    FROM unnest(trades) t
         JOIN settlement.queue q ON q.trade_id = t ->> 'trade_id' AND q.attached_id = (t ->> 'attached_id')::integer
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'trade "%" is queued or in flight', queued
            USING ERRCODE = 'object_in_use',
                  HINT = 'settlement.pause() its symbol and wait for settlement.wait_paused().';
    END IF;
END $$;
COMMENT ON FUNCTION settlement._refuse_queued(jsonb[]) IS 'Internal: refuse to resolve what is queued; trades as {attached_id, trade_id}.';

-- Take a trade out of the DLQ and of deferred, and write its outcome.  The caller
-- refuses what is queued.
CREATE FUNCTION settlement._resolve(attached integer, trade_id text, outcome text, reference text,
    reason text, may_repay boolean) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    trade record;
    result text;
    error text := 'resolved: ' || reason;
BEGIN
    WITH dead AS (DELETE FROM settlement.dlq d
                  WHERE d.attached_id = attached AND d.trade_id = _resolve.trade_id RETURNING d.*),
         waiting AS (DELETE FROM settlement.deferred d
                     WHERE d.attached_id = attached AND d.trade_id = _resolve.trade_id RETURNING d.*),
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
        PERFORM settlement._raise_not_there(_resolve.trade_id, attached,
                                            'settlement.dlq or settlement.deferred');
    END IF;
    IF trade.unknown AND NOT may_repay THEN
        PERFORM settlement._raise_not_permitted(format('resolve trade "%s"', _resolve.trade_id));
    END IF;
    IF reference IS NULL AND (outcome = 'SETTLED' OR trade.unknown) THEN
        RAISE EXCEPTION 'a reference is required to resolve trade "%"', _resolve.trade_id
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = CASE WHEN outcome = 'SETTLED' THEN 'It becomes the trade''s settlement_id.'
                                ELSE 'The wallet may have moved its money.' END,
                  HINT = 'Pass what the wallet''s books say: a settlement id, or the ticket under which they were searched.';
    END IF;

    -- What was to be written to the trade row is overtaken, unless it settled.
    PERFORM FROM settlement.unapplied u
    WHERE u.attached_id = attached AND u.trade_id = _resolve.trade_id FOR UPDATE;
    IF EXISTS (SELECT FROM settlement.unapplied u
               WHERE u.attached_id = attached AND u.trade_id = _resolve.trade_id
                 AND u.status IN ('SETTLED', 'REVERSED')) THEN
        PERFORM settlement._raise_not_redriven(_resolve.trade_id, 'settled');
    END IF;
    DELETE FROM settlement.unapplied u
    WHERE u.attached_id = attached AND u.trade_id = _resolve.trade_id;

    result := settlement.apply_outcome(attached, trade.leaf, trade.trade_tid, _resolve.trade_id,
        trade.row_key, outcome,
        CASE outcome WHEN 'SETTLED' THEN reference END,
        CASE outcome WHEN 'SETTLED' THEN clock_timestamp() END,
        trade.attempts, CASE outcome WHEN 'FAILED' THEN error END);
    IF result IN ('locked', 'refused', 'unsearched') THEN
        INSERT INTO settlement.unapplied (attached_id, leaf, trade_tid, trade_id, row_key, status,
            settlement_id, settled_at, attempts, error, failures, last_failure, last_failed_at, trace_id)
        VALUES (attached, trade.leaf, trade.trade_tid, _resolve.trade_id, trade.row_key, outcome,
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
    PERFORM settlement._audit('resolve', attached, _resolve.trade_id,
        jsonb_build_object('outcome', outcome, 'reference', reference, 'applied', result,
                           'facts', trade.facts), 1, reason);
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement._resolve(integer, text, text, text, text, boolean) IS 'Internal: resolve one trade.';

-- By their indexes: the queue, which has none for it, is not what is asked for.
CREATE FUNCTION settlement._waiting_of(trade_id text) RETURNS integer[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT d.attached_id FROM settlement.dlq d WHERE d.trade_id = _waiting_of.trade_id
                 UNION
                 SELECT d.attached_id FROM settlement.deferred d WHERE d.trade_id = _waiting_of.trade_id)
$$;
COMMENT ON FUNCTION settlement._waiting_of(text) IS 'Internal: tables of which a trade with this id is dead or deferred.';

CREATE FUNCTION settlement.resolve(trade_id text, outcome text, reference text, reason text,
    relation regclass DEFAULT NULL, permit bigint DEFAULT settlement._permit())
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    may_repay CONSTANT boolean := settlement._redeem_permit(permit);
    attached integer;
    result text;
BEGIN
    PERFORM settlement._require_reason(reason);
    IF outcome IS NULL OR outcome NOT IN ('SETTLED', 'FAILED') THEN
        RAISE EXCEPTION 'invalid outcome "%"', outcome
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'A trade is resolved as SETTLED or as FAILED.';
    END IF;
    attached := settlement._which_attached(resolve.trade_id, relation, settlement._waiting_of(resolve.trade_id));
    result := settlement._resolve(attached, resolve.trade_id, outcome, nullif(btrim(reference), ''), reason, may_repay);
    PERFORM settlement._refuse_queued(ARRAY[jsonb_build_object('attached_id', attached, 'trade_id', resolve.trade_id)]);
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement.resolve(text, text, text, text, regclass, bigint) IS 'Say by hand how a dead or waiting trade ended: SETTLED (reference becomes its settlement_id) or FAILED.  An UNKNOWN trade needs a reference for both, and takes grant_operator(..., may_repay => true): leave permit to its default, which proves that.  Returns what became of the trade row: done, locked or refused (a worker writes it later), gone or kept (the audit log only).';

-- ---------------------------------------------------------------- by a statement

-- What an imported statement of the wallet says of UNKNOWN dead letters.  Each line
-- names a trade by key, by trade_id, or by both, which must agree then.  What a
-- trade id alone says of a failure may be about an earlier key: it counts only when
-- there was none.  problem: why the trade is left alone.
CREATE FUNCTION settlement._statement_says(filter jsonb, statement jsonb)
RETURNS TABLE (dlq_id bigint, attached_id integer, trade_id text, class text, code text,
    quote_amount numeric, outcome text, reference text, problem text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    WITH line AS MATERIALIZED (
        SELECT row_number() OVER () AS n, lower(nullif(btrim(l.key), '')) AS key, nullif(l.trade_id, '') AS trade_id,
               upper(btrim(l.outcome)) AS outcome, nullif(btrim(l.reference), '') AS reference
        FROM jsonb_to_recordset(statement) AS l (key text, trade_id text, outcome text, reference text)),
    dead AS MATERIALIZED (
        SELECT d.*, settlement._idempotency_key(a.source, d.trade_id, d.generation) AS key,
               min(d.attached_id) OVER (PARTITION BY d.trade_id) <> max(d.attached_id) OVER (PARTITION BY d.trade_id) AS ambiguous
        FROM settlement._dlq_matching(filter) d
             JOIN settlement.attached a ON a.attached_id = d.attached_id),
    said AS (
        SELECT d.id, l.n, l.key IS NOT NULL AS by_key, l.outcome, l.reference
        FROM line l JOIN dead d ON d.trade_id = l.trade_id AND (l.key IS NULL OR l.key = d.key)
        UNION ALL
        SELECT d.id, l.n, true, l.outcome, l.reference
        FROM line l JOIN dead d ON d.key = l.key WHERE l.trade_id IS NULL),
    verdict AS (
        SELECT d.attached_id, d.trade_id, min(d.id) AS dlq_id, min(s.outcome) AS outcome, min(s.reference) AS reference,
               CASE WHEN min(s.outcome) <> max(s.outcome) OR min(s.reference) <> max(s.reference)
                    THEN 'the statement contradicts itself'
                    WHEN min(s.outcome) = 'FAILED' AND NOT bool_and(s.by_key) AND bool_or(d.generation > 0)
                    THEN 'it had more than one key: the line has to name the key'
                    WHEN min(s.outcome) = 'FAILED' AND bool_or(EXISTS (
                             SELECT FROM settlement.dlq o WHERE o.attached_id = d.attached_id AND o.trade_id = d.trade_id
                             AND o.generation <> d.generation AND NOT o.safe_to_discard)
                         OR EXISTS (
                             SELECT FROM settlement.deferred o WHERE o.attached_id = d.attached_id AND o.trade_id = d.trade_id
                             AND o.generation <> d.generation))
                    THEN 'another key of it may have been paid: settlement.resolve() it'
                    WHEN bool_or(d.ambiguous AND NOT s.by_key)
                    THEN 'more than one attached table has it: name the relation, or the key' END AS problem
        FROM said s JOIN dead d ON d.id = s.id
        GROUP BY d.attached_id, d.trade_id)
    SELECT d.id, d.attached_id, d.trade_id, d.class, d.code, d.quote_amount, v.outcome, v.reference, v.problem
    FROM dead d LEFT JOIN verdict v ON v.dlq_id = d.id
    WHERE v.dlq_id IS NOT NULL
       OR NOT EXISTS (SELECT FROM verdict w WHERE w.attached_id = d.attached_id AND w.trade_id = d.trade_id)
$$;
COMMENT ON FUNCTION settlement._statement_says(jsonb, jsonb) IS 'Internal: what a statement of the wallet says of UNKNOWN dead letters; outcome NULL: nothing.';

CREATE FUNCTION settlement._require_statement(statement jsonb) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bad jsonb;
BEGIN
    IF jsonb_typeof(statement) <> 'array' THEN
        RAISE EXCEPTION 'the statement is not a JSON array'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'From a table: statement => (SELECT jsonb_agg(to_jsonb(s)) FROM my_statement s).';
    END IF;
    SELECT l INTO bad FROM jsonb_array_elements(statement) l
    WHERE jsonb_typeof(l) <> 'object'
       OR coalesce(upper(btrim(l ->> 'outcome')) NOT IN ('SETTLED', 'FAILED'), true)
       OR coalesce(btrim(l ->> 'reference'), '') = ''
       OR coalesce(btrim(l ->> 'key'), l ->> 'trade_id', '') = '' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a line of the statement cannot be used: %', left(bad::text, 200)
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Each line needs key or trade_id, outcome (SETTLED or FAILED) and reference, which becomes the settlement_id.';
    END IF;
END $$;
COMMENT ON FUNCTION settlement._require_statement(jsonb) IS 'Internal: refuse a statement with lines that say too little.';

-- Resolve each, whatever happens to the others: many to a subtransaction, and where
-- one cannot be resolved half as many, until it is alone.  NULL: resolved.
CREATE FUNCTION settlement._resolve_each(trades jsonb[], reason text, may_repay boolean) RETURNS text[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    most CONSTANT integer := 500;
    many integer := most;
    results text[] := '{}';
    done integer := 0;
    upto integer;
BEGIN
    WHILE done < cardinality(trades) LOOP
        upto := least(done + many, cardinality(trades));
        BEGIN
            FOR i IN done + 1 .. upto LOOP
                PERFORM settlement._resolve((trades[i] ->> 'attached_id')::integer, trades[i] ->> 'trade_id',
                    trades[i] ->> 'outcome', trades[i] ->> 'reference', reason, may_repay);
                results[i] := NULL;
            END LOOP;
            PERFORM settlement._refuse_queued(trades[done + 1 : upto]);
            done := upto;
            many := least(2 * many, most);
        EXCEPTION WHEN OTHERS THEN
            IF upto - done = 1 THEN
                results[upto] := SQLERRM;
                done := upto;
            ELSE
                many := (upto - done) / 2;
            END IF;
        END;
    END LOOP;
    RETURN results;
END $$;
COMMENT ON FUNCTION settlement._resolve_each(jsonb[], text, boolean) IS 'Internal: resolve many trades, each by itself.';

CREATE FUNCTION settlement._resolve_by_statement(filter jsonb, statement jsonb, dry_run boolean, max bigint,
    reason text, may_repay boolean)
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint, value numeric,
    resolved bigint, skipped bigint, note text, sample text[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    trades jsonb[] := '{}';
    results text[] := '{}';
    total bigint := 0;
BEGIN
    PERFORM settlement._require_statement(statement);
    IF dry_run IS FALSE THEN
        PERFORM settlement._require_reason(reason);
        IF may_repay IS NOT TRUE THEN
            PERFORM settlement._raise_not_permitted('resolve UNKNOWN trades');
        END IF;
    END IF;
    trades := ARRAY(SELECT to_jsonb(s) FROM settlement._statement_says(filter, statement) s
                    ORDER BY s.outcome IS NOT NULL AND s.problem IS NULL DESC, s.dlq_id);
    IF dry_run IS FALSE THEN
        results := settlement._resolve_each(
            ARRAY(SELECT t FROM unnest(trades) WITH ORDINALITY u (t, n)
                  WHERE t ->> 'outcome' IS NOT NULL AND t ->> 'problem' IS NULL
                  ORDER BY n LIMIT _resolve_by_statement.max), reason, may_repay);
    END IF;
    FOR error_class, error_code, trade_status, matching, value, resolved, skipped, note, sample IN
        SELECT t ->> 'class', t ->> 'code', 'UNKNOWN', count(*), sum((t ->> 'quote_amount')::numeric),
               count(*) FILTER (WHERE n <= cardinality(results) AND results[n] IS NULL),
               count(*) FILTER (WHERE n <= cardinality(results) AND results[n] IS NOT NULL),
               concat_ws('; ',
                   format('the statement says of %s SETTLED, of %s FAILED, of %s nothing that can be used',
                          count(*) FILTER (WHERE t ->> 'outcome' = 'SETTLED' AND t ->> 'problem' IS NULL),
                          count(*) FILTER (WHERE t ->> 'outcome' = 'FAILED' AND t ->> 'problem' IS NULL),
                          count(*) FILTER (WHERE t ->> 'outcome' IS NULL OR t ->> 'problem' IS NOT NULL)),
                   left(string_agg(DISTINCT coalesce(t ->> 'problem', results[n]), '; '), 1000)),
               (array_agg(t ->> 'trade_id' ORDER BY n))[1:5]
        FROM unnest(trades) WITH ORDINALITY u (t, n)
        GROUP BY 1, 2 ORDER BY 1, 2
    LOOP
        total := total + resolved;
        RETURN NEXT;
    END LOOP;
    IF dry_run IS FALSE THEN
        PERFORM settlement._audit('resolve_where', NULL, NULL,
            filter || jsonb_build_object('statement', jsonb_array_length(statement)), total, reason);
    END IF;
END $$;
COMMENT ON FUNCTION settlement._resolve_by_statement(jsonb, jsonb, boolean, bigint, text, boolean) IS 'Internal: resolve UNKNOWN dead letters by a statement of the wallet.';

CREATE FUNCTION settlement.resolve_where(class text DEFAULT NULL, code text DEFAULT NULL,
    http_status integer DEFAULT NULL, symbol text DEFAULT NULL, user_id text DEFAULT NULL,
    older_than interval DEFAULT NULL, newer_than interval DEFAULT NULL,
    min_value numeric DEFAULT NULL, max_value numeric DEFAULT NULL, relation regclass DEFAULT NULL,
    all_rows boolean DEFAULT false, dry_run boolean DEFAULT true, max bigint DEFAULT NULL,
    per_second numeric DEFAULT NULL, reason text DEFAULT NULL, statement jsonb DEFAULT NULL,
    permit bigint DEFAULT settlement._permit())
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint, value numeric,
    resolved bigint, skipped bigint, note text, sample text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    may_repay CONSTANT boolean := settlement._redeem_permit(permit);
    -- a statement names its trades itself
    filter CONSTANT jsonb := settlement._require_filter(jsonb_build_object('class', class, 'code', code,
        'http_status', http_status, 'symbol', symbol, 'user_id', user_id,
        'older_than', older_than, 'newer_than', newer_than, 'min_value', min_value,
        'max_value', max_value, 'relation', relation), all_rows OR statement IS NOT NULL)
        || '{"status": "UNKNOWN"}';
BEGIN
    IF statement IS NULL THEN
        RETURN QUERY SELECT * FROM settlement._redrive_where('resolve_where', filter, dry_run, max,
                                                             per_second, NULL, true, reason, false);
    ELSIF per_second IS NOT NULL THEN
        RAISE EXCEPTION 'per_second goes with look-ups only'
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'With a statement the wallet is not asked; max bounds the work of one call.';
    ELSE
        RETURN QUERY SELECT * FROM settlement._resolve_by_statement(filter, statement, dry_run, max,
                                                                    reason, may_repay);
    END IF;
END $$;
COMMENT ON FUNCTION settlement.resolve_where(text, text, integer, text, text, interval, interval, numeric, numeric, regclass, boolean, boolean, bigint, numeric, text, jsonb, bigint) IS 'Find out what became of the UNKNOWN dead letters that a filter names; by default only say what matches (dry_run => false acts).  Without statement the wallet is asked and what it says is recorded; what it does not know is sent again under the same key, or, past settlement.idempotency_window or when the trade row is gone, waits in deferred (resolved counts what it is asked about; with per_second the workers do it, see settlement.redrives).  With statement, a jsonb array of {key or trade_id, outcome, reference}, they are resolved as it says; that takes grant_operator(..., may_repay => true).';

-- ---------------------------------------------------------------- by asking the wallet

CREATE FUNCTION settlement.lookup(trade_id text, relation regclass DEFAULT NULL, reason text DEFAULT NULL)
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
    attached := settlement._which_attached(lookup.trade_id, relation, settlement._waiting_of(lookup.trade_id));

    SELECT d.id, d.safe_to_discard INTO dead FROM settlement.dlq d
    WHERE d.attached_id = attached AND d.trade_id = lookup.trade_id
    ORDER BY d.safe_to_discard, d.id LIMIT 1;
    IF dead.safe_to_discard THEN
        RAISE EXCEPTION 'there is nothing to look up: trade "%" is FAILED', lookup.trade_id
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'The wallet certainly did not move its money.',
                  HINT = 'settlement.redrive() it to try again.';
    ELSIF dead.id IS NOT NULL THEN
        result := settlement._redrive(dead.id, true, reason, false);
        IF result <> 'needs_lookup' THEN
            PERFORM settlement._raise_not_redriven(lookup.trade_id, result);
        END IF;
        RETURN 'the wallet will be asked; if it does not know the key, the trade is sent again under the same key, or, past settlement.idempotency_window or without its row, waits in settlement.deferred';
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
    PERFORM settlement._audit('lookup', attached, lookup.trade_id, NULL, n, reason);
    RETURN 'the wallet will be asked before anything is sent again';
END $$;
COMMENT ON FUNCTION settlement.lookup(text, regclass, text) IS 'Let a worker ask the wallet what became of a trade that is UNKNOWN or waits, and record what it says; as settlement.resolve_where() for one trade.';

