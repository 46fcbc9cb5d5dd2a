/*
 * steer.c
 *	  SQL functions that steer the workers of the current database through
 *	  shared memory: the breaker by hand, a rescan, the restart of a worker,
 *	  the wait for a pause; and those that tell them at commit of rows that SQL
 *	  wrote.
 *
 * What changes shared memory here takes effect at once and is not undone by a
 * rollback.  The locks are those of shmem.h, one at a time.  Access is by
 * EXECUTE privilege alone (sql/grants.sql).
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "api/rows.h"
#include "queue/announce.h"
#include "queue/frontier.h"
#include "shared/shmem.h"
#include "worker/slots.h"

PG_FUNCTION_INFO_V1(settlement_force_breaker);
PG_FUNCTION_INFO_V1(settlement_sweep_all);
PG_FUNCTION_INFO_V1(settlement_stop_worker);
PG_FUNCTION_INFO_V1(settlement_wait_paused);
PG_FUNCTION_INFO_V1(settlement_in_transaction_block);
PG_FUNCTION_INFO_V1(settlement_announce_pauses);
PG_FUNCTION_INFO_V1(settlement_announce_work);

#define PAUSE_POLL_MS	20

static DbState *
my_database(void)
{
	DbState    *db = shmem_my_database();

	if (db == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("settlement is not running in this server"),
				 errhint("Add settlement to shared_preload_libraries and restart the server.")));
	return db;
}

/* true: open until closed by hand; false: closed. */
Datum
settlement_force_breaker(PG_FUNCTION_ARGS)
{
	bool		open = PG_GETARG_BOOL(0);
	DbState    *db = my_database();
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(db->policy_lock, LW_EXCLUSIVE);
	if (open)
		breaker_force_open(&db->breaker, now);
	else
	{
		if (db->breaker.state != BREAKER_CLOSED)
			limiter_ramp(&db->limiter, now);
		breaker_force_close(&db->breaker, now);
	}
	LWLockRelease(db->policy_lock);
	shmem_wake_all_workers(db);
	PG_RETURN_VOID();
}

/* Let the next claim look at the whole queue again. */
Datum
settlement_sweep_all(PG_FUNCTION_ARGS)
{
	DbState    *db = my_database();

	pg_atomic_write_u64(&db->next_due, 0);
	pg_atomic_write_u64(&db->next_apply, 0);
	frontier_rescan(db);
	shmem_wake_all_workers(db);
	PG_RETURN_VOID();
}

/*
 * Ask the worker in a slot to leave; the launcher starts another one.  False
 * when the slot has no worker of this database.
 */
Datum
settlement_stop_worker(PG_FUNCTION_ARGS)
{
	int			number = PG_GETARG_INT32(0);
	DbState    *db = my_database();
	bool		asked = false;

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (number >= 0 && number < settlement_shared->n_slots)
	{
		WorkerSlot *slot = &settlement_shared->slots[number];

		asked = slot->db == shmem_db_index(db) &&
			(slot->state == SLOT_RUNNING || slot->state == SLOT_STARTING);
		if (asked)
			slot_stop_locked(slot);
	}
	LWLockRelease(settlement_shared->lock);
	if (asked)
		shmem_wake_launcher();
	PG_RETURN_BOOL(asked);
}

/* Have all running workers acted upon the pauses as they are now committed? */
static bool
pauses_acknowledged(DbState *db, int *in_flight)
{
	uint64		version = pg_atomic_read_u64(&db->pauses_version);
	bool		all = true;

	*in_flight = 0;
	LWLockAcquire(settlement_shared->lock, LW_SHARED);
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (slot->db != shmem_db_index(db) ||
			(slot->state != SLOT_RUNNING && slot->state != SLOT_STARTING))
			continue;
		if (slot->state == SLOT_RUNNING &&
			pg_atomic_read_u64(&slot->pauses_seen) < version)
			all = false;
		SpinLockAcquire(&slot->mutex);
		*in_flight += slot->n_flights;
		SpinLockRelease(&slot->mutex);
	}
	LWLockRelease(settlement_shared->lock);
	return all;
}

/*
 * Wait until every worker has acted upon the pauses, at most so many ms.
 * Returns (acknowledged, in_flight).
 */
Datum
settlement_wait_paused(PG_FUNCTION_ARGS)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												  Max(PG_GETARG_INT32(0), 0));
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = my_database();
	int			in_flight;
	bool		acknowledged;
	Datum		value[2];
	bool		null[lengthof(value)] = {false};

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for a pause in a transaction that has written"),
				 errhint("Workers see a pause when it is committed: commit first.")));
	while (!(acknowledged = pauses_acknowledged(db, &in_flight)) &&
		   GetCurrentTimestamp() < end)
	{
		shmem_wake_all_workers(db);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 PAUSE_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	value[0] = BoolGetDatum(acknowledged);
	value[1] = Int32GetDatum(in_flight);
	rows_put(&sink, value, null);
	return (Datum) 0;
}

/* Has the user begun a transaction block?  Then a procedure cannot commit. */
Datum
settlement_in_transaction_block(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(IsTransactionBlock());
}

/* This transaction changed settlement.pauses. */
Datum
settlement_announce_pauses(PG_FUNCTION_ARGS)
{
	announce_pauses();
	PG_RETURN_VOID();
}

/* This transaction wrote deferred or unapplied rows. */
Datum
settlement_announce_work(PG_FUNCTION_ARGS)
{
	announce_other_work();
	PG_RETURN_VOID();
}
