/*
 * due.c
 *	  Deferred trades whose time has come.
 *
 * One statement takes a bounded number of due rows, skipping those that an
 * operator holds, and sends each where its facts say.  A row that goes on to the
 * queue gets a new id at the tail, so a retried trade never delays the others.
 *
 * Rows that a pause of their symbol has put aside are due when that pause is not
 * in force any more, whatever their retry_at says.  They are looked for by symbol
 * (released.c), so that a million of them neither delay a retry nor have to be
 * touched by resume().
 *
 * Charging: whether a failed attempt was the trade's own fault is known only
 * now.  The attempt counts if another key got a definite answer since it was
 * sent; its own key did not, or the row would not be here.  Attempts of an outage
 * are handed back, also those that the wallet's last and first answers enclose.
 *
 * Times in these rows are of the wall clock, which people set.  Waiting counts
 * towards pending_timeout only as far as it was meant, so that a clock set forward
 * adds nothing; what a clock set back would let wait is made due by bring_back.c;
 * the idempotency window is measured by clock_latest(), and a first send ahead even
 * of that becomes -infinity, so that it stays passed.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/array.h"
#include "utils/timestamp.h"

#include "queue/due.h"
#include "queue/facts.h"
#include "queue/key.h"
#include "queue/released.h"
#include "queue/statement.h"
#include "queue/tradelog.h"
#include "queue/unapplied.h"
#include "shared/clock.h"
#include "shared/settings.h"

#define HELD_MS		100			/* due rows that others hold are tried again */

#define FACTS_ON \
	"enqueued_at, attached_id, leaf, attempts, generation, now_charged, crashes, " \
	"format, maybe_executed, fate = 'lookup' OR lookup_first, trade_tid, trade_id, row_key, symbol, " \
	"buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, " \
	"quote_amount, buyer_fee, seller_fee, trace_id, now_first_sent, now_pending, " \
	"fingerprint"

/*
 * $1 now  $2 limit  $3 time of the last definite answer  $4 charge everything
 * $5 max_attempts  $6 pending_timeout in ms  $7 start of the idempotency window
 * $8 the wallet can be asked  $9 crashes that are too many
 * $10 what no first send of this server start can lie beyond (clock_latest)
 * $11, $12 attempts sent between these belonged to an outage
 * $13 symbol of a pause that is over  $14 its rows up to this id were taken
 */
