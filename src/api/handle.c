/*
 * handle.c
 *	  settlement._handle(): what the SQL of redrives and policies is at, so that a
 *	  crash of the server in the midst of it is charged to that.
 */
#include "postgres.h"

#include "fmgr.h"

#include "pgver.h"
#include "shared/handled.h"

PG_FUNCTION_INFO_V1(settlement_handle);

/* The id of a redrive; 0: the policies.  Without effect in a session. */
Datum
settlement_handle(PG_FUNCTION_ARGS)
{
	handled_begin(HANDLED_REDRIVES + PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}
