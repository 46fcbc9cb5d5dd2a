/*
 * announce.c
 *	  Ids of new queue rows, and telling the workers of them at commit.
 *
 * Keeps true: whoever draws an id owns an xid already (frontier.c decides from
 * xids which ids can still appear), and no committed row is overlooked: at
 * commit each id is either above scan_bound, where a scan still has to come
 * by, or it is pushed to late[].  The race with a scan: the scanner sets
 * scan_bound = PG_INT64_MAX, full barrier, takes its snapshot, scans, then sets
 * scan_bound = frontier.  The committer ends its transaction in the proc array,
 * full barrier, reads scan_bound.  If it reads a value older than the scanner's
 * MAX, its transaction had ended before that snapshot was taken, so the scan
 * sees its rows.
 *
 * The commit callback uses atomics, hint_mutex and SetLatch only: an error
 * there would be a PANIC.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/xact.h"
#include "commands/sequence.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "queue/announce.h"
#include "queue/catalog.h"
#include "queue/frontier.h"
#include "queue/statement.h"
#include "shared/shmem.h"

#define MAX_DRAWN_RANGES	32
#define STEADY_TRIES		1000

/* Queue rows written, and how many of them are new trades. */
typedef struct RowCount
{
	int64		rows;
	int64		submitted;
} RowCount;

/* The same of one nesting level of subtransactions. */
typedef struct LevelCount
{
	int			level;
	RowCount	count;
} LevelCount;

/* What the present transaction has to announce. */
static struct
{
	bool		active;			/* something was noted */
	DbState    *db;				/* NULL: not preloaded */
	int			n_drawn;
	IdRange		drawn[MAX_DRAWN_RANGES];
	RowCount	total;			/* of all levels */
	int			n_levels;
	int			max_levels;
	LevelCount *levels;			/* in TopTransactionContext, ascending */
	bool		other_work;
	bool		pauses;
	FullTransactionId xid;		/* of the one that has any of these */
}			noted;

static Statement oldest_prepared = {
	"SELECT pg_catalog.max(pg_catalog.age(transaction)) FROM pg_catalog.pg_prepared_xacts "
	"WHERE database = pg_catalog.current_database()", 0
};

static bool callbacks_registered = false;

PGDLLEXPORT Datum settlement_next_queue_id(PG_FUNCTION_ARGS);

PG_FUNCTION_INFO_V1(settlement_next_queue_id);

static void
forget_all(void)
{
	if (noted.active)
		memset(&noted, 0, sizeof(noted));
}

/* Ids at or below scan_bound have to be looked for one by one. */
static void
push_late_ranges(DbState *db)
{
	int64		bound = (int64) pg_atomic_read_u64(&db->scan_bound);

	for (int i = 0; i < noted.n_drawn; i++)
		if (noted.drawn[i].lo <= bound)
			frontier_announce_late(db, noted.drawn[i].lo, noted.drawn[i].hi);
}

static void
announce_commit(DbState *db)
{
	pg_memory_barrier();
	if (noted.n_drawn > 0)
	{
		push_late_ranges(db);
		pg_atomic_fetch_add_u64(&db->announced, 1);
		pg_atomic_fetch_add_u64(&db->depth_change, noted.total.rows);
		shmem_count(db, COUNT_SUBMITTED, noted.total.submitted);
	}
	if (noted.other_work)
	{
		pg_atomic_write_u64(&db->next_due, 0);
		pg_atomic_write_u64(&db->next_apply, 0);
		pg_atomic_write_u64(&db->next_redrive, 0);
		pg_atomic_write_u32(&db->dlq_changed, 1);
	}
	if (noted.pauses)
	{
		/* what is put aside waits for another end now, or for none */
		pg_atomic_write_u64(&db->next_due, 0);
		pg_atomic_fetch_add_u64(&db->pauses_version, 1);
		shmem_wake_all_workers(db);
	}
	else
		shmem_wake_worker(db);
}

/* It rises each time: who has read it before must not forget this one. */
static void
note_prepared(pg_atomic_uint64 *prepared)
{
	uint64		mine = U64FromFullTransactionId(noted.xid);
	uint64		seen = pg_atomic_read_u64(prepared);

	while (!pg_atomic_compare_exchange_u64(prepared, &seen, Max(mine, seen + 1)))
		;
}

/*
 * COMMIT PREPARED may run anywhere, and knows nothing of it: the marks find its
 * rows, which are counted from here on.
 */
