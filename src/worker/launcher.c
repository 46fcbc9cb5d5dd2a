/*
 * launcher.c
 *	  Finds the databases that have the extension and keeps their workers
 *	  running.
 *
 * Connected to no database, it reads pg_database in short transactions, has
 * each database probed (probe.c) at start, when asked, and each minute, and
 * lets workforce.c start and stop workers.  It keeps nothing that matters to
 * itself: after an error or a SIGTERM the postmaster starts another one, which
 * finds everything in shared memory.  It starts after recovery only, so a
 * standby has neither launcher nor workers until it is promoted.
 *
 * Entries of settlement_shared->databases are given up here and nowhere else:
 * when the database is gone, so that no process can still be using them.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#include "shared/clock.h"
#include "shared/settings.h"
#include "shared/shmem.h"
#include "worker/launcher.h"
#include "worker/probe.h"
#include "worker/slots.h"
#include "worker/workforce.h"

#define LIST_INTERVAL_MS	60000	/* pg_database is read, databases are probed */
#define PROBE_RETRY_MS		1000	/* no process was free for the probe */

/* pg_database.datconnlimit of one whose DROP was interrupted; since 15.4 */
#define CONNLIMIT_INVALID	(-2)

/* A database that may have workers. */
typedef struct Candidate
{
	Oid			oid;
	TimestampTz next_probe;
} Candidate;

static Candidate *candidates = NULL;	/* in TopMemoryContext */
static int	n_candidates = 0;
static bool allowed[MAX_DATABASES]; /* parallel to settlement_shared->databases */

/* --------------------------------------------------- the list of databases */

static Candidate *
find_candidate(Candidate *list, int n, Oid oid)
{
	for (int i = 0; i < n; i++)
		if (list[i].oid == oid)
			return &list[i];
	return NULL;
}

/* settlement.databases, a list of names; NIL when empty or unreadable. */
static List *
allow_list(bool *all)
{
	char	   *copy = pstrdup(settlement_databases ? settlement_databases : "");
	List	   *names = NIL;

	*all = false;
	if (!SplitIdentifierString(copy, ',', &names))
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid list syntax in parameter \"%s\"", "settlement.databases")));
		return NIL;
	}
	*all = names == NIL;
	return names;
}

static bool
may_have_workers(Form_pg_database form, List *names, bool all)
{
	ListCell   *cell;

	if (form->datistemplate || !form->datallowconn ||
		form->datconnlimit == CONNLIMIT_INVALID)
		return false;
	if (all)
		return true;
	foreach(cell, names)
		if (strcmp(lfirst(cell), NameStr(form->datname)) == 0)
			return true;
	return false;
}

/*
 * Read pg_database: `present` gets the oids of all databases, the result those
 * that may have workers.  Both in the caller's context.
 */
static Candidate *
read_databases(List **present, int *n)
{
	MemoryContext caller = CurrentMemoryContext;
	Candidate  *result = NULL;
	int			size = 0;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	List	   *names;
	bool		all;

	*present = NIL;
	*n = 0;
	names = allow_list(&all);

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext old = MemoryContextSwitchTo(caller);

		*present = lappend_oid(*present, form->oid);
		if (may_have_workers(form, names, all))
		{
			if (*n >= size)
			{
				size = Max(16, size * 2);
				result = result ? repalloc(result, size * sizeof(Candidate))
					: palloc(size * sizeof(Candidate));
			}
			result[(*n)++] = (Candidate) {.oid = form->oid};
		}
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
	return result;
}

/*
 * Give up entries of databases that are gone.  `known` was taken before the
 * list was read: an entry that is newer may belong to a newer database.
 */
static void
forget_databases(const Oid *known, List *present)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DbState    *db = &settlement_shared->databases[i];

		if (OidIsValid(db->database) && !db->has_extension && db->holds == 0)
			slots_forget_database_locked(db);
		if (!OidIsValid(known[i]) || db->database != known[i] ||
			list_member_oid(present, db->database))
			continue;
		db->has_extension = false;
		slots_forget_database_locked(db);
		if (slots_occupied_locked(db))
			continue;
		db->database = InvalidOid;
		settlement_shared->databases_full = false;
	}
	LWLockRelease(settlement_shared->lock);
}

static void
copy_known(Oid *known)
{
	LWLockAcquire(settlement_shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_DATABASES; i++)
		known[i] = settlement_shared->databases[i].database;
	LWLockRelease(settlement_shared->lock);
}

