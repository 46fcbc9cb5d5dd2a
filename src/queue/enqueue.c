/*
 * enqueue.c
 *	  The trigger that puts a new trade into the queue, in its transaction.
 *
 * Keeps true: the INSERT does not fail because of what the trade holds, and does
 * not wait for workers.  An invalid trade, or one above settlement.max_queue_depth,
 * goes to the DLQ, and to unapplied, since an AFTER trigger cannot write FAILED
 * to its row.  Rows are formed here from built-in types and inserted below
 * privileges, so that the engine needs INSERT on its table and nothing else and
 * no code of a user runs with more rights than the user's.  A row that is deleted
 * and inserted again in one transaction is not enqueued twice (moved.c).
 *
 * Takes ROW EXCLUSIVE on the tables it inserts into, to the end of the
 * transaction, as INSERT does.  Indexes of queue must have neither expressions
 * nor predicates (CatalogTupleInsert); the other tables may have any.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "pgver.h"
#include "queue/announce.h"
#include "queue/attachment.h"
#include "queue/catalog.h"
#include "queue/facts.h"
#include "queue/moved.h"
#include "queue/trade.h"
#include "shared/progress.h"
#include "shared/settings.h"
#include "shared/shmem.h"

PGDLLEXPORT Datum settlement_enqueue(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum settlement_enqueue_row(PG_FUNCTION_ARGS);
PGDLLEXPORT Datum settlement_is_preloaded(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(settlement_enqueue);
PG_FUNCTION_INFO_V1(settlement_enqueue_row);
PG_FUNCTION_INFO_V1(settlement_is_preloaded);

#define MAX_COLUMNS 64

/* A row under construction.  Columns are null until they are set. */
typedef struct RowBuffer
{
	Datum		value[MAX_COLUMNS];
	bool		isnull[MAX_COLUMNS];
} RowBuffer;

/* Attribute of queue that a copied column goes to. */
static const AttrNumber fact_of[N_COPIED_COLUMNS] = {
	[COLUMN_TRADE_ID] = Anum_queue_trade_id,
	[COLUMN_SYMBOL] = Anum_queue_symbol,
	[COLUMN_BUYER_ID] = Anum_queue_buyer_id,
	[COLUMN_SELLER_ID] = Anum_queue_seller_id,
	[COLUMN_BUYER_ORDER_ID] = Anum_queue_buyer_order_id,
	[COLUMN_SELLER_ORDER_ID] = Anum_queue_seller_order_id,
	[COLUMN_PRICE] = Anum_queue_price,
	[COLUMN_QUANTITY] = Anum_queue_quantity,
	[COLUMN_BUYER_FEE] = Anum_queue_buyer_fee,
	[COLUMN_SELLER_FEE] = Anum_queue_seller_fee,
	[COLUMN_TRACE_ID] = Anum_queue_trace_id,
};

static void
row_init(RowBuffer *row)
{
	memset(row->isnull, true, sizeof(row->isnull));
}

static inline void
row_set(RowBuffer *row, AttrNumber attno, Datum value)
{
	row->value[attno - 1] = value;
	row->isnull[attno - 1] = false;
}

static void
row_set_text(RowBuffer *row, AttrNumber attno, const char *value)
{
	row_set(row, attno, CStringGetTextDatum(value));
}

/*
 * Insert into queue and its index, below privileges: the hot path.  One index, by
 * a plain column, needs none of the executor's apparatus.
 */
static void
row_insert_queue(const SettlementCatalog *catalog, RowBuffer *row)
{
	Relation	rel = table_open(catalog->queue, RowExclusiveLock);
	HeapTuple	tuple;

	if (RelationGetNumberOfAttributes(rel) > MAX_COLUMNS)
		elog(ERROR, "relation \"%s\" has too many columns", RelationGetRelationName(rel));
	tuple = heap_form_tuple(RelationGetDescr(rel), row->value, row->isnull);
	if (list_length(RelationGetIndexList(rel)) == 1)
	{
		Relation	index = index_open(catalog->queue_pkey, RowExclusiveLock);

		simple_heap_insert(rel, tuple);
		index_insert_compat(index, &row->value[Anum_queue_id - 1],
							&row->isnull[Anum_queue_id - 1], &tuple->t_self, rel,
							BuildIndexInfo(index));
		index_close(index, NoLock);
	}
	else
		CatalogTupleInsert(rel, tuple);
	heap_freetuple(tuple);
	table_close(rel, NoLock);
}

