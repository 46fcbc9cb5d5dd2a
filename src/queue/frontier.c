/*
 * frontier.c
 *	  Finding unclaimed queue rows.
 *
 * One rule keeps claims disjoint, wherever an id was heard of: a row may be
 * handed out by the worker that has the right to scan (DbState.claimer), if its
 * id is not in any worker's flights, and if it is visible to a snapshot taken
 * after those flights were read.  An id leaves the flights only after the
 * transaction that removed its row has committed, so no snapshot taken later
 * shows it.  Everything else here only says where to look:
 *
 * - Forward, from the frontier: ids above it were never handed out.
 * - Late ranges: ids that became visible behind the frontier, because they were
 *	 drawn early and committed late, or were given back by an aborted claim.  A
 *	 committing backend reads scan_bound after it became visible and announces
 *	 its ids up to there.  A scan raises scan_bound to infinity before it takes
 *	 its snapshot and lowers it to the new frontier after: who reads the older
 *	 bound was visible to that snapshot, everybody else announces.
 * - Sweeps: what nobody announced (prepared transactions, an overflow).  A mark
 *	 (id_hi, xid) is set each second; as every writer owns an xid before it
 *	 draws an id, all ids up to id_hi are decided once a snapshot's xmin has
 *	 reached xid.  The stretch is then read once more, unless all of its ids
 *	 have been handed out.  After a start everything is behind mark zero.
 * - Passed: rows that the visitor left for later, so that those behind them need
 *	 not wait.  One stretch holds them all; each scan reads on where the last one
 *	 stopped.  That it holds other rows too does no harm, by the rule.
 *
 * The hint_mutex spinlock guards the fields; no index is read under it.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "pgver.h"
#include "queue/catalog.h"
#include "queue/facts.h"
#include "queue/frontier.h"
#include "queue/in_flight.h"
#include "queue/marks.h"

#define SWEEP_WIDTH			20000	/* ids looked at per piece of a sweep */
#define STALE_CLAIMER_MS	15000	/* a scan lasts microseconds */
#define MAX_PASSED			20000	/* rows left for later by one part of a scan */
#define PASSED_FIRST		8		/* one scan of so many begins with them, */
#define PASSED_SHARE		64		/* ... with so many ids */

typedef struct Scan
{
	DbState    *db;
	int			slot;
	uint64		ticket;
	RowVisitor	visit;
	void	   *arg;
	Relation	queue;
	Relation	index;
	TupleTableSlot *row;
	Snapshot	snapshot;
	int64	   *in_flight;		/* sorted */
	int			n_in_flight;
	bool		stopped;		/* the visitor had enough */
	bool		range_ended;	/* before its end */
	bool		again;			/* what is shown was passed before */
	int			n_taken;
	int			max_taken;
	int64	   *taken;
	int			n_taken_before; /* of those, first and sorted: by other parts */
	int64		frontier;
	int			n_passed;		/* by this part */
	IdRange		passed;			/* by this scan; empty when lo > hi */
	int64		passed_next;	/* where the next one reads on */
} Scan;

/* ------------------------------------------------------ the right to scan */

static bool
take_right(DbState *db, int slot, uint64 *ticket)
{
	bool		mine = false;
	int			holder;

	SpinLockAcquire(&db->hint_mutex);
	holder = db->claimer;
	if (holder < 0 || holder == slot)
	{
		db->claimer = slot;
		*ticket = ++db->claimer_ticket;
		mine = true;
	}
	SpinLockRelease(&db->hint_mutex);
	if (mine)
		return true;

	/* A holder that does not beat is frozen or gone: its ticket expires. */
	if (TimestampDifferenceExceeds(
			(TimestampTz) pg_atomic_read_u64(&settlement_shared->slots[holder].heartbeat),
			GetCurrentTimestamp(), STALE_CLAIMER_MS))
	{
		SpinLockAcquire(&db->hint_mutex);
		if (db->claimer == holder)
		{
			db->claimer = slot;
			*ticket = ++db->claimer_ticket;
			/* it may have read rows that it will now never hand out */
			db->sweep_all = true;
			mine = true;
		}
		SpinLockRelease(&db->hint_mutex);
	}
	return mine;
}

