-- redrive.sql: let dead trades go on, one or many, at once.
--
-- Who took a trade out of the DLQ has locked all its dead letters, so that a
-- redrive, a resolve and a purge of it have one winner.  The generation of its
-- key is raised here and nowhere else: in the transaction that takes it out, and
-- only after a final rejection, never for what may have been paid.


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
-- rule for rows taken up later does not apply, as nothing was ever sent; unless
-- adopt() has said so, because the original may have sent what was corrected there.
CREATE FUNCTION settlement._revive(trade settlement.dlq, ids bigint[])
RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    read record;
    fresh settlement.dlq;
    taken settlement.deferred;
    result text := settlement._apply_pending(trade);
BEGIN
    IF result IS DISTINCT FROM 'done' THEN
        RETURN result;
    END IF;
    DELETE FROM settlement.unapplied u
    WHERE u.attached_id = trade.attached_id AND u.trade_id = trade.trade_id;
    DELETE FROM settlement.dlq d WHERE d.id = ANY (ids);

    SELECT * INTO read FROM settlement._read_row(trade.attached_id, trade.leaf, NULL, trade.trade_id, trade.row_key);
    IF read.result <> 'found' THEN
        PERFORM settlement._raise_not_redriven(trade.trade_id, read.result);
    ELSIF read.status IS DISTINCT FROM 'PENDING' OR NOT settlement._enqueue_row(read.found_in, read.place, NULL) THEN
        RAISE EXCEPTION 'the row of the trade does not say PENDING'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;

    SELECT d.* INTO fresh FROM settlement.dlq d
    WHERE d.attached_id = trade.attached_id AND d.trade_id = trade.trade_id;
    IF FOUND THEN
        RAISE EXCEPTION 'the trade is still invalid: %', fresh.message
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Correct the trade row first; or give the trade up with settlement.%s().',
                                CASE WHEN trade.safe_to_discard THEN 'dlq_purge' ELSE 'resolve' END);
    END IF;
    DELETE FROM settlement.deferred d
    WHERE d.attached_id = trade.attached_id AND d.trade_id = trade.trade_id RETURNING d.* INTO STRICT taken;
    fresh := jsonb_populate_record(NULL::settlement.dlq, to_jsonb(taken) - 'reason');
    fresh.enqueued_at := trade.enqueued_at;
    fresh.attempts := trade.attempts;
    fresh.generation := trade.generation;
    fresh.maybe_executed := trade.lookup_first;
    fresh.lookup_first := trade.lookup_first;
    fresh.first_sent_at := trade.first_sent_at;
    IF fresh.lookup_first THEN
        PERFORM settlement._defer(fresh, 'needs_lookup', clock_timestamp());
        RETURN 'needs_lookup';
    END IF;
    PERFORM settlement._requeue(fresh);
    RETURN 'queue';
END $$;
COMMENT ON FUNCTION settlement._revive(settlement.dlq, bigint[]) IS 'Internal: redrive an invalid trade from its corrected row.';