static void
announce_prepare(DbState *db)
{
	if (!FullTransactionIdIsValid(noted.xid))
		return;
	note_prepared(&db->work_prepared);
	if (noted.pauses)
		note_prepared(&db->pauses_prepared);
	pg_atomic_fetch_add_u64(&db->depth_change, noted.total.rows);
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (noted.active && noted.db != NULL)
				announce_commit(noted.db);
			forget_all();
			break;
		case XACT_EVENT_PREPARE:
			if (noted.active && noted.db != NULL)
				announce_prepare(noted.db);
			forget_all();
			break;
		case XACT_EVENT_ABORT:
			forget_all();
			break;
		default:
			break;
	}
}

static void
add_count(RowCount *to, RowCount count, int sign)
{
	to->rows += sign * count.rows;
	to->submitted += sign * count.submitted;
}

/* Give a finished subtransaction's count to its parent, or take it off. */
static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	LevelCount *top;

	if (noted.n_levels == 0 ||
		(event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB))
		return;
	top = &noted.levels[noted.n_levels - 1];
	if (top->level < level)
		return;

	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		add_count(&noted.total, top->count, -1);
		noted.n_levels--;
	}
	else if (noted.n_levels > 1 && top[-1].level == level - 1)
	{
		add_count(&top[-1].count, top->count, 1);
		noted.n_levels--;
	}
	else
		top->level = level - 1;
}

static void
remember_database(void)
{
	if (!callbacks_registered)
	{
		RegisterXactCallback(xact_callback, NULL);
		RegisterSubXactCallback(subxact_callback, NULL);
		callbacks_registered = true;
	}
	if (!noted.active)
		noted.db = shmem_my_database();
	noted.active = true;
}

/* ... that has work for the workers, or will have. */
static void
remember_transaction(void)
{
	remember_database();
	noted.xid = GetTopFullTransactionId();
}

/* The count of the present nesting level. */
static RowCount *
present_level(void)
{
	int			level = GetCurrentTransactionNestLevel();
	LevelCount *top;

	if (noted.n_levels == noted.max_levels)
	{
		int			max = Max(8, noted.max_levels * 2);
		Size		size = max * sizeof(LevelCount);

		noted.levels = noted.levels == NULL
			? MemoryContextAlloc(TopTransactionContext, size)
			: repalloc(noted.levels, size);
		noted.max_levels = max;
	}
	if (noted.n_levels == 0 || noted.levels[noted.n_levels - 1].level < level)
	{
		top = &noted.levels[noted.n_levels++];
		memset(top, 0, sizeof(LevelCount));
		top->level = level;
	}
	return &noted.levels[noted.n_levels - 1].count;
}

static void
count_row(bool submitted)
{
	RowCount	one = {1, submitted ? 1 : 0};

	add_count(present_level(), one, 1);
	add_count(&noted.total, one, 1);
}

/*
 * Add an id to the ranges.  Beyond the bound the last range is widened: ids of
 * others that fall into it are looked at once more, which does no harm.
 */
static void
note_id(int64 id)
{
	IdRange    *last = noted.n_drawn > 0 ? &noted.drawn[noted.n_drawn - 1] : NULL;

	if (last != NULL &&
		(id == last->hi + 1 || noted.n_drawn == MAX_DRAWN_RANGES))
	{
		last->lo = Min(last->lo, id);
		last->hi = Max(last->hi, id);
		return;
	}
	noted.drawn[noted.n_drawn].lo = id;
	noted.drawn[noted.n_drawn].hi = id;
	noted.n_drawn++;
}

int64
announce_next_id(Oid queue_id_seq, bool submitted)
{
	int64		id;

	remember_transaction();
	id = nextval_internal(queue_id_seq, false);
	if (noted.db != NULL)
	{
		count_row(submitted);
		note_id(id);
	}
	return id;
}

void
announce_other_work(void)
{
	remember_transaction();
	noted.other_work = true;
}

void
announce_pauses(void)
{
	remember_transaction();
	noted.pauses = true;
}

/*
 * Where the extension is not, or was not looked for yet, there is no entry.  One
 * that is made during the command is made without knowing of what is prepared.
 */
static DbState *
add_prepared_work(PreparedWork *work)
{
	DbState    *db = shmem_database(MyDatabaseId, false);

	if (db != NULL)
	{
		work->rows |= pg_atomic_read_u64(&db->work_prepared) != 0;
		work->pauses |= pg_atomic_read_u64(&db->pauses_prepared) != 0;
	}
	return db;
}

PreparedWork
announce_prepared_work(void)
{
	PreparedWork work = {0};

	work.unknown = add_prepared_work(&work) == NULL;
	return work;
}

/* Once more, for what was prepared, or an entry made, since the command began. */
static DbState *
work_that_ended(PreparedWork *work)
{
	DbState    *db = add_prepared_work(work);

	work->rows |= work->unknown;
	work->pauses |= work->unknown;
	return work->rows ? db : NULL;
}

