/*
 * finish.c
 *	  Record what the wallet answered.
 *
 * Evidence first: each row leaves the queue and its facts go where they belong,
 * under the lock of its claims row, so that a takeover and a finish cannot both
 * win; only rows that our own DELETE returned are acted upon.  Then the trade
 * rows, in a subtransaction: what cannot be written goes to unapplied and is
 * tried again alone, never resent.
 *
 * A worker whose claim was taken over may write one thing only: that the wallet
 * settled the key.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "queue/apply.h"
#include "queue/discrepancy.h"
#include "queue/ending.h"
#include "queue/in_flight.h"
#include "queue/key.h"
#include "queue/late.h"
#include "queue/tradelog.h"
#include "queue/unapplied.h"

/* ----------------------------------------------------------- trade rows */

static void
fill_apply_row(ApplyRow *row, const Ending *ending)
{
	const TradeFlight *flight = ending->flight;
	bool		settled = ending->decision.fate == FATE_SETTLED;

	memset(row, 0, sizeof(*row));
	row->handled_id = flight->queue_id;
	row->attached_id = flight->attached_id;
	row->leaf = flight->leaf;
	row->tid = flight->trade_tid;
	row->trade_id = flight->wire.trade_id;
	row->n_keys = flight->n_keys;
	row->row_key = flight->row_key;
	row->status = ending->decision.status;
	row->settlement_id = settled ? flight->result.settlement_id : NULL;
	row->settled_at = settled ? flight->answered_at : 0;
	row->attempts = ending->decision.attempts;
	row->error = ending->error;
	row->content = flight_content(flight);
	row->trace_id = flight->trace_id;
}

/* Rows whose trade row could not be written now wait in unapplied. */
static void
keep_unapplied(Finish *finish, ApplyRow *rows, int n)
{
	int			m = 0;

	for (int i = 0; i < n; i++)
		if (rows[i].result != APPLY_DONE)
			rows[m++] = rows[i];
	if (m > 0)
		finish->n_unapplied += unapplied_record(rows, m, NULL);
}

static void
write_trade_rows(Finish *finish, Ending *endings)
{
	ApplyRow   *rows = palloc(sizeof(ApplyRow) * finish->n);
	int			n = 0;
	char	   *error = NULL;

	for (int i = 0; i < finish->n; i++)
		if (endings[i].mine && endings[i].decision.fate != FATE_DEFERRED)
			fill_apply_row(&rows[n++], &endings[i]);
	if (n == 0)
		return;
	if (finish->evidence_only)
		finish->n_unapplied += unapplied_record(rows, n, NULL);
	else if (apply_batch_safely(rows, n, &error))
	{
		discrepancies_record(rows, n);
		keep_unapplied(finish, rows, n);	/* moves them up */
	}
	else
		finish->n_unapplied += unapplied_record(rows, n, NULL);
}

/* ---------------------------------------------------------------- turn */

static char *
error_text(const Ending *ending)
{
	const WalletResult *result = &ending->flight->result;

	if (ending->decision.fate == FATE_SETTLED)
		return NULL;
	if (result->message[0] == '\0')
		return pstrdup(ending->decision.class);
	return psprintf("%s: %s", ending->decision.class, result->message);
}

static Ending *
make_endings(Finish *finish)
{
	Ending	   *endings = palloc0(sizeof(Ending) * finish->n);

	for (int i = 0; i < finish->n; i++)
	{
		handled_begin(finish->flights[i]->queue_id);
		endings[i].flight = finish->flights[i];
		endings[i].decision = decide(finish->flights[i],
									 wallet_rejection_is_final(finish->client),
									 random_fraction());
		if (endings[i].decision.fate != FATE_SETTLED &&
			endings[i].decision.first_sent_at != 0)
		{
			key_fingerprint(finish->flights[i], finish->client);
			endings[i].decision.format = finish->flights[i]->format;
		}
		endings[i].error = error_text(&endings[i]);
		handled_end();
	}
	return endings;
}

