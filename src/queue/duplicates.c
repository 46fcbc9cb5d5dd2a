/*
 * duplicates.c
 *	  Claimed trades that wait elsewhere, too: they were enqueued twice (their row
 *	  deleted and inserted again, a restore).
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
	AttrNumber	first_sent_at;	/* 0: it does not count here */
	AttrNumber	status;			/* 0, or it has to be SETTLED */
} Place;

static void
place_open(Place *place, Oid table, Oid index, Snapshot snapshot,
		   AttrNumber attached_id, AttrNumber first_sent_at, AttrNumber status)
{
	place->table = table_open(table, AccessShareLock);
	place->index = index_open(index, AccessShareLock);
	place->scan = index_beginscan_compat(place->table, place->index, snapshot, 1);
	place->row = table_slot_create(place->table, NULL);
	place->attached_id = attached_id;
	place->first_sent_at = first_sent_at;
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

/* Has the flight's queue row facts of an earlier request than what waits? */
static bool
was_sent_before(const TradeFlight *flight, TupleTableSlot *row, AttrNumber attno)
{
	bool		isnull;
	Datum		waiting;

	if (flight->first_sent_at == 0)
		return false;
	waiting = slot_getattr(row, attno, &isnull);
	return isnull || flight->first_sent_at < DatumGetTimestampTz(waiting);
}

static bool
counts(const Place *place, const TradeFlight *flight)
{
	bool		isnull;

	if (DatumGetInt32(slot_getattr(place->row, place->attached_id, &isnull)) !=
		flight->attached_id)
		return false;
	if (place->first_sent_at != 0 &&
		was_sent_before(flight, place->row, place->first_sent_at))
		return false;
	return place->status == 0 || is_settled(place->row, place->status);
}

static bool
waits_in(Place *place, const TradeFlight *flight, Datum trade_id)
{
	ScanKeyData key;

	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   place->index->rd_indcollation[0], F_TEXTEQ, trade_id);
	index_rescan(place->scan, &key, 1, NULL, 0);
	while (index_getnext_slot(place->scan, ForwardScanDirection, place->row))
		if (counts(place, flight))
			return true;
	return false;
}

int
find_duplicates(TradeFlight *const *flights, int n, bool *goes)
{
	const SettlementCatalog *catalog = settlement_catalog(false);
	Snapshot	snapshot;
	Place		places[3];
	int			found = 0;

	/* what this turn has put there counts, too */
	CommandCounterIncrement();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	place_open(&places[0], catalog->deferred, catalog->deferred_trade_id_idx, snapshot,
			   Anum_queue_attached_id + Deferred_facts_offset,
			   Anum_queue_first_sent_at + Deferred_facts_offset, 0);
	place_open(&places[1], catalog->dlq, catalog->dlq_trade_id_idx, snapshot,
			   Anum_queue_attached_id + Dlq_facts_offset,
			   Anum_queue_first_sent_at + Dlq_facts_offset, 0);
	place_open(&places[2], catalog->unapplied, catalog->unapplied_trade_id_idx, snapshot,
			   Anum_unapplied_attached_id, 0, Anum_unapplied_status);
	for (int i = 0; i < n; i++)
	{
		Datum		trade_id = CStringGetTextDatum(flights[i]->wire.trade_id);

		goes[i] = false;
		for (int p = 0; p < lengthof(places) && !goes[i]; p++)
			goes[i] = waits_in(&places[p], flights[i], trade_id);
		found += goes[i];
		pfree(DatumGetPointer(trade_id));
	}
	for (int p = 0; p < lengthof(places); p++)
		place_close(&places[p]);
	UnregisterSnapshot(snapshot);
	return found;
}
