/*
 * session.c
 *	  Transactions of a worker.
 *
 * A worker's session gets what ALTER DATABASE and the configuration set.  What
 * would weaken it is overridden: a claim must be durable before a request
 * leaves, and the trade rows must be written by the ordinary rules.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "replication/syncrep.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "worker/worker.h"

static void
override(const char *name, const char *value, GucContext context)
{
	SetConfigOption(name, value, context, PGC_S_OVERRIDE);
}

void
session_start(void)
{
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
	override("check_function_bodies", "on", PGC_USERSET);
	/* where no index helps, disabled plans cost enough to be compiled each time */
	override("jit", "off", PGC_USERSET);
}

void
session_begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	/* never below on; remote_apply stays */
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		(void) set_config_option("synchronous_commit", "on", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_FLUSH ||
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
	pgstat_report_stat(false);
}
