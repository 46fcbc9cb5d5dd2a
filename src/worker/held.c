/*
 * held.c
 *	  Claims that wait for a synchronous standby before anything of them is sent
 *	  (settlement.send_after = standby).
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

static void
show_since(Worker *w)
{
	pg_atomic_write_u64(&w->slot->held_since,
						w->n_held > 0 ? (uint64) w->held[0]->claimed_at : 0);
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

/* The standby is away or far behind: more claims would only wait as well. */
bool
held_too_long(const Worker *w)
{
	return w->n_held > 0 && held_ms(w) > CLAIM_ON_MS;
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

/* Send what the standbys have by now. */
void
held_release(Worker *w)
{
	TradeFlight **flights;
	XLogRecPtr	flushed;
	int			n = 0;

	/* a worker that stood still until now looks again after its next beat */
	if (w->n_held == 0 || held_must_go(w) ||
		TimestampDifferenceExceeds(w->beat_at, GetCurrentTimestamp(),
								   settlement_request_timeout))
		return;
	flushed = flushed_by_standbys();
	while (n < w->n_held && covered(w->held[n]->claim, flushed))
		n++;
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

/* In a transaction of the caller's; held_withdrawn after its commit. */
void
held_withdraw(Worker *w)
{
	OpenClaim **claims = palloc(sizeof(OpenClaim *) * w->n_held);
	int			n = 0;

	/* flights of one claim are held together */
	for (int i = 0; i < w->n_held; i++)
		if (i == 0 || w->held[i]->claim != w->held[i - 1]->claim)
			claims[n++] = w->held[i]->claim;
	claims_delete(claims, n);
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
		if (--claim->remaining == 0)
			pfree(claim);
	}
	sender_return(w, w->n_held, probe);
	w->n_held = 0;
	w->held_doubtful = false;
	show_since(w);
	in_flight_forget(w->slot_index, lost, n_lost);
	frontier_give_back(w->db, w->slot_index, ready, n_ready);
	w->more = true;
	pfree(ready);
	pfree(lost);
}
