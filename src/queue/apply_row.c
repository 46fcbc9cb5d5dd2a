/*
 * apply_row.c
 *	  Write the outcome of one trade to its row.
 *
 * The row is updated below row level security, with BEFORE and AFTER ROW
 * triggers, constraints and generated columns, as logical replication applies a
 * change.  Triggers FOR EACH STATEMENT do not fire.  A row that somebody else
 * has locked is not waited for.  No update chain is followed: a row that changed
 * under us is looked for again with a new snapshot.
 *
 * Where no BEFORE ROW trigger is in the way the row is updated at once; that
 * saves the lock, with a WAL record of its own.  An update that waits for nobody
 * gives way to any lock, though, also to one that it is compatible with (the
 * FOR KEY SHARE of a foreign key): then the row is locked FOR NO KEY UPDATE
 * first, as always before a BEFORE ROW trigger.
 */
#include "postgres.h"

#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/nodeModifyTable.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "pgver.h"
#include "queue/apply_leaf.h"

/* How often a row may change between finding and locking it. */
#define MAX_TRIES		4

typedef enum RowOutcome
{
	ROW_DONE,					/* locked by us, or updated */
	ROW_BUSY,					/* locked by somebody else */
	ROW_CHANGED					/* not the version that was found: look again */
} RowOutcome;

/* A char(n), as SQL's cast to text has it: without the blanks at its end. */
static char *
unpadded(char *text)
{
	text[bpchartruelen(text, strlen(text))] = '\0';
	return text;
}

/* Text of a column of the row that was found; NULL when it is null or absent. */
static char *
present_text(ApplyLeaf *leaf, const OutcomeColumn *column)
{
	bool		isnull;
	Datum		value;
	Oid			output;
	bool		varlena;

	if (column->attno == 0)
		return NULL;
	value = slot_getattr(leaf->old, column->attno, &isnull);
	if (isnull)
		return NULL;
	if (column->base == TEXTOID || column->base == VARCHAROID)
		return TextDatumGetCString(value);
	if (column->base == BPCHAROID)
		return unpadded(TextDatumGetCString(value));
	getTypeOutputInfo(column->base, &output, &varlena);
	return OidOutputFunctionCall(output, value);
}

/* The attempts that the row says; -1 when it does not say. */
static int64
present_attempts(ApplyLeaf *leaf)
{
	const OutcomeColumn *column = &leaf->attempts;
	bool		isnull;
	Datum		value;

	if (column->attno == 0)
		return -1;
	value = slot_getattr(leaf->old, column->attno, &isnull);
	if (isnull)
		return -1;
	switch (column->base)
	{
		case INT2OID:
			return DatumGetInt16(value);
		case INT4OID:
			return DatumGetInt32(value);
		case INT8OID:
			return DatumGetInt64(value);
		default:
			return -1;
	}
}

/* Does the row give this reason already?  A new one may come by hand. */
static bool
same_error(ApplyLeaf *leaf, const ApplyRow *row)
{
	char	   *error;

	if (leaf->error.attno == 0)
		return true;
	error = present_text(leaf, &leaf->error);
	if (error == NULL || row->error == NULL)
		return error == NULL && row->error == NULL;
	return strcmp(error, row->error) == 0;
}

static void
check_reversal(const ApplyRow *row, const char *status)
{
	if (status != NULL &&
		(strcmp(status, "SETTLED") == 0 || strcmp(status, "REVERSED") == 0))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot reverse trade \"%s\"", row->trade_id ? row->trade_id : ""),
			 errdetail("Its row says %s, and only a SETTLED trade can be reversed.",
					   status ? status : "nothing"),
			 errhint("Find out first what the wallet did: settlement.lookup() or settlement.resolve().")));
}

/* SETTLED, but by hand: it does not say under which id. */
static bool
lacks_id(ApplyLeaf *leaf, const ApplyRow *row, const char *settlement_id)
{
	return leaf->settlement_id.attno != 0 && settlement_id == NULL &&
		row->settlement_id != NULL && strcmp(row->status, "SETTLED") == 0;
}

/*
 * Does the row say this already, or something that is newer?  Outcomes may
 * arrive late (settlement.unapplied), so: only REVERSED leaves SETTLED, nothing
 * leaves REVERSED, and a state of fewer attempts than the row's is an old one.
 * What is not SETTLED cannot be reversed: of an UNKNOWN trade nobody knows
 * whether there is anything to take back.
 */
