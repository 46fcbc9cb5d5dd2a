/*
 * look.c
 *	  SQL functions that show shared memory: settlement._database_state(),
 *	  _queue_depth(), _workers(), _flights(), _library_version(),
 *	  _wallet_url_problem().
 *
 * Reads only.  Everything is of the current database; without preload, or when
 * the table of databases is full, there are no rows.  Each lock of shmem.h is
 * held alone and for a copy only; what is shown may be a turn old and two
 * columns may be of two moments.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "api/rows.h"
#include "policy/outcome.h"
#include "shared/clock.h"
#include "shared/settings.h"
#include "shared/shmem.h"
#include "wallet/client.h"

PG_FUNCTION_INFO_V1(settlement_database_state);
PG_FUNCTION_INFO_V1(settlement_queue_depth);
PG_FUNCTION_INFO_V1(settlement_list_workers);
PG_FUNCTION_INFO_V1(settlement_list_flights);
PG_FUNCTION_INFO_V1(settlement_library_version);
PG_FUNCTION_INFO_V1(settlement_wallet_url_problem);

/* The columns of settlement._database_state(), in order. */
enum
{
	STATE_SEND_STATE = 0,
	STATE_PAUSE_ALL,
	STATE_RECOVERED,
	STATE_QUEUE_DEPTH,
	STATE_IN_FLIGHT,
	STATE_WORKERS,
	STATE_WORKERS_WANTED,
	STATE_HOLDS,
	STATE_LAUNCHER_PID,
	STATE_BREAKER,
	STATE_BREAKER_MANUAL,
	STATE_BREAKER_CHANGED_AT,
	STATE_BREAKER_OPEN_UNTIL,
	STATE_BREAKER_TIMES_OPENED,
	STATE_LIMITED_UNTIL,
	STATE_LAST_DEFINITE_AT,
	STATE_EPOCH,
	STATE_FRONTIER,
	STATE_SWEEP_ALL,
	STATE_NEXT_DUE,
	STATE_REGISTER_FAILURES,
	STATE_HELD_SINCE,
	STATE_BATCH_REFUSED_AT,
	STATE_BATCH_REFUSED_STATUS,
	STATE_RAMPING,
	STATE_THROTTLED,
	STATE_FAILING_SINCE,
	STATE_FAILED_AT,
	STATE_FAILED_CLASS,
	STATE_FAILED_STATUS,
	STATE_FAILED_MESSAGE,
	N_STATE_COLUMNS
};

/* A row under construction: every column is NULL until it is set. */
typedef struct Row
{
	Datum		value[N_STATE_COLUMNS];
	bool		null[N_STATE_COLUMNS];
} Row;

static void
row_clear(Row *row)
{
	memset(row->null, true, sizeof row->null);
}

static void
row_set(Row *row, int column, Datum value)
{
	Assert(column >= 0 && column < N_STATE_COLUMNS);
	row->value[column] = value;
	row->null[column] = false;
}

/* 0 stands for never and shows as NULL. */
static void
row_set_time(Row *row, int column, int64 time)
{
	if (time != 0)
		row_set(row, column, TimestampTzGetDatum(time));
}

/* What the table of workers says of this database. */
static void
row_set_workers(Row *row, const DbState *db)
{
	int			index = shmem_db_index(db);
	int			running = 0;
	int			in_flight = 0;
	uint64		held_since = 0;

	LWLockAcquire(settlement_shared->lock, LW_SHARED);
	row_set(row, STATE_WORKERS_WANTED, Int32GetDatum(db->wanted));
	row_set(row, STATE_HOLDS, Int32GetDatum(db->holds));
	row_set(row, STATE_REGISTER_FAILURES,
			Int32GetDatum(settlement_shared->register_failures));
	if (settlement_shared->launcher_pid != 0)
		row_set(row, STATE_LAUNCHER_PID, Int32GetDatum(settlement_shared->launcher_pid));
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];
		uint64		held;

		if (slot->state == SLOT_FREE || slot->db != index)
			continue;
		held = pg_atomic_read_u64(&slot->held_since);
		if (held != 0 && (held_since == 0 || held < held_since))
			held_since = held;
		running += slot->state == SLOT_RUNNING;
		SpinLockAcquire(&slot->mutex);
		in_flight += slot->n_flights;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(settlement_shared->lock);
	row_set(row, STATE_WORKERS, Int32GetDatum(running));
	row_set(row, STATE_IN_FLIGHT, Int32GetDatum(in_flight));
	if (held_since != 0)		/* as of clock_latest(); people read the wall clock */
		row_set_time(row, STATE_HELD_SINCE,
					 held_since - (clock_latest() - GetCurrentTimestamp()));
}

