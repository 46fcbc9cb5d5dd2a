/*
 * retry.c
 *	  Exponential backoff with jitter.
 *
 * Keeps true: 0 <= delay; without Retry-After also delay <= max_backoff_ms.
 * Pure, no lock.  Arguments out of range are brought into it, never refused:
 * a wrong setting must not stop the worker.
 */
#include "policy/retry.h"

#include <math.h>

/* Ten years; keeps every product below in range of int64 and exact enough. */
#define DELAY_CEILING_MS	INT64_C(315360000000)

/* x within [lo, hi]; NaN gives lo. */
static double
clamp(double x, double lo, double hi)
{
	if (!(x > lo))
		return lo;
	return x < hi ? x : hi;
}

/*
 * The jitter spreads the delay around initial * multiplier^(failures-1).  At
 * the cap the whole spread is moved below it, so that max_backoff_ms is never
 * exceeded and trades that failed together still do not come back together.
 */
int64_t
retry_delay_ms(const RetryPolicy *policy, int failures, double random,
			   int64_t retry_after_ms)
{
	double		cap = clamp((double) policy->max_backoff_ms, 0, (double) DELAY_CEILING_MS);
	double		initial = clamp((double) policy->initial_backoff_ms, 0, cap);
	double		multiplier = clamp(policy->multiplier, 1, 1e6);
	double		jitter = clamp(policy->jitter, 0, 1);
	double		spread = clamp(random, 0, 1) * 2 - 1;
	double		base = initial * pow(multiplier, failures > 1 ? failures - 1 : 0);
	int64_t		delay;

	base = clamp(base, 0, cap / (1 + jitter));
	delay = (int64_t) floor(base * (1 + jitter * spread) + 0.5);
	if (delay > (int64_t) cap)
		delay = (int64_t) cap;
	if (retry_after_ms > RETRY_AFTER_MAX_MS)
		retry_after_ms = RETRY_AFTER_MAX_MS;
	return delay > retry_after_ms ? delay : retry_after_ms;
}
