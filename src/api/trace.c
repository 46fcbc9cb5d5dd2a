/*
 * trace.c
 *	  The trace id of a trade, for views.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "pgver.h"
#include "queue/key.h"

PG_FUNCTION_INFO_V1(settlement_trace_id);

Datum
settlement_trace_id(PG_FUNCTION_ARGS)
{
	char		trace[TRACE_ID_LEN + 1];

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	key_trace(PG_GETARG_INT32(0), text_to_cstring(PG_GETARG_TEXT_PP(1)),
			  PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2)), trace);
	if (trace[0] == '\0')
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(trace));
}
