/*
 * clock.c
 *	  The wall clock, which people set.
 *
 * Times that rows and shared memory hold are of the wall clock, so that they mean
 * something to people and to the next server start.  Whoever compares them with
 * now has to know when that clock was set: the monotonic one tells.  What the two
 * differ by, at most, is in shared memory, an atomic; no lock.
 */
#include "postgres.h"

#include <time.h>

#include "utils/timestamp.h"

#include "shared/clock.h"
#include "shared/shmem.h"

#define LEAST_STEP_US	INT64_C(1000000)

static int64
steady_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64
clock_look(ClockWatch *watch, TimestampTz now)
{
	int64		steady = steady_us();
	int64		step = 0;

	if (watch->wall != 0)
	{
		watch->elapsed_us = steady - watch->steady_us;
		step = (now - watch->wall) - watch->elapsed_us;
	}
	watch->wall = now;
	watch->steady_us = steady;
	/* what it was is known to clock_latest() even if nobody asks just then */
	(void) clock_latest();
	return step > -LEAST_STEP_US && step < LEAST_STEP_US ? 0 : step;
}

TimestampTz
clock_latest(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		steady = steady_us();
	uint64		ahead;

	if (settlement_shared == NULL)
		return now;
	ahead = pg_atomic_read_u64(&settlement_shared->clock_ahead);
	while ((int64) ahead < now - steady &&
		   !pg_atomic_compare_exchange_u64(&settlement_shared->clock_ahead, &ahead,
										   (uint64) (now - steady)))
		;
	return steady + Max((int64) ahead, now - steady);
}