static void
row_set_failure(Row *row, const LastFailure *failure)
{
	char	   *message;

	if (failure->at == 0)
		return;
	message = pg_any_to_server(failure->message, strlen(failure->message), PG_UTF8);
	row_set_time(row, STATE_FAILED_AT, failure->at);
	row_set(row, STATE_FAILED_CLASS, CStringGetTextDatum(failure->class));
	if (failure->http_status != 0)
		row_set(row, STATE_FAILED_STATUS, Int32GetDatum(failure->http_status));
	row_set(row, STATE_FAILED_MESSAGE, CStringGetTextDatum(message));
}

static void
row_set_policy(Row *row, DbState *db)
{
	TimestampTz now = GetCurrentTimestamp();
	Breaker		breaker;
	Limiter		limiter;
	LastFailure failure;

	LWLockAcquire(db->policy_lock, LW_SHARED);
	breaker = db->breaker;
	limiter = db->limiter;
	failure = db->last_failure;
	LWLockRelease(db->policy_lock);

	row_set(row, STATE_BREAKER, CStringGetTextDatum(breaker_state_name(breaker.state)));
	row_set(row, STATE_BREAKER_MANUAL, BoolGetDatum(breaker.manual));
	row_set_time(row, STATE_BREAKER_CHANGED_AT, breaker.changed_at_us);
	if (breaker.state == BREAKER_OPEN && !breaker.manual)
		row_set_time(row, STATE_BREAKER_OPEN_UNTIL, breaker.open_until_us);
	row_set(row, STATE_BREAKER_TIMES_OPENED, Int64GetDatum(breaker.times_opened));
	if (limiter_is_held(&limiter, now))
		row_set_time(row, STATE_LIMITED_UNTIL, limiter.hold_until_us);
	row_set(row, STATE_RAMPING, BoolGetDatum(limiter.ramp_left > 0));
	row_set(row, STATE_THROTTLED, BoolGetDatum(limiter_is_empty(&limiter, settlement_rate_limit, now)));
	row_set_time(row, STATE_FAILING_SINCE, breaker.failing_since_us);
	row_set_failure(row, &failure);
}

static void
row_set_hints(Row *row, DbState *db)
{
	int64		frontier;
	bool		sweep_all;

	SpinLockAcquire(&db->hint_mutex);
	frontier = db->frontier;
	sweep_all = db->sweep_all;
	SpinLockRelease(&db->hint_mutex);
	row_set(row, STATE_FRONTIER, Int64GetDatum(frontier));
	row_set(row, STATE_SWEEP_ALL, BoolGetDatum(sweep_all));
}

Datum
settlement_database_state(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();
	Row			row;

	if (db == NULL)
		return (Datum) 0;
	Assert(sink.desc->natts == N_STATE_COLUMNS);

	row_clear(&row);
	row_set(&row, STATE_SEND_STATE, CStringGetTextDatum(
				send_state_name((SendState) pg_atomic_read_u32(&db->send_state))));
	row_set(&row, STATE_PAUSE_ALL, BoolGetDatum(pg_atomic_read_u32(&db->pause_all) != 0));
	row_set(&row, STATE_RECOVERED, BoolGetDatum(pg_atomic_read_u32(&db->recovered) != 0));
	if (pg_atomic_read_u32(&db->depth_known) != 0)
		row_set(&row, STATE_QUEUE_DEPTH,
				Int64GetDatum(shmem_queue_depth(db)));
	row_set_workers(&row, db);
	row_set_policy(&row, db);
	row_set_time(&row, STATE_LAST_DEFINITE_AT, pg_atomic_read_u64(&db->last_definite_at));
	row_set(&row, STATE_EPOCH, Int64GetDatum(pg_atomic_read_u64(&db->epoch)));
	row_set_hints(&row, db);
	row_set_time(&row, STATE_NEXT_DUE, pg_atomic_read_u64(&db->next_due));
	row_set_time(&row, STATE_BATCH_REFUSED_AT, pg_atomic_read_u64(&db->batch_refused_at));
	row_set(&row, STATE_BATCH_REFUSED_STATUS,
			Int32GetDatum(pg_atomic_read_u32(&db->batch_refused_status)));
	rows_put(&sink, row.value, row.null);
	return (Datum) 0;
}