/*
 * After an error.  If it struck during the scan, the late ranges that the scan
 * had taken off the list are forgotten: look everywhere.
 */
static void
drop_right(DbState *db, int slot)
{
	SpinLockAcquire(&db->hint_mutex);
	if (db->claimer == slot)
	{
		db->claimer = -1;
		db->sweep_all = true;
	}
	SpinLockRelease(&db->hint_mutex);
}

/* ---------------------------------------------------------- late ranges */

/* Caller holds hint_mutex. */
static void
push_late(DbState *db, int64 lo, int64 hi)
{
	if (db->n_late > 0 && db->late[db->n_late - 1].hi + 1 == lo)
		db->late[db->n_late - 1].hi = hi;
	else if (db->n_late < MAX_LATE_RANGES)
	{
		db->late[db->n_late].lo = lo;
		db->late[db->n_late].hi = hi;
		db->n_late++;
	}
	else
		db->sweep_all = true;
}

void
frontier_announce_late(DbState *db, int64 lo, int64 hi)
{
	SpinLockAcquire(&db->hint_mutex);
	push_late(db, lo, hi);
	SpinLockRelease(&db->hint_mutex);
}

void
frontier_sweep_undecided(DbState *db)
{
	SpinLockAcquire(&db->hint_mutex);
	db->sweep_undecided = true;
	SpinLockRelease(&db->hint_mutex);
	pg_atomic_fetch_add_u64(&db->announced, 1);
	shmem_wake_worker(db);
}

void
frontier_rescan(DbState *db)
{
	SpinLockAcquire(&db->hint_mutex);
	db->sweep_all = true;
	SpinLockRelease(&db->hint_mutex);
	pg_atomic_fetch_add_u64(&db->announced, 1);
	shmem_wake_worker(db);
}

void
frontier_give_back(DbState *db, int slot, int64 *ids, int n)
{
	drop_right(db, slot);
	/* until here nobody else would have claimed them */
	in_flight_forget(slot, ids, n);
	for (int i = 0; i < n; i++)
	{
		SpinLockAcquire(&db->hint_mutex);
		push_late(db, ids[i], ids[i]);
		marks_count_returned(db, ids[i]);
		SpinLockRelease(&db->hint_mutex);
	}
	/* the scan may have died between raising the bound and lowering it */
	SpinLockAcquire(&db->hint_mutex);
	if (db->claimer < 0)
		pg_atomic_write_u64(&db->scan_bound, db->frontier);
	SpinLockRelease(&db->hint_mutex);
	pg_atomic_fetch_add_u64(&db->announced, 1);
	shmem_wake_worker(db);
}

/* ----------------------------------------------------------------- scans */

/* The next part of the scan may come by the same rows. */
static void
close_part(Scan *scan)
{
	qsort(scan->taken, scan->n_taken, sizeof(int64), compare_ids);
	scan->n_taken_before = scan->n_taken;
	scan->n_passed = 0;
}

/*
 * Show a row to the visitor; false: it stays where it is.  Enough rows left for
 * later end a scan, too; the first that is left once more ends their turn.
 */
static bool
show_row(Scan *scan, int64 id)
{
	RowVerdict	verdict = ROW_STOP;

	if (scan->n_taken < scan->max_taken)
		verdict = scan->visit(scan->row, id, scan->arg);
	scan->stopped |= verdict == ROW_STOP;
	if (verdict == ROW_STOP || (verdict == ROW_PASS && scan->again))
		return false;
	if (verdict == ROW_PASS)
	{
		scan->passed.lo = Min(scan->passed.lo, id);
		scan->passed.hi = Max(scan->passed.hi, id);
		scan->stopped |= ++scan->n_passed > MAX_PASSED;
	}
	else
		scan->taken[scan->n_taken++] = id;
	return true;
}

/* In flight, or taken by an earlier part of this scan. */
static bool
is_in_flight(const Scan *scan, int64 id)
{
	return bsearch(&id, scan->in_flight, scan->n_in_flight, sizeof(int64),
				   compare_ids) != NULL ||
		bsearch(&id, scan->taken, scan->n_taken_before, sizeof(int64),
				compare_ids) != NULL;
}