/*
 * Insert into one of the other tables, below privileges: with their partial
 * indexes and generated columns, as the executor does it.
 */
static void
row_insert(Oid relid, RowBuffer *row)
{
	Relation	rel = table_open(relid, RowExclusiveLock);
	EState	   *estate = CreateExecutorState();
	ResultRelInfo *relinfo = makeNode(ResultRelInfo);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			n = RelationGetNumberOfAttributes(rel);

	if (n > MAX_COLUMNS)
		elog(ERROR, "relation \"%s\" has too many columns", RelationGetRelationName(rel));
	InitResultRelInfo(relinfo, rel, 1, NULL, 0);
	set_result_relation_compat(estate, relinfo);
	ExecOpenIndices(relinfo, false);
	memcpy(slot->tts_values, row->value, n * sizeof(Datum));
	memcpy(slot->tts_isnull, row->isnull, n * sizeof(bool));
	ExecStoreVirtualTuple(slot);
	if (RelationGetDescr(rel)->constr && RelationGetDescr(rel)->constr->has_generated_stored)
		ExecComputeStoredGenerated_compat(relinfo, estate, slot, CMD_INSERT);
	simple_table_tuple_insert(rel, slot);
	(void) ExecInsertIndexTuples_compat(relinfo, slot, estate);
	ExecCloseIndices(relinfo);
	ExecDropSingleTupleTableSlot(slot);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
}

