/*
 * clock.h
 *	  The wall clock, which people set.
 */
#ifndef SETTLEMENT_SHARED_CLOCK_H
#define SETTLEMENT_SHARED_CLOCK_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* A process's own; all zero before the first look. */
typedef struct ClockWatch
{
	TimestampTz wall;			/* at the last look */
	int64		steady_us;		/* the same moment on a clock that nobody sets */
	int64		elapsed_us;		/* between the last two looks, on that clock */
} ClockWatch;

/*
 * By how many us the wall clock was set since the last look: 0 when by less than
 * a second, negative when back.
 */
extern int64 clock_look(ClockWatch *watch, TimestampTz now);

/*
 * The wall clock as it would be had it never been set back since the server
 * started: what is written and compared by it has the right age or more.
 * Without preload, the wall clock.
 */
extern TimestampTz clock_latest(void);

/* A recorded time further ahead of the clock than this is no rounding. */
#define CLOCK_TOLERANCE_MS	60000

#endif
