/*
 * late.h
 *	  The wallet settled a trade whose claim this worker has lost.
 */
#ifndef SETTLEMENT_QUEUE_LATE_H
#define SETTLEMENT_QUEUE_LATE_H

#include "queue/flight.h"

/*
 * In the present transaction, SPI connected: SETTLED wins over everything.  The
 * trade leaves queue, deferred and DLQ; if it had been resolved otherwise or
 * purged, a row in discrepancies says so.  Returns how many rows left the queue.
 */
extern int64 late_settlement(const TradeFlight *flight);

#endif
