/*
 * housekeeping.h
 *	  Questions about our tables as a whole, and what is deleted by age.
 */
#ifndef SETTLEMENT_QUEUE_HOUSEKEEPING_H
#define SETTLEMENT_QUEUE_HOUSEKEEPING_H

#include "utils/timestamp.h"

/* Trades that DROP EXTENSION would lose. */
typedef struct Unsettled
{
	int64		queued;
	int64		deferred;
	int64		unapplied;
	int64		unknown;
} Unsettled;

/* Are the SQL objects of the library's version?  In a transaction. */
extern bool versions_agree(void);

/* Delete up to `max` attempts from before a time; in a transaction. */
extern void forget_attempts(TimestampTz before, int max);

/*
 * Count them, as the present user.  The tables are locked ACCESS EXCLUSIVE
 * first, until the end of the transaction, so that none comes in between.
 */
extern void count_unsettled(Unsettled *result);

#endif