static Statement move_due = {
	"WITH p AS MATERIALIZED (SELECT symbol, until FROM settlement.pauses), "
	"timed AS MATERIALIZED (SELECT * FROM settlement.deferred"
	" WHERE reason <> 'paused' AND retry_at <= $1 ORDER BY retry_at LIMIT $2 FOR UPDATE SKIP LOCKED), "
	"released AS MATERIALIZED (SELECT * FROM settlement.deferred d"
	" WHERE d.reason = 'paused' AND d.symbol = $13 AND d.id > $14 AND NOT EXISTS"
	"  (SELECT FROM settlement.pauses n WHERE n.symbol = $13 AND COALESCE(n.until, 'infinity') > $1)"
	" ORDER BY d.id LIMIT $2 FOR UPDATE OF d SKIP LOCKED), "
	"due AS MATERIALIZED ("
	" SELECT d.id, p.until AS paused_until, p.symbol IS NOT NULL AS paused,"
	"  d.charged + (($4 AND d.reason IN ('retry', 'pending', 'recovered') AND d.last_sent_at IS NOT NULL)"
	"   OR (d.chargeable AND $3 > d.last_sent_at AND NOT d.last_sent_at BETWEEN $11 AND $12))::int AS now_charged,"
	"  COALESCE(d.pending_ms, 0) + CASE WHEN d.reason = 'pending' AND $3 > d.last_sent_at"
	"   THEN GREATEST((EXTRACT(epoch FROM LEAST($1, d.retry_at) - d.last_sent_at) * 1000)::int8, 0) ELSE 0 END AS now_pending,"
	"  CASE WHEN d.first_sent_at > $10 THEN '-infinity' ELSE d.first_sent_at END AS now_first_sent,"
	"  d.reason, d.crashes, d.last_class, d.maybe_executed AND (d.first_sent_at < $7 OR d.first_sent_at > $10) AS expired,"
	"  d.lookup_first"
	" FROM (SELECT * FROM timed UNION ALL SELECT * FROM released) d LEFT JOIN p"
	"  ON p.symbol = d.symbol AND COALESCE(p.until, 'infinity') > $1), "
	"fated AS (SELECT id, paused_until, now_charged, now_pending, now_first_sent, CASE"
	"  WHEN paused THEN 'pause'"
	"  WHEN now_charged >= $5 AND reason <> 'needs_lookup' THEN 'dlq'"
	"  WHEN now_pending >= $6 THEN 'dlq'"
	"  WHEN reason = 'recovered' AND last_class = 'worker_crash' AND crashes >= $9 THEN 'dlq'"
	"  WHEN expired OR lookup_first THEN CASE WHEN $8 THEN 'lookup' ELSE 'hold' END"
	"  ELSE 'queue' END AS fate FROM due), "
	"held AS (UPDATE settlement.deferred d SET"
	"  retry_at = CASE f.fate WHEN 'pause' THEN COALESCE(f.paused_until, 'infinity') ELSE 'infinity' END,"
	"  reason = CASE f.fate WHEN 'pause' THEN 'paused' ELSE 'needs_lookup' END, charged = f.now_charged,"
	"  pending_ms = f.now_pending, first_sent_at = f.now_first_sent, chargeable = false"
	"  FROM fated f WHERE d.id = f.id AND f.fate IN ('pause', 'hold') RETURNING 1), "
	"gone AS (DELETE FROM settlement.deferred d USING fated f"
	"  WHERE d.id = f.id AND f.fate IN ('queue', 'lookup', 'dlq') RETURNING d.*, f.fate, f.now_charged, f.now_pending, f.now_first_sent), "
	"queued AS (INSERT INTO settlement.queue (" FACT_COLUMNS ")"
	"  SELECT " FACTS_ON " FROM gone WHERE fate IN ('queue', 'lookup') RETURNING 1), "
	"dead AS (INSERT INTO settlement.dlq (status, class, code, http_status, message, " FACT_COLUMNS ")"
	"  SELECT CASE WHEN maybe_executed THEN 'UNKNOWN' ELSE 'FAILED' END,"
	"   COALESCE(last_class, 'unknown'), last_code, last_status, last_message, " FACTS_ON
	"  FROM gone WHERE fate = 'dlq') "
	"SELECT (SELECT pg_catalog.count(*) FROM due), (SELECT pg_catalog.count(*) FROM queued),"
	" (SELECT pg_catalog.count(*) FROM held), (SELECT pg_catalog.max(id) FROM released), NULL::int4, NULL::oid, NULL::tid, NULL::text, NULL::text[],"
	" NULL::text, NULL::int4, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text, NULL::text,"
	" NULL::text, NULL::text, NULL::int4, NULL::text "
	"UNION ALL SELECT NULL, NULL, NULL, NULL, attached_id, leaf::oid, trade_tid, trade_id, row_key,"
	" CASE WHEN maybe_executed THEN 'UNKNOWN' ELSE 'FAILED' END, attempts,"
	" pg_catalog.concat_ws(': ', COALESCE(last_class, 'unknown'), last_message),"
	" trace_id, symbol, buyer_id, seller_id, quantity::text, quote_amount::text,"
	" COALESCE(last_class, 'unknown'), last_code, last_status, last_message FROM gone WHERE fate = 'dlq'",
	14, {TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID, BOOLOID, INT4OID, INT8OID, TIMESTAMPTZOID, BOOLOID, INT4OID,
	TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT8OID}
};

static Statement next_due = {
	"SELECT pg_catalog.min(retry_at) FROM settlement.deferred WHERE retry_at < 'infinity' AND reason <> 'paused'", 0
};

