/*
 * notify.c
 *	  SQL functions with which our scripts speak to the launcher and the workers.
 *	  Without shared memory they do nothing.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "pgver.h"
#include "worker/requests.h"

PG_FUNCTION_INFO_V1(settlement_notify_launcher);
PG_FUNCTION_INFO_V1(settlement_notify_workers);
PG_FUNCTION_INFO_V1(settlement_hold_workers);

/* At commit, the launcher looks at this database. */
Datum
settlement_notify_launcher(PG_FUNCTION_ARGS)
{
	request_probe(MyDatabaseId);
	PG_RETURN_VOID();
}

/* At commit, the workers of this database look again whether they may send. */
Datum
settlement_notify_workers(PG_FUNCTION_ARGS)
{
	request_identity_check();
	PG_RETURN_VOID();
}

/*
 * This database has no workers until the end of the transaction.  Returns false
 * when some could not be stopped in time.
 */
Datum
settlement_hold_workers(PG_FUNCTION_ARGS)
{
	request_identity_check();
	PG_RETURN_BOOL(request_hold(MyDatabaseId));
}
