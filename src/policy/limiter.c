/*
 * limiter.c
 *	  Token bucket, hold and ramp.
 *
 * Keeps true: over any stretch of t seconds at most burst + rate * t requests
 * start, but for those that limiter_owe is told of, which count later; nothing starts during a hold; a hold ends at the latest
 * RETRY_AFTER_MAX_MS after the last word that made it; on the ramp at most one
 * request, two per good answer and one per RAMP_STEP_MS start.
 * The struct is in shared memory; the caller holds its lock.  Pure otherwise.
 */
#include "policy/limiter.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

#include "policy/retry.h"

#define HOLD_FIRST_MS	INT64_C(100)
#define HOLD_MAX_MS		INT64_C(5000)

/* Good answers after which the wallet is trusted again: seven doublings. */
#define RAMP_ANSWERS	255

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
bool
limiter_is_held(const Limiter *l, int64_t now_us)
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
	l->ramp_left = 0;
	l->ramp_starts = 0;
	l->ramp_taken = 0;
	l->ramp_at_us = now_us;
}

void
limiter_ramp(Limiter *l, int64_t now_us)
{
	l->ramp_left = RAMP_ANSWERS;
	l->ramp_starts = 1;
	l->ramp_taken = 0;
	l->ramp_at_us = now_us;
}

/* us until the ramp lets one more start by itself; a clock set back is now. */
static int64_t
ramp_wait_us(const Limiter *l, int64_t now_us)
{
	int64_t		passed = now_us - l->ramp_at_us;

	if (passed < 0 || passed >= RAMP_STEP_MS * 1000)
		return 0;
	return RAMP_STEP_MS * 1000 - passed;
}

/* How many of want the ramp allows; takes nothing. */
static int
ramp_allows(Limiter *l, int want, int64_t now_us)
{
	if (l->ramp_left == 0)
		return want;
	if (l->ramp_starts == 0 && ramp_wait_us(l, now_us) == 0)
	{
		l->ramp_starts = 1;
		l->ramp_at_us = now_us;
	}
	return want < l->ramp_starts ? want : l->ramp_starts;
}

static void
ramp_take(Limiter *l, int n)
{
	if (l->ramp_left == 0)
		return;
	l->ramp_starts -= n;
	l->ramp_taken += n;
}

int
limiter_take(Limiter *l, double rate, int want, int64_t now_us)
{
	double		whole;

	if (want <= 0 || limiter_is_held(l, now_us))
		return 0;
	want = ramp_allows(l, want, now_us);
	if (!is_limited(rate))
	{
		ramp_take(l, want);
		return want;
	}
	l->tokens = tokens_at(l, rate, now_us);
	l->filled_at_us = now_us;
	whole = floor(l->tokens + TOKEN_EPSILON);
	if (whole < want)
		want = whole > 0 ? (int) whole : 0;
	l->tokens -= want;
	ramp_take(l, want);
	return want;
}

void
limiter_owe(Limiter *l, double rate, int n, int64_t now_us)
{
	if (!is_limited(rate))
		return;
	l->tokens = tokens_at(l, rate, now_us) - n;
	l->filled_at_us = now_us;
}

void
limiter_return(Limiter *l, int unused)
{
	if (unused <= 0)
		return;
	l->tokens += unused;
	/* what was taken before the ramp does not count on it */
	if (unused > l->ramp_taken)
		unused = l->ramp_taken;
	if (l->ramp_left > 0)
	{
		l->ramp_starts += unused;
		l->ramp_taken -= unused;
	}
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
		if (limiter_is_held(l, now_us))
			return;
		l->hold_ms = l->hold_ms <= 0 ? HOLD_FIRST_MS : l->hold_ms * 2;
		if (l->hold_ms > HOLD_MAX_MS)
			l->hold_ms = HOLD_MAX_MS;
		until = now_us + l->hold_ms * 1000;
	}
	if (until > l->hold_until_us || !limiter_is_held(l, now_us))
		l->hold_until_us = until;
	limiter_ramp(l, now_us);
}

/* Good answers to what was sent before the hold prove nothing. */
void
limiter_relax(Limiter *l, int64_t now_us)
{
	if (limiter_is_held(l, now_us))
		return;
	l->hold_ms = 0;
	if (l->ramp_left > 0)
	{
		l->ramp_left--;
		l->ramp_starts += 2;
	}
}

bool
limiter_is_idle(const Limiter *l, double rate, int64_t now_us)
{
	return !is_limited(rate) && l->ramp_left == 0 && !limiter_is_held(l, now_us);
}

bool
limiter_is_empty(const Limiter *l, double rate, int64_t now_us)
{
	return is_limited(rate) && tokens_at(l, rate, now_us) < 1 - TOKEN_EPSILON;
}

int64_t
limiter_wait_ms(const Limiter *l, double rate, int64_t now_us)
{
	int64_t		wait = 0;

	if (limiter_is_held(l, now_us))
		wait = (l->hold_until_us - now_us - 1) / 1000 + 1;
	if (l->ramp_left > 0 && l->ramp_starts == 0)
	{
		int64_t		ramp_ms = (ramp_wait_us(l, now_us) + 999) / 1000;

		if (ramp_ms > wait)
			wait = ramp_ms;
	}
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
