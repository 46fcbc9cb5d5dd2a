/*
 * histogram.c
 *	  Log-linear buckets, as in HdrHistogram: values below 8 have a bucket each,
 *	  above that each power of two is cut into 8 equal parts, so that a bound is
 *	  at most 12.5 % above any value in its bucket.
 *
 * No lock: writers add with relaxed atomics, readers may see a count that is a
 * few additions ahead of a bucket, so quantiles are computed of the buckets.
 */
#include "policy/histogram.h"

#define SUB_BUCKETS		(1 << HISTOGRAM_SUB_BITS)

static uint64_t
read_relaxed(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void
add_relaxed(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

int
histogram_bucket_of(int64_t us)
{
	int			exponent;
	int			bucket;

	if (us < SUB_BUCKETS)
		return us > 0 ? (int) us : 0;
	exponent = 63 - __builtin_clzll((unsigned long long) us);
	bucket = ((exponent - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS) +
		(int) ((us >> (exponent - HISTOGRAM_SUB_BITS)) & (SUB_BUCKETS - 1));
	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

int64_t
histogram_upper_bound(int bucket)
{
	int			shift;

	if (bucket < SUB_BUCKETS)
		return bucket > 0 ? bucket : 0;
	if (bucket >= HISTOGRAM_BUCKETS)
		bucket = HISTOGRAM_BUCKETS - 1;
	shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
	return (((int64_t) SUB_BUCKETS + (bucket & (SUB_BUCKETS - 1)) + 1) << shift) - 1;
}

void
histogram_add(Histogram *h, int64_t us)
{
	if (us < 0)
		us = 0;
	add_relaxed(&h->bucket[histogram_bucket_of(us)], 1);
	add_relaxed(&h->sum_us, (uint64_t) us);
	add_relaxed(&h->count, 1);
}

int64_t
histogram_quantile(const Histogram *h, double q)
{
	uint64_t	total = 0;
	uint64_t	seen = 0;
	double		rank;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		total += read_relaxed(&h->bucket[i]);
	if (total == 0)
		return -1;
	if (!(q > 0))
		q = 0;
	rank = q < 1 ? q * (double) total : (double) total;
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		seen += read_relaxed(&h->bucket[i]);
		if (seen > 0 && (double) seen >= rank)
			return histogram_upper_bound(i);
	}
	return histogram_upper_bound(HISTOGRAM_BUCKETS - 1);
}

/* The last bucket also holds what is above its bound. */
uint64_t
histogram_count_le(const Histogram *h, int64_t us)
{
	uint64_t	n = 0;

	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
	{
		if (histogram_upper_bound(i) > us)
			break;
		n += read_relaxed(&h->bucket[i]);
	}
	return n;
}
