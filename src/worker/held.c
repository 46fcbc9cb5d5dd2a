/*
 * held.c
 *	  Claimed trades that are not sent yet: those that wait for a synchronous
 *	  standby (settlement.send_after = standby), and those that were claimed ahead.
 *
 * While the queue holds more than the workers may send, and nothing slows the
 * wallet down, each claims some of what it will send next.  Then a request leaves
 * when a reply comes, not after the commit that records the reply: the wallet is
 * kept busy during the commit, and a commit carries more.
 *
 * A claim may leave once the synchronous standbys have flushed its commit: the
 * position up to which PostgreSQL releases waiting commits has reached it.  That
 * position moves only when standbys that count report, and starts at nothing
 * with the server.  That a commit has returned proves less: its wait may have
 * been cancelled, ended by another synchronous_standby_names, or never been.
 *
 * The worker does not wait inside its commit but holds the flights here, oldest
 * first, and looks again after a while; all else goes on.  What stands in the
 * way of sending meanwhile (a stop, a pause, an open breaker, a Retry-After, other
 * settings, an idempotency window that has passed) makes the claims go: nothing
 * was sent, so the trades are ready as before, and are judged anew when claimed
 * again.
 *
 * The limiter has counted these requests when they were claimed.  When a standby
 * that was away is back they leave at once, on top of what the limiter gives then:
 * what was claimed in CLAIM_ON_MS, and no more than may be in flight.  To count them
 * again would halve the rate of who has a slow standby.
 *
 * Takes SyncRepLock and policy_lock, each alone.
 */
#include "postgres.h"

#include "replication/syncrep.h"
#include "replication/walsender_private.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "queue/claims.h"
#include "queue/decision.h"
#include "queue/frontier.h"
#include "queue/in_flight.h"
#include "queue/pauses.h"
#include "shared/clock.h"
#include "shared/settings.h"
#include "worker/worker.h"

#define CLAIM_ON_MS		1000	/* no new claims while one is held longer */
#define MAX_WAIT_MS		100
#define MAX_AHEAD		256		/* a turn's worth, and little memory */

static XLogRecPtr
flushed_by_standbys(void)
{
	XLogRecPtr	result;

	LWLockAcquire(SyncRepLock, LW_SHARED);
	result = WalSndCtl->lsn[SYNC_REP_WAIT_FLUSH];
	LWLockRelease(SyncRepLock);
	return result;
}

static bool
covered(const OpenClaim *claim, XLogRecPtr flushed)
{
	return !XLogRecPtrIsInvalid(claim->committed_at) && claim->committed_at <= flushed;
}

/* Its commit is where settlement.send_after wants it. */
bool
claim_may_leave(const OpenClaim *claim)
{
	return settlement_send_after == SEND_AFTER_LOCAL ||
		covered(claim, flushed_by_standbys());
}

/*
 * None of them could send sooner what this one claims ahead.  Unlocked: it is
 * about a few milliseconds.
 */
static bool
all_have_enough(const Worker *w)
{
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (slot->db == w->slot->db && slot->state == SLOT_RUNNING &&
			slot->n_flights < (int) pg_atomic_read_u32(&slot->concurrency_limit))
			return false;
	}
	return true;
}

/*
 * How many trades to claim beyond those that may leave now, when there are more.
 * None while anything but a place keeps a request from leaving.
 */
int
held_ahead(Worker *w)
{
	if (settlement_send_after != SEND_AFTER_LOCAL || settlement_adaptive_concurrency ||
		settlement_batch_size > 1 || w->aborts_in_row > 0 ||
		pauses_version() != pg_atomic_read_u64(&w->db->pauses_version) ||
		!sender_unhindered(w) || !all_have_enough(w))
		return 0;
	return Min(Min(settlement_concurrency, MAX_AHEAD), MAX_CONCURRENCY - settlement_concurrency);
}

static void
show_since(Worker *w)
{
	pg_atomic_write_u64(&w->slot->held_since,
						w->n_held > 0 && settlement_send_after != SEND_AFTER_LOCAL ?
						(uint64) w->held[0]->claimed_at : 0);
}

void
held_add(Worker *w, TradeFlight **flights, int n)
{
	Assert(w->n_held + n <= MAX_CONCURRENCY);
	for (int i = 0; i < n; i++)
	{
		Assert(flights[i]->state == FLIGHT_READY);
		w->held[w->n_held++] = flights[i];
	}
	show_since(w);
}

/* By the clock of claimed_at, which nobody sets back. */
static int64
held_ms(const Worker *w)
{
	return (clock_latest() - w->held[0]->claimed_at) / 1000;
}

static bool
waits_for_standby(const Worker *w)
{
	return w->n_held > 0 && settlement_send_after != SEND_AFTER_LOCAL;
}

/* The standby is away or far behind: more claims would only wait as well. */
bool
held_too_long(const Worker *w)
{
	return waits_for_standby(w) && held_ms(w) > CLAIM_ON_MS;
}

