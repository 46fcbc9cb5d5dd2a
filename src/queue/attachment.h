/*
 * attachment.h
 *	  Which columns of an attached table (or of one of its partitions) mean
 *	  what.  Cached per backend and relation; a relcache invalidation of the
 *	  relation, of its root, or of settlement.attached drops the entry.
 */
#ifndef SETTLEMENT_QUEUE_ATTACHMENT_H
#define SETTLEMENT_QUEUE_ATTACHMENT_H

#include "access/attnum.h"
#include "utils/rel.h"

typedef enum TradeColumn
{
	COLUMN_TRADE_ID = 0,
	COLUMN_SYMBOL,
	COLUMN_BUYER_ID,
	COLUMN_SELLER_ID,
	COLUMN_BUYER_ORDER_ID,
	COLUMN_SELLER_ORDER_ID,
	COLUMN_PRICE,
	COLUMN_QUANTITY,
	COLUMN_BUYER_FEE,			/* may be absent: 0 */
	COLUMN_SELLER_FEE,			/* may be absent: 0 */
	COLUMN_TRACE_ID,			/* may be absent */
	COLUMN_STATUS,				/* settlement_status */
	COLUMN_SETTLEMENT_ID,
	COLUMN_SETTLED_AT,
	COLUMN_ATTEMPTS,			/* settlement_attempts */
	COLUMN_ERROR,				/* settlement_error */
	N_TRADE_COLUMNS
} TradeColumn;

#define MAX_KEY_COLUMNS		8

typedef struct Attachment
{
	Oid			relid;			/* the leaf */
	Oid			root;			/* the attached table */
	int			attached_id;
	char	   *source;
	bool		mapped[N_TRADE_COLUMNS];	/* attach() found a column for it */
	AttrNumber	attno[N_TRADE_COLUMNS]; /* in the leaf; 0 = absent, or dropped
										 * or renamed since attach() */
	Oid			type[N_TRADE_COLUMNS];	/* base type */
	int			n_keys;
	AttrNumber	key_attno[MAX_KEY_COLUMNS]; /* in the leaf */
	Oid			key_type[MAX_KEY_COLUMNS];	/* base types */
	bool		key_is_trade_id;	/* the key is the trade id alone */
	Oid			key_index;		/* the leaf's primary key index */
	int			key_index_column[MAX_KEY_COLUMNS];	/* index column (0-based)
													 * of each key column */
} Attachment;

/*
 * The attachment of a leaf (or plain) relation, or NULL when neither it nor an
 * ancestor is attached.  Valid until the next relcache invalidation: use at
 * once.  Never waits for a lock on user tables beyond what the caller holds on
 * `rel`; reads settlement.attached below its privileges.
 */
extern const Attachment *attachment_of(Relation rel);

/*
 * The same for a table that was a partition of an attached one when its trades
 * were enqueued, and is not any more.  palloc'ed; NULL when there is no such id,
 * or the table does not look like one of its partitions.
 */
extern const Attachment *attachment_of_former(Relation rel, int attached_id);

/* Name of a role as it stands in attached.columns, e.g. "trade_id". */
extern const char *trade_column_name(TradeColumn column);

/* Text of source for an attached_id, palloc'ed; NULL when not attached. */
extern char *attachment_source(int attached_id, Oid *root);

#endif
