/*
 * duplicates.c
 *	  May a claimed trade have been enqueued twice (its row deleted and inserted
 *	  again, a restore)?
 *
 * Asked for each trade that is claimed, and almost always in vain: so the three
 * indexes by trade id are looked into directly, in a fraction of the time of the
 * statement (claim.c) that judges what is found.  Takes ACCESS SHARE on the
 * tables and these indexes.
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

/* A table in which a trade may wait. */
typedef struct Place
{
	Relation	table;
	Relation	index;			/* by trade id */
	IndexScanDesc scan;
	TupleTableSlot *row;
} Place;

static void
place_open(Place *place, Oid table, Oid index, Snapshot snapshot)
{
	place->table = table_open(table, AccessShareLock);
	place->index = index_open(index, AccessShareLock);
	place->scan = index_beginscan_compat(place->table, place->index, snapshot, 1);
	place->row = table_slot_create(place->table, NULL);
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
waits_in(Place *place, Datum trade_id)
{
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   place->index->rd_indcollation[0], F_TEXTEQ, trade_id);
	index_rescan(place->scan, &key, 1, NULL, 0);
	return index_getnext_slot(place->scan, ForwardScanDirection, place->row);
}

bool
may_have_duplicates(TradeFlight *const *flights, int n)
{
	const SettlementCatalog *catalog = settlement_catalog(false);
	Snapshot	snapshot;
	Place		places[3];
	bool		found = false;

	/* what this turn has put there counts, too */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	place_open(&places[0], catalog->deferred, catalog->deferred_trade_id_idx, snapshot);
	place_open(&places[1], catalog->dlq, catalog->dlq_trade_id_idx, snapshot);
	place_open(&places[2], catalog->unapplied, catalog->unapplied_trade_id_idx, snapshot);
	for (int i = 0; i < n && !found; i++)
	{
		Datum		trade_id = CStringGetTextDatum(flights[i]->wire.trade_id);

		for (int p = 0; p < lengthof(places) && !found; p++)
			found = waits_in(&places[p], trade_id);
		pfree(DatumGetPointer(trade_id));
	}
	for (int p = 0; p < lengthof(places); p++)
		place_close(&places[p]);
	UnregisterSnapshot(snapshot);
	return found;
}
