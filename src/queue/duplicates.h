/*
 * duplicates.h
 *	  Claimed trades that wait elsewhere, too: they were enqueued twice.
 */
#ifndef SETTLEMENT_QUEUE_DUPLICATES_H
#define SETTLEMENT_QUEUE_DUPLICATES_H

#include "queue/flight.h"

/*
 * Set goes[i] for each of the n flights whose trade is also in deferred, in dlq,
 * or in unapplied as SETTLED; returns how many.  Where its queue row has been
 * sent earlier than what waits in deferred or dlq, the row has the facts, and
 * stays.
 */
extern int	find_duplicates(TradeFlight *const *flights, int n, bool *goes);

#endif
