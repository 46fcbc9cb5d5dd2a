/*
 * duplicates.h
 *	  May a claimed trade have been enqueued twice?
 */
#ifndef SETTLEMENT_QUEUE_DUPLICATES_H
#define SETTLEMENT_QUEUE_DUPLICATES_H

#include "queue/flight.h"

/* Is there a row of one of these trades in deferred, dlq or unapplied? */
extern bool may_have_duplicates(TradeFlight *const *flights, int n);

#endif
