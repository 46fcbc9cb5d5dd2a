/*
 * duplicates.c
 *	  Claimed trades that wait elsewhere, too: they were enqueued twice (row
 *	  movement, a restore).
 *
 * Asked for each trade that is claimed, and almost always in vain: so the three
 * indexes are looked into directly, in a fraction of the time of a statement.
 * Takes ACCESS SHARE on the tables and their indexes by trade id.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "pgver.h"
#include "queue/catalog.h"
#include "queue/duplicates.h"
#include "queue/facts.h"

/* A table in which a trade may wait. */
typedef struct Place
{
	Relation	table;
	Relation	index;			/* by trade id */
	IndexScanDesc scan;
	TupleTableSlot *row;
	AttrNumber	attached_id;
	AttrNumber	status;			/* 0, or it has to be SETTLED */
} Place;

static void
place_open(Place *place, Oid table, Oid index, Snapshot snapshot,
		   AttrNumber attached_id, AttrNumber status)
{
	place->table = table_open(table, AccessShareLock);
	place->index = index_open(index, AccessShareLock);
	place->scan = index_beginscan_compat(place->table, place->index, snapshot, 1);
	place->row = table_slot_create(place->table, NULL);
	place->attached_id = attached_id;
	place->status = status;
}

static void
place_close(Place *place)
{
	ExecDropSingleTupleTableSlot(place->row);
	index_endscan(place->scan);
	index_close(place->index, NoLock);
	table_close(place->table, NoLock);
}

static bool
is_settled(TupleTableSlot *row, AttrNumber attno)
{
	static const char settled[] = "SETTLED";
	bool		isnull;
	Datum		value = slot_getattr(row, attno, &isnull);
	text	   *status = isnull ? NULL : DatumGetTextPP(value);

	return status != NULL && VARSIZE_ANY_EXHDR(status) == strlen(settled) &&
		memcmp(VARDATA_ANY(status), settled, strlen(settled)) == 0;
}

static bool
waits_in(Place *place, int attached_id, Datum trade_id)
{
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   place->index->rd_indcollation[0], F_TEXTEQ, trade_id);
	index_rescan(place->scan, &key, 1, NULL, 0);
	while (index_getnext_slot(place->scan, ForwardScanDirection, place->row))
	{
		bool		isnull;

		if (DatumGetInt32(slot_getattr(place->row, place->attached_id, &isnull)) == attached_id &&
			(place->status == 0 || is_settled(place->row, place->status)))
			return true;
	}
	return false;
}

int
find_duplicates(TradeFlight *const *flights, int n, bool *waits)
{
	const SettlementCatalog *catalog = settlement_catalog(false);
	Snapshot	snapshot;
	Place		places[3];
	int			found = 0;

	/* what this turn has put there counts, too */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	place_open(&places[0], catalog->deferred, catalog->deferred_trade_id_idx, snapshot,
			   Anum_queue_attached_id + Deferred_facts_offset, 0);
	place_open(&places[1], catalog->dlq, catalog->dlq_trade_id_idx, snapshot,
			   Anum_queue_attached_id + Dlq_facts_offset, 0);
	place_open(&places[2], catalog->unapplied, catalog->unapplied_trade_id_idx, snapshot,
			   Anum_unapplied_attached_id, Anum_unapplied_status);
	for (int i = 0; i < n; i++)
	{
		Datum		trade_id = CStringGetTextDatum(flights[i]->wire.trade_id);

		waits[i] = false;
		for (int p = 0; p < lengthof(places) && !waits[i]; p++)
			waits[i] = waits_in(&places[p], flights[i]->attached_id, trade_id);
		found += waits[i];
		pfree(DatumGetPointer(trade_id));
	}
	for (int p = 0; p < lengthof(places); p++)
		place_close(&places[p]);
	UnregisterSnapshot(snapshot);
	return found;
}
