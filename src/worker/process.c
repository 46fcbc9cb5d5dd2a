/*
 * process.c
 *	  Starting background workers from the launcher.
 *
 * register_failures is under settlement_shared->lock.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "shared/shmem.h"
#include "worker/process.h"

#define LIBRARY				"settlement"
#define WARNING_INTERVAL_MS	600000

typedef struct ProcessType
{
	const char *name;			/* as pg_stat_activity shows it */
	const char *function;		/* its entry point in this library */
	int			failures;		/* in a row */
	TimestampTz warned_at;
} ProcessType;

static ProcessType types[N_PROCESS_KINDS] = {
	[PROCESS_PROBE] = {"settlement probe", "settlement_probe_main"},
	[PROCESS_WORKER] = {"settlement worker", "settlement_worker_main"},
};

static void
count_result(ProcessType *type, bool failed)
{
	int			failures = 0;

	type->failures = failed ? Min(type->failures + 1, 1000000) : 0;
	for (int i = 0; i < N_PROCESS_KINDS; i++)
		failures += types[i].failures;
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	settlement_shared->register_failures = failures;
	LWLockRelease(settlement_shared->lock);
}

static void
warn_of_limit(ProcessType *type)
{
	TimestampTz now = GetCurrentTimestamp();

	if (type->warned_at != 0 &&
		!TimestampDifferenceExceeds(type->warned_at, now, WARNING_INTERVAL_MS))
		return;
	type->warned_at = now;
	ereport(WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no background worker process is free for a %s", type->name),
			 errdetail("All of max_worker_processes (%d) are in use.",
					   max_worker_processes),
			 errhint("Increase max_worker_processes; settlement needs settlement.max_workers + 2 of them.")));
}

BackgroundWorkerHandle *
process_start(ProcessKind kind, Datum arg, const void *extra, Size extra_len)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;
	ProcessType *type = &types[kind];

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, type->function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, type->name, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, type->name, sizeof(worker.bgw_type));
	worker.bgw_main_arg = arg;
	Assert(extra_len <= BGW_EXTRALEN);
	if (extra_len > 0)
		memcpy(worker.bgw_extra, extra, extra_len);
	worker.bgw_notify_pid = MyProcPid;

	if (RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		count_result(type, false);
		return handle;
	}
	count_result(type, true);
	warn_of_limit(type);
	return NULL;
}

void
process_suffices(ProcessKind kind)
{
	if (types[kind].failures > 0)
		count_result(&types[kind], false);
}
