/*
 * decision.c
 *	  From what the wallet answered to what becomes of the trade.
 *
 * The outcome itself was decided by policy/outcome.c; here it meets the history
 * of the trade.  maybe_executed is sticky: once an attempt of this key may have
 * moved money, only the wallet's settlement or final rejection clears it.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "policy/retry.h"
#include "queue/decision.h"
#include "shared/clock.h"
#include "shared/settings.h"

/* A look-up that cannot help now is repeated, seldom. */
#define LOOKUP_RETRY_MS		INT64_C(60000)

/*
 * By clock_latest(), as claims are written, so that a clock that is set back does
 * not make the window longer.  A first send that lies ahead even of that was
 * written before the server started, by a clock that was set back since: how long
 * ago it was nobody knows, so it counts as long ago.  due.c makes that last
 * (-infinity), or it would end when the clock comes by again.
 */
bool
past_idempotency_window(TimestampTz first_sent_at)
{
	TimestampTz now;

	if (first_sent_at == 0)
		return false;
	now = clock_latest();
	if (TIMESTAMP_NOT_FINITE(first_sent_at) ||
		first_sent_at - now > (int64) CLOCK_TOLERANCE_MS * 1000)
		return true;
	return now - first_sent_at > (int64) settlement_idempotency_window * USECS_PER_SEC;
}

bool
may_be_forgotten(bool maybe_executed, bool lookup_first, TimestampTz first_sent_at)
{
	return maybe_executed && !lookup_first && past_idempotency_window(first_sent_at);
}

static TimestampTz
retry_time(const TradeFlight *flight, double random)
{
	RetryPolicy policy = {
		.initial_backoff_ms = settlement_retry_initial_backoff,
		.multiplier = settlement_retry_multiplier,
		.max_backoff_ms = settlement_retry_max_backoff,
		.jitter = settlement_retry_jitter
	};
	int64		ms = retry_delay_ms(&policy, flight->attempts + 1, random,
									flight->result.verdict.retry_after_ms);

	return flight->answered_at + ms * 1000;
}

static void
defer(Decision *d, const TradeFlight *flight, const char *reason, double random)
{
	d->fate = FATE_DEFERRED;
	d->reason = reason;
	d->retry_at = retry_time(flight, random);
	d->chargeable = flight->result.verdict.chargeable;
}

static void
die(Decision *d, const char *status)
{
	d->fate = FATE_DEAD;
	d->status = status;
}

static void
reject(Decision *d, const TradeFlight *flight, bool rejection_is_final)
{
	bool		certain = rejection_is_final || !flight->maybe_executed;

	die(d, certain ? "FAILED" : "UNKNOWN");
	d->final_rejection = true;
	if (certain)
		d->maybe_executed = false;
}

static void
decide_settle(Decision *d, const TradeFlight *flight, bool rejection_is_final,
			  double random)
{
	switch (flight->result.verdict.outcome)
	{
		case OUTCOME_SETTLED:
			d->fate = FATE_SETTLED;
			d->status = "SETTLED";
			break;
		case OUTCOME_REJECTED:
			reject(d, flight, rejection_is_final);
			break;
		case OUTCOME_CONFLICT:
			d->maybe_executed = true;
			die(d, "UNKNOWN");
			break;
		case OUTCOME_UNKNOWN:
			d->maybe_executed = true;
			defer(d, flight, "retry", random);
			break;
		case OUTCOME_PENDING:
			d->maybe_executed = true;
			defer(d, flight, "pending", random);
			break;
		case OUTCOME_NOT_EXECUTED:
		case OUTCOME_FENCED:
			defer(d, flight, "retry", random);
			break;
	}
}

static void
decide_lookup(Decision *d, const TradeFlight *flight, double random)
{
	switch (flight->result.lookup)
	{
		case LOOKUP_SETTLED:
			d->fate = FATE_SETTLED;
			d->status = "SETTLED";
			break;
		case LOOKUP_REJECTED:
			die(d, "FAILED");
			d->final_rejection = true;
			d->maybe_executed = false;
			break;
		case LOOKUP_PENDING:
			defer(d, flight, "pending", random);
			d->lookup_first = true;
			break;
		case LOOKUP_UNKNOWN_KEY:
			/* not sent right after it (sender.c): ask again before it is */
			defer(d, flight, "needs_lookup", random);
			/* past the window the wallet may have forgotten, and will not remember */
			if (past_idempotency_window(flight->first_sent_at))
				d->retry_at = flight->answered_at + LOOKUP_RETRY_MS * 1000;
			d->lookup_first = true;
			d->chargeable = false;
			break;
		case LOOKUP_FAILED:
			defer(d, flight, "needs_lookup", random);
			d->lookup_first = true;
			d->chargeable = false;
			break;
	}
}

Decision
decide(const TradeFlight *flight, bool rejection_is_final, double random)
{
	Decision	d = {0};
	const WalletResult *result = &flight->result;

	d.class = result->verdict.error_class;
	d.maybe_executed = flight->maybe_executed;
	d.first_sent_at = flight->first_sent_at;
	d.attempts = flight->attempts + 1;
	d.format = flight->format;

	if (flight->local_class != NULL)
	{
		/* refused by ourselves, before anything left */
		d.class = flight->local_class;
		d.attempts = flight->attempts;
		die(&d, flight->maybe_executed ? "UNKNOWN" : "FAILED");
		return d;
	}
	if (flight->verb == WALLET_LOOKUP)
	{
		d.attempts = flight->attempts;
		decide_lookup(&d, flight, random);
	}
	else
	{
		if (result->facts.maybe_sent && d.first_sent_at == 0)
			d.first_sent_at = flight->claimed_at;
		decide_settle(&d, flight, rejection_is_final, random);
	}
	return d;
}
