/*
 * session.c
 *	  Transactions of a worker, and the settings of it and of a probe.
 *
 * Such a session gets what ALTER DATABASE and the configuration set.  What
 * would weaken it is overridden: a claim must be durable before a request
 * leaves, and the trade rows must be written by the ordinary rules.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "queue/durability.h"
#include "shared/settings.h"
#include "worker/worker.h"

static void
override(const char *name, const char *value, GucContext context)
{
	SetConfigOption(name, value, context, PGC_S_OVERRIDE);
}

void
session_start(void)
{
	override("role", "none", PGC_USERSET);
	override("default_transaction_isolation", "read committed", PGC_USERSET);
	override("default_transaction_read_only", "off", PGC_USERSET);
	override("default_transaction_deferrable", "off", PGC_USERSET);
	override("session_replication_role", "origin", PGC_SUSET);
	override("search_path", "pg_catalog, pg_temp", PGC_USERSET);
	override("row_security", "off", PGC_USERSET);
	override("statement_timeout", "0", PGC_USERSET);
	override("lock_timeout", "2s", PGC_USERSET);
	override("idle_in_transaction_session_timeout", "0", PGC_USERSET);
	/* in a deadlock with the engine it is the worker that gives way */
	override("deadlock_timeout", "10ms", PGC_SUSET);
	/* an error is survived */
	override("exit_on_error", "off", PGC_USERSET);
	/* of PostgreSQL 17; it ends the process */
	if (GetConfigOption("transaction_timeout", true, false) != NULL)
		override("transaction_timeout", "0", PGC_USERSET);
	override("check_function_bodies", "on", PGC_USERSET);
	/* our statements are short; compiling one would stop all requests for a second */
	override("jit", "off", PGC_USERSET);
	override("max_parallel_workers_per_gather", "0", PGC_USERSET);
}

void
session_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	durability_set();
	if (synchronous_commit < SYNCHRONOUS_COMMIT_LOCAL_FLUSH ||
		XactIsoLevel != XACT_READ_COMMITTED || XactReadOnly)
		elog(ERROR, "a settlement worker runs with settings that are not safe");
	PushActiveSnapshot(GetTransactionSnapshot());
}

void
session_commit(void)
{
	PopActiveSnapshot();
	/* a timeout that came too late must not cancel the wait for a standby */
	CHECK_FOR_INTERRUPTS();
	CommitTransactionCommand();
	/* nothing that may fail comes here: an error means that all was undone */
}
