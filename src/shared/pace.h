/*
 * pace.h
 *	  How fast a database settles: its counters and durations within about the
 *	  last minute.  Workers take a snapshot now and then; whoever asks compares.
 */
#ifndef SETTLEMENT_SHARED_PACE_H
#define SETTLEMENT_SHARED_PACE_H

#include "shared/shmem.h"

typedef struct Pace
{
	int64		window_us;		/* 0: nothing is known yet */
	int64		submitted;
	int64		settled;
	int64		dead;			/* dead-lettered by a worker */
	int64		requests;
	Histogram	request;		/* submit to reply; without sum_us */
	Histogram	settle;			/* enqueue to settled; without sum_us */
} Pace;

/* Take a snapshot when one is due.  Takes policy_lock. */
extern void pace_tick(DbState *db, TimestampTz now);

/* The numbers since a minute ago.  Takes policy_lock. */
extern void pace_read(DbState *db, TimestampTz now, Pace *pace);

/*
 * The wallet failed.  Class and message are copied, cut at a character.  The
 * caller holds policy_lock.
 */
extern void pace_note_failure(DbState *db, TimestampTz at, int http_status,
							  const char *class, const char *message);

#endif
