/*
 * place.c
 *	  SQL functions that tell which database this is (queue/identity.c), and what
 *	  time it is there.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "queue/identity.h"
#include "shared/clock.h"

PG_FUNCTION_INFO_V1(settlement_current_place);
PG_FUNCTION_INFO_V1(settlement_current_timeline);
PG_FUNCTION_INFO_V1(settlement_identity_problem);
PG_FUNCTION_INFO_V1(settlement_clock_latest);

Datum
settlement_current_place(PG_FUNCTION_ARGS)
{
	const char *problem = NULL;
	char	   *place = identity_place(&problem);

	if (place == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot tell where this database is: %s", problem)));
	PG_RETURN_TEXT_P(cstring_to_text(place));
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

Datum
settlement_identity_problem(PG_FUNCTION_ARGS)
{
	const char *problem;

	if (RecoveryInProgress())
		PG_RETURN_NULL();
	problem = identity_problem();
	if (problem == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(problem));
}

Datum
settlement_clock_latest(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(clock_latest());
}
