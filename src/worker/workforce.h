/*
 * workforce.h
 *	  Keeps as many workers running in each database as it wants.
 */
#ifndef SETTLEMENT_WORKER_WORKFORCE_H
#define SETTLEMENT_WORKER_WORKFORCE_H

#include "utils/timestamp.h"

#include "shared/shmem.h"

/*
 * One pass of the launcher: look after workers that never came up, stop those
 * that are too many or out of date, start those that are missing.
 * allowed[i]: databases[i] may have workers at all.  Returns the ms after which
 * it wants to be called again; sooner when something changes.
 */
extern long workforce_adjust(const bool allowed[MAX_DATABASES], TimestampTz now);

#endif
