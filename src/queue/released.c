/*
 * released.c
 *	  Which symbols' trades, put aside by a pause, may go on.
 *
 * Each worker has its own list.  It goes through the rows of a symbol in order of
 * their ids and remembers how far it came, because what was moved on leaves dead
 * index entries at the start.  Rows may appear behind that (put aside by a
 * transaction that drew its ids early, held by somebody when we came by, or taken
 * by a transaction that aborted), so a symbol that has nothing more is forgotten
 * with its position, and found again if it has.  The positions only save time.
 *
 * The list is made anew when it is empty, when the pauses have changed or one has
 * ended, and once in a while.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"

#include "queue/released.h"
#include "queue/statement.h"

#define LIST_LASTS_MS	1000

static MemoryContext context = NULL;
static Released *list = NULL;
static int	n_list = 0;
static int	turn = 0;
static TimestampTz next_end;	/* of a pause that has put something aside */
static TimestampTz made_at;
static uint64 version = 0;		/* of the pauses */

/* One look at the index per symbol. */
static Statement find_aside = {
	"WITH RECURSIVE s AS ("
	"SELECT (SELECT d.symbol FROM settlement.deferred d WHERE d.reason = 'paused' ORDER BY d.symbol LIMIT 1) AS symbol "
	"UNION ALL SELECT (SELECT d.symbol FROM settlement.deferred d WHERE d.reason = 'paused' AND d.symbol > s.symbol ORDER BY d.symbol LIMIT 1)"
	" FROM s WHERE s.symbol IS NOT NULL) "
	"SELECT s.symbol, CASE WHEN p.symbol IS NULL THEN '-infinity' ELSE COALESCE(p.until, 'infinity') END"
	" FROM s LEFT JOIN settlement.pauses p ON p.symbol = s.symbol WHERE s.symbol IS NOT NULL", 0
};

static int64
position(const Released *old, int n, const char *symbol)
{
	for (int i = 0; i < n; i++)
		if (strcmp(old[i].symbol, symbol) == 0)
			return old[i].after;
	return 0;
}

static void
make_list(DbState *db, TimestampTz now)
{
	MemoryContext fresh;
	MemoryContext old;
	Released   *symbols;
	TimestampTz end = DT_NOEND;
	uint64		current = pg_atomic_read_u64(&db->pauses_version);
	int			n = 0;

	pg_memory_barrier();
	statement_run(&find_aside, NULL);
	fresh = AllocSetContextCreate(CurrentMemoryContext, "settlement released",
								  ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(fresh);
	symbols = palloc(sizeof(Released) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;
		TimestampTz until = DatumGetTimestampTz(result_value(i, 2, &isnull));

		if (until > now)
			end = Min(end, until);
		else
		{
			symbols[n].symbol = TextDatumGetCString(result_value(i, 1, &isnull));
			symbols[n].after = position(list, n_list, symbols[n].symbol);
			n++;
		}
	}
	MemoryContextSwitchTo(old);

	if (context != NULL)
		MemoryContextDelete(context);
	MemoryContextSetParent(fresh, TopMemoryContext);
	context = fresh;
	list = symbols;
	n_list = n;
	next_end = end;
	made_at = now;
	version = current;
}

static void
refresh(DbState *db, TimestampTz now)
{
	if (n_list == 0 || now >= next_end || now < made_at ||
		version != pg_atomic_read_u64(&db->pauses_version) ||
		TimestampDifferenceExceeds(made_at, now, LIST_LASTS_MS))
		make_list(db, now);
}

Released *
released_next(DbState *db, TimestampTz now)
{
	refresh(db, now);
	return n_list > 0 ? &list[turn++ % n_list] : NULL;
}

void
released_moved(Released *released, int64 last)
{
	if (last > 0)
		released->after = last;
	else
		*released = list[--n_list];
}

TimestampTz
released_when(DbState *db, TimestampTz now)
{
	refresh(db, now);
	return n_list > 0 ? now : next_end;
}
