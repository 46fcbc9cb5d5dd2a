/*
 * launcher.h
 *	  The process that finds the databases that have the extension and keeps
 *	  their workers running.  One per cluster.
 */
#ifndef SETTLEMENT_WORKER_LAUNCHER_H
#define SETTLEMENT_WORKER_LAUNCHER_H

#include "pgver.h"

/* Register it with the postmaster; from _PG_init under preload only. */
extern void launcher_register(void);

extern PGDLLEXPORT void settlement_launcher_main(Datum main_arg);

#endif
