/*
 * apply_leaf.c
 *	  Open one trade table or partition for writing outcomes, and close it.
 *
 * Never waits: the relation, its indexes and its parents are locked only if
 * nobody is in the way.  From leaf_open to leaf_close the process is the leaf's owner in a
 * security-restricted context with search_path pg_catalog, because triggers,
 * constraints, domains and index expressions of the table are user code.
 * Settings that this code changes do not outlive the leaf.
 */
#include "postgres.h"

#include "access/relation.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "parser/parse_relation.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/typcache.h"

#include "pgver.h"
#include "queue/apply_leaf.h"

static void
report_context(void *arg)
{
	const ApplyLeaf *leaf = arg;

	if (leaf->row != NULL && leaf->row->status != NULL)
		errcontext("writing settlement outcome %s of trade \"%s\" to table \"%s\"",
				   leaf->row->status,
				   leaf->row->trade_id ? leaf->row->trade_id : "",
				   RelationGetRelationName(leaf->rel));
}

/* Lock and open a table without waiting. */
static LeafAccess
lock_table(Oid relid, Relation *rel)
{
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		return LEAF_BUSY;
	*rel = try_relation_open(relid, NoLock);
	if (*rel == NULL)
	{
		UnlockRelationOid(relid, RowExclusiveLock);
		return LEAF_GONE;
	}
	if ((*rel)->rd_rel->relkind != RELKIND_RELATION)
	{
		relation_close(*rel, RowExclusiveLock);
		return LEAF_GONE;
	}
	return LEAF_OPEN;
}

/* Release the first n index locks. */
static void
unlock_indexes(List *indexes, int n)
{
	for (int i = 0; i < n; i++)
		UnlockRelationOid(list_nth_oid(indexes, i), RowExclusiveLock);
}

/*
 * Lock the indexes without waiting, so that opening them later does not wait
 * either.  All or none.
 */
static bool
lock_indexes(List *indexes)
{
	for (int i = 0; i < list_length(indexes); i++)
	{
		if (ConditionalLockRelationOid(list_nth_oid(indexes, i), RowExclusiveLock))
			continue;
		unlock_indexes(indexes, i);
		return false;
	}
	return true;
}

