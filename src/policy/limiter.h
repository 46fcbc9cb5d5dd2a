/*
 * limiter.h
 *	  How fast the wallet may be asked: a token bucket, a hold that 429 and
 *	  Retry-After put on the wallet as a whole, and a ramp after a hold or an
 *	  outage.  A plain struct in shared memory (the caller holds the lock); the
 *	  time is an argument.
 */
#ifndef SETTLEMENT_POLICY_LIMITER_H
#define SETTLEMENT_POLICY_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#define RAMP_STEP_MS	INT64_C(100)

typedef struct Limiter
{
	double		tokens;
	int64_t		filled_at_us;
	int64_t		hold_until_us;
	int64_t		hold_ms;		/* present length of a hold; grows, then resets */
	int			ramp_left;		/* good answers until the ramp is over; 0: none */
	int			ramp_starts;	/* requests that may start now, while on the ramp */
	int			ramp_taken;		/* ... that were taken on it, and not returned */
	int64_t		ramp_at_us;		/* when the last one was added */
} Limiter;

extern void limiter_init(Limiter *l, int64_t now_us);

/*
 * How many of `want` requests may start now, at `rate` per second (0 = no
 * limit; burst = max(1, rate / 10)).  Takes the tokens.
 */
extern int	limiter_take(Limiter *l, double rate, int want, int64_t now_us);

/* Give back tokens that were taken and not used. */
extern void limiter_return(Limiter *l, int unused);

/*
 * n requests start that did not ask (the caller saw to it that there is no hold):
 * what they take is missed by the next ones, so that the rate is kept in the end.
 */
extern void limiter_owe(Limiter *l, double rate, int n, int64_t now_us);

/*
 * The wallet said "slow down": nothing starts before Retry-After (> 0, clamped
 * to RETRY_AFTER_MAX_MS), or, without one (or with 0), for a hold that doubles from 100 ms
 * to 5 s while it goes on.  limiter_relax is called for each good answer.
 */
extern void limiter_slow_down(Limiter *l, int64_t retry_after_ms, int64_t now_us);
extern void limiter_relax(Limiter *l, int64_t now_us);

/*
 * The wallet is back after an outage: begin with few requests, as after a hold.
 * Each good answer lets two more start, so that they double per round trip as in
 * TCP's slow start; without answers one more starts each RAMP_STEP_MS.
 */
extern void limiter_ramp(Limiter *l, int64_t now_us);

/* Nothing may start, not even what was taken before. */
extern bool limiter_is_held(const Limiter *l, int64_t now_us);

/* Neither a rate nor a hold nor a ramp limits anything now. */
extern bool limiter_is_idle(const Limiter *l, double rate, int64_t now_us);

/* Is the rate what keeps the next one from starting?  For those who look. */
extern bool limiter_is_empty(const Limiter *l, double rate, int64_t now_us);

/* ms until limiter_take may give one. */
extern int64_t limiter_wait_ms(const Limiter *l, double rate, int64_t now_us);

#endif
