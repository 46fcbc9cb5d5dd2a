/*
 * unsettled.c
 *	  What would be lost if our tables were dropped now.
 *
 * Runs in a session that drops the extension, with its privileges: its owner
 * may read the tables.  Names are qualified, the search path is the session's.
 */
#include "postgres.h"

#include "executor/spi.h"

#include "queue/unsettled.h"

static int64
count_of(int column)
{
	bool		isnull;

	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc,
									   column, &isnull));
}

UnsettledTrades
unsettled_lock_and_count(void)
{
	UnsettledTrades result;

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
	result.queued = count_of(1);
	result.deferred = count_of(2);
	result.unapplied = count_of(3);
	result.unknown = count_of(4);
	SPI_finish();
	return result;
}
