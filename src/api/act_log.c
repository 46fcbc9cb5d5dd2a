/*
 * act_log.c
 *	  A line in the server log for each act of an operator.
 *
 * Written when the act is done: a rollback takes back the act and its row in
 * settlement.audit_log, and leaves the line.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "pgver.h"
#include "shared/logline.h"

PG_FUNCTION_INFO_V1(settlement_log_act);

enum
{
	ARG_ACT = 0,
	ARG_TRADE_ID,
	ARG_DETAILS,
	ARG_COUNT,
	ARG_REASON
};

static void
text_field(StringInfo fields, const char *name, FunctionCallInfo fcinfo, int n)
{
	if (!PG_ARGISNULL(n))
		log_field(fields, name, text_to_cstring(PG_GETARG_TEXT_PP(n)));
}

Datum
settlement_log_act(PG_FUNCTION_ARGS)
{
	StringInfoData fields;

	if (PG_ARGISNULL(ARG_ACT))
		PG_RETURN_VOID();
	initStringInfo(&fields);
	text_field(&fields, "act", fcinfo, ARG_ACT);
	log_field(&fields, "role", GetUserNameFromId(GetSessionUserId(), true));
	text_field(&fields, "trade_id", fcinfo, ARG_TRADE_ID);
	if (!PG_ARGISNULL(ARG_COUNT))
		log_field_int(&fields, "count", PG_GETARG_INT64(ARG_COUNT));
	text_field(&fields, "reason", fcinfo, ARG_REASON);
	text_field(&fields, "details", fcinfo, ARG_DETAILS);
	ereport(LOG,
			(errcode(LOG_ACT),
			 errmsg("settlement act: %s", log_text(text_to_cstring(PG_GETARG_TEXT_PP(ARG_ACT)))),
			 errdetail_internal("%s", fields.data),
			 errhidestmt(true), errhidecontext(true)));
	PG_RETURN_VOID();
}
