/*
 * recent.h
 *	  What happened within about the last minute: a ring of snapshots of counters
 *	  and histograms that only grow.  Nothing is added where the work is done; one
 *	  snapshot is taken each RECENT_STEP_MS, and the present numbers are compared
 *	  with the one that is a minute old.
 *
 * A plain struct in shared memory (the caller holds the lock); the time is an
 * argument.  A number that was set back counts as nothing happened.
 */
#ifndef SETTLEMENT_POLICY_RECENT_H
#define SETTLEMENT_POLICY_RECENT_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/histogram.h"

#define RECENT_WINDOW_MS	INT64_C(60000)
#define RECENT_STEP_MS		INT64_C(5000)
#define RECENT_SNAPSHOTS	14		/* a window of them, and two more */
#define RECENT_COUNTERS		4
#define RECENT_HISTOGRAMS	2

/* The numbers as they are now; the order is the caller's. */
typedef struct RecentNow
{
	uint64_t	counter[RECENT_COUNTERS];
	const Histogram *histogram[RECENT_HISTOGRAMS];
} RecentNow;

typedef struct RecentSnapshot
{
	int64_t		taken_at_us;
	uint64_t	counter[RECENT_COUNTERS];
	/* differences within a window fit, however high the counts are */
	uint32_t	bucket[RECENT_HISTOGRAMS][HISTOGRAM_BUCKETS];
} RecentSnapshot;

typedef struct Recent
{
	int			n;
	int			newest;			/* valid when n > 0 */
	RecentSnapshot snapshot[RECENT_SNAPSHOTS];
} Recent;

/* What happened since the snapshot that is compared with. */
typedef struct RecentDelta
{
	int64_t		window_us;		/* 0: there is no snapshot yet */
	uint64_t	counter[RECENT_COUNTERS];
	Histogram	histogram[RECENT_HISTOGRAMS];	/* without sum_us */
} RecentDelta;

/* Is it time for a snapshot? */
extern bool recent_due(const Recent *r, int64_t now_us);

extern void recent_take(Recent *r, const RecentNow *now, int64_t now_us);

/*
 * What happened since the newest snapshot that is at least a window old, or,
 * if none is, since the oldest.  The window is longer than a minute when none was
 * taken for a while.
 */
extern void recent_since(const Recent *r, const RecentNow *now, int64_t now_us,
						 RecentDelta *delta);

#endif
