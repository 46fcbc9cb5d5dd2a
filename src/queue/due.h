/*
 * due.h
 *	  Deferred trades whose time has come.
 */
#ifndef SETTLEMENT_QUEUE_DUE_H
#define SETTLEMENT_QUEUE_DUE_H

#include "shared/shmem.h"

typedef struct Due
{
	int			n_queued;		/* moved back to the queue */
	int			n_dead;			/* out of attempts */
	int			n_held;			/* paused, or cannot be looked up */
} Due;

/*
 * Move due trades on, in the present transaction: to the queue, to the DLQ when
 * their attempts are used up, or to wait on; up to `max` of those that waited for
 * their time, and as many of those whose pause is over.  This is where an
 * attempt is charged: if the wallet has answered another key since it was sent.
 */
extern void due_move(DbState *db, int max, Due *due);

extern void due_committed(DbState *db, const Due *due);

/*
 * When the next deferred row falls due, as a TimestampTz; PG_INT64_MAX: never.
 * In a transaction; stores it in db->next_due.
 */
extern void due_look(DbState *db);

#endif