void
announce_prepared_commit(PreparedWork *work)
{
	DbState    *db = work_that_ended(work);

	if (db == NULL)
		return;
	/* a count since its PREPARE did not see its rows */
	pg_atomic_fetch_add_u32(&db->depth_stale, 1);
	pg_atomic_write_u64(&db->next_due, 0);
	pg_atomic_write_u64(&db->next_apply, 0);
	pg_atomic_write_u64(&db->next_redrive, 0);
	pg_atomic_write_u32(&db->dlq_changed, 1);
	if (work->pauses)
		pg_atomic_fetch_add_u64(&db->pauses_version, 1);
	frontier_sweep_undecided(db);
	shmem_wake_all_workers(db);
}

void
announce_prepared_rollback(PreparedWork *work)
{
	DbState    *db = work_that_ended(work);

	if (db != NULL)
		pg_atomic_fetch_add_u32(&db->depth_stale, 1);
}

/* The oldest prepared transaction of this database; PG_UINT64_MAX: there is none. */
static uint64
find_oldest_prepared(void)
{
	/* before its age is taken: it is no younger than this makes it */
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64		oldest = PG_UINT64_MAX;
	Datum		age;
	bool		isnull;

	SPI_connect();
	statement_run(&oldest_prepared, NULL);
	age = result_value(0, 1, &isnull);
	if (!isnull)
		oldest = next - Min(next, (uint64) DatumGetInt32(age));
	SPI_finish();
	return oldest;
}

static void
forget_prepared(pg_atomic_uint64 *prepared, uint64 seen, uint64 oldest)
{
	if (seen != 0 && oldest > seen)
		pg_atomic_compare_exchange_u64(prepared, &seen, 0);
}

/* Whoever is prepared while this reads raises what was seen. */
void
announce_forget_prepared(DbState *db)
{
	uint64		work = pg_atomic_read_u64(&db->work_prepared);
	uint64		pauses = pg_atomic_read_u64(&db->pauses_prepared);
	uint64		oldest;

	if (work == 0 && pauses == 0)
		return;
	oldest = find_oldest_prepared();
	forget_prepared(&db->work_prepared, work, oldest);
	forget_prepared(&db->pauses_prepared, pauses, oldest);
}

/*
 * A snapshot during whose taking no commit was announced, and depth_change as of
 * then; after some tries, any.
 */
static Snapshot
steady_snapshot(DbState *db, int64 *change)
{
	Snapshot	snapshot = NULL;

	for (int try = 0; try < STEADY_TRIES; try++)
	{
		if (snapshot != NULL)
			UnregisterSnapshot(snapshot);
		*change = (int64) pg_atomic_read_u64(&db->depth_change);
		if (IsolationIsSerializable())
			return SnapshotSelf;
		snapshot = RegisterSnapshot(GetLatestSnapshot());
		if (*change == (int64) pg_atomic_read_u64(&db->depth_change))
			break;
	}
	return snapshot;
}

/*
 * Rows of the queue that others have committed, as of the beginning of the count.
 * In a serializable transaction not with an MVCC snapshot, which would put a
 * predicate lock on the whole queue; the count may then see what commits while
 * it goes on.
 */
static int64
count_committed_rows(Oid queue, DbState *db, int64 *change)
{
	Relation	rel = table_open(queue, AccessShareLock);
	Snapshot	snapshot = steady_snapshot(db, change);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	HeapTuple	tuple;
	int64		rows = 0;

	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		if (!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data)))
			rows++;
	}
	table_endscan(scan);
	if (snapshot != SnapshotSelf)
		UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return rows;
}

/*
 * depth_change runs from the start of the server; one count fixes what it is
 * added to.  Whoever counts at the same time finds a base that is as good.  A
 * session that is visible to the snapshot and has not announced itself yet is
 * counted twice: the queue may be full earlier by one per such session.  What is
 * prepared is not counted, until a later count.
 */
void
announce_count_queue(DbState *db, Oid queue)
{
	uint32		stale = pg_atomic_read_u32(&db->depth_stale);
	int64		change;
	int64		rows;

	rows = count_committed_rows(queue, db, &change);
	pg_atomic_write_u64(&db->depth_base, (uint64) (rows - change));
	pg_atomic_write_u32(&db->depth_known, 1);
	/* unless it became so again meanwhile */
	pg_atomic_compare_exchange_u32(&db->depth_stale, &stale, 0);
}

int64
announce_queue_depth(Oid queue)
{
	DbState    *db;

	remember_database();
	db = noted.db;
	if (db == NULL)
		return -1;
	if (!pg_atomic_read_u32(&db->depth_known))
		announce_count_queue(db, queue);
	return shmem_queue_depth(db) + noted.total.rows;
}

Datum
settlement_next_queue_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(announce_next_id(settlement_catalog(false)->queue_id_seq, false));
}