/* Show rows with lo <= id <= hi.  Returns the last id looked at, or hi. */
static int64
scan_range(Scan *scan, int64 lo, int64 hi, bool check_flights)
{
	ScanKeyData key[2];
	IndexScanDesc desc;
	int64		last = hi;

	ScanKeyInit(&key[0], 1, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(lo));
	ScanKeyInit(&key[1], 1, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(hi));
	desc = index_beginscan_compat(scan->queue, scan->index, scan->snapshot, 2);
	index_rescan(desc, key, 2, NULL, 0);
	scan->range_ended = false;
	while (!scan->range_ended &&
		   index_getnext_slot(desc, ForwardScanDirection, scan->row))
	{
		bool		isnull;
		int64		id = DatumGetInt64(slot_getattr(scan->row, Anum_queue_id, &isnull));

		if (check_flights && is_in_flight(scan, id))
			continue;
		if (!show_row(scan, id))
			last = id - 1;
		else
		{
			if (id > scan->frontier)
				scan->frontier = id;
			if (!scan->stopped)
				continue;
			last = id;
		}
		scan->range_ended = true;
	}
	index_endscan(desc);
	return last;
}

/*
 * Late ranges were taken off the list before the snapshot: all are visible.  A
 * commit during a scan announces ids that are still ahead of the frontier, too:
 * they are not late, and taking one would carry the frontier past the others.
 */
static void
scan_late(Scan *scan, IdRange *late, int n)
{
	int64		last = 0;

	qsort(late, n, sizeof(IdRange), compare_ids);	/* by lo, the first field */
	for (int i = 0; i < n; i++)
	{
		int64		lo = Max(late[i].lo, last + 1); /* they may overlap */
		int64		hi = Min(late[i].hi, scan->frontier);

		last = lo - 1;
		if (!scan->stopped && lo <= hi)
			last = scan_range(scan, lo, hi, true);
		if (last < hi)
			frontier_announce_late(scan->db, last + 1, hi);
	}
	close_part(scan);
}

/* One piece of the sweep under way, if any. */
static void
scan_sweep(Scan *scan)
{
	DbState    *db = scan->db;
	int64		lo;
	int64		hi;

	SpinLockAcquire(&db->hint_mutex);
	if (db->sweep_all)
	{
		db->sweep_all = false;
		db->sweep_undecided = false;
		db->sweep_next = 0;
		db->sweep_end = db->frontier;
	}
	else if (db->sweep_undecided && db->sweep_next > db->sweep_end)
	{
		/* what is committed now was undecided: behind the safe mark */
		db->sweep_undecided = false;
		db->sweep_next = db->safe + 1;
		db->sweep_end = db->frontier;
	}
	marks_decide(db, scan->snapshot->xmin);
	lo = db->sweep_next;
	hi = Min(db->sweep_end, lo + SWEEP_WIDTH - 1);
	SpinLockRelease(&db->hint_mutex);

	if (lo > hi || scan->stopped)
		return;
	shmem_count(db, COUNT_SWEEPS, 1);
	hi = scan_range(scan, lo, hi, true);
	SpinLockAcquire(&db->hint_mutex);
	db->sweep_next = hi + 1;
	SpinLockRelease(&db->hint_mutex);
	close_part(scan);
}

/*
 * A piece of what earlier scans passed.  Only the holder of the right touches
 * db->passed.
 */
static void
scan_passed(Scan *scan, int width)
{
	IdRange		piece = scan->db->passed;

	piece.hi = Min(piece.hi, piece.lo + width - 1);
	if (piece.lo > piece.hi || scan->stopped)
		return;
	scan->again = true;
	scan->passed_next = scan_range(scan, piece.lo, piece.hi, true) + 1;
	scan->again = false;
	close_part(scan);
}

/* Under hint_mutex. */
static void
note_passed(Scan *scan)
{
	IdRange    *passed = &scan->db->passed;

	passed->lo = Max(passed->lo, scan->passed_next);
	if (passed->lo > passed->hi)
		*passed = scan->passed;
	else
	{
		passed->lo = Min(passed->lo, scan->passed.lo);
		passed->hi = Max(passed->hi, scan->passed.hi);
	}
}

