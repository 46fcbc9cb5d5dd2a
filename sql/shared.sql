-- shared.sql: the doors between SQL and the library's shared memory.
--
-- Internal: names start with _ and no user calls them.  They show or steer the
-- current database only.  Without shared_preload_libraries the ones that show
-- return no rows, and the ones that steer raise an error.

CREATE FUNCTION settlement._database_state(
    OUT send_state text, OUT pause_all boolean, OUT recovered boolean, OUT queue_depth bigint,
    OUT in_flight integer, OUT workers integer, OUT workers_wanted integer, OUT holds integer,
    OUT launcher_pid integer, OUT breaker text, OUT breaker_manual boolean,
    OUT breaker_changed_at timestamptz, OUT breaker_open_until timestamptz,
    OUT breaker_times_opened bigint, OUT limited_until timestamptz,
    OUT last_definite_at timestamptz, OUT epoch bigint, OUT frontier bigint,
    OUT sweep_all boolean, OUT next_due timestamptz,
    OUT register_failures integer, OUT held_since timestamptz,
    OUT batch_refused_at timestamptz, OUT batch_refused_status integer,
    OUT ramping boolean, OUT throttled boolean,
    OUT failing_since timestamptz, OUT failed_at timestamptz, OUT failed_class text, OUT failed_status integer,
    OUT failed_message text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_database_state' LANGUAGE c VOLATILE ROWS 1;
COMMENT ON FUNCTION settlement._database_state() IS 'Internal: shared state of this database; no row when the library is not preloaded.';

CREATE FUNCTION settlement._queue_depth() RETURNS bigint
    AS 'MODULE_PATHNAME', 'settlement_queue_depth' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._queue_depth() IS 'Internal: rows in the queue; NULL when nobody has counted them since the server start.';

CREATE FUNCTION settlement._workers(
    OUT slot integer, OUT pid integer, OUT state text, OUT idle boolean, OUT stopping boolean,
    OUT in_flight integer, OUT heartbeat timestamptz, OUT settled bigint, OUT failed bigint,
    OUT started_at timestamptz, OUT concurrency_limit integer) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_list_workers' LANGUAGE c VOLATILE ROWS 2;
COMMENT ON FUNCTION settlement._workers() IS 'Internal: workers of this database.';

CREATE FUNCTION settlement._flights(
    OUT slot integer, OUT queue_id bigint, OUT since timestamptz, OUT phase text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_list_flights' LANGUAGE c VOLATILE ROWS 64;
COMMENT ON FUNCTION settlement._flights() IS 'Internal: trades that workers of this database have in flight.';

CREATE FUNCTION settlement._wallet_url_problem(url text) RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_wallet_url_problem' LANGUAGE c STABLE STRICT;
COMMENT ON FUNCTION settlement._wallet_url_problem(text) IS 'Internal: why a URL cannot be settlement.wallet_url.';

CREATE FUNCTION settlement._counters(OUT name text, OUT value bigint) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_list_counters' LANGUAGE c VOLATILE ROWS 16;
COMMENT ON FUNCTION settlement._counters() IS 'Internal: counters of this database.';

CREATE FUNCTION settlement._durations(OUT name text, OUT count bigint, OUT sum double precision,
    OUT p50 double precision, OUT p95 double precision, OUT p99 double precision,
    OUT max double precision) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_list_durations' LANGUAGE c VOLATILE ROWS 4;
COMMENT ON FUNCTION settlement._durations() IS 'Internal: durations of this database, in seconds.';

CREATE FUNCTION settlement._histograms(OUT name text, OUT le double precision[], OUT counts bigint[],
    OUT sum double precision) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_list_histograms' LANGUAGE c VOLATILE ROWS 5;
COMMENT ON FUNCTION settlement._histograms() IS 'Internal: cumulative histograms of this database: durations in seconds, claim_size in trades.';

CREATE FUNCTION settlement._stats_reset() RETURNS timestamptz
    AS 'MODULE_PATHNAME', 'settlement_stats_reset' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._stats_reset() IS 'Internal: when counters and histograms of this database began; NULL when the library is not preloaded.';

CREATE FUNCTION settlement._recent(OUT window_s double precision, OUT submitted bigint, OUT settled bigint,
    OUT dead bigint, OUT requests bigint, OUT answered bigint, OUT request_p50 double precision,
    OUT request_p99 double precision, OUT settle_p50 double precision, OUT settle_p99 double precision)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_recent' LANGUAGE c VOLATILE ROWS 1;
COMMENT ON FUNCTION settlement._recent() IS 'Internal: what happened within about the last minute; times in seconds; no row when nothing is known.';

CREATE FUNCTION settlement._handle(redrive bigint) RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_handle' LANGUAGE c VOLATILE STRICT;
COMMENT ON FUNCTION settlement._handle(bigint) IS 'Internal: this worker is at a step of that redrive, or (0) of the policies: a crash of the server meanwhile is charged to it.';

CREATE FUNCTION settlement._progress_begin(act text, target text, total bigint) RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_progress_begin' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._progress_begin(text, text, bigint) IS 'Internal: this session begins a long act, shown in settlement.progress; total NULL when it is not known.';

CREATE FUNCTION settlement._progress(phase text, done bigint, failed bigint) RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_progress_update' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._progress(text, bigint, bigint) IS 'Internal: how far the act of this session is; phase NULL: as before.';

CREATE FUNCTION settlement._progress_end() RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_progress_end' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._progress_end() IS 'Internal: the act of this session is over.  A rollback and the end of the session do the same.';

CREATE FUNCTION settlement._progress_list(OUT pid integer, OUT act text, OUT target text, OUT phase text,
    OUT started_at timestamptz, OUT done bigint, OUT total bigint, OUT failed bigint) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_progress_list' LANGUAGE c VOLATILE ROWS 4;
COMMENT ON FUNCTION settlement._progress_list() IS 'Internal: long acts under way in this database.';

CREATE FUNCTION settlement._request_body(trade settlement.queue) RETURNS bytea
    AS 'MODULE_PATHNAME', 'settlement_request_body' LANGUAGE c STABLE STRICT;
COMMENT ON FUNCTION settlement._request_body(settlement.queue) IS 'Internal: the body of a trade''s request; NULL when it cannot be sent.';

CREATE FUNCTION settlement._settle_path() RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_settle_path' LANGUAGE c STABLE;
COMMENT ON FUNCTION settlement._settle_path() IS 'Internal: where, below settlement.wallet_url, requests go.';

CREATE FUNCTION settlement._probe_wallet(OUT verdict text, OUT http_status integer, OUT message text,
    OUT duration_s double precision, OUT wallet_clock timestamptz, OUT asked_at timestamptz,
    OUT certificate_until timestamptz) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_probe_wallet' LANGUAGE c VOLATILE ROWS 1;
COMMENT ON FUNCTION settlement._probe_wallet() IS 'Internal: ask the wallet for a key that nobody has; verdict is ok when it says so.  At most three seconds.';

CREATE FUNCTION settlement._wallet_files(OUT setting text, OUT problem text, OUT until timestamptz) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_wallet_files' LANGUAGE c VOLATILE ROWS 5;
COMMENT ON FUNCTION settlement._wallet_files() IS 'Internal: the files that settings name, what is wrong with them, and until when our certificate is good.';
CREATE FUNCTION settlement._trace_id(attached_id integer, trade_id text, of_row text) RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_trace_id' LANGUAGE c STABLE;
COMMENT ON FUNCTION settlement._trace_id(integer, text, text) IS 'Internal: the W3C trace id of the requests of a trade: that of its row, or one made from its first key.';

CREATE FUNCTION settlement._log_act(act text, trade_id text, details text, count bigint, reason text)
    RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_log_act' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._log_act(text, text, text, bigint, text) IS 'Internal: tell the server log of an act of an operator.';

CREATE FUNCTION settlement._idempotency_key(source text, trade_id text, generation integer) RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_idempotency_key' LANGUAGE c IMMUTABLE STRICT;
COMMENT ON FUNCTION settlement._idempotency_key(text, text, integer) IS 'Internal: the key that a trade is sent under.';

CREATE FUNCTION settlement._library_version() RETURNS text
    AS 'MODULE_PATHNAME', 'settlement_library_version' LANGUAGE c STABLE;
COMMENT ON FUNCTION settlement._library_version() IS 'Internal: version of the loaded library.';

CREATE FUNCTION settlement._announce_work() RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_announce_work' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._announce_work() IS 'Internal: at commit, let workers look at deferred and unapplied.';

CREATE FUNCTION settlement._setting(name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM settlement._library_version();  -- settings exist once it is loaded
    RETURN current_setting('settlement.' || name);
END $$;
COMMENT ON FUNCTION settlement._setting(text) IS 'Internal: a setting, with the library loaded.';

CREATE FUNCTION settlement._announce_pauses() RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_announce_pauses' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._announce_pauses() IS 'Internal: at commit, let workers read settlement.pauses again.';

CREATE FUNCTION settlement._wait_paused(timeout_ms integer, OUT acknowledged boolean, OUT in_flight integer)
    RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_wait_paused' LANGUAGE c VOLATILE STRICT ROWS 1;
COMMENT ON FUNCTION settlement._wait_paused(integer) IS 'Internal: wait until every worker has acted upon the pauses.';

CREATE FUNCTION settlement._in_transaction_block() RETURNS boolean
    AS 'MODULE_PATHNAME', 'settlement_in_transaction_block' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._in_transaction_block() IS 'Internal: is this inside BEGIN and COMMIT?';

CREATE FUNCTION settlement._force_breaker(open boolean) RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_force_breaker' LANGUAGE c VOLATILE STRICT;
COMMENT ON FUNCTION settlement._force_breaker(boolean) IS 'Internal: open the circuit breaker until it is closed by hand, or close it.';

CREATE FUNCTION settlement._sweep_all() RETURNS void
    AS 'MODULE_PATHNAME', 'settlement_sweep_all' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._sweep_all() IS 'Internal: look through the whole queue, deferred and unapplied again.';

CREATE FUNCTION settlement._stop_worker(slot integer) RETURNS boolean
    AS 'MODULE_PATHNAME', 'settlement_stop_worker' LANGUAGE c VOLATILE STRICT;
COMMENT ON FUNCTION settlement._stop_worker(integer) IS 'Internal: ask a worker to leave; the launcher starts another one.';