/* The facts, `offset` columns further to the right than in queue. */
static void
set_facts(RowBuffer *row, int offset, const Trade *trade, bool maybe_sent)
{
	row_set(row, Anum_queue_enqueued_at + offset,
			TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	row_set(row, Anum_queue_attached_id + offset, Int32GetDatum(trade->attached_id));
	row_set(row, Anum_queue_leaf + offset, ObjectIdGetDatum(trade->leaf));
	row_set(row, Anum_queue_attempts + offset, Int32GetDatum(0));
	row_set(row, Anum_queue_generation + offset, Int16GetDatum(0));
	row_set(row, Anum_queue_charged + offset, Int16GetDatum(0));
	row_set(row, Anum_queue_crashes + offset, Int16GetDatum(0));
	row_set(row, Anum_queue_format + offset, Int16GetDatum(0));
	row_set(row, Anum_queue_maybe_executed + offset, BoolGetDatum(maybe_sent));
	row_set(row, Anum_queue_lookup_first + offset, BoolGetDatum(maybe_sent));
	row_set(row, Anum_queue_trade_tid + offset, PointerGetDatum(&trade->tid));
	if (trade->row_key != (Datum) 0)
		row_set(row, Anum_queue_row_key + offset, trade->row_key);
	for (int i = 0; i < N_COPIED_COLUMNS; i++)
	{
		if (trade->present[i])
			row_set(row, fact_of[i] + offset, trade->value[i]);
	}
	if (trade->has_quote)
		row_set(row, Anum_queue_quote_amount + offset, trade->quote);
}

static void
write_queue(const SettlementCatalog *catalog, const Trade *trade)
{
	RowBuffer	row;

	row_init(&row);
	row_set(&row, Anum_queue_id, Int64GetDatum(announce_next_id(catalog->queue_id_seq, true)));
	set_facts(&row, 0, trade, false);
	row_insert_queue(catalog, &row);
}

/*
 * A trade that may have been sent before, since then; null: that was not so, as
 * somebody says.  The wallet is asked first, in that case if it can be.
 */
static void
write_deferred(const SettlementCatalog *catalog, const Trade *trade, const NullableDatum *first_sent)
{
	RowBuffer	row;

	row_init(&row);
	row_set(&row, Anum_deferred_id,
			Int64GetDatum(nextval_internal(catalog->deferred_id_seq, false)));
	row_set(&row, Anum_deferred_retry_at,
			TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	row_set_text(&row, Anum_deferred_reason, "needs_lookup");
	row_set(&row, Anum_deferred_chargeable, BoolGetDatum(false));
	set_facts(&row, Deferred_facts_offset, trade, !first_sent->isnull || settlement_wallet_lookup);
	if (!first_sent->isnull)
		row_set(&row, Anum_queue_first_sent_at + Deferred_facts_offset, first_sent->value);
	row_insert(catalog->deferred, &row);
	announce_other_work();
}

/* The outcome that a worker is to write to the trade row. */
static void
write_unapplied(const SettlementCatalog *catalog, const Trade *trade, const char *error)
{
	Datum		now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	RowBuffer	row;

	row_init(&row);
	row_set(&row, Anum_unapplied_id,
			Int64GetDatum(nextval_internal(catalog->unapplied_id_seq, false)));
	row_set(&row, Anum_unapplied_next_apply_at, now);
	row_set(&row, Anum_unapplied_failures, Int32GetDatum(0));
	row_set(&row, Anum_unapplied_recorded_at, now);
	row_set(&row, Anum_unapplied_attached_id, Int32GetDatum(trade->attached_id));
	row_set(&row, Anum_unapplied_leaf, ObjectIdGetDatum(trade->leaf));
	row_set(&row, Anum_unapplied_trade_tid, PointerGetDatum(&trade->tid));
	if (trade->present[COLUMN_TRADE_ID])
		row_set(&row, Anum_unapplied_trade_id, trade->value[COLUMN_TRADE_ID]);
	if (trade->row_key != (Datum) 0)
		row_set(&row, Anum_unapplied_row_key, trade->row_key);
	row_set_text(&row, Anum_unapplied_status, "FAILED");
	row_set(&row, Anum_unapplied_attempts, Int32GetDatum(0));
	row_set_text(&row, Anum_unapplied_error, error);
	if (trade->present[COLUMN_TRACE_ID])
		row_set(&row, Anum_unapplied_trace_id, trade->value[COLUMN_TRACE_ID]);
	row_insert(catalog->unapplied, &row);
	announce_other_work();
}

/* What the trigger of dlq adds for other writers; no trigger fires here. */
static void
write_tally(const SettlementCatalog *catalog, const RowBuffer *dead, bool discardable)
{
	const int	symbol = Anum_queue_symbol + Dlq_facts_offset;
	const int	quote = Anum_queue_quote_amount + Dlq_facts_offset;
	RowBuffer	row;

	row_init(&row);
	row_set(&row, Anum_tally_status, dead->value[Anum_dlq_status - 1]);
	row_set(&row, Anum_tally_class, dead->value[Anum_dlq_class - 1]);
	if (!dead->isnull[symbol - 1])
		row_set(&row, Anum_tally_symbol, dead->value[symbol - 1]);
	row_set(&row, Anum_tally_trades, Int64GetDatum(1));
	row_set(&row, Anum_tally_discardable, Int64GetDatum(discardable));
	row_set(&row, Anum_tally_quote_value, dead->isnull[quote - 1] ?
			DirectFunctionCall1(int4_numeric, Int32GetDatum(0)) : dead->value[quote - 1]);
	row_set(&row, Anum_tally_first_seen, dead->value[Anum_dlq_died_at - 1]);
	row_set(&row, Anum_tally_last_seen, dead->value[Anum_dlq_died_at - 1]);
	row_insert(catalog->dlq_tally, &row);
}

/* first_sent: what was corrected may have been sent since then; or NULL. */
static void
write_dead(const SettlementCatalog *catalog, const Trade *trade,
		   const char *class, const char *message, const NullableDatum *first_sent)
{
	bool		ask = first_sent != NULL && !first_sent->isnull && trade->present[COLUMN_TRADE_ID];
	RowBuffer	row;

	row_init(&row);
	row_set(&row, Anum_dlq_id,
			Int64GetDatum(nextval_internal(catalog->dlq_id_seq, false)));
	row_set_text(&row, Anum_dlq_status, "FAILED");
	row_set_text(&row, Anum_dlq_class, class);
	row_set_text(&row, Anum_dlq_message, message);
	row_set(&row, Anum_dlq_died_at,
			TimestampTzGetDatum(GetCurrentTransactionStartTimestamp()));
	row_set(&row, Anum_dlq_final_rejection, BoolGetDatum(false));
	set_facts(&row, Dlq_facts_offset, trade, false);
	if (ask)
	{
		row_set(&row, Anum_queue_lookup_first + Dlq_facts_offset, BoolGetDatum(true));
		row_set(&row, Anum_queue_first_sent_at + Dlq_facts_offset, first_sent->value);
	}
	row_insert(catalog->dlq, &row);
	write_tally(catalog, &row, !ask);
	write_unapplied(catalog, trade, message);
}

static bool
queue_is_full(const SettlementCatalog *catalog)
{
	return settlement_max_queue_depth > 0 &&
		announce_queue_depth(catalog->queue) >= settlement_max_queue_depth;
}

static void
write_queue_full(const SettlementCatalog *catalog, const Trade *trade)
{
	char	   *message = psprintf("the queue holds %d trades (settlement.max_queue_depth)",
								   settlement_max_queue_depth);

	write_dead(catalog, trade, "queue_full", message, NULL);
	pfree(message);
}

static const Attachment *
require_attachment(Relation rel)
{
	const Attachment *a = attachment_of(rel);

	if (a == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not attached to settlement",
						RelationGetRelationName(rel)),
				 errhint("Only settlement.attach() creates this trigger. Drop it, or attach the table.")));
	return a;
}

