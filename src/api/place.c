/*
 * place.c
 *	  SQL functions that tell which database this is (queue/identity.c), and what
 *	  time it is there.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "queue/identity.h"
#include "queue/place.h"
#include "shared/clock.h"

PG_FUNCTION_INFO_V1(settlement_current_place);
PG_FUNCTION_INFO_V1(settlement_current_directory);
PG_FUNCTION_INFO_V1(settlement_current_timeline);
PG_FUNCTION_INFO_V1(settlement_identity_problem);
PG_FUNCTION_INFO_V1(settlement_identity_hint);
PG_FUNCTION_INFO_V1(settlement_next_epoch);
PG_FUNCTION_INFO_V1(settlement_writer);
PG_FUNCTION_INFO_V1(settlement_clock_latest);

static Place
current_place(void)
{
	const char *problem = NULL;
	Place		place;

	if (!place_read(&place, &problem))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot tell where this database is: %s", problem)));
	return place;
}

Datum
settlement_current_place(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(current_place().who));
}

Datum
settlement_current_directory(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(current_place().directory));
}

Datum
settlement_current_timeline(PG_FUNCTION_ARGS)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("recovery is in progress")));
	PG_RETURN_INT32((int32) identity_timeline());
}

static Datum
problem_or_hint(FunctionCallInfo fcinfo, bool want_hint)
{
	const char *hint;
	const char *problem;

	if (RecoveryInProgress())
		PG_RETURN_NULL();
	problem = identity_problem(&hint);
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(want_hint ? hint : problem));
}

Datum
settlement_identity_problem(PG_FUNCTION_ARGS)
{
	return problem_or_hint(fcinfo, false);
}

Datum
settlement_identity_hint(PG_FUNCTION_ARGS)
{
	return problem_or_hint(fcinfo, true);
}

Datum
settlement_next_epoch(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(identity_next_epoch(PG_GETARG_INT64(0)));
}

/* The xmin that a row written by this (sub)transaction has. */
Datum
settlement_writer(PG_FUNCTION_ARGS)
{
	PG_RETURN_DATUM(TransactionIdGetDatum(GetCurrentTransactionId()));
}

Datum
settlement_clock_latest(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(clock_latest());
}
