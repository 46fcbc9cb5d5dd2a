/*
 * pauses.h
 *	  What is paused, as this worker last read it.
 */
#ifndef SETTLEMENT_QUEUE_PAUSES_H
#define SETTLEMENT_QUEUE_PAUSES_H

#include "utils/timestamp.h"

#include "shared/shmem.h"

/* Read settlement.pauses if it changed; in a transaction. */
extern void pauses_refresh(DbState *db);

/*
 * Before rows are put aside for a pause: read again what is in force and hold it
 * until the end of the transaction, so that nothing is put aside any more when
 * resume() has returned.  No statement when nothing is paused.
 */
extern void pauses_hold(void);

/* The version that was read last; equals db->pauses_version when current. */
extern uint64 pauses_version(void);

extern bool pauses_everything(TimestampTz now);

/* Is a symbol paused?  *until is DT_NOEND for an open end. */
extern bool pauses_symbol(const char *symbol, int len, TimestampTz now,
						  TimestampTz *until);

#endif
