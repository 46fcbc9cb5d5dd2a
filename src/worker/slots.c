/*
 * slots.c
 *	  Attaches workers to their slots and detaches them, however they end.
 *
 * Everything happens under settlement_shared->lock, taken exclusively; inside
 * it hint_mutex and WorkerSlot.mutex, for a few instructions.  The exit hook
 * does no SQL: it marks the slot and wakes those who can hand the claims on.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "shared/settings.h"
#include "shared/shmem.h"
#include "worker/slots.h"

#define YOUNG_MS			5000	/* a worker that dies before is restarted
									 * with a delay */
#define MAX_RESTART_DELAY_MS	10000

WorkerSlot *MySlot = NULL;
static uint32 my_generation;

static bool
in_use(const WorkerSlot *slot)
{
	return slot->state == SLOT_STARTING || slot->state == SLOT_RUNNING;
}

/* ------------------------------------------------------------- the states */

static bool
has_flights(WorkerSlot *slot)
{
	bool		result;

	SpinLockAcquire(&slot->mutex);
	result = slot->n_flights > 0;
	SpinLockRelease(&slot->mutex);
	return result;
}

static void
free_slot(WorkerSlot *slot)
{
	SpinLockAcquire(&slot->mutex);
	slot->n_flights = 0;
	SpinLockRelease(&slot->mutex);
	slot->state = SLOT_FREE;
	slot->db = -1;
	slot->pid = 0;
	slot->proc = NULL;
	slot->stop_requested = false;
	pg_atomic_write_u32(&slot->idle, 0);
}

/*
 * If the worker had the right to scan the queue, what it had read is lost.  If
 * it was taking over from others, somebody else has to.
 */
static void
drop_rights(const WorkerSlot *slot)
{
	DbState    *db = &settlement_shared->databases[slot->db];
	uint32		recoverer = slot - settlement_shared->slots + 1;

	pg_atomic_compare_exchange_u32(&db->recoverer, &recoverer, 0);

	SpinLockAcquire(&db->hint_mutex);
	if (db->claimer == slot - settlement_shared->slots)
	{
		db->claimer = -1;
		db->sweep_all = true;
	}
	SpinLockRelease(&db->hint_mutex);
}

/*
 * A worker ended that nobody had asked to: when may the next one start?  At
 * once after a good life or a first early death, then after 1 s, 2 s, ... 10 s.
 * Workers that were started before the last death belong to the same round.
 */
static void
note_death(DbState *db, TimestampTz started_at)
{
	TimestampTz now = GetCurrentTimestamp();
	int			delay;

	if (TimestampDifferenceExceeds(started_at, now, YOUNG_MS))
		db->early_deaths = 0;
	else if (started_at >= db->died_at)
		db->early_deaths++;
	db->died_at = now;

	delay = db->early_deaths < 2 ? 0 : 1000 << Min(db->early_deaths - 2, 4);
	db->restart_after = TimestampTzPlusMilliseconds(now,
													Min(delay, MAX_RESTART_DELAY_MS));
}

/* ------------------------------------------------------------- the worker */

static bool
is_still_mine(void)
{
	return MySlot != NULL && MySlot->state == SLOT_RUNNING &&
		MySlot->generation == my_generation;
}

static void
leave_orphan(int code, Datum arg)
{
	DbState    *db = NULL;

	if (MySlot == NULL)
		return;
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (is_still_mine())
	{
		db = &settlement_shared->databases[MySlot->db];
		drop_rights(MySlot);
		if (!MySlot->stop_requested)
			note_death(db, MySlot->started_at);
		MySlot->state = SLOT_ORPHANED;
		MySlot->pid = 0;
		MySlot->proc = NULL;
		pg_atomic_write_u32(&MySlot->idle, 0);
	}
	LWLockRelease(settlement_shared->lock);
	MySlot = NULL;

	/* All, not an idle one: a worker that waits for the wallet can do it too. */
	shmem_wake_all_workers(db);
	shmem_wake_launcher();
}

void
slot_attach(int slot, uint32 generation)
{
	WorkerSlot *w = &settlement_shared->slots[slot];
	TimestampTz now = GetCurrentTimestamp();
	bool		mine;
	bool		wanted = true;

	Assert(MySlot == NULL);
	before_shmem_exit(leave_orphan, (Datum) 0);

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	mine = w->state == SLOT_STARTING && w->generation == generation;
	if (mine && w->stop_requested)
	{
		free_slot(w);
		wanted = false;
	}
	else if (mine)
	{
		MySlot = w;
		my_generation = generation;
		w->state = SLOT_RUNNING;
		w->pid = MyProcPid;
		w->proc = MyProc;
		w->started_at = now;
		pg_atomic_write_u64(&w->heartbeat, (uint64) now);
	}
	LWLockRelease(settlement_shared->lock);

	if (!mine)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("worker slot %d was given to another worker", slot)));
	if (!wanted)
	{
		shmem_wake_launcher();
		proc_exit(0);
	}
}

