-- Each function, table, view and sequence is listed here with who gets it: one that
-- nobody has decided about fails the test.
BEGIN;
SELECT plan(9);

CREATE ROLE settlement_test_monitor IN ROLE pg_monitor;
CREATE ROLE settlement_test_operator;
CREATE ROLE settlement_test_senior;
CREATE ROLE settlement_test_former;
SELECT settlement.grant_operator('settlement_test_operator');
SELECT settlement.grant_operator('settlement_test_senior', may_repay => true);
SELECT settlement.grant_operator('settlement_test_former', may_repay => true);
SELECT settlement.revoke_operator('settlement_test_former');

CREATE TEMP TABLE decided (least text, names name[]);
INSERT INTO decided VALUES
    ('monitor', '{
        _counters,_database_state,_doctor_server,_doctor_standby,_doctor_tables,
        _doctor_trades,_doctor_wallet,_doctor_workers,_durations,_flights,_metrics,
        _queue_depth,_sizes,_trace_id,_workers,doctor,prometheus,
        _brief,_compact,_count,_doctor_probe,_library_version,_moment,_pair,_probe_wallet,
        _progress_list,_recent,_setting,_span,_state,_storage,_waits}'),
    ('operator', '{
        _doctor_deep,_explain,_in_transaction_block,_is_known,_nowhere,_permit,_timeline,
        _trade_row,_trade_tables,_trade_writer,_find,_is_one,_queued,_queued_by,_undrained,_drained,breaker_close,breaker_open,dlq_export,dlq_purge,drain,
        explain,lookup,pause,redrive,redrive_cancel,redrive_policy_drop,redrive_policy_set,
        redrive_where,rescan,resolve,resolve_where,
        restart_worker,resume,timeline,wait_paused,
        _content,_content_query,_evidence,_progress,_progress_begin,_progress_end,evidence}'),
    ('senior', '{_issue_permit}'),
    -- partitions need it; see attach()
    ('nobody', '{enqueue}'),
    -- for the administrator
    ('nobody', '{
        adopt,apply_outcome,attach,current_place,detach,enqueue_pending,grant_operator,
        next_queue_id,revoke_operator,write_identity}'),
    -- called by others, with their rights
    ('nobody', '{
        _add_columns,_allow_partitions,_announce_pauses,_announce_work,_apply_pending,
        _attached_id,_audit,_base_type,_check_mapping,_check_no_column_twice,_check_table,
        _clock_latest,_column_misfit,_current_directory,_current_timeline,_defer,
        _describe_failure,_disallow_partitions,_dlq_matching,_doctor_table,
        _enqueue_row,_handle,_steer_crashed,_explain_dead,_explain_deferred,_explain_queued,
        _explain_row,_find_columns,_force_breaker,_grant,_hold_workers,_identity_hint,
        _identity_problem,_is_preloaded,_key_columns,_lock_dead,_log_act,
        _look_up_first,_may_be_forgotten,_next_epoch,_notify_launcher,
        _notify_workers,_obstacles,_partition_owners,_pauses_changed,_pending_query,_places,
        _raise_not_permitted,_raise_not_redriven,_raise_not_there,_read_row,_redeem_permit,_redrive,
        _redrive_each,_redrive_problem,_redrive_where,_register,_relations_of,_released,
        _requeue,_require_filter,_require_reason,_revive,_roles,_sent_since,
        _stop_worker,_sweep_all,_trades_of,_wait_paused,_wallet_url_problem,_warn_of,
        _which_attached,_writer,
        _count_dead,_estimate,_explain_flight,_explain_obstacles,_explain_turn,_fault_hint,
        _idempotency_key,_is_slow,_needed_bytes,_is_still_queued,_request_body,_send_state_words,
        _settle_path,_settlement_indexes,_snapshot_holders,_stored_tables,_tally_change,
        _tally_come,_tally_empty,_tally_go,_wallet_files,_wallet_obstacles,_was_known,
        _histograms,_label,_metric_counters,_metric_gauges,_oldest_pending,_stats_reset,
        _dlq_next,_explain_redrives,_policies_for,_redrives_for,_policies_work,_policy_breaker,_policy_due,_policy_work,
        _redrive_begin,_redrive_finish,_redrive_judge,_redrive_quota,_redrive_some,_redrive_work,_refuse_queued,
        _require_statement,_resolve,_resolve_by_statement,_resolve_each,_statement_says,_steer,_verdict,_waiting_of}');

