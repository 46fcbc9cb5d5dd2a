/*
 * numbers.c
 *	  SQL functions that read the counters and the histograms of the current
 *	  database: settlement._counters(), _durations(), _duration_buckets().
 *
 * Atomics only, no lock.  All numbers count from the last server start; without
 * preload there are no rows.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/float.h"

#include "pgver.h"
#include "api/rows.h"
#include "policy/histogram.h"
#include "shared/shmem.h"

PG_FUNCTION_INFO_V1(settlement_list_counters);
PG_FUNCTION_INFO_V1(settlement_list_durations);
PG_FUNCTION_INFO_V1(settlement_list_duration_buckets);

static const char *const counter_names[] = {
	[COUNT_SUBMITTED] = "submitted",
	[COUNT_PROCESSED] = "processed",
	[COUNT_SETTLED] = "settled",
	[COUNT_FAILED] = "failed",
	[COUNT_REJECTED] = "rejected",
	[COUNT_REQUESTS] = "requests",
	[COUNT_REQUEST_FAILURES] = "request_failures",
	[COUNT_BATCHES] = "batches",
	[COUNT_RETRIES] = "retries",
	[COUNT_LOOKUPS] = "lookups",
	[COUNT_RECOVERED] = "recovered",
	[COUNT_LATE_SETTLED] = "late_settled",
	[COUNT_TURNS] = "turns",
	[COUNT_TURN_ABORTS] = "turn_aborts",
	[COUNT_APPLY_FAILURES] = "apply_failures",
	[COUNT_SWEEPS] = "sweeps",
	[COUNT_DUPLICATES] = "duplicates",
};

StaticAssertDecl(lengthof(counter_names) == N_COUNTERS,
				 "every counter needs a name");

static const char *const duration_names[] = {
	[DURATION_QUEUE_WAIT] = "queue_wait",
	[DURATION_REQUEST] = "request",
	[DURATION_SETTLE] = "settle",
	[DURATION_TURN] = "turn",
};

StaticAssertDecl(lengthof(duration_names) == N_DURATIONS,
				 "every duration needs a name");

/* Upper bounds in us of the exported buckets; the last one, +Inf, is implied. */
static const int64 bucket_bounds[] = {
	1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000,
	2500000, 5000000, 10000000, 30000000, 60000000,
	INT64CONST(300000000), INT64CONST(1800000000), INT64CONST(10800000000),
	INT64CONST(86400000000)
};

static double
seconds(int64 us)
{
	return us / 1000000.0;
}

/* name, value. */
Datum
settlement_list_counters(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();

	for (int i = 0; db != NULL && i < N_COUNTERS; i++)
	{
		Datum		value[] = {
			CStringGetTextDatum(counter_names[i]),
			Int64GetDatum(pg_atomic_read_u64(&db->counter[i]))
		};
		bool		null[lengthof(value)] = {false};

		rows_put(&sink, value, null);
	}
	return (Datum) 0;
}

/* name, count, sum, p50, p95, p99, max; in seconds, NULL when empty. */
Datum
settlement_list_durations(PG_FUNCTION_ARGS)
{
	static const double quantile[] = {0.5, 0.95, 0.99, 1.0};
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();

	for (int i = 0; db != NULL && i < N_DURATIONS; i++)
	{
		Histogram	copy = db->duration[i];
		Datum		value[3 + lengthof(quantile)];
		bool		null[lengthof(value)] = {false};

		value[0] = CStringGetTextDatum(duration_names[i]);
		value[1] = Int64GetDatum(copy.count);
		value[2] = Float8GetDatum(seconds(copy.sum_us));
		for (int q = 0; q < lengthof(quantile); q++)
		{
			int64		us = histogram_quantile(&copy, quantile[q]);

			null[3 + q] = us < 0;
			value[3 + q] = Float8GetDatum(seconds(us));
		}
		rows_put(&sink, value, null);
	}
	return (Datum) 0;
}

/*
 * name, le (seconds; infinity last), count: cumulative.  The last bucket of a
 * duration is the greatest of its bounds' counts and its total, so that a
 * histogram read while it grows never decreases.
 */
Datum
settlement_list_duration_buckets(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();

	for (int i = 0; db != NULL && i < N_DURATIONS; i++)
	{
		Histogram	copy = db->duration[i];
		uint64		below = 0;

		for (int b = 0; b <= lengthof(bucket_bounds); b++)
		{
			bool		last = b == lengthof(bucket_bounds);
			uint64		count = last ? copy.count
				: histogram_count_le(&copy, bucket_bounds[b]);
			Datum		value[3];
			bool		null[lengthof(value)] = {false};

			below = Max(below, count);
			value[0] = CStringGetTextDatum(duration_names[i]);
			value[1] = Float8GetDatum(last ? get_float8_infinity()
									  : seconds(bucket_bounds[b]));
			value[2] = Int64GetDatum(below);
			rows_put(&sink, value, null);
		}
	}
	return (Datum) 0;
}