static bool
is_written(ApplyLeaf *leaf, ApplyRow *row)
{
	char	   *status = present_text(leaf, &leaf->status);
	char	   *settlement_id = present_text(leaf, &leaf->settlement_id);

	if (strcmp(row->status, "REVERSED") == 0)
		check_reversal(row, status);
	if (status == NULL)
		return false;
	if (strcmp(status, "REVERSED") == 0 ||
		(strcmp(status, "SETTLED") == 0 && strcmp(row->status, "REVERSED") != 0 &&
		 !lacks_id(leaf, row, settlement_id)))
	{
		leaf_keep_status(row, status,
						 leaf->settlement_id.attno == 0 ? row->settlement_id : settlement_id);
		return true;
	}
	if (strcmp(row->status, "SETTLED") == 0 || strcmp(row->status, "REVERSED") == 0)
		return false;
	if (row->attempts < present_attempts(leaf))
		return true;
	if (strcmp(status, row->status) != 0)
		return false;
	if (row->settlement_id == NULL)
		return same_error(leaf, row);
	return settlement_id != NULL && strcmp(settlement_id, row->settlement_id) == 0;
}

static RowOutcome
row_outcome(TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return ROW_DONE;
		case TM_WouldBlock:		/* of a lock */
		case TM_BeingModified:	/* of an update */
			return ROW_BUSY;
		case TM_SelfModified:	/* twice in one batch, or by a trigger */
		case TM_Invisible:
		case TM_Updated:
		case TM_Deleted:
			return ROW_CHANGED;
	}
	elog(ERROR, "unexpected result %d of writing a trade row", (int) result);
	return ROW_BUSY;
}

/* Lock the version of the row in leaf->old; never waits. */
static RowOutcome
lock_row(ApplyLeaf *leaf)
{
	ItemPointerData tid = leaf->old->tts_tid;
	TM_FailureData failure;

	return row_outcome(table_tuple_lock(leaf->rel, &tid, GetActiveSnapshot(), leaf->old,
										GetCurrentCommandId(false), LockTupleNoKeyExclusive,
										LockWaitSkip, 0, &failure));
}

static void
set_column(ApplyLeaf *leaf, const OutcomeColumn *column, Datum value, bool isnull)
{
	leaf->new->tts_values[column->attno - 1] = value;
	leaf->new->tts_isnull[column->attno - 1] = isnull;
}

/* leaf->new becomes leaf->old with the outcome in it. */
static void
form_row(ApplyLeaf *leaf, const ApplyRow *row)
{
	TupleTableSlot *old = leaf->old;
	TupleTableSlot *new = leaf->new;
	int			n = old->tts_tupleDescriptor->natts;

	slot_getallattrs(old);
	ExecClearTuple(new);
	memcpy(new->tts_values, old->tts_values, n * sizeof(Datum));
	memcpy(new->tts_isnull, old->tts_isnull, n * sizeof(bool));

	set_column(leaf, &leaf->status,
			   outcome_text(leaf, &leaf->status, row->status, false), false);
	if (leaf->settlement_id.attno != 0 && row->settlement_id != NULL)
		set_column(leaf, &leaf->settlement_id,
				   outcome_text(leaf, &leaf->settlement_id, row->settlement_id, false),
				   false);
	if (leaf->settled_at.attno != 0 && row->settled_at != 0)
		set_column(leaf, &leaf->settled_at,
				   outcome_time(leaf, &leaf->settled_at, row->settled_at), false);
	if (leaf->attempts.attno != 0)
		set_column(leaf, &leaf->attempts,
				   outcome_count(leaf, &leaf->attempts, row->attempts), false);
	if (leaf->error.attno != 0 && row->error != NULL)
		set_column(leaf, &leaf->error,
				   outcome_text(leaf, &leaf->error, row->error, true), false);
	else if (leaf->error.attno != 0)
	{
		outcome_null(leaf, &leaf->error);
		set_column(leaf, &leaf->error, (Datum) 0, true);
	}

	ExecStoreVirtualTuple(new);
	new->tts_tableOid = RelationGetRelid(leaf->rel);
}

/* Update the locked row in leaf->old. */
static ApplyResult
update_locked(ApplyLeaf *leaf, const ApplyRow *row)
{
	ItemPointerData old_tid = leaf->old->tts_tid;

	form_row(leaf, row);
	ExecSimpleRelationUpdate_compat(leaf->result_relation, leaf->estate, &leaf->epq,
								   leaf->old, leaf->new);

	/* a BEFORE trigger that returned NULL leaves no new version behind */
	if (!ItemPointerIsValid(&leaf->new->tts_tid) ||
		ItemPointerEquals(&leaf->new->tts_tid, &old_tid))
		return APPLY_REFUSED;
	return APPLY_DONE;
}

/*
 * Update the row in leaf->old if nobody has it: what ExecSimpleRelationUpdate
 * does for a table without BEFORE ROW triggers, except that it would wait.
 */
