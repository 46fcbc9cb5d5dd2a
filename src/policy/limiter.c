/*
 * limiter.c
 *	  Token bucket and hold.
 *
 * Keeps true: over any stretch of t seconds at most burst + rate * t requests
 * start; nothing starts during a hold; a hold ends at the latest
 * RETRY_AFTER_MAX_MS after the last word that made it.
 * The struct is in shared memory; the caller holds its lock.  Pure otherwise.
 */
#include "policy/limiter.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "policy/retry.h"

#define HOLD_FIRST_MS	INT64_C(100)
#define HOLD_MAX_MS		INT64_C(5000)

/* A clock that is behind by more than this was set back. */
#define CLOCK_BACK_US	INT64_C(1000000)

/* Rounding of token sums; a millionth of a request. */
#define TOKEN_EPSILON	1e-6

static double
burst_of(double rate)
{
	return rate > 10 ? rate / 10 : 1;
}

/* A rate that limits; 0, negative and NaN do not. */
static bool
is_limited(double rate)
{
	return rate > 0 && rate <= DBL_MAX;
}

/* The tokens there are at now; pure, so that waiting can ask without taking. */
static double
tokens_at(const Limiter *l, double rate, int64_t now_us)
{
	double		elapsed_us = now_us > l->filled_at_us ?
		(double) now_us - (double) l->filled_at_us : 0;
	double		tokens = l->tokens + elapsed_us * rate / 1e6;

	return tokens < burst_of(rate) ? tokens : burst_of(rate);
}

/* A hold further away than any hold can be comes from a clock set back. */
static bool
is_held(const Limiter *l, int64_t now_us)
{
	return now_us < l->hold_until_us &&
		l->hold_until_us - now_us <= RETRY_AFTER_MAX_MS * 1000;
}

/* Starts full: clamped to the burst when the rate is known. */
void
limiter_init(Limiter *l, int64_t now_us)
{
	l->tokens = DBL_MAX;
	l->filled_at_us = now_us;
	l->hold_until_us = now_us;
	l->hold_ms = 0;
}

int
limiter_take(Limiter *l, double rate, int want, int64_t now_us)
{
	double		whole;

	if (want <= 0 || is_held(l, now_us))
		return 0;
	if (!is_limited(rate))
		return want;
	l->tokens = tokens_at(l, rate, now_us);
	l->filled_at_us = now_us;
	whole = floor(l->tokens + TOKEN_EPSILON);
	if (whole < want)
		want = whole > 0 ? (int) whole : 0;
	l->tokens -= want;
	return want;
}

void
limiter_return(Limiter *l, int unused)
{
	if (unused > 0)
		l->tokens += unused;
}

/*
 * Many requests are in flight when the wallet says so: only the first word
 * after a hold makes the next hold longer, the others during it do not.
 * Retry-After: 0 names no time and counts as none.
 */
void
limiter_slow_down(Limiter *l, int64_t retry_after_ms, int64_t now_us)
{
	int64_t		until;

	if (retry_after_ms > 0)
	{
		if (retry_after_ms > RETRY_AFTER_MAX_MS)
			retry_after_ms = RETRY_AFTER_MAX_MS;
		until = now_us + retry_after_ms * 1000;
	}
	else
	{
		if (is_held(l, now_us))
			return;
		l->hold_ms = l->hold_ms <= 0 ? HOLD_FIRST_MS : l->hold_ms * 2;
		if (l->hold_ms > HOLD_MAX_MS)
			l->hold_ms = HOLD_MAX_MS;
		until = now_us + l->hold_ms * 1000;
	}
	if (until > l->hold_until_us || !is_held(l, now_us))
		l->hold_until_us = until;
}

/* Good answers to what was sent before the hold prove nothing. */
void
limiter_relax(Limiter *l, int64_t now_us)
{
	if (!is_held(l, now_us))
		l->hold_ms = 0;
}

int64_t
limiter_wait_ms(const Limiter *l, double rate, int64_t now_us)
{
	int64_t		wait = 0;

	if (is_held(l, now_us))
		wait = (l->hold_until_us - now_us - 1) / 1000 + 1;
	/* after the clock was set back, the next taker starts it afresh */
	if (is_limited(rate) && l->filled_at_us - now_us <= CLOCK_BACK_US)
	{
		double		missing = 1 - TOKEN_EPSILON - tokens_at(l, rate, now_us);

		if (missing > 0)
		{
			double		ms = ceil(missing * 1000 / rate);

			if (ms > 1e15)
				ms = 1e15;
			if ((int64_t) ms > wait)
				wait = (int64_t) ms;
		}
	}
	return wait;
}
