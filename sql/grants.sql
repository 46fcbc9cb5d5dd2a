-- grants.sql: who may do what.  The last file: it covers all before it.
--
-- PUBLIC gets nothing; not even the internal functions.  pg_monitor may look at
-- the views, which hold numbers, states and the ids of trades in flight, but no users
-- and no amounts of a trade.  What shows these, or acts on trades, is granted by the
-- administrator, best through settlement.grant_operator.
-- To decide on what may have been paid, without asking the wallet, is a right of
-- its own: EXECUTE on settlement._issue_permit().  Functions that are in neither
-- list are for the administrator, or are called by others only.

CREATE FUNCTION settlement._grant(role text, operator boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    look CONSTANT name[] := '{_database_state,_queue_depth,_workers,_flights,_waits,_counters,_durations,_recent,_sizes,_state,
        _compact,_count,_brief,_pair,_span,_moment,_setting,_library_version,_metrics,_trace_id,_progress_list,_storage,prometheus,doctor,_probe_wallet,_doctor_probe,
        _doctor_server,_doctor_wallet,_doctor_workers,_doctor_standby,_doctor_tables,_doctor_trades}';
    act CONSTANT name[] := '{_permit,redrive,redrive_where,redrive_cancel,redrive_policy_set,redrive_policy_drop,
        resolve,resolve_where,dlq_purge,dlq_export,lookup,pause,
        resume,wait_paused,drain,_undrained,_drained,_in_transaction_block,_progress_begin,_progress,_progress_end,
        breaker_open,breaker_close,rescan,restart_worker,explain,_explain,timeline,_timeline,evidence,_evidence,
        _content,_content_query,_find,_is_one,_trade_tables,_trade_row,_trade_writer,_queued,_queued_by,_is_known,_nowhere,_doctor_deep}';
    object regclass;
    routine regprocedure;
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA settlement TO %s', role);
    FOR object IN
        SELECT c.oid FROM pg_class c
        WHERE c.relnamespace = 'settlement'::regnamespace
          AND (c.relkind = 'v' OR operator AND c.relkind IN ('r', 'p'))
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO %s', object, role);
    END LOOP;
    FOR routine IN
        SELECT p.oid FROM pg_proc p
        WHERE p.pronamespace = 'settlement'::regnamespace
          AND (p.proname = ANY (look) OR operator AND p.proname = ANY (act))
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', routine, role);
    END LOOP;
END $$;
COMMENT ON FUNCTION settlement._grant(text, boolean) IS 'Internal: grant what a monitor, or an operator, needs.';

CREATE FUNCTION settlement.grant_operator(role regrole, may_repay boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION 'a role is required' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM settlement._grant(role::text, true);
    IF may_repay THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION settlement._issue_permit() TO %s', role);
    END IF;
    PERFORM settlement._audit('grant_operator', NULL, NULL,
        jsonb_build_object('role', role, 'may_repay', may_repay), NULL, NULL);
END $$;
COMMENT ON FUNCTION settlement.grant_operator(regrole, boolean) IS 'Let a role look at everything and use the operator''s verbs; not attach, detach, enqueue_pending and adopt, which stay with the administrator.  Only with may_repay it may also redrive and resolve what may have been paid without asking the wallet (UNKNOWN, maybe_executed).';

CREATE FUNCTION settlement.revoke_operator(role regrole) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF role IS NULL THEN
        RAISE EXCEPTION 'a role is required' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA settlement FROM %s', role);
    EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA settlement FROM %s', role);
    EXECUTE format('REVOKE ALL ON SCHEMA settlement FROM %s', role);
    PERFORM settlement._audit('revoke_operator', NULL, NULL, jsonb_build_object('role', role), NULL, NULL);
END $$;
COMMENT ON FUNCTION settlement.revoke_operator(regrole) IS 'Take back what grant_operator() has given, and any other right of that role in the schema settlement.  To take back may_repay alone: revoke, and grant again without it.';

DO $$
DECLARE
    object regclass;
    routine regprocedure;
BEGIN
    FOR object IN
        SELECT c.oid FROM pg_class c
        WHERE c.relnamespace = 'settlement'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'S')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', object);
    END LOOP;
    FOR routine IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'settlement'::regnamespace
    LOOP
        EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', routine);
    END LOOP;
END $$;
REVOKE ALL ON SCHEMA settlement FROM PUBLIC;

SELECT settlement._grant('pg_monitor', false);
