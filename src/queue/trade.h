/*
 * trade.h
 *	  A trade as it stands in a row: read, converted and validated.
 */
#ifndef SETTLEMENT_QUEUE_TRADE_H
#define SETTLEMENT_QUEUE_TRADE_H

#include "executor/tuptable.h"

#include "queue/attachment.h"

#define MAX_ID_BYTES		255 /* ids, symbol, trace id */
#define MAX_KEY_BYTES		8192	/* one column of a row key */
#define MAX_WHOLE_DIGITS	60	/* of an amount, before the decimal point */
#define MAX_FRACTION_DIGITS 40	/* ... and after it */

/* Columns that are copied: texts and numerics. */
#define N_COPIED_COLUMNS	(COLUMN_TRACE_ID + 1)

typedef struct Trade
{
	int			attached_id;
	Oid			leaf;
	ItemPointerData tid;
	bool		present[N_COPIED_COLUMNS];
	Datum		value[N_COPIED_COLUMNS];	/* text or numeric; 0 if not present */
	bool		has_quote;
	Datum		quote;			/* price x quantity, exact */
	Datum		row_key;		/* text[]; 0: the key is the trade id alone */
	char	   *problem;		/* why it cannot be settled; NULL = valid */
} Trade;

/* Does the row's status column say PENDING? */
extern bool trade_is_pending(const Attachment *a, TupleTableSlot *slot);

/*
 * Read a trade.  Never raises an error for what the row holds: the first thing
 * that is wrong is described in `problem`, and fields that cannot be used are
 * not present.
 */
extern void trade_read(const Attachment *a, TupleTableSlot *slot, Trade *trade);

#endif
