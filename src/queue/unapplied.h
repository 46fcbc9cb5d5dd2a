/*
 * unapplied.h
 *	  Outcomes that are recorded but could not be written to the trade row yet:
 *	  each is tried again alone, in a transaction of its own, until it is written
 *	  or its row turns out to be gone.
 */
#ifndef SETTLEMENT_QUEUE_UNAPPLIED_H
#define SETTLEMENT_QUEUE_UNAPPLIED_H

#include "queue/apply.h"
#include "shared/shmem.h"

/*
 * Insert all n rows, whatever their result, in the present transaction; the
 * result decides when each is due (APPLY_ERROR, APPLY_DONE: at once).  failure
 * may be NULL.  Returns n.
 */
extern int	unapplied_record(const ApplyRow *rows, int n, const char *failure);

/*
 * Try up to max due rows, and no further one after max_ms.  Call it outside a
 * transaction; it commits its own.
 * A row that fails, in whatever way, is put off and does not stop the others.
 * Several workers may run it at once.  Sets db->next_apply.  Returns how many
 * rows left the table; statistics are left to the caller (pgstat_report_stat).
 */
extern int	unapplied_run(DbState *db, int max, int max_ms);

#endif