static RowOutcome
update_unlocked(ApplyLeaf *leaf, const ApplyRow *row)
{
	ResultRelInfo *target = leaf->result_relation;
	TupleConstr *constraints = RelationGetDescr(leaf->rel)->constr;
	UpdateIndexes update_indexes;
	TM_FailureData failure;
	LockTupleMode mode;
	List	   *recheck = NIL;
	RowOutcome	outcome;

	form_row(leaf, row);
	CheckCmdReplicaIdentity(leaf->rel, CMD_UPDATE);
	if (constraints != NULL && constraints->has_generated_stored)
		ExecComputeStoredGenerated_compat(target, leaf->estate, leaf->new, CMD_UPDATE);
	if (constraints != NULL)
		ExecConstraints(target, leaf->new, leaf->estate);
	if (leaf->rel->rd_rel->relispartition)
		ExecPartitionCheck(target, leaf->new, leaf->estate, true);

	outcome = row_outcome(table_tuple_update(leaf->rel, &leaf->old->tts_tid, leaf->new,
											 leaf->estate->es_output_cid,
											 leaf->estate->es_snapshot, InvalidSnapshot,
											 false, &failure, &mode, &update_indexes));
	if (outcome != ROW_DONE)
		return outcome;
	if (target->ri_NumIndices > 0 && must_update_indexes(update_indexes))
		recheck = ExecUpdateIndexTuples_compat(target, leaf->new, leaf->estate,
											   update_indexes);
	ExecARUpdateTriggers_compat(leaf->estate, target, &leaf->old->tts_tid, leaf->new,
								recheck);
	return ROW_DONE;
}

/* Write the outcome to the version of the row in leaf->old. */
static RowOutcome
write_row(ApplyLeaf *leaf, ApplyRow *row, ApplyResult *result)
{
	TriggerDesc *triggers = leaf->result_relation->ri_TrigDesc;
	RowOutcome	outcome = ROW_BUSY;

	*result = APPLY_DONE;
	if (triggers == NULL || !triggers->trig_update_before_row)
	{
		leaf_compare_content(leaf, row);
		outcome = update_unlocked(leaf, row);
	}
	if (outcome != ROW_BUSY)
		return outcome;
	outcome = lock_row(leaf);
	if (outcome != ROW_DONE)
		return outcome;
	leaf_compare_content(leaf, row);
	*result = update_locked(leaf, row);
	return ROW_DONE;
}

static ApplyResult
find_and_write(ApplyLeaf *leaf, ApplyRow *row, SearchBy how)
{
	ApplyResult result;

	for (int i = 0; i < MAX_TRIES; i++)
	{
		row->contradiction = NULL;
		if (!leaf_find(leaf, row, how))
			return i > 0 && row->unsearched ? APPLY_LOCKED : APPLY_GONE;
		if (is_written(leaf, row))
			return APPLY_DONE;
		if (!leaf_begin_writing(leaf))
			return APPLY_LOCKED;
		switch (write_row(leaf, row, &result))
		{
			case ROW_DONE:
				return result;
			case ROW_BUSY:
				return APPLY_LOCKED;
			case ROW_CHANGED:
				leaf_refresh_snapshot(leaf);
				break;
		}
	}
	return APPLY_LOCKED;
}

static void
require_status(ApplyLeaf *leaf)
{
	if (leaf->status.attno == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("table \"%s\" has no settlement status column",
						RelationGetRelationName(leaf->rel))));
}

ApplyResult
leaf_read(ApplyLeaf *leaf, ApplyRow *row, SearchBy how, ApplyFound *found)
{
	MemoryContext caller = MemoryContextSwitchTo(leaf->row_context);
	bool		is_here = leaf_find(leaf, row, how);

	require_status(leaf);
	MemoryContextSwitchTo(caller);
	if (is_here)
	{
		found->leaf = RelationGetRelid(leaf->rel);
		found->tid = leaf->old->tts_tid;
		found->status = present_text(leaf, &leaf->status);
		ExecClearTuple(leaf->old);
	}
	MemoryContextReset(leaf->row_context);
	return is_here ? APPLY_DONE : APPLY_GONE;
}

ApplyResult
leaf_apply(ApplyLeaf *leaf, ApplyRow *row, SearchBy how)
{
	MemoryContext caller = MemoryContextSwitchTo(leaf->row_context);
	ApplyResult result;

	require_status(leaf);
	leaf->row = row;
	result = find_and_write(leaf, row, how);
	ExecClearTuple(leaf->old);
	if (leaf->writing)
	{
		leaf_fire_triggers(leaf);
		ExecClearTuple(leaf->new);
		ResetPerTupleExprContext(leaf->estate);
	}
	leaf->row = NULL;
	MemoryContextSwitchTo(caller);
	MemoryContextReset(leaf->row_context);
	return result;
}
