/*
 * process.h
 *	  Starting background workers from the launcher.
 */
#ifndef SETTLEMENT_WORKER_PROCESS_H
#define SETTLEMENT_WORKER_PROCESS_H

#include "postmaster/bgworker.h"

typedef enum ProcessKind
{
	PROCESS_PROBE = 0,
	PROCESS_WORKER,
	N_PROCESS_KINDS
} ProcessKind;

/*
 * Register a background worker that is never restarted and whose start and end
 * wake this process.  NULL when max_worker_processes are in use: counted for
 * doctor(), and warned of now and then.
 */
extern BackgroundWorkerHandle *process_start(ProcessKind kind, Datum arg,
											 const void *extra, Size extra_len);

/* No process of this kind is missing any more. */
extern void process_suffices(ProcessKind kind);

#endif