static char *
text_or_null(int row, int column)
{
	bool		isnull;
	Datum		value = result_value(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static void
read_row_key(ApplyRow *apply, int row, int column)
{
	bool		isnull;
	Datum		value = result_value(row, column, &isnull);
	const char **keys;
	Datum	   *elems;
	bool	   *nulls;

	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false,
					  TYPALIGN_INT, &elems, &nulls, &apply->n_keys);
	keys = palloc(sizeof(char *) * Max(apply->n_keys, 1));
	for (int i = 0; i < apply->n_keys; i++)
		keys[i] = nulls[i] ? "" : TextDatumGetCString(elems[i]);
	apply->row_key = keys;
}

static void
read_dead(ApplyRow *apply, int row)
{
	bool		isnull;
	Datum		tid;

	memset(apply, 0, sizeof(*apply));
	apply->attached_id = DatumGetInt32(result_value(row, 5, &isnull));
	apply->leaf = DatumGetObjectId(result_value(row, 6, &isnull));
	tid = result_value(row, 7, &isnull);
	if (isnull)
		ItemPointerSetInvalid(&apply->tid);
	else
		ItemPointerCopy((ItemPointer) DatumGetPointer(tid), &apply->tid);
	apply->trade_id = text_or_null(row, 8);
	read_row_key(apply, row, 9);
	apply->status = text_or_null(row, 10);
	apply->attempts = DatumGetInt32(result_value(row, 11, &isnull));
	apply->error = text_or_null(row, 12);
	apply->trace_id = text_or_null(row, 13);
}

static void
read_death(Death *death, int row)
{
	bool		isnull;

	read_dead(&death->row, row);
	death->symbol = text_or_null(row, 14);
	death->buyer_id = text_or_null(row, 15);
	death->seller_id = text_or_null(row, 16);
	death->quantity = text_or_null(row, 17);
	death->quote_amount = text_or_null(row, 18);
	death->class = text_or_null(row, 19);
	death->code = text_or_null(row, 20);
	death->http_status = DatumGetInt32(result_value(row, 21, &isnull));
	death->message = text_or_null(row, 22);
	key_trace(death->row.attached_id, death->row.trade_id, death->row.trace_id, death->trace);
}

/*
 * The trade rows of the dead are written like any recorded outcome.  What the log
 * is to say of them is kept, in `context`, until the commit.
 */
static void
record_dead(Due *due, MemoryContext context)
{
	MemoryContext spi;
	ApplyRow   *rows;

	if (due->n_dead == 0)
		return;
	rows = palloc(sizeof(ApplyRow) * due->n_dead);
	spi = MemoryContextSwitchTo(context);
	due->deaths = palloc0(sizeof(Death) * due->n_dead);
	for (int i = 0; i < due->n_dead; i++)
	{
		read_death(&due->deaths[i], i + 1);
		rows[i] = due->deaths[i].row;
	}
	MemoryContextSwitchTo(spi);
	unapplied_record(rows, due->n_dead, NULL);
}

/*
 * Nothing could be taken: others hold what is due.  Look when they may be done,
 * not at once.
 */
static void
put_off(DbState *db, TimestampTz now)
{
	uint64		due;

	due_look(db);
	due = pg_atomic_read_u64(&db->next_due);
	if (due != 0 && (TimestampTz) due <= now)
		pg_atomic_compare_exchange_u64(&db->next_due, &due,
									   (uint64) TimestampTzPlusMilliseconds(GetCurrentTimestamp(), HELD_MS));
}

/* PG_INT64_MAX is the timestamp infinity. */
static void
outage(DbState *db, TimestampTz *from, TimestampTz *until)
{
	LWLockAcquire(db->policy_lock, LW_SHARED);
	(void) breaker_outage(&db->breaker, from, until);
	LWLockRelease(db->policy_lock);
}

static void
fill_values(DbState *db, TimestampTz now, int max, Datum *values)
{
	TimestampTz latest = clock_latest();
	TimestampTz from;
	TimestampTz until;

	values[0] = TimestampTzGetDatum(now);
	values[1] = Int32GetDatum(max);
	values[2] = TimestampTzGetDatum((TimestampTz) pg_atomic_read_u64(&db->last_definite_at));
	values[3] = BoolGetDatum(settlement_dead_letter_on_outage);
	values[4] = Int32GetDatum(settlement_max_attempts);
	values[5] = Int64GetDatum((int64) settlement_pending_timeout);
	values[6] = TimestampTzGetDatum(latest - (int64) settlement_idempotency_window * USECS_PER_SEC);
	values[7] = BoolGetDatum(settlement_wallet_lookup);
	values[8] = Int32GetDatum(MAX_CRASHES);
	values[9] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(latest, CLOCK_TOLERANCE_MS));
	outage(db, &from, &until);
	values[10] = TimestampTzGetDatum(from);
	values[11] = TimestampTzGetDatum(until);
}

void
due_move(DbState *db, int max, Due *due)
{
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	Datum		values[14];
	char		nulls[] = "              ";
	Released   *released;
	Datum		last;
	bool		none;
	bool		none_released;

	SPI_connect();
	fill_values(db, now, max, values);
	released = released_next(db, now);
	values[12] = released ? CStringGetTextDatum(released->symbol) : (Datum) 0;
	values[13] = Int64GetDatum(released ? released->after : 0);
	nulls[12] = released ? ' ' : 'n';
	statement_run_nulls(&move_due, values, nulls);
	none = result_int8(0, 1) == 0;
	due->n_queued = result_int8(0, 2);
	due->n_held = result_int8(0, 3);
	last = result_value(0, 4, &none_released);
	if (released != NULL)
		released_moved(released, none_released ? 0 : DatumGetInt64(last));
	due->n_dead = (int) SPI_processed - 1;
	record_dead(due, caller);
	SPI_finish();
	if (none)
		put_off(db, now);
}

void
due_committed(DbState *db, const Due *due)
{
	for (int i = 0; i < due->n_dead; i++)
		tradelog_death(&due->deaths[i]);
	shmem_count(db, COUNT_FAILED, due->n_dead);
	shmem_count(db, COUNT_PROCESSED, due->n_dead);
	if (due->n_dead > 0)
	{
		pg_atomic_write_u64(&db->next_apply, 0);
		pg_atomic_write_u32(&db->dlq_changed, 1);
	}
	pg_atomic_write_u64(&db->next_due, 0);
}

void
due_look(DbState *db)
{
	uint64		expected = PG_INT64_MAX;
	TimestampTz next;
	bool		isnull;
	Datum		value;

	/*
	 * What commits from here on resets it to 0 after us; what committed before
	 * is seen.  A reset in between is lost, so mark first, look after.
	 */
	pg_atomic_write_u64(&db->next_due, PG_INT64_MAX);
	pg_memory_barrier();
	SPI_connect();
	statement_run(&next_due, NULL);
	value = result_value(0, 1, &isnull);
	next = isnull ? DT_NOEND : DatumGetTimestampTz(value);
	next = Min(next, released_when(db, GetCurrentTransactionStartTimestamp()));
	SPI_finish();
	pg_atomic_compare_exchange_u64(&db->next_due, &expected, (uint64) next);
}
