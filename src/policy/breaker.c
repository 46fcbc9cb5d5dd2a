/*
 * breaker.c
 *	  The circuit breaker's transitions.
 *
 * Keeps true: at most one probe is under way at a time; an operator's open is
 * undone only by an operator; the open time never exceeds max_open_ms.
 * The struct is in shared memory; the caller holds its lock.  Pure otherwise.
 *
 *  closed    -> open       open_it, from breaker_report
 *  open      -> half open  breaker_allow, when the open time is over
 *  half open -> closed     close_it, from breaker_report of the probe
 *  half open -> open       open_it, from breaker_report of the probe
 *  any       -> open       breaker_force_open (manual)
 *  any       -> closed     breaker_force_close
 *
 * Reports of requests that were sent before it opened change nothing while it
 * is open: only the probe decides.
 *
 * An outage begins with the earliest request among those whose failures opened
 * the breaker, and ends when it closes.  A set of poisonous trades opens it as well,
 * and must be charged, or it would do so for ever.  What tells them apart: in an
 * outage a probe fails too, with another trade; and an outage comes after many
 * answers, while poisonous trades open it again soon after it has closed.
 */
#include "policy/breaker.h"

#include <string.h>

#define PROBE_TIMEOUT_DEFAULT_MS	INT64_C(60000)

/* A clock that is behind by more than this was set back. */
#define CLOCK_BACK_US	INT64_C(1000000)

/* Part of the open time that is spread, downwards. */
#define OPEN_SPREAD		0.25

/* now + ms in us, saturating. */
static int64_t
after_ms(int64_t now_us, int64_t ms)
{
	if (ms > (INT64_MAX - now_us) / 1000)
		return INT64_MAX;
	return now_us + ms * 1000;
}

/* ms from now until the time, rounded up; 0 when it has come. */
static int64_t
ms_until(int64_t time_us, int64_t now_us)
{
	if (time_us <= now_us)
		return 0;
	return (time_us - now_us - 1) / 1000 + 1;
}

static int64_t
probe_timeout_us(const BreakerPolicy *p)
{
	int64_t		ms = p->probe_timeout_ms;

	if (ms <= 0 || ms > INT64_MAX / 2000)
		ms = PROBE_TIMEOUT_DEFAULT_MS;
	return ms * 1000;
}

/* A probe is under way; one that never reports, or a clock set back, ends it. */
static bool
probe_is_live(const Breaker *b, const BreakerPolicy *p, int64_t now_us)
{
	return b->probe_since_us != 0 && now_us >= b->probe_since_us &&
		now_us - b->probe_since_us < probe_timeout_us(p);
}

static void
forget_counts(Breaker *b)
{
	b->failures_in_row = 0;
	b->suspects_in_row = 0;
	memset(b->suspect, 0, sizeof b->suspect);
}

static bool
is_failure(BreakerSignal signal)
{
	return signal == SIGNAL_FAILED || signal == SIGNAL_SUSPECT ||
		signal == SIGNAL_OPEN_NOW;
}

static void
note_failure(Breaker *b, int64_t sent_us)
{
	if (b->failing_since_us == 0 || sent_us < b->failing_since_us)
		b->failing_since_us = sent_us;
}

static void
set_state(Breaker *b, BreakerState state, int64_t now_us)
{
	if (b->state != state)
		b->changed_at_us = now_us;
	b->state = state;
	b->probe_since_us = 0;
}

static void
close_it(Breaker *b, int64_t now_us)
{
	if (b->probe_failed && b->sudden)
	{
		b->outage_from_us = b->failing_since_us;
		b->outage_until_us = now_us;
	}
	b->probe_failed = false;
	b->failing_since_us = 0;
	b->answers = 0;
	set_state(b, BREAKER_CLOSED, now_us);
	forget_counts(b);
	b->open_ms = 0;
	b->open_until_us = 0;
}

/* Open, or open again and longer. */
static void
open_it(Breaker *b, const BreakerPolicy *p, double random, int64_t now_us)
{
	int64_t		max = p->max_open_ms > 0 ? p->max_open_ms : 1;

	if (!(random >= 0 && random <= 1))
		random = 0;
	if (b->open_ms <= 0)
		b->open_ms = p->initial_open_ms > 0 ? p->initial_open_ms : 1;
	else
		b->open_ms = b->open_ms > max / 2 ? max : b->open_ms * 2;
	if (b->open_ms > max)
		b->open_ms = max;
	if (b->state == BREAKER_CLOSED)
	{
		b->times_opened++;
		b->sudden = b->answers >= BREAKER_ANSWERS;
	}
	b->open_until_us = after_ms(now_us, b->open_ms -
								(int64_t) ((double) b->open_ms * OPEN_SPREAD * random));
	set_state(b, BREAKER_OPEN, now_us);
	forget_counts(b);
}

