/*
 * in_flight.c
 *	  Ids of queue rows in flight, as the slots of the workers list them.
 *
 * Each slot's mutex guards its list; only the worker that has the right to scan
 * (frontier.c) adds to one, its own.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "queue/in_flight.h"

int
compare_ids(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return (x > y) - (x < y);
}

int64 *
in_flight_read(DbState *db, int *n)
{
	int			index = shmem_db_index(db);
	int			room = 0;
	int64	   *ids;

	/* who calls this has the right to scan: nobody adds any */
	for (int i = 0; i < settlement_shared->n_slots; i++)
		if (settlement_shared->slots[i].db == index)
			room += settlement_shared->slots[i].n_flights;
	ids = palloc(sizeof(int64) * Max(room, 1));
	*n = 0;
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (slot->db != index)
			continue;
		SpinLockAcquire(&slot->mutex);
		for (int f = 0; f < slot->n_flights && *n < room; f++)
			ids[(*n)++] = slot->flights[f].queue_id;
		SpinLockRelease(&slot->mutex);
	}
	qsort(ids, *n, sizeof(int64), compare_ids);
	return ids;
}

void
in_flight_add(int slot_index, const int64 *ids, int n)
{
	WorkerSlot *slot = &settlement_shared->slots[slot_index];
	TimestampTz now = GetCurrentTimestamp();

	SpinLockAcquire(&slot->mutex);
	for (int i = 0; i < n; i++)
	{
		Flight	   *flight = &slot->flights[slot->n_flights];

		Assert(slot->n_flights < MAX_CONCURRENCY);
		flight->queue_id = ids[i];
		flight->since = now;
		flight->phase = PHASE_PREPARED;
		slot->n_flights++;
	}
	SpinLockRelease(&slot->mutex);
}

void
in_flight_forget(int slot_index, int64 *ids, int n)
{
	WorkerSlot *slot = &settlement_shared->slots[slot_index];
	int			kept = 0;

	if (n == 0)
		return;
	qsort(ids, n, sizeof(int64), compare_ids);
	SpinLockAcquire(&slot->mutex);
	for (int f = 0; f < slot->n_flights; f++)
		if (bsearch(&slot->flights[f].queue_id, ids, n, sizeof(int64),
					compare_ids) == NULL)
			slot->flights[kept++] = slot->flights[f];
	slot->n_flights = kept;
	SpinLockRelease(&slot->mutex);
}

void
in_flight_set_phase(int slot_index, int64 *ids, int n, uint8 phase)
{
	WorkerSlot *slot = &settlement_shared->slots[slot_index];

	if (n == 0)
		return;
	qsort(ids, n, sizeof(int64), compare_ids);
	SpinLockAcquire(&slot->mutex);
	for (int f = 0; f < slot->n_flights; f++)
		if (bsearch(&slot->flights[f].queue_id, ids, n, sizeof(int64),
					compare_ids) != NULL)
			slot->flights[f].phase = phase;
	SpinLockRelease(&slot->mutex);
}
