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
    OUT batch_refused_at timestamptz, OUT batch_refused_status integer) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'settlement_database_state' LANGUAGE c VOLATILE ROWS 1;
COMMENT ON FUNCTION settlement._database_state() IS 'Internal: shared state of this database; no row when the library is not preloaded.';

CREATE FUNCTION settlement._queue_depth() RETURNS bigint
    AS 'MODULE_PATHNAME', 'settlement_queue_depth' LANGUAGE c VOLATILE;
COMMENT ON FUNCTION settlement._queue_depth() IS 'Internal: rows in the queue, counted when that is not known yet; NULL when the library is not preloaded.';

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
