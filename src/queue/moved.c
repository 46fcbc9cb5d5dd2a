/*
 * moved.c
 *	  Trades whose rows the present transaction moves: deletes and inserts again.
 *
 * That is what an UPDATE of a partition key is to triggers, and how partition
 * managers move rows.  A row that is deleted while it says PENDING was enqueued
 * when it was inserted, and what was enqueued then goes on: its outcome follows
 * the row (apply_find.c).  It alone has the facts, when its key may first have
 * been sent and whether it may have been executed.  A second queue row would have
 * none, and would be sent although the wallet may have forgotten the key by now.
 *
 * What is noted lives as long as the subtransaction that deleted the row, and
 * takes memory as the events of the trigger do.
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "pgver.h"
#include "queue/moved.h"

typedef struct TradeKey
{
	int			attached_id;
	const text *trade_id;
} TradeKey;

typedef struct Deleted
{
	TradeKey	key;
	struct Deleted *before;		/* noted before this one */
} Deleted;

/*
 * The transaction, or a subtransaction, that has deleted something: all that is
 * newer than `before`.  What a part inside of it has deleted becomes its own when
 * that part commits, so that they nest, and only the innermost one can end.
 */
typedef struct Part
{
	int			level;
	Deleted    *before;			/* the last one that is not its own */
	struct Part *outer;			/* of a lower level */
} Part;

/* Of the present transaction, in its memory; NULL: none. */
static HTAB *deleted = NULL;
static Deleted *newest = NULL;
static Part *innermost = NULL;

static uint32
hash_key(const void *key, Size size)
{
	const text *id = ((const TradeKey *) key)->trade_id;

	return hash_bytes((const unsigned char *) VARDATA_ANY(id), (int) VARSIZE_ANY_EXHDR(id));
}

static int
compare_keys(const void *a, const void *b, Size size)
{
	const TradeKey *x = a;
	const TradeKey *y = b;
	Size		len = VARSIZE_ANY_EXHDR(x->trade_id);

	return x->attached_id != y->attached_id || len != VARSIZE_ANY_EXHDR(y->trade_id) ||
		memcmp(VARDATA_ANY(x->trade_id), VARDATA_ANY(y->trade_id), len) != 0;
}

static void
end_of_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT ||
		event == XACT_EVENT_PREPARE)
	{
		deleted = NULL;
		newest = NULL;
		innermost = NULL;
	}
}

/* What the part has deleted is there again. */
static void
forget(const Part *part)
{
	while (newest != part->before)
	{
		Deleted    *one = newest;

		newest = one->before;
		hash_search(deleted, &one->key, HASH_REMOVE, NULL);
	}
}

/*
 * What it deleted is its parent's now, or there again.  No row is looked at but
 * those that are there again: there may be many rows and as many savepoints.
 */
static void
end_of_subtransaction(SubXactEvent event, SubTransactionId mySubid,
					  SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	Part	   *part = innermost;

	if (part == NULL || part->level < level ||
		(event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB))
		return;
	Assert(part->level == level);
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget(part);
	else if (part->outer == NULL || part->outer->level < level - 1)
	{
		part->level = level - 1;
		return;
	}
	innermost = part->outer;
	pfree(part);
}

static void
make_table(void)
{
	static bool registered = false;
	HASHCTL		control = {0};

	if (!registered)
	{
		RegisterXactCallback(end_of_transaction, NULL);
		RegisterSubXactCallback(end_of_subtransaction, NULL);
		registered = true;
	}
	control.keysize = sizeof(TradeKey);
	control.entrysize = sizeof(Deleted);
	control.hash = hash_key;
	control.match = compare_keys;
	control.hcxt = TopTransactionContext;
	deleted = hash_create("settlement deleted trades", 64, &control,
						  HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

/* The part that what is deleted now belongs to. */
static void
begin_part(void)
{
	int			level = GetCurrentTransactionNestLevel();
	Part	   *part;

	if (innermost != NULL && innermost->level == level)
		return;
	Assert(innermost == NULL || innermost->level < level);
	part = MemoryContextAlloc(TopTransactionContext, sizeof(Part));
	part->level = level;
	part->before = newest;
	part->outer = innermost;
	innermost = part;
}

void
moved_note_deleted(int attached_id, const text *trade_id)
{
	Size		size = VARSIZE_ANY(trade_id);
	TradeKey	key = {attached_id, trade_id};
	Deleted    *one;
	text	   *copy;

	if (deleted == NULL)
		make_table();
	if (hash_search(deleted, &key, HASH_FIND, NULL) != NULL)
		return;
	begin_part();
	copy = MemoryContextAlloc(TopTransactionContext, size);
	memcpy(copy, trade_id, size);
	key.trade_id = copy;
	one = hash_search(deleted, &key, HASH_ENTER, NULL);
	one->before = newest;
	newest = one;
}

bool
moved_was_deleted(int attached_id, const text *trade_id)
{
	TradeKey	key = {attached_id, trade_id};

	return deleted != NULL && hash_search(deleted, &key, HASH_FIND, NULL) != NULL;
}
