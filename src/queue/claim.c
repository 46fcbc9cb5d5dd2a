/*
 * claim.c
 *	  Take trades for this worker.
 *
 * The claim is one row in settlement.claims with the ids of a turn; the queue
 * rows are not touched.  Nothing may be sent before the transaction that wrote
 * the row is durable: then the trades themselves are durable too, as their
 * commit came before ours in the WAL.
 *
 * Takes no lock on user tables.  Rows of paused symbols and trades that were
 * enqueued twice leave the queue here, a bounded number per turn; paused ones
 * beyond that are passed, and wait for another turn without delaying the others.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "queue/claim.h"
#include "queue/decision.h"
#include "queue/duplicates.h"
#include "queue/facts.h"
#include "queue/frontier.h"
#include "queue/in_flight.h"
#include "queue/key.h"
#include "queue/pauses.h"
#include "queue/statement.h"
#include "shared/clock.h"
#include "shared/settings.h"

#define MAX_ASIDE	256			/* rows put aside per turn */

typedef struct Visit
{
	FlightPool *pool;
	Claim	   *claim;
	int			want;
	MemoryContext transient;
	TimestampTz now;
	TimestampTz *until;			/* of each outgoing row */
} Visit;

/* A row that is not to be sent is due at once: due.c decides whether it can be looked up. */
static Statement defer_aside = {
	"WITH r AS (SELECT * FROM unnest($1::int8[], $2::timestamptz[]) AS r(id, until)), "
	"m AS (DELETE FROM settlement.queue q USING r WHERE q.id = r.id RETURNING q.*, r.until) "
	"INSERT INTO settlement.deferred (retry_at, reason, " FACT_COLUMNS ") "
	"SELECT until, CASE WHEN until > pg_catalog.now() THEN 'paused' ELSE 'needs_lookup' END, " FACT_COLUMNS " FROM m",
	2, {INT8ARRAYOID, TIMESTAMPTZARRAYOID}
};

/*
 * A trade that also waits elsewhere was enqueued twice (its row deleted and
 * inserted again, a restore): this row goes, if what waits there has its facts:
 * was sent no later, and may have been executed if this one may.  Else it goes on,
 * under the same key.
 */
static Statement find_duplicates = {
	"SELECT c.i FROM unnest($1::int4[], $2::text[], $3::timestamptz[], $4::bool[]) WITH ORDINALITY AS c(a, t, sent, maybe, i) "
	"WHERE EXISTS (SELECT FROM settlement.deferred d WHERE d.trade_id = c.t AND d.attached_id = c.a "
	"AND (c.sent IS NULL OR d.first_sent_at <= c.sent) "
	"AND (d.maybe_executed OR d.lookup_first OR NOT c.maybe)) "
	"OR EXISTS (SELECT FROM settlement.dlq d WHERE d.trade_id = c.t AND d.attached_id = c.a "
	"AND (c.sent IS NULL OR d.first_sent_at <= c.sent) "
	"AND NOT (d.safe_to_discard AND c.maybe)) "
	"OR EXISTS (SELECT FROM settlement.unapplied u WHERE u.trade_id = c.t AND u.attached_id = c.a "
	"AND u.status = 'SETTLED')",
	4, {INT4ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID}
};

static Statement delete_rows = {
	"DELETE FROM settlement.queue WHERE id = ANY ($1)", 1, {INT8ARRAYOID}
};

/* Only under the identity that identity.c has judged: a restore may replace it. */
static Statement insert_claim = {
	"INSERT INTO settlement.claims (boot, token, slot, claimed_at, format, ids) "
	"SELECT $1, $2, $3, $4, $5, $6 FROM settlement.identity i "
	"WHERE i.epoch = $7 AND i.written_by = i.xmin",
	7, {INT8OID, INT8OID, INT4OID, TIMESTAMPTZOID, INT4OID, INT8ARRAYOID, INT8OID}
};

static bool
is_paused(TupleTableSlot *row, TimestampTz now, TimestampTz *until)
{
	bool		isnull;
	text	   *symbol = DatumGetTextPP(slot_getattr(row, Anum_queue_symbol, &isnull));

	return pauses_symbol(VARDATA_ANY(symbol), VARSIZE_ANY_EXHDR(symbol), now, until);
}