/* Bring candidates and allowed up to date. */
static void
refresh_candidates(void)
{
	Oid			known[MAX_DATABASES];
	List	   *present;
	Candidate  *list;
	Candidate  *former = candidates;
	int			n;

	copy_known(known);
	list = read_databases(&present, &n);
	forget_databases(known, present);

	for (int i = 0; i < n; i++)
	{
		Candidate  *before = find_candidate(former, n_candidates, list[i].oid);

		list[i].next_probe = before ? before->next_probe : 0;
	}
	candidates = MemoryContextAlloc(TopMemoryContext, Max(n, 1) * sizeof(Candidate));
	memcpy(candidates, list, n * sizeof(Candidate));
	n_candidates = n;
	if (former)
		pfree(former);

	copy_known(known);
	for (int i = 0; i < MAX_DATABASES; i++)
		allowed[i] = OidIsValid(known[i]) &&
			find_candidate(candidates, n_candidates, known[i]) != NULL;
}

/* ----------------------------------------------------------------- probes */

/* Probes that were asked for are due now. */
static void
note_requests(void)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DbState    *db = &settlement_shared->databases[i];
		Candidate  *candidate;

		if (!OidIsValid(db->database) || !db->probe_requested || db->holds > 0)
			continue;
		db->probe_requested = false;
		candidate = find_candidate(candidates, n_candidates, db->database);
		if (candidate != NULL)
			candidate->next_probe = 0;
	}
	LWLockRelease(settlement_shared->lock);
}

/* After a reload: what a database wants may be different. */
static void
probe_again(void)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		if (settlement_shared->databases[i].has_extension)
			settlement_shared->databases[i].probe_requested = true;
	LWLockRelease(settlement_shared->lock);
}

static bool
is_held(Oid database)
{
	DbState    *db = shmem_database(database, false);

	return db != NULL && *(volatile int *) &db->holds > 0;
}

/* Start the probe that is due first, if none is under way; ms to the next. */
static long
probe_next(TimestampTz now)
{
	Candidate  *next = NULL;

	if (probe_running(now))
		return PROBE_RETRY_MS;
	for (int i = 0; i < n_candidates; i++)
		if ((next == NULL || candidates[i].next_probe < next->next_probe) &&
			!is_held(candidates[i].oid))
			next = &candidates[i];
	if (next == NULL)
		return LIST_INTERVAL_MS;
	if (next->next_probe > now)
		return TimestampDifferenceMilliseconds(now, next->next_probe) + 1;

	if (probe_start(next->oid, now))
		next->next_probe = TimestampTzPlusMilliseconds(now, LIST_INTERVAL_MS);
	return PROBE_RETRY_MS;
}

/* ------------------------------------------------------------------- main */

static void
leave(int code, Datum arg)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (settlement_shared->launcher_pid == MyProcPid)
	{
		settlement_shared->launcher_pid = 0;
		settlement_shared->launcher_proc = NULL;
	}
	LWLockRelease(settlement_shared->lock);
}

static void
enter(void)
{
	before_shmem_exit(leave, (Datum) 0);
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	settlement_shared->launcher_pid = MyProcPid;
	settlement_shared->launcher_proc = MyProc;
	LWLockRelease(settlement_shared->lock);
}

/* Nothing waits for a time of the former clock. */
static void
clock_set_back(bool *reread, TimestampTz now)
{
	*reread = true;
	for (int i = 0; i < n_candidates; i++)
		candidates[i].next_probe = 0;
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	settlement_shared->workers_after = Min(settlement_shared->workers_after, now);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DbState    *db = &settlement_shared->databases[i];

		db->restart_after = Min(db->restart_after, now);
	}
	LWLockRelease(settlement_shared->lock);
}

/* One round; returns how long to wait, in ms, unless something happens. */
static long
work(bool *reread, TimestampTz *next_list)
{
	static ClockWatch watch;
	TimestampTz now = GetCurrentTimestamp();
	long		wait;

	if (clock_look(&watch, now) < 0)
		clock_set_back(reread, now);
	if (*reread || now >= *next_list)
	{
		refresh_candidates();
		*next_list = TimestampTzPlusMilliseconds(now, LIST_INTERVAL_MS);
		*reread = false;
	}
	note_requests();
	wait = Min(probe_next(now), workforce_adjust(allowed, now));
	return Min(wait, TimestampDifferenceMilliseconds(now, *next_list) + 1);
}

void
settlement_launcher_main(Datum main_arg)
{
	MemoryContext round;
	TimestampTz next_list = 0;
	bool		reread = true;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	enter();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	ereport(DEBUG1, (errmsg_internal("settlement launcher started")));
	round = AllocSetContextCreate(TopMemoryContext, "settlement launcher round",
								  ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(round);

	for (;;)
	{
		long		wait = work(&reread, &next_list);

		MemoryContextReset(round);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			probe_again();
			reread = true;
		}
		if (pg_atomic_exchange_u32(&settlement_shared->launcher_work, 0) != 0)
			reread = true;
	}
}

void
launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "settlement", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "settlement_launcher_main",
			sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "settlement launcher", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "settlement launcher", sizeof(worker.bgw_type));
	RegisterBackgroundWorker(&worker);
}