/* A DELETE never fails here: there may be nothing to know of the row. */
static void
note_deleted(TriggerData *data)
{
	const Attachment *a = attachment_of(data->tg_relation);
	Trade		trade;

	if (a == NULL || !trade_is_pending(a, data->tg_trigslot))
		return;
	trade_read(a, data->tg_trigslot, &trade);
	if (trade.present[COLUMN_TRADE_ID])
		moved_note_deleted(trade.attached_id, DatumGetTextPP(trade.value[COLUMN_TRADE_ID]));
}

/* Was it enqueued before, and its row only moves? */
static bool
is_moved(const Trade *trade)
{
	return trade->present[COLUMN_TRADE_ID] &&
		moved_was_deleted(trade->attached_id, DatumGetTextPP(trade->value[COLUMN_TRADE_ID]));
}

static void
enqueue_new(TriggerData *data)
{
	const Attachment *a = require_attachment(data->tg_relation);
	const SettlementCatalog *catalog;
	Trade		trade;

	if (!trade_is_pending(a, data->tg_trigslot))
		return;
	trade_read(a, data->tg_trigslot, &trade);
	if (is_moved(&trade))
		return;
	catalog = settlement_catalog(false);
	if (trade.problem != NULL)
		write_dead(catalog, &trade, "invalid_trade", trade.problem, NULL);
	else if (queue_is_full(catalog))
		write_queue_full(catalog, &trade);
	else
		write_queue(catalog, &trade);
}

/* The trigger: AFTER INSERT OR DELETE FOR EACH ROW. */
Datum
settlement_enqueue(PG_FUNCTION_ARGS)
{
	TriggerData *data = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(data->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(data->tg_event) ||
		!(TRIGGER_FIRED_BY_INSERT(data->tg_event) || TRIGGER_FIRED_BY_DELETE(data->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" must be fired AFTER INSERT OR DELETE FOR EACH ROW",
						"settlement.enqueue")));

	if (TRIGGER_FIRED_BY_DELETE(data->tg_event))
		note_deleted(data);
	else
		enqueue_new(data);
	return PointerGetDatum(NULL);
}

/*
 * settlement._enqueue_row(leaf regclass, row tid, first_sent_at timestamptz): as the
 * trigger, for a row that is there already and may have been sent before, at that
 * time; NULL: it was not, as far as anybody knows.  False when the row is not visible
 * or not PENDING.
 */
Datum
settlement_enqueue_row(PG_FUNCTION_ARGS)
{
	ItemPointer tid = (ItemPointer) PG_GETARG_POINTER(1);
	Relation	rel;
	TupleTableSlot *slot;
	const Attachment *a;
	NullableDatum first_sent = fcinfo->args[2];
	bool		found;

	/* zero stands for "not sent" in a worker */
	if (!first_sent.isnull && DatumGetTimestampTz(first_sent.value) == 0)
		first_sent.value = TimestampTzGetDatum(1);
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	rel = table_open(PG_GETARG_OID(0), AccessShareLock);
	slot = table_slot_create(rel, NULL);
	a = require_attachment(rel);
	found = table_tuple_fetch_row_version(rel, tid, GetActiveSnapshot(), slot) &&
		trade_is_pending(a, slot);
	if (found)
	{
		const SettlementCatalog *catalog = settlement_catalog(false);
		Trade		trade;

		trade_read(a, slot, &trade);
		if (trade.problem != NULL)
			write_dead(catalog, &trade, "invalid_trade", trade.problem, &first_sent);
		else
			write_deferred(catalog, &trade, &first_sent);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	progress_advance(1);
	PG_RETURN_BOOL(found);
}

/* settlement._is_preloaded(): is the library in shared_preload_libraries? */
Datum
settlement_is_preloaded(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(settlement_shared != NULL);
}