-- Take one trade out of the DLQ and let it go on: into the queue, or, with
-- look_up or when the wallet may have forgotten its key, into deferred as
-- needs_lookup.  The wallet can be asked of a trade whose row is gone, too, but
-- nothing is sent for it again: its window counts as passed.  Returns where it went
-- (queue, needs_lookup) or why it did not: moved (somebody else was faster), invalid,
-- settled, or what apply_outcome said (kept, locked, gone, unsearched, refused).  What
-- may have been paid needs may_repay, unless the wallet is asked first.  origin and role go
-- into the audit log.
CREATE FUNCTION settlement._redrive(dlq_id bigint, look_up boolean, reason text, may_repay boolean,
    origin jsonb DEFAULT '{}', role name DEFAULT session_user)
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
    IF trade.class = 'invalid_trade' AND trade.format = 0 AND NOT trade.maybe_executed THEN
        result := settlement._revive(trade, ids);
        IF result IN ('queue', 'needs_lookup') THEN
            PERFORM settlement._audit('redrive', trade.attached_id, trade.trade_id,
                origin || jsonb_build_object('to', result, 'status', trade.status, 'class', trade.class,
                                             'message', trade.message, 'died_at', trade.died_at),
                1, reason, role);
        END IF;
        RETURN result;
    END IF;

    result := settlement._apply_pending(trade);
    IF result IS DISTINCT FROM 'done' AND NOT (result IN ('gone', 'unsearched') AND look_up) THEN
        RETURN result;
    END IF;
    DELETE FROM settlement.unapplied u
    WHERE u.attached_id = trade.attached_id AND u.trade_id = trade.trade_id;
    DELETE FROM settlement.dlq d WHERE d.id = ANY (ids);

    IF trade.final_rejection THEN
        -- With lookup_first the new key too may have been sent, from where this came.
        trade.generation := trade.generation + 1;
        trade.maybe_executed := trade.lookup_first;
        trade.first_sent_at := CASE WHEN trade.lookup_first THEN trade.first_sent_at END;
        trade.fingerprint := NULL;
        trade.format := 0;
    END IF;
    IF look_up OR ((trade.status = 'UNKNOWN' OR trade.maybe_executed)
                   AND settlement._may_be_forgotten(trade.first_sent_at)) THEN
        trade.lookup_first := true;
        IF result IN ('gone', 'unsearched') OR trade.first_sent_at > settlement._clock_latest() + interval '1 minute' THEN
            trade.first_sent_at := '-infinity';     -- and stays so when the clock comes by again
        END IF;
        PERFORM settlement._defer(trade, 'needs_lookup', clock_timestamp());
        result := 'needs_lookup';
    ELSE
        PERFORM settlement._requeue(trade);
        result := 'queue';
    END IF;
    PERFORM settlement._audit(CASE WHEN look_up THEN 'lookup' ELSE 'redrive' END,
        trade.attached_id, trade.trade_id,
        origin || jsonb_build_object('to', result, 'status', trade.status, 'class', trade.class,
                                     'code', trade.code, 'died_at', trade.died_at,
                                     'generation', trade.generation), 1, reason, role);
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement._redrive(bigint, boolean, text, boolean, jsonb, name) IS 'Internal: take one trade out of the DLQ and let it go on.';

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
        WHEN 'unsearched' THEN 'trade row was not found by its key, and no index begins with its trade id'
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
                  WHEN 'invalid' THEN 'Correct the trade row, settlement.dlq_purge() the dead letter, set settlement_status to PENDING, then settlement.enqueue_pending(table, dry_run => false) takes it up.'
                  WHEN 'kept' THEN 'If it is right, settlement.resolve() it as SETTLED; if not, set settlement_status to PENDING first.'
                  WHEN 'gone' THEN 'settlement.lookup() asks the wallet what became of an UNKNOWN one; settlement.resolve() it, or settlement.dlq_purge() it.'
                  WHEN 'unsearched' THEN 'Create an index that begins with the trade id; or redrive it in a session, which reads the whole table.'
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
    result := settlement._redrive(dlq_id, false, reason, settlement._redeem_permit(permit));
    IF result NOT IN ('queue', 'needs_lookup') THEN
        PERFORM settlement._raise_not_redriven(redrive.trade_id, result);
    END IF;
    RETURN result;
END $$;
COMMENT ON FUNCTION settlement.redrive(text, text, regclass, bigint) IS 'Let a dead trade go on.  Returns queue (it is sent again) or needs_lookup (the wallet may have forgotten its key, so it is asked first).  The same key is used again, except after a final rejection.  What may have been paid takes grant_operator(..., may_repay => true): leave permit to its default, which proves that.';

-- ---------------------------------------------------------------- many at once
--
-- Redrive each, whatever happens to the others.  A user's trigger may raise for
-- one of them, so rows run in subtransactions, five hundred to one; only a
-- batch that failed is done again row by row.
CREATE FUNCTION settlement._redrive_each(ids bigint[], look_up boolean, reason text, may_repay boolean,
    origin jsonb DEFAULT '{}', role name DEFAULT session_user)
