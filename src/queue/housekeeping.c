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
	"SELECT ctid FROM settlement.attempts WHERE at < $1 LIMIT $2))",
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

void
forget_attempts(TimestampTz before, int max)
{
	Datum		values[2];

	SPI_connect();
	values[0] = TimestampTzGetDatum(before);
	values[1] = Int32GetDatum(max);
	statement_run(&delete_old_attempts, values);
	SPI_finish();
}

void
count_unsettled(Unsettled *result)
{
	SPI_connect();
	if (SPI_execute("LOCK TABLE settlement.queue, settlement.deferred, "
					"settlement.dlq, settlement.unapplied IN ACCESS EXCLUSIVE MODE",
					false, 0) < 0 ||
		SPI_execute("SELECT (SELECT pg_catalog.count(*) FROM settlement.queue), "
					"(SELECT pg_catalog.count(*) FROM settlement.deferred), "
					"(SELECT pg_catalog.count(*) FROM settlement.unapplied), "
					"(SELECT pg_catalog.count(*) FROM settlement.dlq "
					"WHERE status OPERATOR(pg_catalog.=) 'UNKNOWN')",
					false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not count the trades that are not settled");
	result->queued = result_int8(0, 1);
	result->deferred = result_int8(0, 2);
	result->unapplied = result_int8(0, 3);
	result->unknown = result_int8(0, 4);
	SPI_finish();
}
