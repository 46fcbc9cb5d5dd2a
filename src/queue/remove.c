/*
 * remove.c
 *	  Take rows out of the queue whose place is known.
 *
 * A queue row is never updated, so it stays where the claim read it, unless
 * somebody rewrites the whole table (VACUUM FULL): what is found at the place is
 * checked by its id, and what is not found there is deleted by its id.  A
 * quarter of the cost of the same DELETE as a statement.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/snapmgr.h"

#include "queue/catalog.h"
#include "queue/facts.h"
#include "queue/remove.h"
#include "queue/statement.h"

static Statement delete_by_id = {
	"DELETE FROM settlement.queue WHERE id = ANY ($1) RETURNING id",
	1, {INT8ARRAYOID}
};

static bool
is_at_its_place(Relation queue, Snapshot snapshot, TupleTableSlot *slot,
				TradeFlight *flight)
{
	bool		isnull;

	return table_tuple_fetch_row_version(queue, &flight->queue_tid, snapshot, slot) &&
		DatumGetInt64(slot_getattr(slot, Anum_queue_id, &isnull)) == flight->queue_id;
}

/* Waits for another transaction that is deleting it; false if that one did. */
static bool
delete_at_its_place(Relation queue, Snapshot snapshot, TradeFlight *flight)
{
	TM_FailureData failure;

	return table_tuple_delete(queue, &flight->queue_tid, GetCurrentCommandId(true),
							  snapshot, InvalidSnapshot, true, &failure,
							  false) == TM_Ok;
}

static int
delete_elsewhere(TradeFlight *const *flights, bool *removed, int n,
				 const int *missing, int n_missing)
{
	int64	   *ids = palloc(sizeof(int64) * n_missing);
	Datum		values[1];

	for (int i = 0; i < n_missing; i++)
		ids[i] = flights[missing[i]]->queue_id;
	values[0] = int8_array(ids, n_missing);
	statement_run(&delete_by_id, values);
	for (uint64 r = 0; r < SPI_processed; r++)
	{
		int64		id = result_int8(r, 1);

		for (int i = 0; i < n_missing; i++)
			if (ids[i] == id)
				removed[missing[i]] = true;
	}
	return (int) SPI_processed;
}

int
remove_rows(TradeFlight *const *flights, bool *removed, int n)
{
	Relation	queue = table_open(settlement_catalog(false)->queue, RowExclusiveLock);
	TupleTableSlot *slot = table_slot_create(queue, NULL);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	int		   *missing = palloc(sizeof(int) * n);
	int			n_missing = 0;
	int			n_removed = 0;

	for (int i = 0; i < n; i++)
	{
		removed[i] = false;
		if (!is_at_its_place(queue, snapshot, slot, flights[i]))
			missing[n_missing++] = i;
		else if (delete_at_its_place(queue, snapshot, flights[i]))
		{
			removed[i] = true;
			n_removed++;
		}
	}
	UnregisterSnapshot(snapshot);
	ExecDropSingleTupleTableSlot(slot);
	table_close(queue, NoLock);
	CommandCounterIncrement();
	if (n_missing > 0)
		n_removed += delete_elsewhere(flights, removed, n, missing, n_missing);
	return n_removed;
}