/* Count a suspect once per trade; true when enough trades drew one. */
static bool
count_suspect(Breaker *b, const BreakerPolicy *p, uint64_t trade_hash)
{
	int			limit = p->suspects;

	if (limit <= 0)
		return false;
	if (limit > BREAKER_SUSPECTS_MAX)
		limit = BREAKER_SUSPECTS_MAX;
	for (int i = 0; i < b->suspects_in_row; i++)
		if (b->suspect[i] == trade_hash)
			return b->suspects_in_row >= limit;
	if (b->suspects_in_row < BREAKER_SUSPECTS_MAX)
		b->suspect[b->suspects_in_row++] = trade_hash;
	return b->suspects_in_row >= limit;
}

static void
report_closed(Breaker *b, const BreakerPolicy *p, BreakerSignal signal,
			  uint64_t trade_hash, double random, int64_t now_us)
{
	bool		open = false;

	switch (signal)
	{
		case SIGNAL_NONE:
			break;
		case SIGNAL_ANSWERED:
			forget_counts(b);
			b->failing_since_us = 0;
			if (b->answers < BREAKER_ANSWERS)
				b->answers++;
			break;
		case SIGNAL_FAILED:
			if (b->failures_in_row < INT32_MAX)
				b->failures_in_row++;
			open = p->failures > 0 && b->failures_in_row >= p->failures;
			break;
		case SIGNAL_SUSPECT:
			open = count_suspect(b, p, trade_hash);
			break;
		case SIGNAL_OPEN_NOW:
			open = true;
			break;
	}
	if (open)
		open_it(b, p, random, now_us);
}

void
breaker_init(Breaker *b, int64_t now_us)
{
	memset(b, 0, sizeof *b);
	b->answers = BREAKER_ANSWERS;	/* it may be down at the start */
	b->changed_at_us = now_us;
}

int
breaker_allow(Breaker *b, const BreakerPolicy *p, int want, int64_t now_us,
			  bool *probe)
{
	*probe = false;
	if (want <= 0 || b->manual)
		return 0;
	if (b->state == BREAKER_CLOSED)
		return want;
	if (b->state == BREAKER_OPEN)
	{
		if (breaker_wait_ms(b, p, now_us) > 0)
			return 0;
		set_state(b, BREAKER_HALF_OPEN, now_us);
	}
	if (probe_is_live(b, p, now_us))
		return 0;
	b->probe_since_us = now_us != 0 ? now_us : 1;
	*probe = true;
	return 1;
}

void
breaker_abandon_probe(Breaker *b)
{
	b->probe_since_us = 0;
}

void
breaker_report(Breaker *b, const BreakerPolicy *p, BreakerSignal signal,
			   uint64_t trade_hash, bool is_probe, double random, int64_t sent_us,
			   int64_t now_us)
{
	if (is_failure(signal))
		note_failure(b, sent_us);
	if (b->manual)
		return;
	if (b->state == BREAKER_CLOSED)
		report_closed(b, p, signal, trade_hash, random, now_us);
	else if (b->state == BREAKER_HALF_OPEN && is_probe)
	{
		if (signal == SIGNAL_ANSWERED)
			close_it(b, now_us);
		else
		{
			b->probe_failed = true;
			open_it(b, p, random, now_us);
		}
	}
}

bool
breaker_outage(const Breaker *b, int64_t *from_us, int64_t *until_us)
{
	bool		now = b->state != BREAKER_CLOSED && b->sudden && b->failing_since_us != 0;

	*from_us = now ? b->failing_since_us : b->outage_from_us;
	*until_us = now ? INT64_MAX : b->outage_until_us;
	return now || b->outage_until_us != 0;
}

void
breaker_force_open(Breaker *b, int64_t now_us)
{
	if (b->state == BREAKER_CLOSED)
	{
		b->times_opened++;
		b->sudden = b->answers >= BREAKER_ANSWERS;
	}
	set_state(b, BREAKER_OPEN, now_us);
	forget_counts(b);
	b->manual = true;
}

void
breaker_force_close(Breaker *b, int64_t now_us)
{
	b->manual = false;
	close_it(b, now_us);
}

int64_t
breaker_wait_ms(const Breaker *b, const BreakerPolicy *p, int64_t now_us)
{
	int64_t		end;

	if (b->manual)
		return -1;
	switch (b->state)
	{
		case BREAKER_CLOSED:
			return 0;
		case BREAKER_OPEN:
			/* A clock set back must not lengthen it: opened later than now. */
			if (b->changed_at_us - now_us > CLOCK_BACK_US)
				return 0;
			end = after_ms(now_us, b->open_ms);
			return ms_until(b->open_until_us < end ? b->open_until_us : end, now_us);
		case BREAKER_HALF_OPEN:
			if (!probe_is_live(b, p, now_us))
				return 0;
			return ms_until(b->probe_since_us + probe_timeout_us(p), now_us);
	}
	return 0;
}

const char *
breaker_state_name(BreakerState state)
{
	switch (state)
	{
		case BREAKER_CLOSED:
			return "closed";
		case BREAKER_OPEN:
			return "open";
		case BREAKER_HALF_OPEN:
			return "half_open";
	}
	return "invalid";
}
