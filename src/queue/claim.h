/*
 * claim.h
 *	  Take trades for this worker: committed before any request leaves.
 */
#ifndef SETTLEMENT_QUEUE_CLAIM_H
#define SETTLEMENT_QUEUE_CLAIM_H

#include "queue/flight.h"
#include "shared/shmem.h"

typedef struct Claim
{
	int			n;
	TradeFlight **flights;
	int			n_outgoing;		/* rows that leave the queue instead: paused, */
	int64	   *outgoing;		/* or enqueued twice */
	int			n_duplicates;
	bool		more;			/* there may be more to claim */
	bool		busy;			/* another worker was scanning */
} Claim;

/*
 * Claim up to `want` trades in the present transaction.  `result` is filled as
 * it goes, so that after an error claim_abandon can give everything back; its
 * arrays live in the current context.  Flights come from the pool.
 */
extern void claim_trades(DbState *db, int slot, FlightPool *pool,
						 const WalletClient *client, int want, Claim *result);

/* The transaction committed, durably: the flights may be sent. */
extern void claim_committed(DbState *db, int slot, FlightPool *pool, Claim *claim);

/* The transaction aborted: its trades can be claimed again. */
extern void claim_abandon(DbState *db, int slot, FlightPool *pool, Claim *claim);

#endif
