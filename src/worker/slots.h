/*
 * slots.h
 *	  Worker slots: who has one, from the launcher's order to start a worker
 *	  until its claims are in other hands.  All changes of WorkerSlot.state are
 *	  made in slots.c.
 *
 *	  free     --slot_reserve (launcher)-->        starting
 *	  starting --slot_attach (worker)-->           running
 *	  starting --slot_unstarted (launcher)-->      free
 *	  running  --slot_detach_clean (worker)-->     free
 *	  running  --exit hook (worker)-->             orphaned
 *	  orphaned --slot_free_orphan (recovery)-->    free
 *	  orphaned --slot_reserve, slots_forget_database (launcher)--> free
 *
 *	  WorkerSlot.flights holds every trade that the slot's claims name, from
 *	  before the claim commits until after its end commits.  So an orphan without
 *	  flights has no claims.
 */
#ifndef SETTLEMENT_WORKER_SLOTS_H
#define SETTLEMENT_WORKER_SLOTS_H

#include "shared/shmem.h"

/* What a worker is told in bgw_extra; its bgw_main_arg is the slot. */
typedef struct WorkerArgs
{
	uint32		generation;
	Oid			database;
} WorkerArgs;

/* The slot of this worker; NULL elsewhere, and after a clean detach. */
extern WorkerSlot *MySlot;

/* ------------------------------------------------------------ the worker */

/*
 * Make the slot ours and see to it that it is marked when this process exits.
 * Before the connection to the database, so that the exit hook runs after the
 * last transaction was aborted.  Raises an error when the slot changed hands
 * in the meantime; exits with 0 when the worker is not wanted any more.
 */
extern void slot_attach(int slot, uint32 generation);

/*
 * The worker leaves in order.  If something of it is in flight after all, the
 * exit hook makes an orphan of the slot as if this had not been called.
 */
extern void slot_detach_clean(void);

/* May be read at any time; the latch is set when it becomes true. */
extern bool slot_stop_requested(void);

/*
 * The claims of a dead worker are in other hands, committed: its slot may be
 * used again.  False when the slot is not that orphan (any more).
 */
extern bool slot_free_orphan(int slot, uint32 generation);

/* ---------------------------------------------------------- the launcher */

/*
 * A slot for a new worker of a database, or -1 when there is none now: too many
 * processes, or the database must not have workers.
 */
extern int	slot_reserve(DbState *db, uint32 *generation);

/*
 * The worker of this slot never came up to slot_attach.  died: it was started,
 * and counts as a death.  No effect when the slot changed hands.
 */
extern void slot_unstarted(int slot, uint32 generation, bool died);

/* Ask a worker to leave.  Caller holds settlement_shared->lock exclusively. */
extern void slot_stop_locked(WorkerSlot *slot);

/* ... all workers of a database.  Takes the lock; returns how many there are. */
extern int	slots_stop_database(DbState *db);

/* Workers of a database, starting or running.  Takes the lock. */
extern int	slots_in_use(DbState *db);

/* Has a database any slot that is not free?  Caller holds the lock. */
extern bool slots_occupied_locked(DbState *db);

/*
 * The database or its extension is gone, and what its orphans had in flight
 * with it.  Caller holds settlement_shared->lock exclusively.
 */
extern void slots_forget_database_locked(DbState *db);

#endif
