/*
 * apply_outcome.c
 *	  settlement.apply_outcome(): what the operators' verbs write trade rows with.
 *
 * Runs as the table's owner whoever calls it, so EXECUTE is for settlement's own
 * functions and for administrators only (sql/grants.sql).  Makes all
 * constraints of the calling transaction immediate.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "queue/apply.h"
#include "queue/attachment.h"

PG_FUNCTION_INFO_V1(settlement_apply_outcome);

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
result_name(ApplyResult result)
{
	switch (result)
	{
		case APPLY_DONE:
			return "done";
		case APPLY_LOCKED:
			return "locked";
		case APPLY_GONE:
			return "gone";
		case APPLY_REFUSED:
			return "refused";
		case APPLY_ERROR:
			break;
	}
	elog(ERROR, "unexpected result %d of writing an outcome", (int) result);
	return NULL;
}

PGDLLEXPORT Datum
settlement_apply_outcome(PG_FUNCTION_ARGS)
{
	ApplyRow	row = {0};

	require_argument(fcinfo, ARG_ATTACHED_ID, "attached_id");
	require_argument(fcinfo, ARG_LEAF, "leaf");
	require_argument(fcinfo, ARG_STATUS, "status");
	require_argument(fcinfo, ARG_ATTEMPTS, "attempts");

	row.attached_id = PG_GETARG_INT32(ARG_ATTACHED_ID);
	row.leaf = PG_GETARG_OID(ARG_LEAF);
	ItemPointerSetInvalid(&row.tid);
	if (!PG_ARGISNULL(ARG_TID))
		ItemPointerCopy((ItemPointer) PG_GETARG_POINTER(ARG_TID), &row.tid);
	row.trade_id = text_argument(fcinfo, ARG_TRADE_ID);
	if (!PG_ARGISNULL(ARG_ROW_KEY))
		set_key(&row, PG_GETARG_ARRAYTYPE_P(ARG_ROW_KEY));
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
	PG_RETURN_TEXT_P(cstring_to_text(row.kept ? "kept" : result_name(row.result)));
}
