/*
 * pace.c
 *	  How fast a database settles, from the counters in shared memory.
 *
 * The ring is under policy_lock; the counters are atomics that nobody waits for.
 * No palloc.
 */
#include "postgres.h"

#include "shared/pace.h"
#include "wallet/json.h"

/* What the slots of a RecentNow hold. */
static const Counter recent_counters[RECENT_COUNTERS] = {
	COUNT_SUBMITTED, COUNT_SETTLED, COUNT_FAILED, COUNT_REQUESTS
};
static const Duration recent_durations[RECENT_HISTOGRAMS] = {
	DURATION_REQUEST, DURATION_SETTLE
};

static void
fill_now(DbState *db, RecentNow *now)
{
	for (int i = 0; i < RECENT_COUNTERS; i++)
		now->counter[i] = pg_atomic_read_u64(&db->counter[recent_counters[i]]);
	for (int i = 0; i < RECENT_HISTOGRAMS; i++)
		now->histogram[i] = &db->duration[recent_durations[i]];
}

void
pace_tick(DbState *db, TimestampTz now)
{
	RecentNow	numbers;

	/* most often not; what is read without the lock is looked at again with it */
	if (!recent_due(&db->recent, now))
		return;
	fill_now(db, &numbers);
	LWLockAcquire(db->policy_lock, LW_EXCLUSIVE);
	if (recent_due(&db->recent, now))
		recent_take(&db->recent, &numbers, now);
	LWLockRelease(db->policy_lock);
}

void
pace_read(DbState *db, TimestampTz now, Pace *pace)
{
	RecentNow	numbers;
	RecentDelta delta;

	fill_now(db, &numbers);
	LWLockAcquire(db->policy_lock, LW_SHARED);
	recent_since(&db->recent, &numbers, now, &delta);
	LWLockRelease(db->policy_lock);
	pace->window_us = delta.window_us;
	pace->submitted = delta.counter[0];
	pace->settled = delta.counter[1];
	pace->dead = delta.counter[2];
	pace->requests = delta.counter[3];
	pace->request = delta.histogram[0];
	pace->settle = delta.histogram[1];
}

void
pace_note_failure(DbState *db, TimestampTz at, int http_status,
				  const char *class, const char *message)
{
	LastFailure *failure = &db->last_failure;

	Assert(LWLockHeldByMeInMode(db->policy_lock, LW_EXCLUSIVE));
	failure->at = at;
	failure->http_status = http_status;
	utf8_copy(failure->class, sizeof(failure->class), class);
	utf8_copy(failure->message, sizeof(failure->message), message);
}
