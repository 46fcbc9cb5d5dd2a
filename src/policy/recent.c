/*
 * recent.c
 *	  A ring of snapshots, newest last.
 *
 * Keeps true: the snapshots are in the order of their times; a clock that was set
 * back empties the ring.  Reads of counters and buckets are
 * relaxed: a number may be a few additions behind another.
 */
#include "policy/recent.h"

#include <string.h>

static uint64_t
read_relaxed(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* The i-th newest snapshot, from 0. */
static const RecentSnapshot *
snapshot_at(const Recent *r, int i)
{
	return &r->snapshot[(r->newest - i + RECENT_SNAPSHOTS) % RECENT_SNAPSHOTS];
}

/* A caller whose now is a little older than the newest snapshot is only late. */
static bool
clock_was_set_back(const Recent *r, int64_t now_us)
{
	return r->n > 0 && snapshot_at(r, 0)->taken_at_us > now_us + RECENT_STEP_MS * 1000;
}

bool
recent_due(const Recent *r, int64_t now_us)
{
	return r->n == 0 || clock_was_set_back(r, now_us) ||
		now_us - snapshot_at(r, 0)->taken_at_us >= RECENT_STEP_MS * 1000;
}

void
recent_take(Recent *r, const RecentNow *now, int64_t now_us)
{
	RecentSnapshot *snapshot;

	if (clock_was_set_back(r, now_us))
		r->n = 0;
	r->newest = r->n == 0 ? 0 : (r->newest + 1) % RECENT_SNAPSHOTS;
	if (r->n < RECENT_SNAPSHOTS)
		r->n++;
	snapshot = &r->snapshot[r->newest];
	snapshot->taken_at_us = now_us;
	memcpy(snapshot->counter, now->counter, sizeof snapshot->counter);
	for (int h = 0; h < RECENT_HISTOGRAMS; h++)
		for (int b = 0; b < HISTOGRAM_BUCKETS; b++)
			snapshot->bucket[h][b] = (uint32_t) read_relaxed(&now->histogram[h]->bucket[b]);
}

/* NULL when there is none. */
static const RecentSnapshot *
base_of(const Recent *r, int64_t now_us)
{
	if (r->n == 0 || clock_was_set_back(r, now_us))
		return NULL;
	for (int i = 0; i < r->n; i++)
		if (now_us - snapshot_at(r, i)->taken_at_us >= RECENT_WINDOW_MS * 1000)
			return snapshot_at(r, i);
	return snapshot_at(r, r->n - 1);
}

void
recent_since(const Recent *r, const RecentNow *now, int64_t now_us, RecentDelta *delta)
{
	const RecentSnapshot *base = base_of(r, now_us);

	memset(delta, 0, sizeof *delta);
	if (base == NULL || base->taken_at_us >= now_us)
		return;
	delta->window_us = now_us - base->taken_at_us;
	for (int c = 0; c < RECENT_COUNTERS; c++)
		if (now->counter[c] > base->counter[c])
			delta->counter[c] = now->counter[c] - base->counter[c];
	for (int h = 0; h < RECENT_HISTOGRAMS; h++)
		for (int b = 0; b < HISTOGRAM_BUCKETS; b++)
		{
			uint32_t	n = (uint32_t) read_relaxed(&now->histogram[h]->bucket[b]) -
				base->bucket[h][b];

			if (n > UINT32_MAX / 2)
				continue;		/* set back */
			delta->histogram[h].bucket[b] = n;
			delta->histogram[h].count += n;
		}
}
