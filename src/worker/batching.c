/*
 * batching.c
 *	  Which trades share a request (settlement.batch_size), and what is done
 *	  when the wallet refuses them as a whole.
 *
 * A trade of which nothing is known yet travels with others.  One that may have
 * been executed, was charged, or has crashed a worker goes alone: so a trade that
 * spoils its batch spoils one only, is found when it is alone, and nothing is
 * charged to the others; and what a crash leaves behind is never again of
 * several trades whose bytes cannot be told apart.  That is read off the trade's
 * facts, so it outlives a restart and holds for whichever worker comes next.
 *
 * A wallet without the endpoint, or one that finds batches too long, is sent
 * trades singly for a while; then one batch shows whether it takes them now.
 *
 * Atomics only; of several workers that find out at a time, one logs it.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "shared/settings.h"
#include "worker/worker.h"

#define NO_BATCH_MS		60000

/* A time further away than that was written before the clock was set back. */
static bool
batches_are_off(Worker *w)
{
	TimestampTz until = (TimestampTz) pg_atomic_read_u64(&w->db->no_batch_until);
	TimestampTz now;

	if (until == 0)
		return false;
	now = GetCurrentTimestamp();
	return now < until && until <= TimestampTzPlusMilliseconds(now, NO_BATCH_MS);
}

int
batching_size(Worker *w)
{
	return settlement_batch_size > 1 && !batches_are_off(w) ? settlement_batch_size : 1;
}

bool
batching_goes_alone(const TradeFlight *flight)
{
	return flight->verb != WALLET_SETTLE || flight->probe || flight->maybe_executed ||
		flight->charged > 0 || flight->crashes > 0;
}

void
batching_forget(Worker *w)
{
	pg_atomic_write_u64(&w->db->batch_refused_at, 0);
	pg_atomic_write_u64(&w->db->no_batch_until, 0);
}

/* The wallet refused a whole batch. */
static void
note_refusal(Worker *w, const WalletResult *result, TimestampTz now)
{
	uint64		before = pg_atomic_read_u64(&w->db->no_batch_until);

	pg_atomic_write_u32(&w->db->batch_refused_status, (uint32) result->facts.http_status);
	pg_atomic_write_u64(&w->db->batch_refused_at, (uint64) now);
	if (!result->verdict.no_batches || batches_are_off(w) ||
		!pg_atomic_compare_exchange_u64(&w->db->no_batch_until, &before,
										(uint64) TimestampTzPlusMilliseconds(now, NO_BATCH_MS)))
		return;
	ereport(LOG,
			(errmsg("the wallet answers a batch of %d trades with HTTP status %d: they are sent singly for a minute",
					result->trades, result->facts.http_status),
			 errhint("Set settlement.batch_size to what the wallet takes, or to 1 if it has no /api/wallets/settle-batch.")));
}

void
batching_note(Worker *w, const TradeFlight *flight)
{
	const WalletResult *result = &flight->result;
	const Verdict *verdict = &result->verdict;

	if (result->trades == 1)
		return;
	if (!result->facts.whole_batch)
	{
		if (pg_atomic_read_u64(&w->db->batch_refused_at) != 0)
			batching_forget(w);
	}
	else if (verdict->no_batches ||
			 (verdict->error_class != NULL && strcmp(verdict->error_class, "wallet_batch") == 0))
		note_refusal(w, result, flight->answered_at);
}
