/*
 * pauses.h
 *	  What is paused, as this worker last read it.
 */
#ifndef SETTLEMENT_QUEUE_PAUSES_H
#define SETTLEMENT_QUEUE_PAUSES_H

#include "utils/timestamp.h"

#include "shared/shmem.h"

/*
 * Read settlement.pauses if it changed; in a transaction.  What is committed counts:
 * a pause that resume() is deleting is in force until that commits.  A row that is
 * put aside at that moment is not stranded: it is due when no pause of its symbol is
 * in force (due.c).
 */
extern void pauses_refresh(DbState *db);

/* The version that was read last; equals db->pauses_version when current. */
extern uint64 pauses_version(void);

extern bool pauses_everything(TimestampTz now);

/* Is a symbol paused?  *until is DT_NOEND for an open end. */
extern bool pauses_symbol(const char *symbol, int len, TimestampTz now,
						  TimestampTz *until);

#endif
