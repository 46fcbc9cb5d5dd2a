/*
 * released.h
 *	  Symbols with trades that a pause has put aside and that is over.
 */
#ifndef SETTLEMENT_QUEUE_RELEASED_H
#define SETTLEMENT_QUEUE_RELEASED_H

#include "utils/timestamp.h"

#include "shared/shmem.h"

typedef struct Released
{
	char	   *symbol;
	int64		after;			/* deferred.id of the last one we moved on */
} Released;

/* All in a transaction, with SPI connected. */

/* The symbol whose turn it is; NULL when there is none. */
extern Released *released_next(DbState *db, TimestampTz now);

/* Rows of it were taken, up to this id; 0: none was there. */
extern void released_moved(Released *released, int64 last);

/* When some are due: now, at the end of a pause, or never (DT_NOEND). */
extern TimestampTz released_when(DbState *db, TimestampTz now);

#endif
