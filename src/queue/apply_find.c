/*
 * apply_find.c
 *	  Find a trade row on a leaf: where it was at enqueue, by the primary key,
 *	  or by the trade id alone.
 *
 * A row counts as found only if its key columns and its trade id are equal to
 * those of the outcome, by the equality of the columns' types.  Nothing is
 * locked here.  The active snapshot decides what is visible.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "pgver.h"
#include "queue/apply_leaf.h"

static void
seek(KeyColumn *column, const char *text)
{
	column->value = InputFunctionCall(&column->input, unconstify(char *, text),
									  column->ioparam, -1);
	column->sought = true;
}

/* Does the row's key have the shape of the table's present key? */
static bool
has_key(const ApplyLeaf *leaf, const ApplyRow *row)
{
	if (row->n_keys == 0)
		return leaf->att.key_is_trade_id && row->trade_id != NULL;
	for (int i = 0; i < row->n_keys; i++)
		if (row->row_key[i] == NULL)
			return false;
	return row->n_keys == leaf->att.n_keys;
}

/*
 * Set what is sought for row.  False when it names nothing to look for; *how
 * becomes SEARCH_TRADE_ID when its key is not of the table's present shape.
 */
static bool
seek_row(ApplyLeaf *leaf, const ApplyRow *row, SearchBy *how)
{
	int			trade_id = leaf->trade_id_column;

	if (!has_key(leaf, row))
		*how = SEARCH_TRADE_ID;
	if (*how == SEARCH_TRADE_ID && (row->trade_id == NULL || trade_id < 0))
		return false;

	for (int i = 0; i < leaf->n_key_columns; i++)
		leaf->key_column[i].sought = false;
	if (*how != SEARCH_TRADE_ID)
		for (int i = 0; i < row->n_keys; i++)
			seek(&leaf->key_column[i], row->row_key[i]);
	if (row->trade_id != NULL && trade_id >= 0 && !leaf->key_column[trade_id].sought)
		seek(&leaf->key_column[trade_id], row->trade_id);
	return true;
}

/* Is the row in leaf->old the one that is sought? */
static bool
is_sought(ApplyLeaf *leaf)
{
	MemoryContext caller = MemoryContextSwitchTo(leaf->row_context);
	bool		equal = true;

	for (int i = 0; i < leaf->n_key_columns && equal; i++)
	{
		KeyColumn  *column = &leaf->key_column[i];
		bool		isnull;
		Datum		value;

		if (!column->sought)
			continue;
		value = slot_getattr(leaf->old, column->attno, &isnull);
		equal = !isnull &&
			DatumGetBool(FunctionCall2Coll(&column->equal, column->collation,
										   value, column->value));
	}
	MemoryContextSwitchTo(caller);
	return equal;
}

static bool
find_by_hint(ApplyLeaf *leaf, const ApplyRow *row)
{
	ItemPointerData tid = row->tid;

	if (!ItemPointerIsValid(&tid) ||
		ItemPointerGetBlockNumber(&tid) >= leaf->n_blocks)
		return false;
	return table_tuple_fetch_row_version(leaf->rel, &tid, GetActiveSnapshot(),
										 leaf->old) &&
		is_sought(leaf);
}

/* Append the scan key "index column = key column". */
static void
add_scan_key(Search *search, int index_column, int source)
{
	Relation	index = search->index;
	Oid			family = index->rd_opfamily[index_column];
	Oid			type = index->rd_opcintype[index_column];
	Oid			operator = get_opfamily_member(family, type, type,
											   BTEqualStrategyNumber);
	ScanKey		key = &search->key[search->n_keys];

	if (!OidIsValid(operator))
		elog(ERROR, "missing equality operator of type %u in operator family %u",
			 type, family);
	ScanKeyEntryInitialize(key, 0, index_column + 1, BTEqualStrategyNumber,
						   InvalidOid, index->rd_indcollation[index_column],
						   get_opcode(operator), (Datum) 0);
	search->source[search->n_keys++] = source;
}

/* Scan keys must come in the order of the index columns. */
static void
prepare_key_search(ApplyLeaf *leaf, Search *search)
{
	search->prepared = true;
	if (!OidIsValid(leaf->att.key_index))
		return;
	search->index = index_open(leaf->att.key_index, NoLock);
	for (int column = 0; column < leaf->att.n_keys; column++)
		for (int i = 0; i < leaf->att.n_keys; i++)
			if (leaf->att.key_index_column[i] == column)
				add_scan_key(search, column, i);
	if (search->n_keys == 0)	/* a primary key of other columns since */
	{
		index_close(search->index, NoLock);
		search->index = NULL;
	}
	else if (search->key[0].sk_attno != 1)
		search->pages = RelationGetNumberOfBlocks(search->index);
}

