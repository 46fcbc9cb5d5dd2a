/*
 * probe.h
 *	  Looks whether a database has the extension, and what it wants.
 */
#ifndef SETTLEMENT_WORKER_PROBE_H
#define SETTLEMENT_WORKER_PROBE_H

#include "pgver.h"

#include "utils/timestamp.h"

/* Is the probe that was started last still under way?  Looks after it. */
extern bool probe_running(TimestampTz now);

/* Start one; false when there is no process for it.  One at a time. */
extern bool probe_start(Oid database, TimestampTz now);

extern PGDLLEXPORT void settlement_probe_main(Datum main_arg);

#endif
