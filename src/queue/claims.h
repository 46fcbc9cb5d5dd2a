/*
 * claims.h
 *	  Rows of settlement.claims whose trades this worker has in flight.
 */
#ifndef SETTLEMENT_QUEUE_CLAIMS_H
#define SETTLEMENT_QUEUE_CLAIMS_H

#include "queue/flight.h"

/*
 * Lock the rows of these claims to the end of the caller's transaction, so that
 * nobody takes them over.  Marks as lost those that have no row any more: another
 * worker has taken them over.
 */
extern void claims_lock(OpenClaim **claims, int n);

/* Delete them; the same mark. */
extern void claims_delete(OpenClaim **claims, int n);

/* Leave them without these trades; the same mark. */
extern void claims_take_out(OpenClaim **claims, int n, const int64 *ids, int n_ids);

#endif