/* Position of the trade id among the key columns of an index; -1 = cannot use. */
static int
trade_id_position(ApplyLeaf *leaf, Relation index)
{
	Form_pg_index form = index->rd_index;

	if (!form->indisvalid || index->rd_rel->relam != BTREE_AM_OID ||
		RelationGetIndexPredicate(index) != NIL)
		return -1;
	for (int i = 0; i < form->indnkeyatts; i++)
		if (form->indkey.values[i] == leaf->att.attno[COLUMN_TRADE_ID])
			return i;
	return -1;
}

/*
 * The index in which the trade id stands foremost.  Where it stands first a
 * look-up is cheap; elsewhere the whole index is read, which still beats the
 * table.
 */
static void
prepare_trade_id_search(ApplyLeaf *leaf, Search *search)
{
	int			best = -1;
	ListCell   *cell;

	search->prepared = true;
	foreach(cell, leaf->indexes)
	{
		Relation	index = index_open(lfirst_oid(cell), NoLock);
		int			position = trade_id_position(leaf, index);

		if (position < 0 || (best >= 0 && position >= best))
		{
			index_close(index, NoLock);
			continue;
		}
		if (search->index != NULL)
			index_close(search->index, NoLock);
		search->index = index;
		best = position;
	}
	if (search->index != NULL)
		add_scan_key(search, best, leaf->trade_id_column);
	if (search->index != NULL && best > 0)
		search->pages = RelationGetNumberOfBlocks(search->index);
}

static bool
find_by_index(ApplyLeaf *leaf, Search *search)
{
	if (search->scan == NULL)
		search->scan = index_beginscan_compat(leaf->rel, search->index,
											 GetActiveSnapshot(), search->n_keys);
	for (int i = 0; i < search->n_keys; i++)
		search->key[i].sk_argument = leaf->key_column[search->source[i]].value;
	index_rescan(search->scan, search->key, search->n_keys, NULL, 0);
	while (index_getnext_slot(search->scan, ForwardScanDirection, leaf->old))
	{
		CHECK_FOR_INTERRUPTS();
		if (is_sought(leaf))
			return true;
	}
	return false;
}

/* For a table without an index that helps. */
static bool
find_by_reading(ApplyLeaf *leaf)
{
	TableScanDesc scan = table_beginscan(leaf->rel, GetActiveSnapshot(), 0, NULL);
	bool		found = false;

	while (!found &&
		   table_scan_getnextslot(scan, ForwardScanDirection, leaf->old))
	{
		CHECK_FOR_INTERRUPTS();
		found = is_sought(leaf);
	}
	table_endscan(scan);
	return found;
}

/*
 * Rows that are gone are searched for in vain: where that means to read a large
 * table for each, it would hold up all others until settlement.apply_timeout, each
 * time they are tried.
 */
static bool
is_affordable(ApplyLeaf *leaf, const Search *search)
{
	BlockNumber pages = search->index != NULL ? search->pages
		: RelationGetNumberOfBlocks(leaf->rel);

	if (pages > *leaf->pages_left)
		return false;
	*leaf->pages_left -= pages;
	return true;
}

/*
 * Scans keep memory of their own between rows, so they live in leaf->context;
 * values and comparisons go to the row's.
 */
static bool
find_by_search(ApplyLeaf *leaf, ApplyRow *row, SearchBy how)
{
	MemoryContext caller = MemoryContextSwitchTo(leaf->context);
	Search	   *search = how == SEARCH_TRADE_ID ? &leaf->by_trade_id : &leaf->by_key;
	bool		found = false;

	if (!search->prepared && how == SEARCH_TRADE_ID)
		prepare_trade_id_search(leaf, search);
	else if (!search->prepared)
		prepare_key_search(leaf, search);
	if (!is_affordable(leaf, search))
		row->unsearched = true;
	else if (search->index != NULL)
		found = find_by_index(leaf, search);
	else
		found = find_by_reading(leaf);
	MemoryContextSwitchTo(caller);
	return found;
}

bool
leaf_find(ApplyLeaf *leaf, ApplyRow *row, SearchBy how)
{
	MemoryContext caller = MemoryContextSwitchTo(leaf->row_context);
	bool		by_key = how != SEARCH_TRADE_ID;
	bool		sought = seek_row(leaf, row, &how);

	MemoryContextSwitchTo(caller);
	if (!sought)
		return false;
	if (how != SEARCH_KEY && find_by_hint(leaf, row))
		return true;
	if (find_by_search(leaf, row, how))
		return true;
	if (by_key && row->unsearched)
		row->key_unsearched = true;
	return false;
}

static void
end_search(Search *search)
{
	if (search->scan != NULL)
		index_endscan(search->scan);
	if (search->index != NULL)
		index_close(search->index, NoLock);
	memset(search, 0, sizeof(*search));
}

void
leaf_end_searches(ApplyLeaf *leaf)
{
	end_search(&leaf->by_key);
	end_search(&leaf->by_trade_id);
}
