/*
 * apply_column.c
 *	  Outcomes in the types of the user's columns.
 *
 * The usual types are converted directly; anything else goes through the type's
 * input function.  What does not fit raises, and the outcome then waits in
 * settlement.unapplied; only the error text is cut to the column's length.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "queue/apply_leaf.h"

static Datum
checked(ApplyLeaf *leaf, OutcomeColumn *column, Datum value, bool isnull)
{
	if (OidIsValid(column->domain))
		domain_check(value, isnull, column->domain, &column->domain_state,
					 leaf->context);
	return value;
}

static Datum
input_text(ApplyLeaf *leaf, OutcomeColumn *column, const char *value)
{
	if (!OidIsValid(column->input.fn_oid))
	{
		Oid			input;

		getTypeInputInfo(column->base, &input, &column->ioparam);
		fmgr_info_cxt(input, &column->input, leaf->context);
	}
	return InputFunctionCall(&column->input, unconstify(char *, value),
							 column->ioparam, column->typmod);
}

/* How many bytes of value fit into the column. */
static int
fitting_length(const OutcomeColumn *column, const char *value)
{
	int			length = strlen(value);

	if ((column->base == VARCHAROID || column->base == BPCHAROID) &&
		column->typmod >= (int32) VARHDRSZ)
		return pg_mbcharcliplen(value, length, column->typmod - VARHDRSZ);
	return length;
}

Datum
outcome_text(ApplyLeaf *leaf, OutcomeColumn *column, const char *value,
			 bool truncate)
{
	Datum		result;

	if (truncate)
		value = pnstrdup(value, fitting_length(column, value));
	if (column->base == TEXTOID ||
		(column->base == VARCHAROID && column->typmod < 0))
		result = CStringGetTextDatum(value);
	else
		result = input_text(leaf, column, value);
	return checked(leaf, column, result, false);
}

Datum
outcome_time(ApplyLeaf *leaf, OutcomeColumn *column, TimestampTz value)
{
	Datum		result = TimestampTzGetDatum(value);
	Datum		typmod = Int32GetDatum(column->typmod);

	switch (column->base)
	{
		case TIMESTAMPTZOID:
			if (column->typmod >= 0)
				result = DirectFunctionCall2(timestamptz_scale, result, typmod);
			break;
		case TIMESTAMPOID:
			result = DirectFunctionCall1(timestamptz_timestamp, result);
			if (column->typmod >= 0)
				result = DirectFunctionCall2(timestamp_scale, result, typmod);
			break;
		case DATEOID:
			result = DirectFunctionCall1(timestamptz_date, result);
			break;
		default:
			result = input_text(leaf, column, timestamptz_to_str(value));
			break;
	}
	return checked(leaf, column, result, false);
}

Datum
outcome_count(ApplyLeaf *leaf, OutcomeColumn *column, int value)
{
	Datum		result;

	switch (column->base)
	{
		case INT2OID:
			result = DirectFunctionCall1(i4toi2, Int32GetDatum(value));
			break;
		case INT4OID:
			result = Int32GetDatum(value);
			break;
		case INT8OID:
			result = Int64GetDatum(value);
			break;
		default:
			result = input_text(leaf, column, psprintf("%d", value));
			break;
	}
	return checked(leaf, column, result, false);
}

void
outcome_null(ApplyLeaf *leaf, OutcomeColumn *column)
{
	(void) checked(leaf, column, (Datum) 0, true);
}
