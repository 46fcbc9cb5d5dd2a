/*
 * permit.c
 *	  Proof that a caller may act on what may have been paid (sql/verbs.sql).
 *
 * A verb runs as its owner and cannot ask who called it.  Its last argument can:
 * the default of an argument is evaluated with the caller's rights, and calls
 * settlement_issue_permit where EXECUTE allows it.  The number says nothing, is
 * known to this backend only, and holds for one verb: what a session leaves
 * behind is of no use to code of others that runs in it.
 */
#include "postgres.h"

#include "fmgr.h"

#include "pgver.h"

PG_FUNCTION_INFO_V1(settlement_issue_permit);
PG_FUNCTION_INFO_V1(settlement_redeem_permit);

static int64 issued = 0;		/* 0: none */

Datum
settlement_issue_permit(PG_FUNCTION_ARGS)
{
	do
	{
		if (!pg_strong_random(&issued, sizeof(issued)))
		{
			issued = 0;
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random number for a permit")));
		}
	} while (issued == 0);
	PG_RETURN_INT64(issued);
}

Datum
settlement_redeem_permit(PG_FUNCTION_ARGS)
{
	bool		holds = issued != 0 && !PG_ARGISNULL(0) &&
		PG_GETARG_INT64(0) == issued;

	issued = 0;
	PG_RETURN_BOOL(holds);
}
