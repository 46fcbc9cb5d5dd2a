/*
 * recover.h
 *	  Take over the claims of workers that are gone.
 */
#ifndef SETTLEMENT_QUEUE_RECOVER_H
#define SETTLEMENT_QUEUE_RECOVER_H

#include "shared/shmem.h"

/* Claims moved per transaction. */
#define RECOVER_BATCH	64

/*
 * Claims of earlier server starts become due, maybe executed rows; in the
 * present transaction, under an advisory lock that is held to its end.  Returns
 * the number of claims taken; less than RECOVER_BATCH: these were the last, and
 * db->recovered may be set after the commit.
 */
extern int	recover_other_boots(DbState *db, int *n_trades);

/*
 * After that: trades that crashed their worker before they were claimed, and
 * outcomes that did.  In a transaction; recover_crashed_done after its commit, so
 * that none is counted twice.  Returns how many trades left the queue.
 */
extern int	recover_crashed(DbState *db);
extern void recover_crashed_done(DbState *db);

/*
 * Were workers at a step of redrives or policies when the server crashed?  Then
 * recover_redrives, in a transaction, before their next step, and
 * recover_redrives_done after its commit.  Apart from the above: an operator may
 * have locked a redrive, and trades do not wait for that.
 */
extern bool recover_redrives_crashed(DbState *db);
extern void recover_redrives(DbState *db);
extern void recover_redrives_done(DbState *db);

/* The same for the claims of one slot of this start. */
extern int	recover_slot_claims(DbState *db, int slot, int *n_trades);

/*
 * After recover_slot_claims has committed and found no more: what the dead
 * worker had in flight without a committed claim can be claimed again.
 */
extern void recover_slot_flights(DbState *db, int slot);

#endif