/*
 * It has to be looked up, and the wallet has no look-up; or the wallet may have
 * forgotten the key while the row waited here, behind a pause or an outage.  Few
 * rows have been sent before, and the rest of a row is dear to come by.
 */
static bool
may_not_leave(TupleTableSlot *row)
{
	bool		isnull;
	bool		lookup_first = DatumGetBool(slot_getattr(row, Anum_queue_lookup_first, &isnull));
	Datum		first_sent;

	if (lookup_first && !settlement_wallet_lookup)
		return true;
	if (!DatumGetBool(slot_getattr(row, Anum_queue_maybe_executed, &isnull)))
		return false;
	first_sent = slot_getattr(row, Anum_queue_first_sent_at, &isnull);
	return may_be_forgotten(true, lookup_first, isnull ? 0 : DatumGetTimestampTz(first_sent));
}

static RowVerdict
visit_row(TupleTableSlot *row, int64 id, void *arg)
{
	Visit	   *visit = arg;
	Claim	   *claim = visit->claim;
	TradeFlight *flight;
	MemoryContext old;
	TimestampTz until = visit->now;

	if (is_paused(row, visit->now, &until) || may_not_leave(row))
	{
		if (claim->n_outgoing >= MAX_ASIDE)
			return ROW_PASS;
		visit->until[claim->n_outgoing] = until;
		claim->outgoing[claim->n_outgoing++] = id;
		return ROW_ASIDE;
	}
	if (claim->n >= visit->want)
		return ROW_STOP;

	flight = flight_take(visit->pool);
	claim->flights[claim->n++] = flight;
	flight->queue_id = id;
	old = MemoryContextSwitchTo(visit->transient);
	handled_begin(id);
	flight_read(flight, row, visit->pool->context);
	handled_end();
	MemoryContextSwitchTo(old);
	return ROW_TAKE;
}

static void
move_aside(Claim *claim, const TimestampTz *until)
{
	Datum		values[2];

	if (claim->n_outgoing == 0)
		return;
	values[0] = int8_array(claim->outgoing, claim->n_outgoing);
	values[1] = time_array(until, claim->n_outgoing);
	statement_run(&defer_aside, values);
}

/* Take flight i out of the claim: its row leaves the queue. */
static void
drop_duplicate(Claim *claim, FlightPool *pool, int i)
{
	claim->outgoing[claim->n_outgoing++] = claim->flights[i]->queue_id;
	claim->n_duplicates++;
	flight_release(pool, claim->flights[i]);
	claim->flights[i] = NULL;
}

static void
drop_duplicates(Claim *claim, FlightPool *pool)
{
	int		   *attached = palloc(sizeof(int) * claim->n);
	const char **ids = palloc(sizeof(char *) * claim->n);
	TimestampTz *sent = palloc(sizeof(TimestampTz) * claim->n);
	bool	   *maybe = palloc(sizeof(bool) * claim->n);
	Datum		values[4];
	int			first_dropped = claim->n_outgoing;
	int			kept = 0;

	if (!may_have_duplicates(claim->flights, claim->n))
		return;
	for (int i = 0; i < claim->n; i++)
	{
		attached[i] = claim->flights[i]->attached_id;
		ids[i] = claim->flights[i]->wire.trade_id;
		sent[i] = claim->flights[i]->first_sent_at;
		maybe[i] = claim->flights[i]->maybe_executed;
	}
	values[0] = int4_array(attached, claim->n);
	values[1] = text_array(ids, claim->n);
	values[2] = time_array(sent, claim->n);
	values[3] = bool_array(maybe, claim->n);
	statement_run(&find_duplicates, values);
	if (SPI_processed == 0)
		return;

	for (uint64 r = 0; r < SPI_processed; r++)
		drop_duplicate(claim, pool, (int) result_int8(r, 1) - 1);
	for (int i = 0; i < claim->n; i++)
		if (claim->flights[i] != NULL)
			claim->flights[kept++] = claim->flights[i];
	claim->n = kept;
	values[0] = int8_array(claim->outgoing + first_dropped,
						   claim->n_outgoing - first_dropped);
	statement_run(&delete_rows, values);
}