static int
take_late(DbState *db, IdRange *late)
{
	int			n;

	SpinLockAcquire(&db->hint_mutex);
	n = db->n_late;
	memcpy(late, db->late, sizeof(IdRange) * n);
	db->n_late = 0;
	SpinLockRelease(&db->hint_mutex);
	return n;
}

/* Make the rows ours, move the frontier, let the next worker scan. */
static void
hand_out(Scan *scan)
{
	DbState    *db = scan->db;
	FullTransactionId next_xid;
	bool		lost;

	in_flight_add(scan->slot, scan->taken, scan->n_taken);
	next_xid = ReadNextFullTransactionId();

	SpinLockAcquire(&db->hint_mutex);
	lost = db->claimer != scan->slot || db->claimer_ticket != scan->ticket;
	if (!lost)
	{
		/* the old frontier was passed before next_xid was read */
		marks_set(db, next_xid, GetCurrentTransactionStartTimestamp());
		db->frontier = scan->frontier;
		for (int i = 0; i < scan->n_taken; i++)
			marks_count_claimed(db, scan->taken[i]);
		note_passed(scan);
		pg_atomic_write_u64(&db->scan_bound, db->frontier);
		db->claimer = -1;
	}
	else
		db->sweep_all = true;	/* it may have moved the other one's sweep on */
	SpinLockRelease(&db->hint_mutex);
	if (lost)
	{
		in_flight_forget(scan->slot, scan->taken, scan->n_taken);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this worker was too slow to claim and another took over")));
	}
}

static void
open_scan(Scan *scan)
{
	const SettlementCatalog *catalog = settlement_catalog(false);
	WorkerSlot *slot = &settlement_shared->slots[scan->slot];

	scan->queue = table_open(catalog->queue, AccessShareLock);
	scan->index = index_open(catalog->queue_pkey, AccessShareLock);
	scan->row = table_slot_create(scan->queue, NULL);
	scan->passed = (IdRange) {PG_INT64_MAX, 0};
	scan->max_taken = MAX_CONCURRENCY - slot->n_flights;
	scan->taken = palloc(sizeof(int64) * Max(scan->max_taken, 1));
}

static void
close_scan(Scan *scan)
{
	ExecDropSingleTupleTableSlot(scan->row);
	index_close(scan->index, NoLock);
	table_close(scan->queue, NoLock);
	pfree(scan->taken);
	pfree(scan->in_flight);
}

bool
frontier_scan(DbState *db, int slot, RowVisitor visit, void *arg, bool *busy)
{
	Scan		scan = {.db = db,.slot = slot,.visit = visit,.arg = arg};
	IdRange		late[MAX_LATE_RANGES];
	int			n_late;

	*busy = !take_right(db, slot, &scan.ticket);
	if (*busy)
		return true;
	open_scan(&scan);
	n_late = take_late(db, late);
	scan.frontier = db->frontier;	/* only the holder of the right moves it */
	scan.in_flight = in_flight_read(db, &scan.n_in_flight);

	pg_atomic_write_u64(&db->scan_bound, PG_INT64_MAX);
	pg_memory_barrier();
	scan.snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan_late(&scan, late, n_late);
	scan_sweep(&scan);
	/* others go first, but not always */
	if (db->scans++ % PASSED_FIRST == 0)
		scan_passed(&scan, PASSED_SHARE);
	if (!scan.stopped)
		scan_range(&scan, scan.frontier + 1, PG_INT64_MAX, false);
	if (scan.passed_next == 0)
		scan_passed(&scan, SWEEP_WIDTH);
	UnregisterSnapshot(scan.snapshot);

	hand_out(&scan);
	close_scan(&scan);
	return scan.stopped;
}

bool
frontier_has_work(DbState *db)
{
	bool		result;

	SpinLockAcquire(&db->hint_mutex);
	result = db->n_late > 0 || db->sweep_all || db->sweep_undecided ||
		db->passed.lo <= db->passed.hi ||
		db->sweep_next <= db->sweep_end;
	SpinLockRelease(&db->hint_mutex);
	return result;
}

bool
frontier_has_chores(DbState *db)
{
	bool		result;

	SpinLockAcquire(&db->hint_mutex);
	result = db->n_marks > 0 || db->frontier > db->safe;
	SpinLockRelease(&db->hint_mutex);
	return result;
}
