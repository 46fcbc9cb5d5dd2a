/*
 * pauses.c
 *	  A private copy of settlement.pauses: few rows, read when their version in
 *	  shared memory moves.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "queue/pauses.h"
#include "queue/statement.h"

typedef struct Pause
{
	char	   *symbol;			/* "*": everything */
	TimestampTz until;
} Pause;

static MemoryContext context = NULL;
static Pause *pauses = NULL;
static int	n_pauses = 0;
static uint64 version = 0;

static Statement select_pauses = {
	"SELECT symbol, COALESCE(until, 'infinity') FROM settlement.pauses", 0
};

static void
read_pauses(void)
{
	MemoryContext old;

	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "settlement pauses",
										ALLOCSET_SMALL_SIZES);
	SPI_connect();
	statement_run(&select_pauses, NULL);

	n_pauses = 0;
	MemoryContextReset(context);
	old = MemoryContextSwitchTo(context);
	pauses = palloc(sizeof(Pause) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bool		isnull;

		pauses[i].symbol = TextDatumGetCString(result_value(i, 1, &isnull));
		pauses[i].until = DatumGetTimestampTz(result_value(i, 2, &isnull));
	}
	n_pauses = SPI_processed;
	MemoryContextSwitchTo(old);
	SPI_finish();
}

void
pauses_refresh(DbState *db)
{
	uint64		current = pg_atomic_read_u64(&db->pauses_version);

	if (version == current)
		return;
	version = 0;				/* an error on the way leaves fewer than there are */
	read_pauses();
	version = current;
}

uint64
pauses_version(void)
{
	return version;
}

bool
pauses_everything(TimestampTz now)
{
	for (int i = 0; i < n_pauses; i++)
		if (strcmp(pauses[i].symbol, "*") == 0 && pauses[i].until > now)
			return true;
	return false;
}

bool
pauses_symbol(const char *symbol, int len, TimestampTz now, TimestampTz *until)
{
	for (int i = 0; i < n_pauses; i++)
		if (strlen(pauses[i].symbol) == len &&
			memcmp(pauses[i].symbol, symbol, len) == 0 &&
			pauses[i].until > now)
		{
			*until = pauses[i].until;
			return true;
		}
	return false;
}
