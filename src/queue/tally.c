/*
 * tally.c
 *	  Fold settlement.dlq_tally.
 *
 * Each change of settlement.dlq adds rows to the tally in its own transaction
 * (sql/tally.sql, enqueue.c), so the sums are exact in every snapshot and nobody
 * waits for a row that another one counts in.  Here the rows become few again.
 * The advisory lock keeps out settlement._count_dead(), which replaces them all.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "queue/statement.h"
#include "queue/tally.h"

/* Fewer rows than this are not worth a write. */
#define MANY_ROWS	100

/* The class is that of recover.c; sql/tally.sql has the same. */
#define TALLY_LOCK	"1398033485, 2"

static Statement fold = {
	"WITH gone AS (DELETE FROM settlement.dlq_tally"
	"  WHERE (SELECT pg_catalog.count(*) > $1 + 2 * pg_catalog.count(DISTINCT (status, class, code, http_status, symbol))"
	"         FROM settlement.dlq_tally)"
	"  AND (SELECT pg_catalog.pg_try_advisory_xact_lock(" TALLY_LOCK ")) RETURNING *) "
	"INSERT INTO settlement.dlq_tally (status, class, code, http_status, symbol, trades, discardable, "
	" quote_value, first_seen, last_seen) "
	"SELECT status, class, code, http_status, symbol, pg_catalog.sum(trades), pg_catalog.sum(discardable), "
	" pg_catalog.sum(quote_value), pg_catalog.min(first_seen), pg_catalog.max(last_seen) "
	"FROM gone GROUP BY status, class, code, http_status, symbol HAVING pg_catalog.sum(trades) <> 0",
	1, {INT4OID}
};

void
tally_fold(void)
{
	Datum		values[1] = {Int32GetDatum(MANY_ROWS)};

	SPI_connect();
	statement_run(&fold, values);
	SPI_finish();
}
