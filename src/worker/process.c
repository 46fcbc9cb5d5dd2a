/*
 * process.c
 *	  Starting background workers from the launcher.
 *
 * register_failures is under settlement_shared->lock.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "shared/shmem.h"
#include "worker/process.h"

#define LIBRARY		"settlement"

static void
count_failure(bool failed)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (!failed)
		settlement_shared->register_failures = 0;
	else if (settlement_shared->register_failures < PG_INT32_MAX)
		settlement_shared->register_failures++;
	LWLockRelease(settlement_shared->lock);
}

BackgroundWorkerHandle *
process_start(ProcessKind *kind, Datum arg, const void *extra, Size extra_len)
{
	BackgroundWorker worker = {0};
	BackgroundWorkerHandle *handle;

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, LIBRARY, sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, kind->function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, kind->type, sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, kind->type, sizeof(worker.bgw_type));
	worker.bgw_main_arg = arg;
	Assert(extra_len <= BGW_EXTRALEN);
	if (extra_len > 0)
		memcpy(worker.bgw_extra, extra, extra_len);
	worker.bgw_notify_pid = MyProcPid;

	if (RegisterDynamicBackgroundWorker(&worker, &handle))
	{
		count_failure(false);
		kind->warned = false;
		return handle;
	}

	count_failure(true);
	if (!kind->warned)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no background worker process is free for a %s", kind->type),
				 errdetail("All of max_worker_processes (%d) are in use.",
						   max_worker_processes),
				 errhint("Increase max_worker_processes; settlement needs settlement.max_workers + 2 of them.")));
	kind->warned = true;
	return NULL;
}
