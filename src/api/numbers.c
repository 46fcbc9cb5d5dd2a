/*
 * numbers.c
 *	  SQL functions that read the counters and the histograms of the current
 *	  database: settlement._counters(), _durations(), _histograms(), _stats_reset().
 *
 * Numbers are read without a lock, one after the other.  Without preload there
 * are no rows.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "api/rows.h"
#include "policy/histogram.h"
#include "shared/shmem.h"

PG_FUNCTION_INFO_V1(settlement_list_counters);
PG_FUNCTION_INFO_V1(settlement_list_durations);
PG_FUNCTION_INFO_V1(settlement_list_histograms);
PG_FUNCTION_INFO_V1(settlement_stats_reset);

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

/*
 * Where exported buckets end.  At a power of two a bucket of our histograms ends
 * too, so that each count is exact.
 */
#define POWER(k)	(INT64CONST(1) << (k))

/* In us: 0.256 ms to 34 s by two, then to 19 hours. */
static const int64 duration_bounds[] = {
	POWER(8), POWER(9), POWER(10), POWER(11), POWER(12), POWER(13), POWER(14),
	POWER(15), POWER(16), POWER(17), POWER(18), POWER(19), POWER(20), POWER(21),
	POWER(22), POWER(23), POWER(24), POWER(25), POWER(27), POWER(29), POWER(31),
	POWER(33), POWER(36)
};

/* 1 to MAX_CONCURRENCY. */
static const int64 claim_bounds[] = {
	POWER(0), POWER(1), POWER(2), POWER(3), POWER(4), POWER(5), POWER(6),
	POWER(7), POWER(8), POWER(9), POWER(10), POWER(11), POWER(12)
};

StaticAssertDecl(MAX_CONCURRENCY == 1 << 12, "claim_bounds end with the largest claim");

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
 * One row: name, le (infinity last), counts (cumulative), sum.  `first` is what a
 * value of 0 stands for, `per_unit` how many values make up one unit of le and sum.
 * The last count is no less than those before it, whatever is added meanwhile.
 */
static void
put_histogram(RowSink *sink, const char *name, const Histogram *histogram,
			  const int64 *bounds, int n, int64 first, double per_unit)
{
	Histogram	copy = *histogram;
	Datum	   *le = palloc(sizeof(Datum) * (n + 1));
	Datum	   *counts = palloc(sizeof(Datum) * (n + 1));
	uint64		count = 0;
	Datum		value[4];
	bool		null[lengthof(value)] = {false};

	for (int i = 0; i < n; i++)
	{
		count = histogram_count_le(&copy, bounds[i] - 1);
		le[i] = Float8GetDatum(bounds[i] / per_unit);
		counts[i] = Int64GetDatum((int64) count);
	}
	count = Max(count, copy.count);
	le[n] = Float8GetDatum(get_float8_infinity());
	counts[n] = Int64GetDatum((int64) count);

	value[0] = CStringGetTextDatum(name);
	value[1] = PointerGetDatum(construct_array(le, n + 1, FLOAT8OID, sizeof(float8),
											   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	value[2] = PointerGetDatum(construct_array(counts, n + 1, INT8OID, sizeof(int64),
											   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	value[3] = Float8GetDatum((copy.sum_us + copy.count * first) / per_unit);
	rows_put(sink, value, null);
}

Datum
settlement_list_histograms(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	DbState    *db = shmem_my_database();

	if (db == NULL)
		return (Datum) 0;
	for (int i = 0; i < N_DURATIONS; i++)
		put_histogram(&sink, duration_names[i], &db->duration[i],
					  duration_bounds, lengthof(duration_bounds), 0, 1000000.0);
	put_histogram(&sink, "claim_size", &db->claim_size,
				  claim_bounds, lengthof(claim_bounds), 1, 1.0);
	return (Datum) 0;
}

/* When the numbers of this database began; NULL without preload. */
Datum
settlement_stats_reset(PG_FUNCTION_ARGS)
{
	DbState    *db = shmem_my_database();
	TimestampTz result;

	if (db == NULL)
		PG_RETURN_NULL();
	LWLockAcquire(settlement_shared->lock, LW_SHARED);
	result = db->stats_reset;
	LWLockRelease(settlement_shared->lock);
	PG_RETURN_TIMESTAMPTZ(result);
}
