/*
 * concurrency.c
 *	  Adaptive concurrency: AIMD on what the wallet's answers say.
 *
 * Rounds, as TCP's: a round ends when as many requests as the limit allows have
 * been answered that were sent within it; so each decision is about requests
 * that were sent under the limit it changes, and one burst of refusals is one
 * decrease, not sixty.
 *
 *  overload (429, 5xx, timeout) in a round           limit x 3/4, at once
 *  more than half of a round slower than tolerated   limit x 3/4
 *  otherwise, if the limit was reached               limit + 1 (x 2 at first)
 *
 * The tolerated latency is twice the base plus 10 ms.  "More than half" is the
 * median: some slow answers, however slow, decide nothing.  The 10 ms are for
 * our own commits, during which answers wait in the socket.
 *
 * The base is the smallest latency seen in the last ten seconds.  Where it is
 * older a round is sent at a quarter of the limit to measure it again: without
 * that a base measured behind our own queue would tolerate a longer queue, and
 * so on.  At a quarter the tolerated latency settles at most at 20 ms, or at
 * twice the true base plus 10 ms, whichever is more.
 *
 * Sources: the additive and multiplicative steps are of Chiu and Jain, "Analysis
 * of the increase and decrease algorithms for congestion avoidance in computer
 * networks" (1989); latency against its recent minimum is of TCP Vegas (Brakmo and
 * Peterson, 1995) and Netflix's concurrency-limits; the low round to measure the
 * minimum is BBR's ProbeRTT (Cardwell et al., 2016).
 *
 * Keeps true: 1 <= limit <= max.  Pure, no lock.
 */
#include "policy/concurrency.h"

#include <string.h>

#define START_LIMIT		4
#define DECREASE		0.75
#define MIN_ROUND		4		/* answers that a decision needs at least */
#define TOLERANCE		2
#define TOLERANCE_US	INT64_C(10000)
#define BASE_AGE_US		INT64_C(10000000)
#define MEASURE_PART	4

void
concurrency_init(Concurrency *c, int64_t now_us)
{
	memset(c, 0, sizeof *c);
	c->limit = START_LIMIT;
	c->slow_start = true;
	c->since_us = now_us;
}

int
concurrency_limit(const Concurrency *c, int max)
{
	double		limit = c->measuring ? c->limit / MEASURE_PART : c->limit;

	if (limit > max)
		limit = max;
	return limit < 1 ? 1 : (int) limit;
}

static void
begin_round(Concurrency *c, int64_t now_us)
{
	c->since_us = now_us;
	c->answers = 0;
	c->slow = 0;
	c->used = false;
	c->fastest_us = 0;
}

static void
decrease(Concurrency *c, int64_t now_us)
{
	c->limit *= DECREASE;
	if (c->limit < 1)
		c->limit = 1;
	c->slow_start = false;
	begin_round(c, now_us);
}

static void
increase(Concurrency *c, int max)
{
	c->limit = c->slow_start ? c->limit * 2 : c->limit + 1;
	if (c->limit > max)
		c->limit = max;
}

static bool
is_slow(const Concurrency *c, int64_t latency_us)
{
	return c->base_us > 0 && latency_us > c->base_us * TOLERANCE + TOLERANCE_US;
}

static void
set_base(Concurrency *c, int64_t latency_us, int64_t now_us)
{
	c->base_us = latency_us;
	c->base_at_us = now_us;
}

/* Also when the clock was set back: measure rather than trust. */
static bool
base_is_old(const Concurrency *c, int64_t now_us)
{
	return now_us < c->base_at_us || now_us - c->base_at_us > BASE_AGE_US;
}

static void
end_round(Concurrency *c, int max, int64_t now_us)
{
	if (c->measuring)
	{
		c->measuring = false;
		set_base(c, c->fastest_us, now_us);
	}
	else if (base_is_old(c, now_us))
		c->measuring = true;
	else if (c->slow * 2 > c->answers)
	{
		decrease(c, now_us);
		return;
	}
	else if (c->used)
		increase(c, max);
	begin_round(c, now_us);
}

void
concurrency_report(Concurrency *c, LoadSignal signal, int64_t sent_us,
				   int64_t latency_us, int in_flight, int max, int64_t now_us)
{
	int			limit = concurrency_limit(c, max);

	if (c->limit > max)
		c->limit = max < 1 ? 1 : max;
	if (now_us < c->since_us)
		begin_round(c, now_us); /* the clock was set back */
	if (signal == LOAD_NONE || sent_us < c->since_us)
		return;
	if (signal == LOAD_OVERLOAD)
	{
		decrease(c, now_us);
		return;
	}
	if (latency_us < 1)
		latency_us = 1;
	if (c->base_us == 0 || latency_us <= c->base_us)
		set_base(c, latency_us, now_us);
	if (c->fastest_us == 0 || latency_us < c->fastest_us)
		c->fastest_us = latency_us;
	c->answers++;
	c->slow += is_slow(c, latency_us);
	c->used |= in_flight >= limit;
	if (c->answers >= MIN_ROUND && c->answers >= limit)
		end_round(c, max, now_us);
}
