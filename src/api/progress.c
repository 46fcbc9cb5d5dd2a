/*
 * progress.c
 *	  SQL functions by which long acts say how far they are, and the one that
 *	  lists them: settlement._progress_begin(), _progress(), _progress_end(),
 *	  _progress_list().
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "api/rows.h"
#include "shared/progress.h"

PG_FUNCTION_INFO_V1(settlement_progress_begin);
PG_FUNCTION_INFO_V1(settlement_progress_update);
PG_FUNCTION_INFO_V1(settlement_progress_end);
PG_FUNCTION_INFO_V1(settlement_progress_list);

static const char *
text_argument(FunctionCallInfo fcinfo, int n, const char *if_null)
{
	return PG_ARGISNULL(n) ? if_null : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

static int64
number_argument(FunctionCallInfo fcinfo, int n, int64 if_null)
{
	return PG_ARGISNULL(n) ? if_null : PG_GETARG_INT64(n);
}

/* act, target, total. */
Datum
settlement_progress_begin(PG_FUNCTION_ARGS)
{
	progress_begin(text_argument(fcinfo, 0, ""), text_argument(fcinfo, 1, ""),
				   number_argument(fcinfo, 2, -1));
	PG_RETURN_VOID();
}

/* phase, done, failed. */
Datum
settlement_progress_update(PG_FUNCTION_ARGS)
{
	progress_update(text_argument(fcinfo, 0, NULL), number_argument(fcinfo, 1, 0),
					number_argument(fcinfo, 2, 0));
	PG_RETURN_VOID();
}

Datum
settlement_progress_end(PG_FUNCTION_ARGS)
{
	progress_end();
	PG_RETURN_VOID();
}

/* pid, act, target, phase, started_at, done, total, failed. */
Datum
settlement_progress_list(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	ProgressEntry entries[MAX_PROGRESS];
	int			n = progress_list(entries);

	for (int i = 0; i < n; i++)
	{
		const ProgressEntry *e = &entries[i];
		Datum		value[] = {
			Int32GetDatum(e->pid), CStringGetTextDatum(e->act),
			CStringGetTextDatum(e->target), CStringGetTextDatum(e->phase),
			TimestampTzGetDatum(e->started_at), Int64GetDatum(e->done),
			Int64GetDatum(e->total), Int64GetDatum(e->failed)
		};
		bool		null[lengthof(value)] = {false};

		null[2] = e->target[0] == '\0';
		null[3] = e->phase[0] == '\0';
		null[6] = e->total < 0;
		rows_put(&sink, value, null);
	}
	return (Datum) 0;
}
