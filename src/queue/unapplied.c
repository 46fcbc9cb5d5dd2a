/*
 * unapplied.c
 *	  Outcomes that wait to be written to their trade row.
 *
 * A row is locked (FOR UPDATE SKIP LOCKED) while it is tried, so that two
 * workers never try the same one.  An outcome that is followed by a newer one
 * of the same trade is dropped, unless it says that money moved.
 *
 * db->next_apply is only ever lowered while the table is read: 0, which an
 * inserting transaction writes at its commit, always survives.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "policy/retry.h"
#include "queue/announce.h"
#include "queue/discrepancy.h"
#include "queue/durability.h"
#include "queue/key.h"
#include "queue/statement.h"
#include "queue/tradelog.h"
#include "queue/unapplied.h"
#include "shared/logline.h"
#include "shared/settings.h"

/* Failures in all before a row that is gone is given up (about 25 s). */
#define GONE_TRIES			8

/* In last_failure: */
#define LOCKED_TEXT			"the row or its table is locked"
#define UNSEARCHED_TEXT		"no index leads to the row, and the table is too large to be read for it"

/* How long to leave a due row that another worker is trying just now. */
#define BUSY_MS				50

/* Comes back by itself if the look-up of the next due time fails. */
#define LOOK_AGAIN_MS		1000

static Statement insert_row = {
	"INSERT INTO settlement.unapplied (next_apply_at, last_failure, last_failed_at, attached_id, leaf, "
	"trade_tid, trade_id, row_key, status, settlement_id, settled_at, attempts, error, content, trace_id) "
	"VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
	15, {TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID, INT4OID, REGCLASSOID,
		TIDOID, TEXTOID, TEXTARRAYOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID,
	TEXTOID, TEXTARRAYOID, TEXTOID}
};

static Statement find_due = {
	"SELECT id FROM settlement.unapplied WHERE next_apply_at <= $1 ORDER BY next_apply_at LIMIT $2",
	2, {TIMESTAMPTZOID, INT8OID}
};

static Statement take_row = {
	"SELECT u.attached_id, u.leaf, u.trade_tid, u.trade_id, u.row_key, u.status, u.settlement_id, "
	"u.settled_at, u.attempts, u.error, u.failures, "
	"u.status NOT IN ('SETTLED', 'REVERSED') AND EXISTS (SELECT FROM settlement.unapplied n "
	"WHERE n.trade_id = u.trade_id AND n.attached_id = u.attached_id AND n.id > u.id), u.content, u.trace_id, u.last_failure "
	"FROM settlement.unapplied u WHERE u.id = $1 AND u.next_apply_at <= $2 FOR UPDATE OF u SKIP LOCKED",
	2, {INT8OID, TIMESTAMPTZOID}
};

static Statement remove_row = {
	"DELETE FROM settlement.unapplied WHERE id = $1", 1, {INT8OID}
};

static Statement put_off_row = {
	"UPDATE settlement.unapplied SET failures = failures + 1, last_failure = $2, last_failed_at = $3, "
	"next_apply_at = $4 WHERE id = $1",
	4, {INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID}
};

/* As retry_time() for a row that failed: what is known of it may be lost. */
static Statement put_off_aborted = {
	"UPDATE settlement.unapplied SET failures = failures + 1, last_failure = $2, last_failed_at = $3, "
	"next_apply_at = $3 + LEAST(100 * 2 ^ LEAST(failures, 20), 60000) * interval '1 millisecond' "
	"WHERE id = $1",
	3, {INT8OID, TEXTOID, TIMESTAMPTZOID}
};

static Statement record_gone = {
	"INSERT INTO settlement.discrepancies (attached_id, trade_id, kind, details) "
	"SELECT attached_id, coalesce(trade_id, ''), 'trade_row_gone', pg_catalog.jsonb_strip_nulls("
	"pg_catalog.jsonb_build_object('leaf', leaf, 'row_key', row_key, 'status', status, "
	"'settlement_id', settlement_id, 'settled_at', settled_at, 'attempts', attempts, 'error', error, "
	"'recorded_at', recorded_at, 'searched', $2)) FROM settlement.unapplied WHERE id = $1",
	2, {INT8OID, TEXTOID}
};

static Statement find_next = {
	"SELECT pg_catalog.min(next_apply_at) FROM settlement.unapplied", 0
};

/* One row of the table while it is tried. */
typedef struct Waiting
{
	int64		id;
	ApplyRow	row;
	int			failures;		/* before this try */
	const char *last_failure;	/* NULL: none */
	bool		superseded;
} Waiting;

static const RetryPolicy failed_policy = {
	.initial_backoff_ms = 100, .multiplier = 2.0, .max_backoff_ms = 60000, .jitter = 0.1
};

