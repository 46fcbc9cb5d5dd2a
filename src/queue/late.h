/*
 * late.h
 *	  The wallet settled a trade whose claim this worker has lost.
 */
#ifndef SETTLEMENT_QUEUE_LATE_H
#define SETTLEMENT_QUEUE_LATE_H

#include "queue/flight.h"

/*
 * In the present transaction, SPI connected: SETTLED wins over everything.  The
 * trades leave deferred, DLQ and queue, as far as they are found near its tail; for
 * one that had been resolved otherwise or purged, a row in discrepancies says so.
 * Returns how many rows left the queue.
 */
extern int64 late_settlements(TradeFlight *const *flights, int n);

#endif
