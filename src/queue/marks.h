/*
 * marks.h
 *	  Which ids behind the frontier are decided.  The caller holds hint_mutex.
 */
#ifndef SETTLEMENT_QUEUE_MARKS_H
#define SETTLEMENT_QUEUE_MARKS_H

#include "access/transam.h"

#include "shared/shmem.h"

/* An id was handed out; ... and given back: it will be counted once more. */
extern void marks_count_claimed(DbState *db, int64 id);
extern void marks_count_returned(DbState *db, int64 id);

/*
 * Close the stretch between the last mark and the frontier, once in a while.
 * next_xid was read after the frontier was: every id up to there belongs to an
 * older transaction.
 */
extern void marks_set(DbState *db, FullTransactionId next_xid, TimestampTz now);

/* Stretches that are decided: pass them, or sweep the first that has holes. */
extern void marks_decide(DbState *db, TransactionId xmin);

#endif