/* Whoever holds the lock will go: look more often. */
static const RetryPolicy locked_policy = {
	.initial_backoff_ms = 50, .multiplier = 2.0, .max_backoff_ms = 5000, .jitter = 0.1
};

/* Why a row was not written, for last_failure; NULL: written, or user code raised. */
static const char *
result_text(const ApplyRow *row)
{
	switch (row->result)
	{
		case APPLY_LOCKED:
			return LOCKED_TEXT;
		case APPLY_GONE:
			return row->key_unsearched ? UNSEARCHED_TEXT : "there is no such row";
		case APPLY_REFUSED:
			return "a trigger suppressed the update";
		case APPLY_DONE:
		case APPLY_ERROR:
			break;
	}
	return NULL;
}

static TimestampTz
retry_time(ApplyResult result, int failures)
{
	int64		ms = retry_delay_ms(result == APPLY_LOCKED ? &locked_policy : &failed_policy,
									failures, random_fraction(), -1);

	return TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
}

/* --------------------------------------------------------------- recording */

static void
set_text(Datum *values, char *nulls, int i, const char *text)
{
	nulls[i] = text == NULL ? 'n' : ' ';
	values[i] = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static void
set_value(Datum *values, char *nulls, int i, Datum value, bool isnull)
{
	nulls[i] = isnull ? 'n' : ' ';
	values[i] = value;
}

static void
record_row(const ApplyRow *row, const char *failure, TimestampTz now)
{
	Datum		values[15];
	char		nulls[15];
	bool		at_once = row->result == APPLY_DONE || row->result == APPLY_ERROR;

	if (failure == NULL)
		failure = result_text(row);
	set_value(values, nulls, 0,
			  TimestampTzGetDatum(at_once ? now : retry_time(row->result, 1)), false);
	set_text(values, nulls, 1, failure);
	set_value(values, nulls, 2, TimestampTzGetDatum(now), failure == NULL);
	set_value(values, nulls, 3, Int32GetDatum(row->attached_id), false);
	set_value(values, nulls, 4, ObjectIdGetDatum(row->leaf), false);
	set_value(values, nulls, 5, PointerGetDatum(&row->tid),
			  !ItemPointerIsValid(&row->tid));
	set_text(values, nulls, 6, row->trade_id);
	set_value(values, nulls, 7,
			  row->n_keys > 0 ? text_array(row->row_key, row->n_keys) : (Datum) 0,
			  row->n_keys == 0);
	set_text(values, nulls, 8, row->status);
	set_text(values, nulls, 9, row->settlement_id);
	set_value(values, nulls, 10, TimestampTzGetDatum(row->settled_at),
			  row->settled_at == 0);
	set_value(values, nulls, 11, Int32GetDatum(row->attempts), false);
	set_text(values, nulls, 12, row->error);
	set_value(values, nulls, 13,
			  row->content != NULL ? text_array(row->content, N_CONTENT) : (Datum) 0,
			  row->content == NULL);
	set_text(values, nulls, 14, row->trace_id);
	statement_run_nulls(&insert_row, values, nulls);
}

int
unapplied_record(const ApplyRow *rows, int n, const char *failure)
{
	TimestampTz now = GetCurrentTimestamp();

	if (n == 0)
		return 0;
	SPI_connect();
	for (int i = 0; i < n; i++)
		record_row(&rows[i], failure, now);
	SPI_finish();
	announce_other_work();
	return n;
}

/* ---------------------------------------------------------- transactions */

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	durability_set();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
commit(MemoryContext context)
{
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

static void
remove_waiting(int64 id)
{
	Datum		value = Int64GetDatum(id);

	statement_run(&remove_row, &value);
}

/* DT_NOBEGIN: as often as it has failed says. */
static void
put_off(int64 id, const char *failure, TimestampTz next)
{
	Datum		values[4];

	values[0] = Int64GetDatum(id);
	values[1] = CStringGetTextDatum(failure);
	values[2] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[3] = TimestampTzGetDatum(next);
	statement_run(next == DT_NOBEGIN ? &put_off_aborted : &put_off_row, values);
}

/* -------------------------------------------------------------- one row */

/* Text of a column of the result, in the present context; NULL for null. */
static const char *
column_text(int column)
{
	bool		isnull;
	Datum		value = result_value(0, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* Texts of an array; NULL, and none, for null. */
static const char *const *
column_texts(int column, int *n)
{
	bool		isnull;
	Datum		value = result_value(0, column, &isnull);
	Datum	   *elements;
	bool	   *nulls;
	const char **texts;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, &nulls, n);
	texts = palloc(Max(*n, 1) * sizeof(char *));
	for (int i = 0; i < *n; i++)
		texts[i] = nulls[i] ? NULL : TextDatumGetCString(elements[i]);
	return texts;
}

/* Lock a row that is still due and read it.  False: another worker has it. */
static bool
take(Waiting *waiting, int64 id)
{
	ApplyRow   *row = &waiting->row;
	Datum		values[2];
	bool		isnull;
	Datum		value;
	int			n_content;

	values[0] = Int64GetDatum(id);
	values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
	statement_run(&take_row, values);
	if (SPI_processed == 0)
		return false;

	memset(waiting, 0, sizeof(*waiting));
	row->handled_id = -id;
	waiting->id = id;
	row->attached_id = DatumGetInt32(result_value(0, 1, &isnull));
	row->leaf = DatumGetObjectId(result_value(0, 2, &isnull));
	value = result_value(0, 3, &isnull);
	if (isnull)
		ItemPointerSetInvalid(&row->tid);
	else
		ItemPointerCopy((ItemPointer) DatumGetPointer(value), &row->tid);
	row->trade_id = column_text(4);
	row->row_key = column_texts(5, &row->n_keys);
	row->status = column_text(6);
	row->settlement_id = column_text(7);
	value = result_value(0, 8, &isnull);
	row->settled_at = isnull ? 0 : DatumGetTimestampTz(value);
	row->attempts = DatumGetInt32(result_value(0, 9, &isnull));
	row->error = column_text(10);
	waiting->failures = DatumGetInt32(result_value(0, 11, &isnull));
	waiting->superseded = DatumGetBool(result_value(0, 12, &isnull));
	row->content = column_texts(13, &n_content);
	if (n_content != N_CONTENT)
		row->content = NULL;
	row->trace_id = column_text(14);
	waiting->last_failure = column_text(15);
	return true;
}

/* Fields of a line on it; palloc'ed. */
static char *
log_fields(const Waiting *waiting, const char *failure)
{
	const ApplyRow *row = &waiting->row;
	StringInfoData fields;
	char		trace[TRACE_ID_LEN + 1];

	key_trace(row->attached_id, row->trade_id, row->trace_id, trace);
	initStringInfo(&fields);
	log_field(&fields, "status", row->status);
	log_field(&fields, "settlement_id", row->settlement_id);
	log_field(&fields, "trade_id", row->trade_id);
	log_field_int(&fields, "attached_id", row->attached_id);
	log_field(&fields, "table", get_rel_name(row->leaf));
	log_field(&fields, "trace_id", trace);
	log_field_int(&fields, "attempt", row->attempts);
	log_field_int(&fields, "failures", waiting->failures + (failure != NULL));
	log_field(&fields, "message", failure ? failure : row->error);
	return fields.data;
}

/* The first failure only, and nothing of a lock: that is nobody's mistake. */
static void
log_failure(const Waiting *waiting, const char *failure)
{
	const ApplyRow *row = &waiting->row;

	if (waiting->failures > 0 || row->result == APPLY_LOCKED || !tradelog_admit("unapplied"))
		return;
	ereport(LOG,
			(errcode(LOG_ROW_NOT_WRITTEN),
			 errmsg("could not write outcome %s of trade \"%s\" to its row",
					row->status, log_text(row->trade_id)),
			 errdetail_internal("%s", log_fields(waiting, failure)),
			 errhint("It is in settlement.unapplied and is tried again.")));
}

/*
 * What has waited here is written.  That of a trade which the trigger refused is
 * told now: then it was not committed yet.
 */
static void
log_written(const Waiting *waiting)
{
	const ApplyRow *row = &waiting->row;
	bool		never_sent = row->content == NULL && row->attempts == 0 &&
		strcmp(row->status, "FAILED") == 0;

	if (waiting->last_failure != NULL &&
		strcmp(waiting->last_failure, LOCKED_TEXT) != 0)
	{
		if (tradelog_admit("written_late"))
			ereport(LOG,
					(errcode(LOG_ROW_WRITTEN_LATE),
					 errmsg("outcome %s of trade \"%s\" is written to its row after all",
							row->status, log_text(row->trade_id)),
					 errdetail_internal("%s", log_fields(waiting, NULL))));
	}
	else if (never_sent && settlement_log_settlements != LOG_SETTLEMENTS_NONE)
		ereport(LOG,
				(errcode(LOG_TRADE_FAILED),
				 errmsg("trade \"%s\" failed: %s", log_text(row->trade_id), "not sent"),
				 errdetail_internal("%s", log_fields(waiting, NULL))));
}

/* The row is not there, again and again: a person has to know. */
static void
give_up(const Waiting *waiting)
{
	Datum		values[2];

	values[0] = Int64GetDatum(waiting->id);
	values[1] = CStringGetTextDatum(waiting->row.unsearched ? "by key" : "by key and trade id");
	statement_run(&record_gone, values);
	remove_waiting(waiting->id);
	ereport(LOG,
			(errcode(LOG_ROW_GONE),
			 errmsg("trade \"%s\" has no row any more for outcome %s",
					log_text(waiting->row.trade_id), waiting->row.status),
			 errdetail_internal("%s", log_fields(waiting, NULL)),
			 errhint("See settlement.discrepancies.")));
}

/* Write a taken row.  True when it leaves the table. */
static bool
apply_taken(Waiting *waiting)
{
	ApplyRow   *row = &waiting->row;
	char	   *error = NULL;
	const char *failure;

	if (waiting->superseded)
	{
		remove_waiting(waiting->id);
		return true;
	}
	apply_begin_transaction();
	failure = apply_batch_safely(row, 1, &error) ? result_text(row) : error;
	if (failure == NULL)
	{
		discrepancies_record(row, 1);
		remove_waiting(waiting->id);
		log_written(waiting);
		return true;
	}
	if (row->result == APPLY_GONE && !row->key_unsearched &&
		waiting->failures + 1 >= GONE_TRIES)
	{
		give_up(waiting);
		return true;
	}
	put_off(waiting->id, failure, retry_time(row->result, waiting->failures + 1));
	log_failure(waiting, failure);
	return false;
}

static bool
try_row(int64 id, MemoryContext context)
{
	Waiting		waiting;
	bool		gone;

	begin();
	gone = take(&waiting, id) && apply_taken(&waiting);
	commit(context);
	return gone;
}

/*
 * The transaction of a row failed outside the part that apply guards: our own
 * tables are locked, memory is short, its commit failed.  Put the row off all the
 * same, or it would be tried first for ever.
 */
static void
put_off_after_abort(int64 id, MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (ProcDiePending || error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
		PG_RE_THROW();
	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	FlushErrorState();
	RESUME_INTERRUPTS();
	begin();
	put_off(id, error->message ? error->message : "error without a message", DT_NOBEGIN);
	commit(context);
}

static bool
try_row_safely(int64 id, MemoryContext context)
{
	volatile bool gone = false;

	PG_TRY();
	{
		gone = try_row(id, context);
	}
	PG_CATCH();
	{
		put_off_after_abort(id, context);
	}
	PG_END_TRY();
	MemoryContextReset(context);
	return gone;
}

/* ------------------------------------------------------------ all due rows */

/* Ids of up to max due rows, in context. */
static int
find_due_rows(int64 *ids, int max, MemoryContext context)
{
	Datum		values[2];
	int			n;

	begin();
	values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[1] = Int64GetDatum(max);
	statement_run(&find_due, values);
	n = SPI_processed;
	for (int i = 0; i < n; i++)
		ids[i] = result_int8(i, 1);
	commit(context);
	return n;
}

/* Replace the next due time by `next` unless it is earlier already. */
static void
lower_next(DbState *db, TimestampTz next)
{
	uint64		present = pg_atomic_read_u64(&db->next_apply);

	while ((TimestampTz) present > next &&
		   !pg_atomic_compare_exchange_u64(&db->next_apply, &present, (uint64) next))
		;
}

/*
 * Publish when the next row is due.  What is written before the table is read
 * says "look again soon"; only if it still stands after, nobody has inserted a
 * row meanwhile, and the result replaces it.
 */
static void
publish_next(DbState *db, bool more_due, MemoryContext context)
{
	TimestampTz soon = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AGAIN_MS);
	uint64		expected = (uint64) soon;
	TimestampTz next;
	bool		isnull;

	pg_atomic_write_u64(&db->next_apply, (uint64) soon);
	begin();
	statement_run(&find_next, NULL);
	next = DatumGetTimestampTz(result_value(0, 1, &isnull));
	commit(context);
	if (isnull)
		next = PG_INT64_MAX;
	else if (!more_due)
		next = Max(next, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), BUSY_MS));
	if (!pg_atomic_compare_exchange_u64(&db->next_apply, &expected, (uint64) next))
		lower_next(db, next);
}

int
unapplied_run(DbState *db, int max, int max_ms)
{
	/* for the life of the process: nothing is left behind after an error */
	static MemoryContext run_context = NULL;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context;
	TimestampTz start = GetCurrentTimestamp();
	int64	   *ids;
	int			done = 0;
	int			tried = 0;
	int			n;

	if (run_context == NULL)
		run_context = AllocSetContextCreate(TopMemoryContext, "settlement unapplied",
											ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(run_context);
	context = AllocSetContextCreate(run_context, "settlement unapplied row",
									ALLOCSET_DEFAULT_SIZES);
	ids = MemoryContextAlloc(run_context, Max(max, 1) * sizeof(int64));
	n = find_due_rows(ids, max, context);
	while (tried < n &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), max_ms))
	{
		CHECK_FOR_INTERRUPTS();
		done += try_row_safely(ids[tried++], context);
	}
	if (db != NULL)
		publish_next(db, tried < n || (n == max && done > 0), context);
	MemoryContextSwitchTo(caller);
	return done;
}
