/*
 * rows.h
 *	  Set-returning C functions: one materialized result.
 */
#ifndef SETTLEMENT_API_ROWS_H
#define SETTLEMENT_API_ROWS_H

#include "fmgr.h"
#include "utils/tuplestore.h"

typedef struct RowSink
{
	Tuplestorestate *store;
	TupleDesc	desc;
} RowSink;

/*
 * Start the result of a function declared RETURNS TABLE or SETOF record; error
 * feature_not_supported where the caller cannot take a set.
 */
extern RowSink rows_begin(FunctionCallInfo fcinfo);

/* Append one row; as many values as the function has result columns. */
extern void rows_put(RowSink *sink, Datum *values, bool *nulls);

#endif
