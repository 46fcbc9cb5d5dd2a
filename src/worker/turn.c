/*
 * turn.c
 *	  One transaction of a worker: record what finished, move due rows on, claim
 *	  as many trades as there are free slots.  One flush for all of it; what
 *	  arrives during the flush makes the next turn, so batches fit the load.
 *
 * Requests leave after the commit, at once or when a standby has it (held.c).
 * After an error turn_aborted undoes what the turn did in memory, and the next
 * one records evidence only.  After the commit there is nothing to undo: an error
 * then ends the worker (worker.c), and others go on with what it had claimed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "queue/apply.h"
#include "queue/claims.h"
#include "queue/frontier.h"
#include "queue/in_flight.h"
#include "queue/identity.h"
#include "queue/pauses.h"
#include "shared/settings.h"
#include "worker/worker.h"

#define CHORES_MS	1000		/* marks are decided about this often */
#define BUSY_MS		1			/* another worker scans: longer than a scan */

static bool
may_send(const Worker *w)
{
	return w->client != NULL && !w->reconfigure && !w->stopping && !held_too_long(w) &&
		identity_lineage()[0] != '\0' &&
		pg_atomic_read_u32(&w->db->send_state) == SEND_OK &&
		pg_atomic_read_u32(&w->db->recovered) != 0;
}

/* What was answered leaves its place to another one when it is recorded. */
static int
free_flights(const Worker *w)
{
	return Max(sender_concurrency(w) + w->ahead - (w->pool->n_used - w->n_answered), 0);
}

/* By the end of the next scan it is known. */
static bool
something_is_new(const Worker *w)
{
	return w->more || pg_atomic_read_u64(&w->db->announced) != w->announced_seen;
}

static bool
something_to_claim(const Worker *w, TimestampTz now)
{
	if (something_is_new(w) || frontier_has_work(w->db))
		return true;
	/* what nobody announced is found by tidying up */
	return TimestampDifferenceExceeds(w->chores_at, now, CHORES_MS) &&
		(frontier_has_chores(w->db) ||
		 TimestampDifferenceExceeds(w->chores_at, now, settlement_poll_interval));
}

bool
turn_could_claim(Worker *w, TimestampTz now)
{
	return may_send(w) && free_flights(w) > 0 && sender_wait_ms(w, now) == 0;
}

static bool
wants_claim(Worker *w, TimestampTz now)
{
	return now >= w->retry_claim_at && turn_could_claim(w, now) &&
		!pauses_everything(now) && something_to_claim(w, now);
}

static bool
wants_due(Worker *w, TimestampTz now)
{
	return turn_could_claim(w, now) &&
		(TimestampTz) pg_atomic_read_u64(&w->db->next_due) <= now;
}

bool
turn_needed(Worker *w, TimestampTz now)
{
	if (now < w->retry_turn_at)
		return false;
	return w->n_answered > 0 || held_must_go(w) || wants_claim(w, now) || wants_due(w, now) ||
		pauses_version() != pg_atomic_read_u64(&w->db->pauses_version);
}

/* What is held was claimed under the pauses of then. */
static void
withdraw_part(Worker *w, Turn *turn)
{
	uint64		version = pauses_version();

	pauses_refresh(w->db);
	w->held_doubtful |= w->n_held > 0 && pauses_version() != version;
	turn->withdraws = !w->evidence_only && held_must_go(w);
	if (turn->withdraws)
		held_withdraw(w);
}

static void
finish_part(Worker *w, Turn *turn)
{
	Finish	   *finish = &turn->finish;

	if (w->n_answered == 0)
		return;
	finish->flights = palloc(sizeof(TradeFlight *) * w->n_answered);
	finish->n = w->n_answered;
	memcpy(finish->flights, w->answered, sizeof(TradeFlight *) * finish->n);
	finish->client = w->client;
	finish->evidence_only = w->evidence_only;
	sender_show_answered(w);
	apply_begin_transaction();
	finish_trades(w->db, w->slot_index, finish);
}

/* While others wait in the queue, only some join them: it must not grow. */
static int
due_share(const Worker *w)
{
	int			n = free_flights(w);

	return w->more ? Max(n / 4, 1) : n;
}

/*
 * While one probe at a time leaves, a ready trade goes first: whether the failures
 * of those that wait count is judged here, and its answer may tell.
 */
static void
due_part(Worker *w, Turn *turn, TimestampTz now)
{
	if (!wants_due(w, now) ||
		(something_is_new(w) && wants_claim(w, now) && !sender_breaker_closed(w)))
		return;
	if (pg_atomic_read_u64(&w->db->next_due) == 0)
		due_look(w->db);
	if ((TimestampTz) pg_atomic_read_u64(&w->db->next_due) <= now)
		due_move(w->db, due_share(w), &turn->due);
}

static void
claim_part(Worker *w, Turn *turn, TimestampTz now)
{
	int			want;
	uint64		announced;
	uint64		version = pauses_version();

	w->ahead = w->ahead > 0 ? held_ahead(w) : 0;
	/* what this turn records leaves its place to another one */
	want = sender_concurrency(w) + w->ahead - (w->pool->n_used - turn->finish.n);

	if (!may_send(w) || want <= 0 || pauses_everything(now) ||
		!(turn->due.n_queued > 0 || something_to_claim(w, now)))
		return;
	turn->allowed = sender_allow(w, want, &turn->probe);
	if (turn->allowed == 0)
		return;
	announced = pg_atomic_read_u64(&w->db->announced);
	pg_memory_barrier();
	turn->claimed = true;
	claim_trades(w->db, w->slot_index, w->pool, w->client, turn->allowed, &turn->claim);
	w->more = turn->claim.more;
	/* paused since withdraw_part looked */
	w->held_doubtful |= w->n_held > 0 && pauses_version() != version;
	if (turn->claim.busy)
		w->retry_claim_at = TimestampTzPlusMilliseconds(now, BUSY_MS);
	else
	{
		w->announced_seen = announced;
		w->chores_at = now;
		w->ahead = w->more ? held_ahead(w) : 0;
	}
}

