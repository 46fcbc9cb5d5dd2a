/*
 * pace.c
 *	  SQL function that shows how fast this database settles:
 *	  settlement._recent().
 *
 * Whoever asks takes a snapshot too when one is due, so that the numbers stay
 * those of a minute while no worker runs.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "api/rows.h"
#include "shared/pace.h"

PG_FUNCTION_INFO_V1(settlement_recent);

/* Seconds; null when nothing was measured. */
static Datum
quantile(const Histogram *h, double q, bool *isnull)
{
	int64		us = histogram_quantile(h, q);

	*isnull = us < 0;
	return Float8GetDatum(us / 1000000.0);
}

/*
 * window_s, submitted, settled, dead, requests, answered, p50 and p99 of a
 * request, p50 and p99 from enqueue to settled.
 */
Datum
settlement_recent(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();
	TimestampTz now = GetCurrentTimestamp();
	Pace		pace;
	Datum		value[10];
	bool		null[lengthof(value)] = {false};

	if (db == NULL)
		return (Datum) 0;
	pace_read(db, now, &pace);
	pace_tick(db, now);
	if (pace.window_us == 0)
		return (Datum) 0;
	value[0] = Float8GetDatum(pace.window_us / 1000000.0);
	value[1] = Int64GetDatum(pace.submitted);
	value[2] = Int64GetDatum(pace.settled);
	value[3] = Int64GetDatum(pace.dead);
	value[4] = Int64GetDatum(pace.requests);
	value[5] = Int64GetDatum(pace.request.count);
	value[6] = quantile(&pace.request, 0.5, &null[6]);
	value[7] = quantile(&pace.request, 0.99, &null[7]);
	value[8] = quantile(&pace.settle, 0.5, &null[8]);
	value[9] = quantile(&pace.settle, 0.99, &null[9]);
	rows_put(&sink, value, null);
	return (Datum) 0;
}