/* Until the next look, the longer the claims have waited already. */
long
held_wait_ms(const Worker *w)
{
	return (long) Max(Min(held_ms(w) / 8, MAX_WAIT_MS), 1);
}

/* The window may have passed meanwhile, as it may while a row is queued. */
static bool
is_expired(const TradeFlight *flight)
{
	return may_be_forgotten(flight->maybe_executed, flight->lookup_first,
							flight->first_sent_at);
}

/* What is held must not be sent any more: a turn is to withdraw it. */
bool
held_must_go(Worker *w)
{
	bool		only_probes;

	if (w->n_held == 0)
		return false;
	if (w->stopping || w->reconfigure || w->held_doubtful ||
		pg_atomic_read_u32(&w->db->send_state) != SEND_OK ||
		pauses_version() != pg_atomic_read_u64(&w->db->pauses_version))
		return true;
	only_probes = !sender_breaker_closed(w);
	for (int i = 0; i < w->n_held; i++)
		if (is_expired(w->held[i]) || (only_probes && !w->held[i]->probe))
			return true;
	return sender_on_hold(w);
}

/* How many of the oldest may leave. */
static int
count_ready(const Worker *w)
{
	int			most = Min(w->n_held, sender_concurrency(w) - sender_in_flight(w));
	XLogRecPtr	flushed;
	int			n = 0;

	if (settlement_send_after == SEND_AFTER_LOCAL)
		return Max(most, 0);
	flushed = flushed_by_standbys();
	while (n < most && covered(w->held[n]->claim, flushed))
		n++;
	return n;
}

/* Send what the standbys have by now, and there is a place for. */
void
held_release(Worker *w)
{
	TradeFlight **flights;
	int			n;

	/* a worker that stood still until now looks again after its next beat */
	if (w->n_held == 0 || held_must_go(w) ||
		TimestampDifferenceExceeds(w->beat_at, GetCurrentTimestamp(),
								   settlement_request_timeout))
		return;
	n = count_ready(w);
	if (n == 0)
		return;
	flights = palloc(sizeof(TradeFlight *) * n);
	memcpy(flights, w->held, sizeof(TradeFlight *) * n);
	w->submitting = true;
	w->n_held -= n;
	memmove(w->held, w->held + n, sizeof(TradeFlight *) * w->n_held);
	show_since(w);
	sender_submit(w, flights, n);
	w->submitting = false;
	pfree(flights);
}

/*
 * In a transaction of the caller's; held_withdrawn or held_kept after its end.
 * A claim of which some trades were sent goes on with these.
 */
void
held_withdraw(Worker *w)
{
	OpenClaim **claims = palloc(sizeof(OpenClaim *) * w->n_held);
	OpenClaim **sent = palloc(sizeof(OpenClaim *) * w->n_held);
	int64	   *ids = palloc(sizeof(int64) * w->n_held);
	int			n_claims = 0;
	int			n_unsent = 0;
	int			n_sent = 0;

	for (int i = 0; i < w->n_held; i++)
	{
		ids[i] = w->held[i]->queue_id;
		if (w->held[i]->claim->withdrawn++ == 0)
			claims[n_claims++] = w->held[i]->claim;
	}
	for (int i = 0; i < n_claims; i++)
	{
		if (claims[i]->withdrawn < claims[i]->remaining)
			sent[n_sent++] = claims[i];
		else
			claims[n_unsent++] = claims[i];
	}
	claims_delete(claims, n_unsent);
	claims_take_out(sent, n_sent, ids, w->n_held);
}

/* The transaction was rolled back. */
void
held_kept(Worker *w)
{
	for (int i = 0; i < w->n_held; i++)
		w->held[i]->claim->withdrawn = 0;
}

void
held_withdrawn(Worker *w)
{
	int64	   *ready = palloc(sizeof(int64) * w->n_held);
	int64	   *lost = palloc(sizeof(int64) * w->n_held);
	int			n_ready = 0;
	int			n_lost = 0;
	bool		probe = false;

	for (int i = 0; i < w->n_held; i++)
	{
		TradeFlight *flight = w->held[i];
		OpenClaim  *claim = flight->claim;

		Assert(flight->state == FLIGHT_READY);
		if (claim->lost)
			lost[n_lost++] = flight->queue_id;
		else
			ready[n_ready++] = flight->queue_id;
		probe |= flight->probe;
		flight_release(w->pool, flight);
		claim->withdrawn--;
		if (--claim->remaining == 0)
			pfree(claim);
	}
	sender_return(w, w->n_held, probe);
	w->n_held = 0;
	w->ahead = 0;
	w->held_doubtful = false;
	show_since(w);
	in_flight_forget(w->slot_index, lost, n_lost);
	frontier_give_back(w->db, w->slot_index, ready, n_ready);
	w->more = true;
	pfree(ready);
	pfree(lost);
}
