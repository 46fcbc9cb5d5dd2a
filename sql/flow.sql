-- flow.sql: who may send, and waking those who do.

CREATE FUNCTION settlement._notify_launcher() RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_notify_launcher'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._notify_launcher() IS 'Internal: at commit, the launcher looks whether this database needs workers.';

CREATE FUNCTION settlement._notify_workers() RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_notify_workers'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._notify_workers() IS 'Internal: at commit, the workers look again whether they may send.';

CREATE FUNCTION settlement._hold_workers() RETURNS boolean
    AS 'MODULE_PATHNAME', 'settlement_hold_workers'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._hold_workers() IS 'Internal: no workers until the end of this transaction; false when some would not leave.';

CREATE FUNCTION settlement.current_place() RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_current_place'
    LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION settlement.current_place() IS 'Who may send from here: a hash of settlement.site_file, or of the machine.';

CREATE FUNCTION settlement._current_directory() RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_current_directory'
    LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION settlement._current_directory() IS 'Internal: a hash of the path and the inode of the data directory.';

CREATE FUNCTION settlement._current_timeline() RETURNS integer
    AS 'MODULE_PATHNAME', 'settlement_current_timeline'
    LANGUAGE c STABLE PARALLEL SAFE;
COMMENT ON FUNCTION settlement._current_timeline() IS 'Internal: the timeline that this server writes.';

CREATE FUNCTION settlement._identity_problem() RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_identity_problem'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._identity_problem() IS 'Internal: why this database must not send; NULL when it may.';

CREATE FUNCTION settlement._identity_hint() RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_identity_hint'
    LANGUAGE c VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._identity_hint() IS 'Internal: what to do about _identity_problem().';

CREATE FUNCTION settlement._next_epoch(former bigint) RETURNS bigint
    AS 'MODULE_PATHNAME', 'settlement_next_epoch'
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION settlement._next_epoch(bigint) IS 'Internal: a higher epoch, and like no other''s.';

-- Nothing is sent from here until somebody has said that this is the one.
CREATE FUNCTION settlement.write_identity(reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO settlement.identity (system_identifier, database_oid, place, directory, timeline, reason)
    SELECT c.system_identifier, d.oid, settlement.current_place(), settlement._current_directory(),
           settlement._current_timeline(), write_identity.reason
    FROM pg_control_system() c, pg_database d
    WHERE d.datname = current_database()
    ON CONFLICT (singleton) DO NOTHING;
    PERFORM settlement._notify_workers();
END $$;
COMMENT ON FUNCTION settlement.write_identity(text) IS 'Let this database send, if it has no identity yet.  attach() calls it.';

-- What was queued before may have been sent from where this database was before:
-- ask the wallet first.  Queue rows are never updated: they are written anew, at
-- the tail, with what their claims know.  Nobody else can be claiming.
CREATE FUNCTION settlement._look_up_first() RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n_queued bigint;
    n_deferred bigint;
BEGIN
    WITH claimed AS (
        SELECT i.id, min(c.claimed_at) AS claimed_at, max(c.format) AS format
        FROM settlement.claims c, unnest(c.ids) AS i(id)
        GROUP BY i.id
    ), gone AS (
        DELETE FROM settlement.queue q RETURNING q.*
    )
    INSERT INTO settlement.queue (
        enqueued_at, attached_id, leaf, attempts, generation, charged, crashes, format,
        maybe_executed, lookup_first, trade_tid, trade_id, row_key, symbol, buyer_id, seller_id,
        buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, seller_fee,
        trace_id, first_sent_at, pending_ms, fingerprint)
    SELECT g.enqueued_at, g.attached_id, g.leaf, g.attempts + (c.id IS NOT NULL)::integer,
           g.generation, g.charged, g.crashes,
           CASE g.format WHEN 0 THEN coalesce(c.format, 0) ELSE g.format END,
           true, true, g.trade_tid, g.trade_id, g.row_key, g.symbol, g.buyer_id, g.seller_id,
           g.buyer_order_id, g.seller_order_id, g.price, g.quantity, g.quote_amount, g.buyer_fee,
           g.seller_fee, g.trace_id, coalesce(g.first_sent_at, c.claimed_at, g.enqueued_at),
           g.pending_ms, g.fingerprint
    FROM gone g LEFT JOIN claimed c ON c.id = g.id
    ORDER BY g.id;
    GET DIAGNOSTICS n_queued = ROW_COUNT;

    DELETE FROM settlement.claims;

    UPDATE settlement.deferred d
    SET maybe_executed = true, lookup_first = true,
        first_sent_at = coalesce(d.first_sent_at, d.last_sent_at, d.enqueued_at);
    GET DIAGNOSTICS n_deferred = ROW_COUNT;

    -- A dead letter is not sent, but it may be redriven.
    UPDATE settlement.dlq d
    SET lookup_first = true,
        first_sent_at = coalesce(d.first_sent_at, d.enqueued_at)
    WHERE d.trade_id IS NOT NULL;
    RETURN n_queued + n_deferred;
END $$;
COMMENT ON FUNCTION settlement._look_up_first() IS 'Internal: count every trade that waits as maybe sent.';

CREATE FUNCTION settlement.adopt(reason text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    former settlement.identity;
    present settlement.identity;
    n_marked bigint;
BEGIN
    PERFORM settlement._require_reason(reason);
    IF EXISTS (SELECT FROM pg_subscription_rel r JOIN pg_class c ON c.oid = r.srrelid
               WHERE c.relnamespace = 'settlement'::regnamespace) THEN
        RAISE EXCEPTION 'a subscription writes settlement''s tables'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Leave schema settlement out of the publication, and ALTER SUBSCRIPTION ... REFRESH PUBLICATION.';
    END IF;
    -- Who is told an epoch must find it after a crash.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF NOT settlement._hold_workers() THEN
        RAISE EXCEPTION 'the workers of this database still have trades in flight'
            USING ERRCODE = 'object_in_use',
                  HINT = 'Try again, or set settlement.enabled to off first.';
    END IF;
    -- A worker of a server that does not know of the hold cannot claim either.
    LOCK TABLE settlement.claims IN EXCLUSIVE MODE;

    SELECT i.* INTO former FROM settlement.identity i FOR UPDATE;
    n_marked := settlement._look_up_first();
    DELETE FROM settlement.identity;
    INSERT INTO settlement.identity (system_identifier, database_oid, place, directory, timeline, epoch, lineage,
                                     original_until, reason)
    SELECT c.system_identifier, d.oid, settlement.current_place(), settlement._current_directory(),
           settlement._current_timeline(), settlement._next_epoch(coalesce(former.epoch, 0)),
           coalesce(former.lineage, gen_random_uuid()), clock_timestamp(), adopt.reason
    FROM pg_control_system() c, pg_database d
    WHERE d.datname = current_database()
    RETURNING * INTO present;
    PERFORM settlement._count_dead();   -- a restore may have left out the triggers

    INSERT INTO settlement.audit_log (act, details, count, reason)
    VALUES ('adopt',
            jsonb_build_object('former', to_jsonb(former) - 'singleton',
                               'present', to_jsonb(present) - 'singleton'),
            n_marked, adopt.reason);
    PERFORM settlement._log_act('adopt', NULL, format('epoch %s', present.epoch), n_marked, adopt.reason);
    RETURN present.epoch;
END $$;
COMMENT ON FUNCTION settlement.adopt(text) IS 'Let this database send from now on, wherever it came from, and return the new epoch.  Only one copy of a database may be adopted.  Trades that wait are looked up at the wallet before they are sent.';

SELECT settlement._notify_launcher();
