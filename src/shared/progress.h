/*
 * progress.h
 *	  What a long act of this session has done so far, for others to see while
 *	  its transaction is open (settlement.progress), as pg_stat_progress_* does.
 *
 * One act per session at a time: a second beginning takes the place of the
 * first.  An act ends by itself when its transaction is rolled back, and with the
 * session; a commit does not end it, since a procedure may commit on its way.
 * When the table is full, or without preload, nothing is shown and nothing fails.
 */
#ifndef SETTLEMENT_SHARED_PROGRESS_H
#define SETTLEMENT_SHARED_PROGRESS_H

#include "shared/shmem.h"

/* total -1: not known.  Texts are cut to their place.  Takes the shared lock. */
extern void progress_begin(const char *act, const char *target, int64 total);

/* phase NULL: as before.  Nothing when no act is under way. */
extern void progress_update(const char *phase, int64 done, int64 failed);

/* So many more are done; shown now and then.  For loops over rows. */
extern void progress_advance(int64 n);

extern void progress_end(void);

/* Copy the acts of this database; returns how many. */
extern int	progress_list(ProgressEntry entries[MAX_PROGRESS]);

#endif
