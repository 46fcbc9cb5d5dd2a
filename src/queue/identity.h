/*
 * identity.h
 *	  The clone fence: is this the one database that may send?
 *
 * settlement.identity says which one that is: the system identifier, the
 * database, the place where its files are, the timeline that its WAL was on, and
 * which transaction wrote that.
 */
#ifndef SETTLEMENT_QUEUE_IDENTITY_H
#define SETTLEMENT_QUEUE_IDENTITY_H

#include "access/xlogdefs.h"

#include "shared/shmem.h"

/*
 * SEND_OK, with the epoch in db->epoch, or SEND_FENCED.  Call it inside a READ
 * COMMITTED transaction of a worker and send only after that has committed:
 * after a promotion it raises the epoch.
 */
extern SendState identity_check(DbState *db);

/*
 * Within which databases the epoch counts: this one and its copies.  A UUID; "" until
 * identity_check of this process has said SEND_OK.
 */
extern const char *identity_lineage(void);

/* Why the last identity_check of this process fenced; NULL if it did not. */
extern const char *identity_reason(void);

/*
 * What identity_check would complain of, and what to do about it; NULL =
 * nothing.  Changes nothing.
 */
extern const char *identity_problem(const char **hint);

/* The wallet has seen a higher epoch than ours: which one, 0 if it did not tell. */
extern void identity_epoch_refused(DbState *db, int64 seen);

/* Has the epoch been raised since it was refused? */
extern bool identity_epoch_raised(DbState *db);

/*
 * The epoch to send with after a promotion or adopt(): higher, also than what the
 * wallet has told us that it has seen, and like no other's.
 */
extern int64 identity_next_epoch(int64 former);

/* The timeline that this server writes; not during recovery. */
extern TimeLineID identity_timeline(void);

#endif
