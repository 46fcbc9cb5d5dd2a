/*
 * unsettled.h
 *	  What would be lost if our tables were dropped now.
 */
#ifndef SETTLEMENT_QUEUE_UNSETTLED_H
#define SETTLEMENT_QUEUE_UNSETTLED_H

typedef struct UnsettledTrades
{
	int64		queued;
	int64		deferred;
	int64		unapplied;		/* settled, but not written to the trade row */
	int64		unknown;		/* dead letters with status UNKNOWN */
} UnsettledTrades;

/*
 * Count them.  Locks the tables until the end of the transaction, as a drop does
 * in any case, so that none comes in between.
 */
extern UnsettledTrades unsettled_lock_and_count(void);

#endif
