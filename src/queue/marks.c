/*
 * marks.c
 *	  Which ids behind the frontier are decided.  See frontier.c for the argument.
 *
 * A mark closes a stretch of ids: how many of them were handed out, and the
 * transaction id that a snapshot's xmin has to reach for all of them to be decided.
 * Pure bookkeeping in DbState; the caller holds hint_mutex.
 */
#include "postgres.h"

#include "access/transam.h"
#include "utils/timestamp.h"

#include "queue/marks.h"

#define MARK_INTERVAL_MS	1000

/* Which stretch does it belong to? */
void
marks_count_claimed(DbState *db, int64 id)
{
	if (id <= db->safe)
		return;
	for (int i = 0; i < db->n_marks; i++)
		if (id <= db->marks[i].id_hi)
		{
			db->marks[i].claimed++;
			return;
		}
	db->open_claimed++;
}

/* Too few only cost a sweep, too many would hide a hole. */
void
marks_count_returned(DbState *db, int64 id)
{
	if (id <= db->safe)
		return;
	for (int i = 0; i < db->n_marks; i++)
		if (id <= db->marks[i].id_hi)
		{
			db->marks[i].claimed--;
			return;
		}
	db->open_claimed--;
}

static int64
last_mark(const DbState *db)
{
	return db->n_marks > 0 ? db->marks[db->n_marks - 1].id_hi : db->safe;
}

void
marks_set(DbState *db, FullTransactionId next_xid, TimestampTz now)
{
	ScanMark   *mark;

	if (db->frontier <= last_mark(db) ||
		!TimestampDifferenceExceeds(db->marked_at, now, MARK_INTERVAL_MS))
		return;
	if (db->n_marks == MAX_SCAN_MARKS)
	{
		/* one old transaction holds them all up: join the two oldest */
		db->marks[1].claimed += db->marks[0].claimed;
		memmove(&db->marks[0], &db->marks[1],
				sizeof(ScanMark) * (MAX_SCAN_MARKS - 1));
		db->n_marks--;
	}
	mark = &db->marks[db->n_marks++];
	mark->id_hi = db->frontier;
	mark->xid = U64FromFullTransactionId(next_xid);
	mark->claimed = db->open_claimed;
	db->open_claimed = 0;
	db->marked_at = now;
}

void
marks_decide(DbState *db, TransactionId xmin)
{
	while (db->n_marks > 0 && db->sweep_next > db->sweep_end)
	{
		ScanMark	mark = db->marks[0];

		if (!TransactionIdFollowsOrEquals(xmin,
										  XidFromFullTransactionId(FullTransactionIdFromU64(mark.xid))))
			break;
		if (mark.claimed < mark.id_hi - db->safe)
		{
			db->sweep_next = db->safe + 1;
			db->sweep_end = mark.id_hi;
		}
		db->safe = mark.id_hi;
		db->n_marks--;
		memmove(&db->marks[0], &db->marks[1], sizeof(ScanMark) * db->n_marks);
	}
}