RETURNS TABLE (dlq_id bigint, result text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    batch CONSTANT integer := 500;
    results text[] := '{}';
    done integer := 0;
    upto integer;
    singly_until integer := 0;
    by_hand CONSTANT boolean := origin = '{}';     -- the workers' redrives are rows of a table
BEGIN
    IF by_hand THEN
        PERFORM settlement._progress_begin(CASE WHEN look_up THEN 'resolve' ELSE 'redrive' END, reason, cardinality(ids));
    END IF;
    WHILE done < cardinality(ids) LOOP
        upto := CASE WHEN done < singly_until THEN done + 1
                     ELSE least(done + batch, cardinality(ids)) END;
        BEGIN
            FOR i IN done + 1 .. upto LOOP
                results[i] := settlement._redrive(ids[i], look_up, reason, may_repay, origin, role);
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
        IF by_hand THEN
            PERFORM settlement._progress(NULL, done, NULL);
        END IF;
    END LOOP;
    IF by_hand THEN
        PERFORM settlement._progress_end();
    END IF;
    RETURN QUERY SELECT i.id, i.result FROM unnest(ids, results) AS i (id, result);
END $$;
COMMENT ON FUNCTION settlement._redrive_each(bigint[], boolean, text, boolean, jsonb, name) IS 'Internal: redrive many trades, each by itself.';

-- One row for each kind of dead letter that the filter names.  With per_second or
-- canary the workers do it (redrives.sql), without them this transaction.
CREATE FUNCTION settlement._redrive_where(act text, filter jsonb, dry_run boolean, max bigint,
    per_second numeric, canary integer, look_up boolean, reason text, may_repay boolean)
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint, value numeric,
    redriven bigint, skipped bigint, note text, sample text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    went CONSTANT text[] := '{queue,needs_lookup}';
    act_now boolean := dry_run IS FALSE;
    total bigint := 0;
    job bigint;
BEGIN
    IF per_second <= 0 OR per_second = 'NaN' OR max <= 0 OR canary <= 0 OR canary > 1000 THEN
        RAISE EXCEPTION 'max and per_second must be positive, and canary from 1 to 1000'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF act_now THEN
        PERFORM settlement._require_reason(reason);
        IF filter ->> 'status' = 'UNKNOWN' AND NOT look_up AND may_repay IS NOT TRUE THEN
            PERFORM settlement._raise_not_permitted('redrive UNKNOWN trades');
        END IF;
        IF per_second IS NOT NULL OR canary IS NOT NULL THEN
            job := settlement._redrive_begin(act, filter, max, per_second, canary, look_up, reason, may_repay);
            act_now := false;
        END IF;
    END IF;
    FOR error_class, error_code, trade_status, matching, value, redriven, skipped, note, sample IN
        WITH matched AS MATERIALIZED (
                 SELECT d.id, d.class, d.code, d.status, d.quote_amount, d.trade_id,
                        row_number() OVER (PARTITION BY d.class, d.code, d.status ORDER BY d.id) AS n
                 FROM settlement._dlq_matching(filter) d),
             tried AS MATERIALIZED (
                 SELECT t.* FROM settlement._redrive_each(
                     CASE WHEN act_now THEN ARRAY(SELECT m.id FROM matched m ORDER BY m.id LIMIT _redrive_where.max)
                          ELSE '{}' END, look_up, reason, may_repay) t)
        SELECT m.class, m.code, m.status, count(*), sum(m.quote_amount),
               count(*) FILTER (WHERE t.result = ANY (went)),
               count(*) FILTER (WHERE t.result <> ALL (went)),
               CASE WHEN job IS NOT NULL THEN format('the workers do it: redrive %s in settlement.redrives', job)
                    WHEN NOT act_now AND m.class = 'invalid_trade' THEN 'read again from the trade row'
                    ELSE left(string_agg(DISTINCT settlement._redrive_problem(t.result), '; ')
                              FILTER (WHERE t.result <> ALL (went)), 1000) END,
               array_agg(m.trade_id ORDER BY m.id) FILTER (WHERE m.n <= 5)
        FROM matched m LEFT JOIN tried t ON t.dlq_id = m.id
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    LOOP
        total := total + redriven;
        RETURN NEXT;
    END LOOP;
    IF act_now THEN
        PERFORM settlement._audit(act, NULL, NULL, filter, total, reason);
    END IF;
END $$;
COMMENT ON FUNCTION settlement._redrive_where(text, jsonb, boolean, bigint, numeric, integer, boolean, text, boolean) IS 'Internal: redrive what a filter names.';

CREATE FUNCTION settlement.redrive_where(class text DEFAULT NULL, code text DEFAULT NULL,
    http_status integer DEFAULT NULL, symbol text DEFAULT NULL, user_id text DEFAULT NULL,
    status text DEFAULT NULL, older_than interval DEFAULT NULL, newer_than interval DEFAULT NULL,
    min_value numeric DEFAULT NULL, max_value numeric DEFAULT NULL, relation regclass DEFAULT NULL,
    all_rows boolean DEFAULT false, dry_run boolean DEFAULT true, max bigint DEFAULT NULL,
    per_second numeric DEFAULT NULL, canary integer DEFAULT NULL, reason text DEFAULT NULL,
    permit bigint DEFAULT settlement._permit())
RETURNS TABLE (error_class text, error_code text, trade_status text, matching bigint, value numeric,
    redriven bigint, skipped bigint, note text, sample text[])
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM settlement._redrive_where('redrive_where',
        settlement._require_filter(jsonb_build_object('class', class, 'code', code,
            'http_status', http_status, 'symbol', symbol, 'user_id', user_id, 'status', status,
            'older_than', older_than, 'newer_than', newer_than, 'min_value', min_value,
            'max_value', max_value, 'relation', relation), all_rows),
        dry_run, max, per_second, canary, false, reason, settlement._redeem_permit(permit));
END $$;
COMMENT ON FUNCTION settlement.redrive_where(text, text, integer, text, text, text, interval, interval, numeric, numeric, regclass, boolean, boolean, bigint, numeric, integer, text, bigint) IS 'Let the dead trades that a filter names go on; by default only say what matches, with a sample (dry_run => false acts).  UNKNOWN ones match only with status => ''UNKNOWN'', and take grant_operator(..., may_repay => true): leave permit to its default, which proves that.  user_id is buyer or seller, the values are quote amounts, max takes the oldest.  With per_second (so many a second) or canary (so many first, the rest only once all of these are settled) the workers do it from the commit on: see settlement.redrives, and settlement.redrive_cancel().';
