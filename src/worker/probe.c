/*
 * probe.c
 *	  Looks whether a database has the extension, and what it wants, and counts
 *	  its queue when nobody knows how long that is.
 *
 * Only a process that is connected to a database can read its catalog and gets
 * its ALTER DATABASE settings.  So the launcher, which is connected to none,
 * starts one for a few milliseconds, one database after the other.  The result
 * goes into DbState, under settlement_shared->lock.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "queue/announce.h"
#include "queue/catalog.h"
#include "shared/settings.h"
#include "shared/shmem.h"
#include "worker/probe.h"
#include "worker/process.h"
#include "worker/worker.h"

/*
 * Somebody may hold the lock that a connection to the database waits for, e.g.
 * CREATE DATABASE ... TEMPLATE.  The other databases shall not wait for that.
 */
#define PROBE_TIMEOUT_MS	10000

/* ----------------------------------------------------------- the launcher */

static BackgroundWorkerHandle *probe_handle = NULL;
static TimestampTz probe_started_at;
static bool probe_terminated;

static void
set_probe_database(Oid database)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	settlement_shared->probe_database = database;
	LWLockRelease(settlement_shared->lock);
}

bool
probe_running(TimestampTz now)
{
	pid_t		pid;

	if (probe_handle == NULL)
		return false;
	if (GetBackgroundWorkerPid(probe_handle, &pid) != BGWH_STOPPED)
	{
		if (!probe_terminated &&
			TimestampDifferenceExceeds(probe_started_at, now, PROBE_TIMEOUT_MS))
		{
			TerminateBackgroundWorker(probe_handle);
			probe_terminated = true;
		}
		return true;
	}
	pfree(probe_handle);
	probe_handle = NULL;
	set_probe_database(InvalidOid);
	return false;
}

bool
probe_start(Oid database, TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	Assert(probe_handle == NULL);
	set_probe_database(database);
	probe_handle = process_start(PROCESS_PROBE, ObjectIdGetDatum(database), NULL, 0);
	if (probe_handle == NULL)
		set_probe_database(InvalidOid);
	probe_started_at = now;
	probe_terminated = false;
	MemoryContextSwitchTo(old);
	return probe_handle != NULL;
}

/* -------------------------------------------------------------- the probe */

/* Also when no launcher is left that would see the end of this probe. */
static void
leave_database(int code, Datum database)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (settlement_shared->probe_database == DatumGetObjectId(database))
		settlement_shared->probe_database = InvalidOid;
	LWLockRelease(settlement_shared->lock);
}

/* An effect of ALTER DATABASE ... SET that running workers do not notice. */
static uint64
config_hash(void)
{
	const char *url = settlement_wallet_url ? settlement_wallet_url : "";

	return hash_bytes_extended((const unsigned char *) url, strlen(url), 0);
}

static void
note_full_table(bool full)
{
	bool		news;

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	news = full && !settlement_shared->databases_full;
	settlement_shared->databases_full |= full;
	LWLockRelease(settlement_shared->lock);

	if (news)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("more than %d databases have the extension settlement",
						MAX_DATABASES),
				 errdetail("The trades of some of them are not settled."),
				 errhint("Use settlement.databases to choose.")));
}

/* Tell the launcher; wake it only if that changes anything. */
static void
report(bool found)
{
	DbState    *db = shmem_database(MyDatabaseId, found);
	uint64		hash = config_hash();
	int			wanted = found ? settlement_workers : 0;
	bool		news;

	if (db == NULL)
	{
		note_full_table(found);
		return;
	}
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	news = db->has_extension != found || db->wanted != wanted ||
		db->config_hash != hash;
	db->has_extension = found;
	db->wanted = wanted;
	db->config_hash = hash;
	db->probed_at = GetCurrentTimestamp();
	LWLockRelease(settlement_shared->lock);
	if (news)
		shmem_wake_launcher();
}

/*
 * Once after a server start, and after a COMMIT PREPARED, of which no session knows
 * whether it is counted: here, because a worker has better to do and those who look
 * want an answer at once.  What takes longer than a probe may last stays an estimate.
 */
static void
count_queue(void)
{
	const SettlementCatalog *catalog;
	DbState    *db = shmem_my_database();

	if (db == NULL || RecoveryInProgress())
		return;
	session_begin();
	announce_forget_prepared(db);
	session_commit();
	if (pg_atomic_read_u32(&db->depth_known) != 0 && pg_atomic_read_u32(&db->depth_stale) == 0)
		return;
	StartTransactionCommand();
	catalog = settlement_catalog(true);
	if (catalog != NULL)
		announce_count_queue(db, catalog->queue);
	CommitTransactionCommand();
}

void
settlement_probe_main(Datum main_arg)
{
	bool		found;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	before_shmem_exit(leave_database, main_arg);

	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(main_arg),
											  InvalidOid, 0);
	session_start();
	StartTransactionCommand();
	found = OidIsValid(get_extension_oid("settlement", true));
	CommitTransactionCommand();
	report(found);
	if (found)
		count_queue();
	proc_exit(0);
}
