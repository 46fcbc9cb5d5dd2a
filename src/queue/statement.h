/*
 * statement.h
 *	  Prepared statements of the worker, planned once, and arrays as arguments.
 */
#ifndef SETTLEMENT_QUEUE_STATEMENT_H
#define SETTLEMENT_QUEUE_STATEMENT_H

#include "executor/spi.h"

#define MAX_ARGUMENTS	20

typedef struct Statement
{
	const char *sql;
	int			n_arguments;
	Oid			types[MAX_ARGUMENTS];
	SPIPlanPtr	plan;			/* kept for the life of the process */
} Statement;

/*
 * Run it inside SPI_connect/SPI_finish; the result is in SPI_tuptable and
 * SPI_processed.  Always by index and nested loop: our tables are tiny or huge,
 * and their statistics are stale the moment they are taken.
 */
extern void statement_run(Statement *statement, const Datum *values);

/* The same, with 'n' in nulls[i] for a null and ' ' for a value. */
extern void statement_run_nulls(Statement *statement, const Datum *values,
								const char *nulls);

/* Arrays; texts may be NULL, times of 0 become NULL. */
extern Datum int8_array(const int64 *values, int n);
extern Datum int4_array(const int *values, int n);
extern Datum bool_array(const bool *values, int n);
extern Datum text_array(const char *const *values, int n);
extern Datum time_array(const TimestampTz *values, int n);
extern Datum bytea_array(const uint8 *const *values, int len, int n);

/* Column `column` (1-based) of row `row` of the last result. */
extern Datum result_value(int row, int column, bool *isnull);
extern int64 result_int8(int row, int column);

#endif
