/*
 * frontier.h
 *	  Where to look for queue rows that nobody has claimed, at a cost that does
 *	  not depend on how many were there before.
 */
#ifndef SETTLEMENT_QUEUE_FRONTIER_H
#define SETTLEMENT_QUEUE_FRONTIER_H

#include "executor/tuptable.h"

#include "shared/shmem.h"

typedef enum RowVerdict
{
	ROW_TAKE,					/* becomes a flight */
	ROW_ASIDE,					/* leaves the queue in this transaction */
	ROW_PASS,					/* leave it for later, look at those behind it */
	ROW_STOP					/* no room: leave it and stop */
} RowVerdict;

typedef RowVerdict (*RowVisitor) (TupleTableSlot *row, int64 id, void *arg);

/*
 * Show unclaimed queue rows to the visitor, oldest first, and those that it
 * passed in earlier scans after new ones most of the time, until it stops or
 * there are none; rows that it takes or puts aside are this worker's from here
 * on (they are in its slot's flights).  Call it inside a READ COMMITTED
 * transaction; at most one worker per database is inside, *busy says that
 * another one is.  Returns true when there may be more to claim.
 */
extern bool frontier_scan(DbState *db, int slot, RowVisitor visit, void *arg,
						  bool *busy);

/*
 * The transaction of the last frontier_scan aborted: its rows can be claimed
 * again.  Also gives up the right to scan, if an error struck during it.  Sorts
 * the ids.  Needs no memory, since that may be what the error was about.
 */
extern void frontier_give_back(DbState *db, int slot, int64 *ids, int n);

/* Is there anything that a scan could find now, as far as known? */
extern bool frontier_has_work(DbState *db);

/* ... or to tidy up within a second: marks to decide, a sweep to go on with. */
extern bool frontier_has_chores(DbState *db);

/* Ids that committed behind the frontier; full: everything is swept. */
extern void frontier_announce_late(DbState *db, int64 lo, int64 hi);

/*
 * A transaction that announced nothing has committed (COMMIT PREPARED): look at
 * the ids that were not decided before.
 */
extern void frontier_sweep_undecided(DbState *db);

/* Look at everything again, from the first id. */
extern void frontier_rescan(DbState *db);

#endif