/*
 * A turn that took as long as a takeover waits for may have lost its claim: ask
 * before anything is sent.
 */
static bool
claim_stands(Worker *w, Turn *turn)
{
	OpenClaim  *claim = turn->claim.flights[0]->claim;

	/* first: from here on nobody begins to take it over */
	worker_beat(w);
	if (w->clock.elapsed_us / 1000 <= settlement_request_timeout)
		return true;
	session_begin();
	claims_lock(&claim, 1);
	session_commit();
	return !claim->lost;
}

/* Another worker took the claim over before anything of it was sent. */
static void
drop_claimed(Worker *w, Turn *turn)
{
	Claim	   *claim = &turn->claim;
	int64	   *ids = palloc(sizeof(int64) * claim->n);

	pfree(claim->flights[0]->claim);
	for (int i = 0; i < claim->n; i++)
	{
		ids[i] = claim->flights[i]->queue_id;
		flight_release(w->pool, claim->flights[i]);
	}
	in_flight_forget(w->slot_index, ids, claim->n);
	sender_return(w, turn->allowed, turn->probe);
}

/*
 * As many as there are places for; the others are held.  What was held before
 * goes first.
 */
static void
send_now(Worker *w, Claim *claim)
{
	int			places = sender_concurrency(w) - (sender_in_flight(w) - claim->n);
	int			n = 0;

	if (w->n_held == 0 && claim_may_leave(claim->flights[0]->claim))
		n = Max(Min(claim->n, places), 0);
	if (n < claim->n)
		held_add(w, claim->flights + n, claim->n - n);
	if (n > 0)
		sender_submit(w, claim->flights, n);
	else
		held_release(w);
}

static void
send_claimed(Worker *w, Turn *turn)
{
	Claim	   *claim = &turn->claim;

	/* the wait for a standby was cancelled: not durable there, not sent; who
	 * recovers this worker's claims goes on from here */
	if (ProcDiePending)
		return;
	if (claim->n > 0 && !claim_stands(w, turn))
	{
		drop_claimed(w, turn);
		return;
	}
	sender_return(w, turn->allowed - claim->n, turn->probe && claim->n == 0);
	if (turn->probe && claim->n > 0)
		claim->flights[0]->probe = true;
	if (claim->n == 0)
		return;
	claim->flights[0]->claim->committed_at = XactLastCommitEnd;
	send_now(w, claim);
}

static void
turn_committed(Worker *w)
{
	Turn	   *turn = &w->turn;

	turn->active = false;
	turn->committed = true;
	w->n_answered = 0;
	w->evidence_only = false;
	w->aborts_in_row = 0;
	w->retry_turn_at = 0;
	finish_committed(w->db, w->slot_index, w->pool, &turn->finish);
	if (turn->due.n_queued + turn->due.n_dead + turn->due.n_held > 0)
		due_committed(w->db, &turn->due);
	if (turn->withdraws)
		held_withdrawn(w);
	if (turn->claimed)
	{
		claim_committed(w->db, w->slot_index, w->pool, &turn->claim);
		send_claimed(w, turn);
	}
	if (w->more && !turn->claim.busy)
		shmem_wake_worker(w->db);
	pg_atomic_write_u64(&w->slot->pauses_seen, pauses_version());
	turn->committed = false;
}

void
turn_run(Worker *w)
{
	TimestampTz start = GetCurrentTimestamp();

	MemoryContextReset(w->turn_context);
	memset(&w->turn, 0, sizeof(w->turn));
	w->turn.active = true;

	session_begin();
	MemoryContextSwitchTo(w->turn_context);
	withdraw_part(w, &w->turn);
	finish_part(w, &w->turn);
	/* after an abort, what failed in there must not keep evidence from being kept */
	if (!w->evidence_only || w->turn.finish.n == 0)
	{
		due_part(w, &w->turn, start);
		claim_part(w, &w->turn, start);
	}
	session_commit();
	MemoryContextSwitchTo(w->turn_context);
	turn_committed(w);
	MemoryContextSwitchTo(TopMemoryContext);

	shmem_count(w->db, COUNT_TURNS, 1);
	histogram_add(&w->db->duration[DURATION_TURN], GetCurrentTimestamp() - start);
}

void
turn_aborted(Worker *w)
{
	Turn	   *turn = &w->turn;
	TimestampTz now = GetCurrentTimestamp();

	if (!turn->active)
		return;
	turn->active = false;
	finish_aborted(&turn->finish);
	if (turn->withdraws)
		held_kept(w);
	if (turn->claimed)
		claim_abandon(w->db, w->slot_index, w->pool, &turn->claim);
	sender_return(w, turn->allowed, turn->probe);
	/* the error may have struck in the middle of due_look */
	pg_atomic_write_u64(&w->db->next_due, 0);
	w->more = true;
	w->ahead = 0;
	w->evidence_only = true;
	w->aborts_in_row++;
	/* the second and later ones in a row wait, up to a second */
	if (w->aborts_in_row > 1)
		w->retry_turn_at = TimestampTzPlusMilliseconds(now,
													   Min(10 << Min(w->aborts_in_row, 7), 1000));
	shmem_count(w->db, COUNT_TURN_ABORTS, 1);
}
