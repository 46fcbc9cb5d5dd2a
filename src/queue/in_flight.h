/*
 * in_flight.h
 *	  Ids of queue rows in flight, as the slots of the workers list them: nobody
 *	  claims these.
 */
#ifndef SETTLEMENT_QUEUE_IN_FLIGHT_H
#define SETTLEMENT_QUEUE_IN_FLIGHT_H

#include "shared/shmem.h"

/* Of int64, or of what begins with one; for qsort and bsearch. */
extern int	compare_ids(const void *a, const void *b);

/*
 * Those of all workers of the database, sorted and palloc'ed.  The caller has the
 * right to scan.
 */
extern int64 *in_flight_read(DbState *db, int *n);

/* They are this slot's from now on; there is room for them. */
extern void in_flight_add(int slot, const int64 *ids, int n);

/* These rows are out of the queue (committed) or handed on: forget them. */
extern void in_flight_forget(int slot, int64 *ids, int n);

/* How far these flights are, for the in_flight view. */
extern void in_flight_set_phase(int slot, int64 *ids, int n, uint8 phase);

#endif
