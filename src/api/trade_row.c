/*
 * trade_row.c
 *	  What the operators' verbs write trade rows with, settlement.apply_outcome(),
 *	  and read them with, settlement._read_row().
 *
 * Both act as the table's owner whoever calls them, so EXECUTE is for settlement's
 * own functions and for administrators only (sql/grants.sql).  A SELECT would not
 * do: planning it runs functions of the table's owner (of constraints, statistics,
 * predicates of indexes) as whoever plans it, our owner.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "queue/apply.h"
#include "queue/attachment.h"

PG_FUNCTION_INFO_V1(settlement_apply_outcome);
PG_FUNCTION_INFO_V1(settlement_read_row);

enum
{
	ARG_ATTACHED_ID = 0,
	ARG_LEAF,
	ARG_TID,
	ARG_TRADE_ID,
	ARG_ROW_KEY,
	ARG_STATUS,
	ARG_SETTLEMENT_ID,
	ARG_SETTLED_AT,
	ARG_ATTEMPTS,
	ARG_ERROR
};

static const char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static void
require_argument(FunctionCallInfo fcinfo, int n, const char *name)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
}

static void
check_status(const char *status)
{
	static const char *const known[] = {"PENDING", "SETTLED", "FAILED", "UNKNOWN", "REVERSED"};

	for (int i = 0; i < lengthof(known); i++)
		if (strcmp(status, known[i]) == 0)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not a settlement status", status),
			 errhint("It is one of PENDING, SETTLED, FAILED, UNKNOWN and REVERSED.")));
}

static void
set_key(ApplyRow *row, ArrayType *array)
{
	Datum	   *values;
	bool	   *nulls;
	int			n;
	const char **key;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (n > MAX_KEY_COLUMNS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("row_key has %d elements, more than %d", n, MAX_KEY_COLUMNS)));
	key = palloc(Max(n, 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
		key[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);
	row->n_keys = n;
	row->row_key = key;
}

static const char *
result_name(const ApplyRow *row)
{
	switch (row->result)
	{
		case APPLY_DONE:
			return "done";
		case APPLY_LOCKED:
			return "locked";
		case APPLY_GONE:
			return row->unsearched ? "unsearched" : "gone";
		case APPLY_REFUSED:
			return "refused";
		case APPLY_ERROR:
			break;
	}
	elog(ERROR, "unexpected result %d of writing an outcome", (int) row->result);
	return NULL;
}

/* Which row: the first arguments of both functions. */
static void
set_place(FunctionCallInfo fcinfo, ApplyRow *row)
{
	require_argument(fcinfo, ARG_ATTACHED_ID, "attached_id");
	require_argument(fcinfo, ARG_LEAF, "leaf");
	row->attached_id = PG_GETARG_INT32(ARG_ATTACHED_ID);
	row->leaf = PG_GETARG_OID(ARG_LEAF);
	ItemPointerSetInvalid(&row->tid);
	if (!PG_ARGISNULL(ARG_TID))
		ItemPointerCopy((ItemPointer) PG_GETARG_POINTER(ARG_TID), &row->tid);
	row->trade_id = text_argument(fcinfo, ARG_TRADE_ID);
	if (!PG_ARGISNULL(ARG_ROW_KEY))
		set_key(row, PG_GETARG_ARRAYTYPE_P(ARG_ROW_KEY));
}

/* Makes all constraints of the calling transaction immediate. */
PGDLLEXPORT Datum
settlement_apply_outcome(PG_FUNCTION_ARGS)
{
	ApplyRow	row = {0};

	set_place(fcinfo, &row);
	require_argument(fcinfo, ARG_STATUS, "status");
	require_argument(fcinfo, ARG_ATTEMPTS, "attempts");
	row.status = text_argument(fcinfo, ARG_STATUS);
	check_status(row.status);
	row.settlement_id = text_argument(fcinfo, ARG_SETTLEMENT_ID);
	if (!PG_ARGISNULL(ARG_SETTLED_AT))
		row.settled_at = PG_GETARG_TIMESTAMPTZ(ARG_SETTLED_AT);
	row.attempts = PG_GETARG_INT32(ARG_ATTEMPTS);
	row.error = text_argument(fcinfo, ARG_ERROR);

	PreventCommandIfReadOnly("settlement.apply_outcome()");
	apply_begin_transaction();
	apply_batch(&row, 1);
	PG_RETURN_TEXT_P(cstring_to_text(row.kept ? "kept" : result_name(&row)));
}

/* (result text, leaf regclass, place tid, status text); the last three NULL unless found. */
PGDLLEXPORT Datum
settlement_read_row(PG_FUNCTION_ARGS)
{
	ApplyRow	row = {0};
	ApplyFound	found = {0};
	TupleDesc	desc;
	Datum		values[4] = {0};
	bool		nulls[4] = {false, true, true, true};

	set_place(fcinfo, &row);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (apply_read(&row, &found) == APPLY_DONE)
	{
		values[0] = CStringGetTextDatum("found");
		values[1] = ObjectIdGetDatum(found.leaf);
		values[2] = PointerGetDatum(&found.tid);
		nulls[1] = nulls[2] = false;
		nulls[3] = found.status == NULL;
		if (!nulls[3])
			values[3] = CStringGetTextDatum(found.status);
	}
	else
		values[0] = CStringGetTextDatum(result_name(&row));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(desc, values, nulls)));
}
