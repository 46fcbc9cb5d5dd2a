/*
 * histogram.h
 *	  Log-linear histogram of durations in microseconds, fixed size, for shared
 *	  memory.  Adding is one relaxed atomic increment; no lock.
 */
#ifndef SETTLEMENT_POLICY_HISTOGRAM_H
#define SETTLEMENT_POLICY_HISTOGRAM_H

#include <stdint.h>

/* 8 buckets per power of two from 1 us to about 2^40 us (12 days). */
#define HISTOGRAM_SUB_BITS	3
#define HISTOGRAM_BUCKETS	(41 << HISTOGRAM_SUB_BITS)

typedef struct Histogram
{
	uint64_t	count;
	uint64_t	sum_us;
	uint64_t	bucket[HISTOGRAM_BUCKETS];
} Histogram;

extern void histogram_add(Histogram *h, int64_t us);	/* negative counts as 0 */
extern int	histogram_bucket_of(int64_t us);
extern int64_t histogram_upper_bound(int bucket);		/* us, inclusive */

/* The q-quantile (0..1) in us as its bucket's upper bound; -1 when empty. */
extern int64_t histogram_quantile(const Histogram *h, double q);

/* How many were <= us (exact at bucket bounds), for cumulative export. */
extern uint64_t histogram_count_le(const Histogram *h, int64_t us);

#endif
