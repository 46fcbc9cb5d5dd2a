/*
 * shmem.c
 *	  Creates the shared memory and finds a database's part of it.
 *
 * Locks are listed in shmem.h.  Nothing here does SQL.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "shared/settings.h"
#include "shared/shmem.h"
#include "shared/standby.h"
#include "shared/stats_file.h"

#define TRANCHE		"settlement"
#define YOUNG_SERVER_MS		5000
#define MAX_START_DELAY_MS	10000

SettlementShared *settlement_shared = NULL;

static shmem_startup_hook_type previous_startup_hook = NULL;
#ifdef HAVE_SHMEM_REQUEST_HOOK
static shmem_request_hook_type previous_request_hook = NULL;
#endif

static Size
shared_size(void)
{
	return add_size(offsetof(SettlementShared, slots),
					mul_size(2 * settlement_max_workers, sizeof(WorkerSlot)));
}

static void
request_shmem(void)
{
#ifdef HAVE_SHMEM_REQUEST_HOOK
	if (previous_request_hook)
		previous_request_hook();
#endif
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(TRANCHE, 1 + MAX_DATABASES);
}

static void
init_database(DbState *db, LWLock *policy_lock)
{
	db->database = InvalidOid;
	db->policy_lock = policy_lock;
	db->claimer = -1;
	SpinLockInit(&db->hint_mutex);
	pg_atomic_init_u64(&db->scan_bound, 0);
	pg_atomic_init_u64(&db->announced, 0);
	pg_atomic_init_u64(&db->depth_change, 0);
	pg_atomic_init_u64(&db->depth_base, 0);
	pg_atomic_init_u32(&db->depth_known, 0);
	pg_atomic_init_u32(&db->depth_stale, 0);
	pg_atomic_init_u64(&db->work_prepared, 0);
	pg_atomic_init_u64(&db->pauses_prepared, 0);
	pg_atomic_init_u32(&db->recovered, 0);
	pg_atomic_init_u32(&db->recoverer, 0);
	pg_atomic_init_u32(&db->send_state, SEND_STARTING);
	pg_atomic_init_u32(&db->pause_all, 0);
	pg_atomic_init_u64(&db->pauses_version, 1);
	pg_atomic_init_u64(&db->last_definite_at, 0);
	pg_atomic_init_u64(&db->batch_refused_at, 0);
	pg_atomic_init_u32(&db->batch_refused_status, 0);
	pg_atomic_init_u64(&db->no_batch_until, 0);
	pg_atomic_init_u64(&db->epoch, 0);
	pg_atomic_init_u64(&db->refused_epoch, 0);
	pg_atomic_init_u64(&db->next_due, 0);
	pg_atomic_init_u64(&db->next_apply, 0);
	pg_atomic_init_u64(&db->next_redrive, 0);
	pg_atomic_init_u64(&db->next_retention, 0);
	pg_atomic_init_u32(&db->dlq_changed, 1);
	for (int i = 0; i < N_COUNTERS; i++)
		pg_atomic_init_u64(&db->counter[i], 0);
}

static void
init_slot(WorkerSlot *slot)
{
	slot->state = SLOT_FREE;
	slot->db = -1;
	SpinLockInit(&slot->mutex);
	pg_atomic_init_u32(&slot->idle, 0);
	pg_atomic_init_u64(&slot->heartbeat, 0);
	pg_atomic_init_u64(&slot->pauses_seen, 0);
	pg_atomic_init_u64(&slot->held_since, 0);
	pg_atomic_init_u64(&slot->settled, 0);
	pg_atomic_init_u64(&slot->failed, 0);
	pg_atomic_init_u32(&slot->concurrency_limit, 0);
}

/*
 * When workers may be started.  At once after a start and after a first crash;
 * if the server crashes again as soon as they run, they may well be the cause,
 * and the sessions of all databases shall not pay for it several times a second.
 * Only the postmaster outlives a crash, so it counts.
 */
static TimestampTz
workers_after(TimestampTz now)
{
	static TimestampTz last_start = 0;
	static int	crashes = 0;
	static int	delay = 0;

	if (last_start == 0 ||
		TimestampDifferenceExceeds(last_start, now, delay + YOUNG_SERVER_MS))
		crashes = 0;
	else
		crashes++;
	delay = crashes < 2 ? 0 : Min(1000 << Min(crashes - 2, 10), MAX_START_DELAY_MS);
	last_start = now;
	return TimestampTzPlusMilliseconds(now, delay);
}

