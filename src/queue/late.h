/*
 * late.h
 *	  The wallet settled a trade whose claim this worker has lost.
 */
#ifndef SETTLEMENT_QUEUE_LATE_H
#define SETTLEMENT_QUEUE_LATE_H

#include "queue/flight.h"
#include "shared/shmem.h"

/*
 * In the present transaction, SPI connected: SETTLED wins over everything.  The
 * trade leaves queue, deferred and DLQ; if it had been resolved otherwise or
 * purged, a row in discrepancies says so.  Returns 1 when anything was written.
 */
extern int	late_settlement(DbState *db, const TradeFlight *flight);

#endif
