/*
 * due.h
 *	  Deferred trades whose time has come.
 */
#ifndef SETTLEMENT_QUEUE_DUE_H
#define SETTLEMENT_QUEUE_DUE_H

#include "policy/tracecontext.h"
#include "queue/apply.h"
#include "shared/shmem.h"

/* A trade whose attempts are used up.  Texts may be NULL. */
typedef struct Death
{
	ApplyRow	row;			/* what is to be written to its row */
	char		trace[TRACE_ID_LEN + 1];
	const char *symbol;
	const char *buyer_id;
	const char *seller_id;
	const char *quantity;
	const char *quote_amount;
	const char *class;
	const char *code;
	int			http_status;	/* 0: none */
	const char *message;
} Death;

typedef struct Due
{
	int			n_queued;		/* moved back to the queue */
	int			n_dead;			/* out of attempts */
	Death	   *deaths;			/* n_dead of them, in the context that due_move was
								 * called in; must live until the commit is
								 * reported */
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