CREATE TEMP VIEW given AS
SELECT p.proname AS name, p.oid,
       CASE WHEN has_function_privilege('settlement_test_monitor', p.oid, 'EXECUTE') THEN 'monitor'
            WHEN has_function_privilege('settlement_test_operator', p.oid, 'EXECUTE') THEN 'operator'
            WHEN has_function_privilege('settlement_test_senior', p.oid, 'EXECUTE') THEN 'senior'
            ELSE 'nobody' END AS least
FROM pg_proc p WHERE p.pronamespace = 'settlement'::regnamespace;

SELECT set_eq('SELECT name, least FROM given', 'SELECT unnest(names), least FROM decided',
    'each function is for those who are listed with it');
SELECT is_empty($$ SELECT name FROM given
                   WHERE least = 'monitor' AND NOT has_function_privilege('settlement_test_operator', oid, 'EXECUTE')
                      OR least IN ('monitor', 'operator') AND NOT has_function_privilege('settlement_test_senior', oid, 'EXECUTE') $$,
    'who may do more may do all that the others may');
SELECT is_empty($$ SELECT name FROM given WHERE has_function_privilege('settlement_test_former', oid, 'EXECUTE') $$,
    'what was granted can be taken back');

CREATE TEMP VIEW relations AS
SELECT c.relname AS name, c.oid, c.relkind FROM pg_class c
WHERE c.relnamespace = 'settlement'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S');
SELECT set_eq($$ SELECT name FROM relations WHERE relkind <> 'S' AND has_table_privilege('settlement_test_monitor', oid, 'SELECT') $$,
    '{status,workers,in_flight,dlq_summary,metrics,unknown,progress,storage_health,redrive_progress,redrive_policies}'::name[], 'a monitor reads these, and no table');
SELECT set_eq($$ SELECT name FROM relations WHERE relkind <> 'S' AND has_table_privilege('settlement_test_operator', oid, 'SELECT') $$,
    '{status,workers,in_flight,dlq_summary,metrics,unknown,progress,storage_health,redrive_progress,redrive_policies,
      dlq_tally,attached,attempts,audit_log,claims,deferred,discrepancies,dlq,identity,pauses,policies,policy_tries,
      queue,redrives,unapplied}'::name[],
    'an operator reads these');
SELECT is_empty($$ SELECT name, role FROM relations, unnest('{monitor,operator,senior}'::text[]) AS role
                   WHERE relkind <> 'S' AND has_table_privilege('settlement_test_' || role, oid,
                                                                'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') $$,
    'nobody of them writes one');
SELECT is_empty($$ SELECT name, role FROM relations, unnest('{monitor,operator,senior}'::text[]) AS role
                   WHERE CASE relkind WHEN 'S' THEN has_sequence_privilege('settlement_test_' || role, oid, 'USAGE, SELECT, UPDATE') END $$,
    'nor touches a sequence');
SELECT is_empty($$ SELECT name FROM relations WHERE relkind <> 'S' AND has_table_privilege('settlement_test_former', oid, 'SELECT') $$,
    'nor does who was one read any');
SELECT is_empty($$ SELECT role FROM unnest('{monitor,operator,senior,former}'::text[]) AS role
                   WHERE has_schema_privilege('settlement_test_' || role, 'settlement', 'CREATE') $$,
    'nobody creates anything in the schema');

SELECT * FROM finish();
ROLLBACK;