static void
write_claim(DbState *db, Claim *claim, int slot, FlightPool *pool, int format)
{
	OpenClaim  *open;
	int64	   *ids = palloc(sizeof(int64) * claim->n);
	TimestampTz now = clock_latest();	/* may become first_sent_at */
	Datum		values[7];

	open = MemoryContextAllocZero(pool->context, sizeof(OpenClaim));
	open->token = pg_atomic_fetch_add_u64(&settlement_shared->next_token, 1);
	open->remaining = claim->n;
	for (int i = 0; i < claim->n; i++)
	{
		ids[i] = claim->flights[i]->queue_id;
		claim->flights[i]->claim = open;
		claim->flights[i]->claimed_at = now;
	}
	values[0] = Int64GetDatum((int64) settlement_shared->boot);
	values[1] = Int64GetDatum(open->token);
	values[2] = Int32GetDatum(slot);
	values[3] = TimestampTzGetDatum(now);
	values[4] = Int32GetDatum(format);
	values[5] = int8_array(ids, claim->n);
	values[6] = Int64GetDatum((int64) pg_atomic_read_u64(&db->epoch));
	statement_run(&insert_claim, values);
	if (SPI_processed != 1)
	{
		pg_atomic_write_u32(&db->send_state, SEND_STARTING);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("settlement.identity has changed: nothing is claimed before it is looked at again")));
	}
}

void
claim_trades(DbState *db, int slot, FlightPool *pool, const WalletClient *client,
			 int want, Claim *result)
{
	Visit		visit;

	result->flights = palloc0(sizeof(TradeFlight *) * Max(want, 1));
	result->outgoing = palloc(sizeof(int64) * (MAX_ASIDE + want));
	visit.pool = pool;
	visit.claim = result;
	visit.want = want;
	visit.transient = CurrentMemoryContext;
	visit.now = GetCurrentTransactionStartTimestamp();
	visit.until = palloc(sizeof(TimestampTz) * MAX_ASIDE);

	SPI_connect();
	pauses_refresh(db);
	if (pauses_everything(visit.now))
	{
		SPI_finish();
		return;
	}
	result->more = frontier_scan(db, slot, visit_row, &visit, &result->busy);
	move_aside(result, visit.until);
	if (result->n > 0)
		drop_duplicates(result, pool);
	if (result->n > 0)
	{
		key_prepare(result->flights, result->n, client);
		write_claim(db, result, slot, pool, wallet_request_format(client));
	}
	SPI_finish();
}

void
claim_committed(DbState *db, int slot, FlightPool *pool, Claim *claim)
{
	TimestampTz now = GetCurrentTimestamp();

	in_flight_forget(slot, claim->outgoing, claim->n_outgoing);
	pg_atomic_fetch_sub_u64(&db->depth_change, claim->n_outgoing);
	shmem_count(db, COUNT_DUPLICATES, claim->n_duplicates);
	/* rows put aside may fall due before any other */
	if (claim->n_outgoing > claim->n_duplicates)
		pg_atomic_write_u64(&db->next_due, 0);
	if (claim->n > 0)
		shmem_count_claim(db, claim->n);
	for (int i = 0; i < claim->n; i++)
	{
		claim->flights[i]->state = FLIGHT_READY;
		histogram_add(&db->duration[DURATION_QUEUE_WAIT],
					  now - claim->flights[i]->enqueued_at);
	}
}

void
claim_abandon(DbState *db, int slot, FlightPool *pool, Claim *claim)
{
	OpenClaim  *open = NULL;

	for (int i = 0; i < claim->n; i++)
	{
		if (claim->flights[i] == NULL)
			continue;
		/* has room for all: memory may be what there is none of */
		claim->outgoing[claim->n_outgoing++] = claim->flights[i]->queue_id;
		open = claim->flights[i]->claim;
		flight_release(pool, claim->flights[i]);
	}
	if (open != NULL)
		pfree(open);
	frontier_give_back(db, slot, claim->outgoing, claim->n_outgoing);
}
