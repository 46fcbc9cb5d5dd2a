/*
 * remove.h
 *	  Take rows out of the queue whose place is known.
 */
#ifndef SETTLEMENT_QUEUE_REMOVE_H
#define SETTLEMENT_QUEUE_REMOVE_H

#include "queue/flight.h"

/*
 * Delete the queue rows of these flights, in the present transaction.  removed[i]
 * says whether this call deleted it: false when it was not there any more.
 * Returns how many it deleted.  SPI is connected.
 */
extern int	remove_rows(TradeFlight *const *flights, bool *removed, int n);

#endif