static void
become_owner(ApplyLeaf *leaf)
{
	GetUserIdAndSecContext(&leaf->saved_user, &leaf->saved_security);
	SetUserIdAndSecContext(leaf->rel->rd_rel->relowner,
						   leaf->saved_security |
						   SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	leaf->guc_level = NewGUCNestLevel();
	if (strcmp(namespace_search_path, "pg_catalog, pg_temp") != 0)
		(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	/* workers run with row_security off; user code expects the default */
	if (!row_security)
		(void) set_config_option("row_security", "on", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
prepare_key_column(ApplyLeaf *leaf, KeyColumn *column, AttrNumber attno, Oid base)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(leaf->rel), attno - 1);
	TypeCacheEntry *type = lookup_type_cache(base, TYPECACHE_EQ_OPR_FINFO);
	Oid			input;

	if (!OidIsValid(type->eq_opr_finfo.fn_oid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("column \"%s\" of a trade key has no equality operator",
						NameStr(attribute->attname))));
	column->attno = attno;
	column->collation = attribute->attcollation;
	fmgr_info_copy(&column->equal, &type->eq_opr_finfo, leaf->context);
	getTypeInputInfo(base, &input, &column->ioparam);
	fmgr_info_cxt(input, &column->input, leaf->context);
}

/*
 * The columns that identify a row: its key, and the trade id if not in the key.
 * Either may have been dropped since attach().
 */
static void
prepare_key_columns(ApplyLeaf *leaf)
{
	Attachment *att = &leaf->att;
	AttrNumber	trade_id = att->attno[COLUMN_TRADE_ID];

	for (int i = 0; i < att->n_keys; i++)
		if (att->key_attno[i] == 0)
			att->n_keys = 0;
	leaf->trade_id_column = -1;
	for (int i = 0; i < att->n_keys; i++)
	{
		prepare_key_column(leaf, &leaf->key_column[i], att->key_attno[i],
						   att->key_type[i]);
		if (att->key_attno[i] == trade_id)
			leaf->trade_id_column = i;
	}
	leaf->n_key_columns = att->n_keys;
	if (leaf->trade_id_column < 0 && trade_id != 0)
	{
		leaf->trade_id_column = leaf->n_key_columns++;
		prepare_key_column(leaf, &leaf->key_column[leaf->trade_id_column], trade_id,
						   att->type[COLUMN_TRADE_ID]);
	}
}

static void
prepare_outcome_column(ApplyLeaf *leaf, OutcomeColumn *column, TradeColumn role)
{
	Form_pg_attribute attribute;

	column->attno = leaf->att.attno[role];
	if (column->attno == 0)
		return;
	attribute = TupleDescAttr(RelationGetDescr(leaf->rel), column->attno - 1);
	column->typmod = attribute->atttypmod;
	column->base = attribute->atttypid;
	if (column->base != leaf->att.type[role])
	{
		column->base = getBaseTypeAndTypmod(attribute->atttypid, &column->typmod);
		column->domain = attribute->atttypid;
	}
}

LeafAccess
leaf_open(ApplyLeaf *leaf, Oid relid, int attached_id, BlockNumber *pages_left)
{
	Relation	rel;
	LeafAccess	access;
	const Attachment *att;

	access = lock_table(relid, &rel);
	if (access != LEAF_OPEN)
		return access;

	memset(leaf, 0, sizeof(*leaf));
	leaf->rel = rel;
	leaf->pages_left = pages_left;
	att = attachment_of(rel);
	if (att == NULL)			/* a partition that was detached meanwhile */
		att = attachment_of_former(rel, attached_id);
	if (att == NULL || att->attached_id != attached_id)
	{
		relation_close(rel, RowExclusiveLock);
		return LEAF_GONE;
	}
	leaf->att = *att;
	leaf->indexes = RelationGetIndexList(rel);
	if (!lock_indexes(leaf->indexes))
	{
		relation_close(rel, RowExclusiveLock);
		return LEAF_BUSY;
	}

	leaf->error_context.callback = report_context;
	leaf->error_context.arg = leaf;
	leaf->error_context.previous = error_context_stack;
	error_context_stack = &leaf->error_context;

	leaf->context = AllocSetContextCreate(CurrentMemoryContext, "settlement leaf",
										  ALLOCSET_SMALL_SIZES);
	leaf->row_context = AllocSetContextCreate(leaf->context, "settlement row",
											  ALLOCSET_DEFAULT_SIZES);
	become_owner(leaf);
	PushActiveSnapshot(GetLatestSnapshot());
	prepare_key_columns(leaf);
	prepare_outcome_column(leaf, &leaf->status, COLUMN_STATUS);
	prepare_outcome_column(leaf, &leaf->settlement_id, COLUMN_SETTLEMENT_ID);
	prepare_outcome_column(leaf, &leaf->settled_at, COLUMN_SETTLED_AT);
	prepare_outcome_column(leaf, &leaf->attempts, COLUMN_ATTEMPTS);
	prepare_outcome_column(leaf, &leaf->error, COLUMN_ERROR);
	if (rel->rd_tableam == GetHeapamTableAmRoutine())
		leaf->n_blocks = RelationGetNumberOfBlocks(rel);
	leaf->old = table_slot_create(rel, NULL);
	return LEAF_OPEN;
}

/* The columns that an update writes, for column triggers and generated columns. */
static Bitmapset *
updated_columns(const ApplyLeaf *leaf)
{
	const OutcomeColumn *column[] = {&leaf->status, &leaf->settlement_id,
	&leaf->settled_at, &leaf->attempts, &leaf->error};
	Bitmapset  *result = NULL;

	for (int i = 0; i < lengthof(column); i++)
		if (column[i]->attno != 0)
			result = bms_add_member(result, column[i]->attno -
									FirstLowInvalidHeapAttributeNumber);
	return result;
}

/* One range table entry: triggers and generated columns read it. */
static void
init_range_table(EState *estate, const ApplyLeaf *leaf)
{
	RangeTblEntry *entry = makeNode(RangeTblEntry);
	List	   *permissions = NIL;

	entry->rtekind = RTE_RELATION;
	entry->relid = RelationGetRelid(leaf->rel);
	entry->relkind = leaf->rel->rd_rel->relkind;
	entry->rellockmode = RowExclusiveLock;
	set_updated_columns_compat(permissions, entry, updated_columns(leaf));
	ExecInitRangeTable_compat(estate, list_make1(entry), permissions);
}

/* Lock relations for reading without waiting: all or none. */
static bool
lock_for_reading(List *relations)
{
	for (int i = 0; i < list_length(relations); i++)
	{
		if (ConditionalLockRelationOid(list_nth_oid(relations, i), AccessShareLock))
			continue;
		while (--i >= 0)
			UnlockRelationOid(list_nth_oid(relations, i), AccessShareLock);
		return false;
	}
	return true;
}

/*
 * Prepare the partition constraint, because the executor would: to build it the
 * parents are opened, and that would wait for whoever has one locked.
 */
static bool
prepare_partition_check(const ApplyLeaf *leaf, EState *estate,
						ResultRelInfo *result_relation)
{
	List	   *parents = NIL;
	ListCell   *cell;

	if (!leaf->rel->rd_rel->relispartition)
		return true;
	if (!leaf->rel->rd_partcheckvalid)
		parents = get_partition_ancestors(RelationGetRelid(leaf->rel));
	if (!lock_for_reading(parents))
		return false;
	result_relation->ri_PartitionCheckExpr =
		ExecPrepareCheck(RelationGetPartitionQual(leaf->rel), estate);
	foreach(cell, parents)
		UnlockRelationOid(lfirst_oid(cell), AccessShareLock);
	return true;
}

bool
leaf_begin_writing(ApplyLeaf *leaf)
{
	MemoryContext caller;
	EState	   *estate;

	if (leaf->writing)
		return true;
	caller = MemoryContextSwitchTo(leaf->context);
	estate = CreateExecutorState();
	init_range_table(estate, leaf);
	leaf->result_relation = makeNode(ResultRelInfo);
	InitResultRelInfo(leaf->result_relation, leaf->rel, 1, NULL, 0);
	if (!prepare_partition_check(leaf, estate, leaf->result_relation))
	{
		FreeExecutorState(estate);
		MemoryContextSwitchTo(caller);
		return false;
	}
	set_result_relation_compat(estate, leaf->result_relation);
	estate->es_output_cid = GetCurrentCommandId(true);
	estate->es_snapshot = GetActiveSnapshot();
	EvalPlanQualInit_compat(&leaf->epq, estate);
	leaf->new = table_slot_create(leaf->rel, &estate->es_tupleTable);
	ExecOpenIndices(leaf->result_relation, false);
	leaf->estate = estate;
	AfterTriggerBeginQuery();
	leaf->writing = true;
	MemoryContextSwitchTo(caller);
	return true;
}

void
leaf_fire_triggers(ApplyLeaf *leaf)
{
	TriggerDesc *triggers = leaf->result_relation->ri_TrigDesc;

	if (triggers == NULL || !triggers->trig_update_after_row)
		return;
	AfterTriggerEndQuery(leaf->estate);
	AfterTriggerBeginQuery();
}

void
leaf_refresh_snapshot(ApplyLeaf *leaf)
{
	leaf_end_searches(leaf);
	ExecClearTuple(leaf->old);
	CommandCounterIncrement();
	PopActiveSnapshot();
	PushActiveSnapshot(GetLatestSnapshot());
	if (leaf->writing)
	{
		leaf->estate->es_output_cid = GetCurrentCommandId(true);
		leaf->estate->es_snapshot = GetActiveSnapshot();
	}
}

static void
end_writing(ApplyLeaf *leaf)
{
	AfterTriggerEndQuery(leaf->estate);
	EvalPlanQualEnd(&leaf->epq);
	ExecCloseIndices(leaf->result_relation);
	ExecResetTupleTable(leaf->estate->es_tupleTable, false);
	FreeExecutorState(leaf->estate);
	CommandCounterIncrement();
}

void
leaf_close(ApplyLeaf *leaf)
{
	LOCKMODE	unlock = leaf->writing ? NoLock : RowExclusiveLock;

	leaf->row = NULL;
	leaf_end_searches(leaf);
	ExecDropSingleTupleTableSlot(leaf->old);
	if (leaf->writing)
		end_writing(leaf);
	PopActiveSnapshot();
	AtEOXact_GUC(false, leaf->guc_level);
	SetUserIdAndSecContext(leaf->saved_user, leaf->saved_security);
	error_context_stack = leaf->error_context.previous;
	if (!leaf->writing)
		unlock_indexes(leaf->indexes, list_length(leaf->indexes));
	relation_close(leaf->rel, unlock);
	MemoryContextDelete(leaf->context);
}