static void
init_shared(SettlementShared *shared)
{
	LWLockPadded *locks = GetNamedLWLockTranche(TRANCHE);

	memset(shared, 0, shared_size());
	shared->lock = &locks[0].lock;
	if (!pg_strong_random(&shared->boot, sizeof(shared->boot)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number for this server start")));
	/* it is stored in a bigint */
	shared->boot &= PG_INT64_MAX;
	shared->was_standby = standby_at_start();
	shared->workers_after = workers_after(GetCurrentTimestamp());
	pg_atomic_init_u64(&shared->next_token, 1);
	pg_atomic_init_u64(&shared->clock_ahead, 0);
	pg_atomic_init_u32(&shared->launcher_work, 0);
	for (int i = 0; i < MAX_DATABASES; i++)
		init_database(&shared->databases[i], &locks[1 + i].lock);
	shared->n_slots = 2 * settlement_max_workers;
	shared->n_crashed = handled_start(shared->crashed, MAX_CRASHED, shared->n_slots);
	for (int i = 0; i < shared->n_slots; i++)
		init_slot(&shared->slots[i]);
}

static void
startup_shmem(void)
{
	bool		found;

	if (previous_startup_hook)
		previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	settlement_shared = ShmemInitStruct("settlement", shared_size(), &found);
	if (!found)
	{
		init_shared(settlement_shared);
		stats_file_take();
	}
	LWLockRelease(AddinShmemInitLock);
	/* the postmaster, or single-user mode: whoever is the last to go */
	if (!IsUnderPostmaster)
		on_shmem_exit(stats_file_write, (Datum) 0);
}

void
shmem_install_hooks(void)
{
#ifdef HAVE_SHMEM_REQUEST_HOOK
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
#else
	request_shmem();
#endif
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;
}

/* Where claimable rows are is not known.  Caller holds hint_mutex. */
static void
forget_hints(DbState *db)
{
	db->claimer = -1;
	db->frontier = 0;
	db->n_late = 0;
	db->sweep_all = false;
	db->sweep_undecided = false;
	db->sweep_next = 1;
	db->sweep_end = 0;
	db->passed = (IdRange) {1, 0};
	db->safe = 0;
	db->n_marks = 0;
	db->open_claimed = 0;
	db->marked_at = 0;
}

static void
forget_facts(DbState *db)
{
	pg_atomic_write_u64(&db->scan_bound, 0);
	pg_atomic_write_u64(&db->depth_change, 0);
	pg_atomic_write_u64(&db->depth_base, 0);
	pg_atomic_write_u32(&db->depth_known, 0);
	pg_atomic_write_u32(&db->depth_stale, 0);
	/* by whom is not known: before this server start, or on another server */
	pg_atomic_write_u64(&db->work_prepared, PREPARED_UNKNOWN);
	pg_atomic_write_u64(&db->pauses_prepared, PREPARED_UNKNOWN);
	pg_atomic_write_u32(&db->recovered, 0);
	pg_atomic_write_u32(&db->recoverer, 0);
	pg_atomic_write_u32(&db->send_state, SEND_STARTING);
	pg_atomic_write_u32(&db->pause_all, 0);
	pg_atomic_write_u64(&db->last_definite_at, 0);
	pg_atomic_write_u64(&db->batch_refused_at, 0);
	pg_atomic_write_u64(&db->no_batch_until, 0);
	pg_atomic_write_u64(&db->epoch, 0);
	pg_atomic_write_u64(&db->refused_epoch, 0);
	pg_atomic_write_u64(&db->next_due, 0);
	pg_atomic_write_u64(&db->next_apply, 0);
	pg_atomic_write_u64(&db->next_redrive, 0);
	pg_atomic_write_u64(&db->next_retention, 0);
}

/* Caller holds the lock exclusively. */
static void
reset_stats(DbState *db, TimestampTz now)
{
	db->stats_reset = now;
	for (int i = 0; i < N_COUNTERS; i++)
		pg_atomic_write_u64(&db->counter[i], 0);
	memset(db->duration, 0, sizeof(db->duration));
	memset(&db->claim_size, 0, sizeof(db->claim_size));
}

/* Give an entry to a database.  Caller holds the lock exclusively. */
static void
take_database(DbState *db, Oid database)
{
	TimestampTz now = GetCurrentTimestamp();

	db->database = database;
	db->has_extension = false;
	db->wanted = 0;
	db->holds = 0;
	db->probed_at = 0;
	db->probe_requested = false;
	db->config_hash = 0;
	db->workers_missing = 0;
	db->early_deaths = 0;
	db->died_at = 0;
	db->restart_after = 0;
	breaker_init(&db->breaker, now);
	limiter_init(&db->limiter, now);
	forget_hints(db);
	forget_facts(db);
	reset_stats(db, now);
}

void
shmem_forget_extension(DbState *db)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	db->has_extension = false;
	db->wanted = 0;
	db->early_deaths = 0;
	db->restart_after = 0;
	LWLockAcquire(db->policy_lock, LW_EXCLUSIVE);
	breaker_init(&db->breaker, now);
	limiter_init(&db->limiter, now);
	LWLockRelease(db->policy_lock);
	SpinLockAcquire(&db->hint_mutex);
	forget_hints(db);
	SpinLockRelease(&db->hint_mutex);
	forget_facts(db);
	reset_stats(db, now);
	LWLockRelease(settlement_shared->lock);
}

DbState *
shmem_database(Oid database, bool create)
{
	DbState    *free_entry = NULL;
	DbState    *result = NULL;

	if (settlement_shared == NULL || !OidIsValid(database))
		return NULL;

	LWLockAcquire(settlement_shared->lock, create ? LW_EXCLUSIVE : LW_SHARED);
	for (int i = 0; i < MAX_DATABASES && result == NULL; i++)
	{
		DbState    *db = &settlement_shared->databases[i];

		if (db->database == database)
			result = db;
		else if (free_entry == NULL && !OidIsValid(db->database))
			free_entry = db;
	}
	if (result == NULL && create && free_entry != NULL)
	{
		take_database(free_entry, database);
		result = free_entry;
	}
	LWLockRelease(settlement_shared->lock);
	return result;
}

DbState *
shmem_my_database(void)
{
	static DbState *mine = NULL;

	/* An entry is given to another database only after ours was dropped. */
	if (mine == NULL)
		mine = shmem_database(MyDatabaseId, true);
	return mine;
}

static void
wake_slot(WorkerSlot *slot)
{
	PGPROC	   *proc = slot->proc;

	/*
	 * Read without the lock: PGPROC entries are never unmapped, and a latch
	 * that belongs to somebody else by now costs that process one look.
	 */
	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

void
shmem_wake_worker(DbState *db)
{
	int			index;

	if (db == NULL)
		return;
	index = shmem_db_index(db);
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (slot->db == index &&
			pg_atomic_read_u32(&slot->idle) != 0 &&
			pg_atomic_exchange_u32(&slot->idle, 0) != 0)
		{
			wake_slot(slot);
			return;
		}
	}
}

void
shmem_wake_all_workers(DbState *db)
{
	int			index;

	if (db == NULL)
		return;
	index = shmem_db_index(db);
	for (int i = 0; i < settlement_shared->n_slots; i++)
		if (settlement_shared->slots[i].db == index)
			wake_slot(&settlement_shared->slots[i]);
}

void
shmem_wake_launcher(void)
{
	PGPROC	   *proc;

	if (settlement_shared == NULL)
		return;
	pg_atomic_write_u32(&settlement_shared->launcher_work, 1);
	proc = settlement_shared->launcher_proc;
	if (proc != NULL)
		SetLatch(&proc->procLatch);
}

const char *
send_state_name(SendState state)
{
	switch (state)
	{
		case SEND_OK:
			return "ok";
		case SEND_STARTING:
			return "starting";
		case SEND_DISABLED:
			return "disabled";
		case SEND_NO_URL:
			return "no wallet_url";
		case SEND_BAD_CONFIG:
			return "bad configuration";
		case SEND_VERSION:
			return "version mismatch";
		case SEND_FENCED:
			return "fenced";
		case SEND_STALE_EPOCH:
			return "stale epoch";
		case SEND_STANDBY:
			return "standby";
	}
	return "?";
}