void
slot_detach_clean(void)
{
	bool		clean;

	Assert(MySlot != NULL);
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	clean = is_still_mine() && !has_flights(MySlot);
	if (clean)
	{
		drop_rights(MySlot);
		if (!MySlot->stop_requested)
			note_death(&settlement_shared->databases[MySlot->db],
					   MySlot->started_at);
		free_slot(MySlot);
		MySlot = NULL;
	}
	LWLockRelease(settlement_shared->lock);
	if (clean)
		shmem_wake_launcher();
}

bool
slot_stop_requested(void)
{
	return MySlot != NULL && *(volatile bool *) &MySlot->stop_requested;
}

bool
slot_free_orphan(int slot, uint32 generation)
{
	WorkerSlot *w = &settlement_shared->slots[slot];
	bool		freed = false;

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (w->state == SLOT_ORPHANED && w->generation == generation)
	{
		free_slot(w);
		freed = true;
	}
	LWLockRelease(settlement_shared->lock);
	if (freed)
		shmem_wake_launcher();
	return freed;
}

/* ----------------------------------------------------------- the launcher */

/*
 * The first free slot; when there is none, an orphan of nothing: workers that
 * die before they could recover anything must not use up the slots.
 */
static int
find_slot(void)
{
	int			processes = 0;
	int			unused = -1;
	int			empty_orphan = -1;

	for (int i = settlement_shared->n_slots - 1; i >= 0; i--)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (in_use(slot))
			processes++;
		else if (slot->state == SLOT_FREE)
			unused = i;
		else if (!has_flights(slot))
			empty_orphan = i;
	}
	if (processes >= settlement_max_workers)
		return -1;
	return unused >= 0 ? unused : empty_orphan;
}

int
slot_reserve(DbState *db, uint32 *generation)
{
	int			result = -1;

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (db->holds == 0 && db->has_extension)
		result = find_slot();
	if (result >= 0)
	{
		WorkerSlot *slot = &settlement_shared->slots[result];

		free_slot(slot);
		slot->state = SLOT_STARTING;
		*generation = ++slot->generation;
		slot->db = shmem_db_index(db);
		slot->started_at = GetCurrentTimestamp();
		slot->config_hash = db->config_hash;
		pg_atomic_write_u64(&slot->pauses_seen, 0);
		pg_atomic_write_u64(&slot->held_since, 0);
		pg_atomic_write_u64(&slot->settled, 0);
		pg_atomic_write_u64(&slot->failed, 0);
	}
	LWLockRelease(settlement_shared->lock);
	return result;
}

void
slot_unstarted(int slot, uint32 generation, bool died)
{
	WorkerSlot *w = &settlement_shared->slots[slot];

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (w->state == SLOT_STARTING && w->generation == generation)
	{
		if (died && !w->stop_requested)
			note_death(&settlement_shared->databases[w->db], w->started_at);
		free_slot(w);
	}
	LWLockRelease(settlement_shared->lock);
}

void
slot_stop_locked(WorkerSlot *slot)
{
	Assert(LWLockHeldByMeInMode(settlement_shared->lock, LW_EXCLUSIVE));
	slot->stop_requested = true;
	if (slot->proc != NULL)
		SetLatch(&slot->proc->procLatch);
}

int
slots_stop_database(DbState *db)
{
	int			index = shmem_db_index(db);
	int			n = 0;

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (slot->db == index && in_use(slot))
		{
			slot_stop_locked(slot);
			n++;
		}
	}
	LWLockRelease(settlement_shared->lock);
	return n;
}

int
slots_in_use(DbState *db)
{
	int			index = shmem_db_index(db);
	int			n = 0;

	LWLockAcquire(settlement_shared->lock, LW_SHARED);
	for (int i = 0; i < settlement_shared->n_slots; i++)
		if (settlement_shared->slots[i].db == index &&
			in_use(&settlement_shared->slots[i]))
			n++;
	LWLockRelease(settlement_shared->lock);
	return n;
}

bool
slots_occupied_locked(DbState *db)
{
	int			index = shmem_db_index(db);

	for (int i = 0; i < settlement_shared->n_slots; i++)
		if (settlement_shared->slots[i].db == index)
			return true;
	return false;
}

void
slots_forget_database_locked(DbState *db)
{
	int			index = shmem_db_index(db);

	Assert(LWLockHeldByMeInMode(settlement_shared->lock, LW_EXCLUSIVE));
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (slot->db == index && slot->state == SLOT_ORPHANED)
			free_slot(slot);
	}
}
