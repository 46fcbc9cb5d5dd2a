/*
 * statement.c
 *	  Prepared statements of the worker, and arrays as their arguments.
 *
 * Their plans must be right for a million rows at any time, and a queue is empty
 * most of the time: one that VACUUM found empty would be read from end to end
 * for each row of a turn.  So hash, merge, bitmap and sequential plans are out,
 * and our tables count as large whatever the statistics say.  And a plan is made
 * once: by its estimates the planner would make one for each turn's arrays.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "optimizer/cost.h"
#include "optimizer/plancat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/plancache.h"
#include "utils/timestamp.h"

#include "queue/catalog.h"
#include "queue/statement.h"

#define PLANNED_ROWS	1000000
#define ROWS_PER_PAGE	40
#define KEYS_PER_PAGE	300

static get_relation_info_hook_type next_relation_info = NULL;
static bool hooked = false;
static bool running = false;	/* a statement of ours */

static bool
is_state_table(Oid relid)
{
	const SettlementCatalog *catalog = settlement_catalog(true);

	return catalog != NULL &&
		(relid == catalog->queue || relid == catalog->deferred ||
		 relid == catalog->dlq || relid == catalog->unapplied ||
		 relid == catalog->claims);
}

static void
count_as_large(PlannerInfo *root, Oid relid, bool inhparent, RelOptInfo *rel)
{
	ListCell   *cell;

	if (next_relation_info != NULL)
		next_relation_info(root, relid, inhparent, rel);
	if (!running || !is_state_table(relid))
		return;
	rel->tuples = Max(rel->tuples, PLANNED_ROWS);
	rel->pages = Max(rel->pages, PLANNED_ROWS / ROWS_PER_PAGE);
	foreach(cell, rel->indexlist)
	{
		IndexOptInfo *index = lfirst(cell);

		index->tuples = rel->tuples;
		index->pages = Max(index->pages, PLANNED_ROWS / KEYS_PER_PAGE);
	}
}

static void
prepare(Statement *statement)
{
	SPIPlanPtr	plan;

	if (statement->plan != NULL)
		return;
	plan = SPI_prepare(statement->sql, statement->n_arguments, statement->types);
	if (plan == NULL)
		elog(ERROR, "could not prepare statement: %s",
			 SPI_result_code_string(SPI_result));
	if (SPI_keepplan(plan) != 0)
		elog(ERROR, "could not keep a prepared statement");
	statement->plan = plan;
}

void
statement_run(Statement *statement, const Datum *values)
{
	statement_run_nulls(statement, values, NULL);
}

void
statement_run_nulls(Statement *statement, const Datum *values, const char *nulls)
{
	/* volatile: restored after a longjmp */
	volatile bool seqscan = enable_seqscan;
	volatile bool bitmapscan = enable_bitmapscan;
	volatile bool hashjoin = enable_hashjoin;
	volatile bool mergejoin = enable_mergejoin;
	volatile int cache_mode = plan_cache_mode;
	volatile bool nested = running;
	volatile int code = 0;

	if (!hooked)
	{
		next_relation_info = get_relation_info_hook;
		get_relation_info_hook = count_as_large;
		hooked = true;
	}
	PG_TRY();
	{
		running = true;
		enable_seqscan = false;
		enable_bitmapscan = false;
		enable_hashjoin = false;
		enable_mergejoin = false;
		plan_cache_mode = PLAN_CACHE_MODE_FORCE_GENERIC_PLAN;
		prepare(statement);
		code = SPI_execute_plan(statement->plan, unconstify(Datum *, values),
								nulls, false, 0);
	}
	PG_FINALLY();
	{
		running = nested;
		enable_seqscan = seqscan;
		enable_bitmapscan = bitmapscan;
		enable_hashjoin = hashjoin;
		enable_mergejoin = mergejoin;
		plan_cache_mode = cache_mode;
	}
	PG_END_TRY();
	if (code < 0)
		elog(ERROR, "could not run statement: %s", SPI_result_code_string(code));
}

static Datum
make_array(Datum *values, bool *nulls, int n, Oid type, int16 len, bool byval,
		   char align)
{
	int			lower = 1;

	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower,
											  type, len, byval, align));
}

Datum
int8_array(const int64 *values, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(values[i]);
	return make_array(datums, NULL, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
}

Datum
int4_array(const int *values, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = Int32GetDatum(values[i]);
	return make_array(datums, NULL, n, INT4OID, 4, true, TYPALIGN_INT);
}

Datum
bool_array(const bool *values, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = BoolGetDatum(values[i]);
	return make_array(datums, NULL, n, BOOLOID, 1, true, TYPALIGN_CHAR);
}

Datum
text_array(const char *const *values, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		nulls[i] = values[i] == NULL;
		datums[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(values[i]);
	}
	return make_array(datums, nulls, n, TEXTOID, -1, false, TYPALIGN_INT);
}

Datum
time_array(const TimestampTz *values, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		nulls[i] = values[i] == 0;
		datums[i] = TimestampTzGetDatum(values[i]);
	}
	return make_array(datums, nulls, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE);
}

Datum
bytea_array(const uint8 *const *values, int len, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		nulls[i] = values[i] == NULL;
		datums[i] = (Datum) 0;
		if (!nulls[i])
			datums[i] = PointerGetDatum(cstring_to_text_with_len((const char *) values[i], len));
	}
	return make_array(datums, nulls, n, BYTEAOID, -1, false, TYPALIGN_INT);
}

Datum
result_value(int row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column,
						 isnull);
}

int64
result_int8(int row, int column)
{
	bool		isnull;
	Datum		value = result_value(row, column, &isnull);

	if (isnull)
		elog(ERROR, "unexpected null in column %d", column);
	return DatumGetInt64(value);
}