/* Rows in the queue; NULL when nobody has counted them since the server start. */
Datum
settlement_queue_depth(PG_FUNCTION_ARGS)
{
	DbState    *db = shmem_my_database();

	if (db == NULL || pg_atomic_read_u32(&db->depth_known) == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(shmem_queue_depth(db));
}

/* Claimed, and not sent because no standby has the claim yet. */
static const char *
flight_phase(const Flight *flight, bool holds)
{
	if (holds && flight->phase == PHASE_PREPARED)
		return "waiting for standby";
	return phase_name((AttemptPhase) flight->phase);
}

static const char *
slot_state_name(SlotState state)
{
	switch (state)
	{
		case SLOT_FREE:
			return "free";
		case SLOT_STARTING:
			return "starting";
		case SLOT_RUNNING:
			return "running";
		case SLOT_ORPHANED:
			return "orphaned";
	}
	return "unknown";
}

/*
 * slot, pid, state, idle, stopping, in_flight, heartbeat, settled, failed,
 * started_at, concurrency_limit of each worker of this database.
 */
Datum
settlement_list_workers(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();

	for (int i = 0; db != NULL && i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];
		SlotState	state;
		int			index;
		pid_t		pid;
		TimestampTz started_at;
		bool		stopping;
		int			in_flight;
		uint64		heartbeat = pg_atomic_read_u64(&slot->heartbeat);

		LWLockAcquire(settlement_shared->lock, LW_SHARED);
		state = slot->state;
		index = slot->db;
		pid = slot->pid;
		started_at = slot->started_at;
		stopping = slot->stop_requested;
		LWLockRelease(settlement_shared->lock);
		if (state == SLOT_FREE || index != shmem_db_index(db))
			continue;
		SpinLockAcquire(&slot->mutex);
		in_flight = slot->n_flights;
		SpinLockRelease(&slot->mutex);
		{
			Datum		value[] = {
				Int32GetDatum(i), Int32GetDatum(pid),
				CStringGetTextDatum(slot_state_name(state)),
				BoolGetDatum(pg_atomic_read_u32(&slot->idle) != 0),
				BoolGetDatum(stopping), Int32GetDatum(in_flight),
				TimestampTzGetDatum(heartbeat),
				Int64GetDatum(pg_atomic_read_u64(&slot->settled)),
				Int64GetDatum(pg_atomic_read_u64(&slot->failed)),
				TimestampTzGetDatum(started_at),
				Int32GetDatum(pg_atomic_read_u32(&slot->concurrency_limit))
			};
			bool		null[lengthof(value)] = {false};

			null[1] = pid == 0 || state == SLOT_ORPHANED;
			null[6] = heartbeat == 0;
			null[9] = started_at == 0;
			null[10] = state != SLOT_RUNNING;
			rows_put(&sink, value, null);
		}
	}
	return (Datum) 0;
}

/* slot, queue_id, since, phase of each trade in flight in this database. */
Datum
settlement_list_flights(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();
	Flight	   *copy;

	if (db == NULL)
		return (Datum) 0;
	copy = palloc(sizeof(Flight) * MAX_CONCURRENCY);
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];
		int			n = 0;
		bool		holds = pg_atomic_read_u64(&slot->held_since) != 0;

		LWLockAcquire(settlement_shared->lock, LW_SHARED);
		if (slot->state != SLOT_FREE && slot->db == shmem_db_index(db))
		{
			SpinLockAcquire(&slot->mutex);
			n = Min(slot->n_flights, MAX_CONCURRENCY);
			memcpy(copy, slot->flights, sizeof(Flight) * n);
			SpinLockRelease(&slot->mutex);
		}
		LWLockRelease(settlement_shared->lock);
		for (int j = 0; j < n; j++)
		{
			Datum		value[] = {
				Int32GetDatum(i), Int64GetDatum(copy[j].queue_id),
				TimestampTzGetDatum(copy[j].since),
				CStringGetTextDatum(flight_phase(&copy[j], holds))
			};
			bool		null[lengthof(value)] = {false};

			rows_put(&sink, value, null);
		}
	}
	pfree(copy);
	return (Datum) 0;
}

/* Version of the library in this backend. */
Datum
settlement_library_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(SETTLEMENT_VERSION));
}

/* Why a URL cannot be settlement.wallet_url; NULL when it can. */
Datum
settlement_wallet_url_problem(PG_FUNCTION_ARGS)
{
	const char *problem = wallet_check_url(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}
