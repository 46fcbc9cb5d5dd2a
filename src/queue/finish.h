/*
 * finish.h
 *	  Record what the wallet answered: evidence and trade rows, in one
 *	  transaction for all requests that finished since the last turn.
 */
#ifndef SETTLEMENT_QUEUE_FINISH_H
#define SETTLEMENT_QUEUE_FINISH_H

#include "queue/flight.h"
#include "shared/shmem.h"

typedef struct Ending Ending;

typedef struct Finish
{
	int			n;
	TradeFlight **flights;		/* FLIGHT_ANSWERED, in the order they came */
	bool		evidence_only;	/* the last turn aborted: leave trade rows alone */
	const WalletClient *client; /* for the adapter's promises and formats */

	Ending	   *endings;		/* in the context that finish_trades was called in;
								 * must live until the commit is reported */

	/* counted as it goes, published by finish_committed */
	int			n_settled;
	int			n_dead;
	int			n_rejected;
	int			n_deferred;
	int			n_late;
	int			n_removed;		/* rows deleted from queue */
	int			n_unapplied;
} Finish;

/* In the present transaction. */
extern void finish_trades(DbState *db, int slot, Finish *finish);

/* The transaction committed: release the flights, count. */
extern void finish_committed(DbState *db, int slot, FlightPool *pool, Finish *finish);

/* It aborted: everything is tried again. */
extern void finish_aborted(Finish *finish);

#endif
