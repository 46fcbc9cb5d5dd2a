/*
 * apply.h
 *	  Write outcomes to trade rows: as the leaf's owner in a security-restricted
 *	  context, below row level security, with triggers and constraints fired,
 *	  never waiting for a user's lock.
 */
#ifndef SETTLEMENT_QUEUE_APPLY_H
#define SETTLEMENT_QUEUE_APPLY_H

#include "storage/itemptr.h"
#include "utils/timestamp.h"

typedef enum ApplyResult
{
	APPLY_DONE = 0,
	APPLY_LOCKED,				/* row or relation is locked by somebody */
	APPLY_GONE,					/* no such row any more */
	APPLY_REFUSED,				/* a BEFORE trigger suppressed the update */
	APPLY_ERROR					/* user code raised: apply_batch_safely only */
} ApplyResult;

/* Columns that say what was paid: COLUMN_SYMBOL to COLUMN_SELLER_FEE. */
#define N_CONTENT			9

/* 64 MB, or some 30 ms where they are cached. */
#define SEARCH_PAGES		8192

/* One outcome to write.  Texts may be NULL where SQL's value is NULL. */
typedef struct ApplyRow
{
	int64		handled_id;		/* blamed for a crash (shared/handled.h); 0:
								 * whatever is in hand already */
	int			attached_id;
	Oid			leaf;
	ItemPointerData tid;		/* hint; invalid = none */
	const char *trade_id;		/* NULL only for invalid trades */
	int			n_keys;			/* 0: the key is the trade id alone */
	const char *const *row_key;	/* n_keys texts */
	const char *status;
	const char *settlement_id;	/* NULL: leave the column as it is */
	TimestampTz settled_at;		/* 0: leave */
	int			attempts;
	const char *error;			/* NULL: set to NULL */
	const char *const *content; /* N_CONTENT texts of what was sent, amounts in
								 * their shortest form; NULL: not compared */
	const char *trace_id;		/* of the trade row, for the log; NULL: none */
	ApplyResult result;			/* out */

	/*
	 * Out, with APPLY_DONE: what the row says against the outcome, for
	 * settlement.discrepancies; NULL: nothing.  Lives as long as the transaction.
	 */
	const char *contradiction;	/* kind */
	const char *details;		/* JSON */
	bool		kept;			/* the row went on saying SETTLED or REVERSED,
								 * against the outcome */

	/*
	 * Out, with APPLY_GONE: it was not looked for everywhere, because that would
	 * have meant to read too many pages.  key_unsearched: not even by its key.
	 */
	bool		unsearched;
	bool		key_unsearched;
} ApplyRow;

/* Where a row is and what it says, as far as a verb asks for it. */
typedef struct ApplyFound
{
	Oid			leaf;
	ItemPointerData tid;
	const char *status;			/* NULL where it is null */
} ApplyFound;

/*
 * Write all rows in the present transaction (and command), in key order per
 * leaf.  Rows that are locked, gone or refused are marked and skipped; an error
 * raised by user code propagates, so call it inside a subtransaction.  A row
 * that is not on its leaf any more is looked for through the attached root, by its
 * key, then by its trade id.  A background worker reads SEARCH_PAGES at most for
 * all rows together where no index helps; a session, whose user can cancel it,
 * reads what it takes.
 * A row that says SETTLED already keeps it unless status is REVERSED.
 * Deferred constraints of the trade table are checked here: the caller has
 * called apply_begin_transaction in this transaction.
 */
extern void apply_batch(ApplyRow *rows, int n);

/*
 * Find a trade row as apply_batch does, and only say where it is and what it says:
 * APPLY_DONE, APPLY_LOCKED or APPLY_GONE, also in row->result.  What found points to
 * is palloc'ed in the caller's context.
 */
extern ApplyResult apply_read(ApplyRow *row, ApplyFound *found);

/* Once per transaction, before apply_batch: SET CONSTRAINTS ALL IMMEDIATE. */
extern void apply_begin_transaction(void);

/*
 * apply_batch in a subtransaction, with settlement.apply_timeout for all of it.
 * True: written, except that a few rows whose user code raised may be marked
 * APPLY_ERROR.  False: nothing is written, all rows are.  *error is the first
 * message (palloc'ed in the caller's context), NULL when there was none.
 */
extern bool apply_batch_safely(ApplyRow *rows, int n, char **error);

#endif
