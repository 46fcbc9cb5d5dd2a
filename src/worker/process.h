/*
 * process.h
 *	  Starting background workers from the launcher.
 */
#ifndef SETTLEMENT_WORKER_PROCESS_H
#define SETTLEMENT_WORKER_PROCESS_H

#include "postmaster/bgworker.h"

typedef struct ProcessKind
{
	const char *type;			/* as pg_stat_activity shows it */
	const char *function;		/* its entry point in this library */
	bool		warned;			/* that there is no process for it */
} ProcessKind;

/*
 * Register a background worker that is never restarted and whose start and end
 * wake this process.  NULL when max_worker_processes are in use: warned of once
 * until it works again, and counted for doctor().
 */
extern BackgroundWorkerHandle *process_start(ProcessKind *kind, Datum arg,
											 const void *extra, Size extra_len);

#endif
