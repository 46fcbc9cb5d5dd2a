/*
 * rows.c
 *	  Set-returning C functions: one materialized result.
 *
 * By hand because InitMaterializedSRF exists from PostgreSQL 15 only.
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"

#include "api/rows.h"

RowSink
rows_begin(FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext old;
	RowSink		sink;

	if (result == NULL || !IsA(result, ReturnSetInfo) ||
		(result->allowedModes & SFRM_Materialize) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set")));
	if (get_call_result_type(fcinfo, NULL, &sink.desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	old = MemoryContextSwitchTo(result->econtext->ecxt_per_query_memory);
	sink.desc = CreateTupleDescCopy(sink.desc);
	sink.store = tuplestore_begin_heap(true, false, work_mem);
	MemoryContextSwitchTo(old);

	result->returnMode = SFRM_Materialize;
	result->setResult = sink.store;
	result->setDesc = sink.desc;
	return sink;
}

void
rows_put(RowSink *sink, Datum *values, bool *nulls)
{
	tuplestore_putvalues(sink->store, sink->desc, values, nulls);
}
