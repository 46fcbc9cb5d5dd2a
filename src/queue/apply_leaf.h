/*
 * apply_leaf.h
 *	  One trade table or partition, open for writing outcomes.  Private to the
 *	  apply_*.c files.
 */
#ifndef SETTLEMENT_QUEUE_APPLY_LEAF_H
#define SETTLEMENT_QUEUE_APPLY_LEAF_H

#include "access/genam.h"
#include "access/relscan.h"
#include "access/skey.h"
#include "executor/executor.h"

#include "queue/apply.h"
#include "queue/attachment.h"

/* How a row is looked for. */
typedef enum SearchBy
{
	SEARCH_HINT,				/* by tid, then by key */
	SEARCH_KEY,
	SEARCH_TRADE_ID				/* its key may have changed since */
} SearchBy;

typedef enum LeafAccess
{
	LEAF_OPEN,
	LEAF_BUSY,					/* locked by somebody; nothing was opened */
	LEAF_GONE					/* not a (part of the) trade table any more */
} LeafAccess;

/* A column that is compared when a row is looked for. */
typedef struct KeyColumn
{
	AttrNumber	attno;
	Oid			collation;
	Oid			ioparam;
	FmgrInfo	input;
	FmgrInfo	equal;
	bool		sought;			/* part of the present search */
	Datum		value;			/* ... with this value */
} KeyColumn;

/* A column that is written. */
typedef struct OutcomeColumn
{
	AttrNumber	attno;			/* 0 = absent */
	Oid			base;			/* type below domains */
	int32		typmod;
	Oid			domain;			/* InvalidOid = none */
	void	   *domain_state;
	Oid			ioparam;
	FmgrInfo	input;			/* fn_oid invalid: not needed yet */
} OutcomeColumn;

/* A scan that is opened once per leaf and restarted for each row. */
typedef struct Search
{
	bool		prepared;
	Relation	index;			/* NULL: no index helps, read the table */
	BlockNumber pages;			/* that are read for one row; 0: few */
	IndexScanDesc scan;
	int			n_keys;
	ScanKeyData key[MAX_KEY_COLUMNS];
	int			source[MAX_KEY_COLUMNS];	/* which KeyColumn */
} Search;

typedef struct ApplyLeaf
{
	Relation	rel;
	Attachment	att;			/* a copy: the cached one may go at any time */
	MemoryContext context;		/* lives as long as the leaf is open */
	MemoryContext row_context;	/* reset for each row */
	List	   *indexes;		/* OIDs, locked */
	Oid			saved_user;
	int			saved_security;
	int			guc_level;
	ErrorContextCallback error_context;
	const ApplyRow *row;		/* present one */

	/* looking for a row */
	BlockNumber n_blocks;		/* 0: tids are no hint in this table */
	BlockNumber *pages_left;	/* to be read where no index helps, by all leaves */
	int			n_key_columns;
	int			trade_id_column;	/* index into key_column; -1 = dropped */
	KeyColumn	key_column[MAX_KEY_COLUMNS + 1];
	Search		by_key;
	Search		by_trade_id;
	TupleTableSlot *old;		/* the row that was found */

	/* writing it; set up at the first row that is written */
	bool		writing;
	OutcomeColumn status;
	OutcomeColumn settlement_id;
	OutcomeColumn settled_at;
	OutcomeColumn attempts;
	OutcomeColumn error;
	EState	   *estate;
	ResultRelInfo *result_relation;
	EPQState	epq;
	TupleTableSlot *new;
} ApplyLeaf;

/*
 * Open a leaf, or say why not, without waiting for anybody.  pages_left is counted
 * down by searches and outlives the leaf.  Until leaf_close
 * the process acts as the leaf's owner in a security-restricted context, and a
 * fresh snapshot is active.  An error in between is undone by the abort of the
 * (sub)transaction.
 */
extern LeafAccess leaf_open(ApplyLeaf *leaf, Oid relid, int attached_id,
							BlockNumber *pages_left);

/*
 * Prepare for updates; AFTER triggers are collected from here on.
 * False when a parent that is needed for that is locked by somebody.
 */
extern bool leaf_begin_writing(ApplyLeaf *leaf);

/* Fire the AFTER triggers of the row just written, while it is known. */
extern void leaf_fire_triggers(ApplyLeaf *leaf);

/* Take a newer snapshot, in which also our own commands show. */
extern void leaf_refresh_snapshot(ApplyLeaf *leaf);

/* Undo leaf_open.  Locks stay if anything was written. */
extern void leaf_close(ApplyLeaf *leaf);

/* Convert to the column's type; errors of conversions and domains propagate. */
extern Datum outcome_text(ApplyLeaf *leaf, OutcomeColumn *column,
						  const char *value, bool truncate);
extern Datum outcome_time(ApplyLeaf *leaf, OutcomeColumn *column, TimestampTz value);
extern Datum outcome_count(ApplyLeaf *leaf, OutcomeColumn *column, int value);
extern void outcome_null(ApplyLeaf *leaf, OutcomeColumn *column);

/*
 * Look for row on the leaf; true with leaf->old filled.  Sets row->unsearched where
 * that would read more pages than are left.
 */
extern bool leaf_find(ApplyLeaf *leaf, ApplyRow *row, SearchBy how);
extern void leaf_end_searches(ApplyLeaf *leaf);

/*
 * Note in row what its trade row, in leaf->old, contradicts: content that was
 * changed since; or a final status that the outcome does not replace.
 */
extern void leaf_compare_content(ApplyLeaf *leaf, ApplyRow *row);
extern void leaf_keep_status(ApplyRow *row, const char *status,
							 const char *settlement_id);

/* Find row and write its outcome.  APPLY_GONE: it is not on this leaf. */
extern ApplyResult leaf_apply(ApplyLeaf *leaf, ApplyRow *row, SearchBy how);

/* Find row, and fill found in the caller's memory context. */
extern ApplyResult leaf_read(ApplyLeaf *leaf, ApplyRow *row, SearchBy how,
							 ApplyFound *found);

#endif
