/*
 * housekeeping.c
 *	  Questions about our tables as a whole, and what is deleted by age.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "queue/housekeeping.h"
#include "queue/statement.h"
#include "shared/shmem.h"

static Statement extension_version = {
	"SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'settlement'", 0
};

static Statement delete_old_attempts = {
	"DELETE FROM settlement.attempts WHERE ctid = ANY (ARRAY("
	"SELECT ctid FROM settlement.attempts WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))",
	2, {TIMESTAMPTZOID, INT4OID}
};

bool
versions_agree(void)
{
	bool		agree = false;

	SPI_connect();
	statement_run(&extension_version, NULL);
	if (SPI_processed == 1)
	{
		bool		isnull;
		char	   *version = TextDatumGetCString(result_value(0, 1, &isnull));

		agree = strcmp(version, SETTLEMENT_VERSION) == 0;
	}
	SPI_finish();
	return agree;
}

int
forget_attempts(TimestampTz before, int max)
{
	Datum		values[2];
	int			n;

	SPI_connect();
	values[0] = TimestampTzGetDatum(before);
	values[1] = Int32GetDatum(max);
	statement_run(&delete_old_attempts, values);
	n = (int) SPI_processed;
	SPI_finish();
	return n;
}