static void
count_endings(Finish *finish, Ending *endings)
{
	for (int i = 0; i < finish->n; i++)
	{
		if (!endings[i].mine)
			continue;
		switch (endings[i].decision.fate)
		{
			case FATE_SETTLED:
				finish->n_settled++;
				break;
			case FATE_DEAD:
				finish->n_dead++;
				finish->n_rejected += endings[i].decision.final_rejection;
				break;
			case FATE_DEFERRED:
				finish->n_deferred++;
				break;
		}
	}
}

/* What was not ours any more, but is settled. */
static void
settle_late(Finish *finish, Ending *endings)
{
	TradeFlight **late = palloc(sizeof(TradeFlight *) * finish->n);

	for (int i = 0; i < finish->n; i++)
		if (!endings[i].mine && endings[i].decision.fate == FATE_SETTLED)
			late[finish->n_late++] = endings[i].flight;
	finish->n_removed += late_settlements(late, finish->n_late);
}

void
finish_trades(DbState *db, int slot, Finish *finish)
{
	Ending	   *endings;

	if (finish->n == 0)
		return;
	endings = make_endings(finish);
	SPI_connect();
	evidence_record(finish, endings);
	attempts_record(slot, endings, finish->n);
	settle_late(finish, endings);
	write_trade_rows(finish, endings);
	SPI_finish();
	count_endings(finish, endings);
	finish->endings = endings;
}

static void
release_claim(OpenClaim *claim)
{
	claim->finishing--;
	if (--claim->remaining == 0)
		pfree(claim);
}

static void
count_flight(DbState *db, WorkerSlot *slot, const TradeFlight *flight)
{
	if (flight->verb == WALLET_SETTLE &&
		flight->result.verdict.outcome == OUTCOME_SETTLED)
		histogram_add(&db->duration[DURATION_SETTLE],
					  GetCurrentTimestamp() - flight->enqueued_at);
}

void
finish_committed(DbState *db, int slot_index, FlightPool *pool, Finish *finish)
{
	WorkerSlot *slot = &settlement_shared->slots[slot_index];
	int64	   *ids;

	if (finish->n == 0)
		return;
	ids = palloc(sizeof(int64) * finish->n);
	for (int i = 0; i < finish->n; i++)
	{
		tradelog_ending(&finish->endings[i]);
		ids[i] = finish->flights[i]->queue_id;
		count_flight(db, slot, finish->flights[i]);
		release_claim(finish->flights[i]->claim);
		flight_release(pool, finish->flights[i]);
	}
	in_flight_forget(slot_index, ids, finish->n);
	pg_atomic_fetch_sub_u64(&db->depth_change, finish->n_removed);
	shmem_count(db, COUNT_SETTLED, finish->n_settled);
	shmem_count(db, COUNT_FAILED, finish->n_dead);
	shmem_count(db, COUNT_REJECTED, finish->n_rejected);
	shmem_count(db, COUNT_PROCESSED, finish->n_settled + finish->n_dead);
	shmem_count(db, COUNT_RETRIES, finish->n_deferred);
	shmem_count(db, COUNT_LATE_SETTLED, finish->n_late);
	pg_atomic_fetch_add_u64(&slot->settled, finish->n_settled);
	pg_atomic_fetch_add_u64(&slot->failed, finish->n_dead);
	if (finish->n_deferred > 0)
		pg_atomic_write_u64(&db->next_due, 0);
	if (finish->n_dead + finish->n_late > 0)
		pg_atomic_write_u32(&db->dlq_changed, 1);
	if (finish->n_unapplied > 0)
	{
		shmem_count(db, COUNT_APPLY_FAILURES, finish->n_unapplied);
		pg_atomic_write_u64(&db->next_apply, 0);
	}
	pfree(ids);
}

void
finish_aborted(Finish *finish)
{
	for (int i = 0; i < finish->n; i++)
		finish->flights[i]->claim->finishing = 0;
}
