/*
 * retry.h
 *	  When to try again.  Pure: the random number and the attempt are arguments.
 */
#ifndef SETTLEMENT_POLICY_RETRY_H
#define SETTLEMENT_POLICY_RETRY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct RetryPolicy
{
	int64_t		initial_backoff_ms;
	double		multiplier;		/* >= 1 */
	int64_t		max_backoff_ms;
	double		jitter;			/* 0..1: the delay is spread by +- this part,
								 * and never beyond max_backoff_ms */
} RetryPolicy;

/* Longest Retry-After that is honoured. */
#define RETRY_AFTER_MAX_MS	INT64_C(60000)

/*
 * Delay in ms before the next attempt, given that `failures` (>= 1) attempts
 * have failed and a random number in [0, 1).  A Retry-After (>= 0; clamped to
 * RETRY_AFTER_MAX_MS) is a lower bound of the result; -1 means none.  Never
 * overflows, never negative, whatever the arguments.
 */
extern int64_t retry_delay_ms(const RetryPolicy *policy, int failures,
							  double random, int64_t retry_after_ms);

#endif
