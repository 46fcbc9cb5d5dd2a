/*
 * pgver.h
 *	  Differences between PostgreSQL 13 and 18, and nothing else.
 */
#ifndef SETTLEMENT_PGVER_H
#define SETTLEMENT_PGVER_H

#include "postgres.h"

#if PG_VERSION_NUM < 130000
#error "settlement needs PostgreSQL 13 or later"
#endif

/* shmem_request_hook: 15+; before, space is requested from _PG_init. */
#if PG_VERSION_NUM >= 150000
#define HAVE_SHMEM_REQUEST_HOOK 1
#endif

/* CreateWaitEventSet: 17 wants a resource owner. */
#if PG_VERSION_NUM >= 170000
#define create_wait_event_set_compat(context, n) CreateWaitEventSet(NULL, n)
#else
#define create_wait_event_set_compat(context, n) CreateWaitEventSet(context, n)
#endif

/* A random number in [0, 1), not for secrets. */
#if PG_VERSION_NUM >= 150000
#include "common/pg_prng.h"
#define random_fraction() pg_prng_double(&pg_global_prng_state)
#else
#define random_fraction() ((double) random() / ((double) MAX_RANDOM_VALUE + 1))
#endif

/* index_beginscan: 18 added instrumentation. */
#if PG_VERSION_NUM >= 180000
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* Oid of the primary key's index: 18 asks whether a deferrable one will do. */
#if PG_VERSION_NUM >= 180000
#define RelationGetPrimaryKey(rel)	RelationGetPrimaryKeyIndex(rel, false)
#else
#define RelationGetPrimaryKey(rel)	RelationGetPrimaryKeyIndex(rel)
#endif

/* 14 has int64_to_numeric. */
#if PG_VERSION_NUM < 140000
#define int64_to_numeric(val) \
	DatumGetNumeric(DirectFunctionCall1(int8_numeric, Int64GetDatum(val)))
#endif

/*
 * Macros for writing trade rows (queue/apply_*.c), so that only those files
 * need the executor's headers.
 */
#if PG_VERSION_NUM >= 160000
#define EvalPlanQualInit_compat(epq, estate) \
	EvalPlanQualInit(epq, estate, NULL, NIL, -1, NIL)
#else
#define EvalPlanQualInit_compat(epq, estate) \
	EvalPlanQualInit(epq, estate, NULL, NIL, -1)
#endif

#if PG_VERSION_NUM >= 180000
#define ExecInitRangeTable_compat(estate, range_table, permissions) \
	ExecInitRangeTable(estate, range_table, permissions, bms_make_singleton(1))
#elif PG_VERSION_NUM >= 160000
#define ExecInitRangeTable_compat(estate, range_table, permissions) \
	ExecInitRangeTable(estate, range_table, permissions)
#else
#define ExecInitRangeTable_compat(estate, range_table, permissions) \
	((void) (permissions), ExecInitRangeTable(estate, range_table))
#endif

#if PG_VERSION_NUM >= 140000
#define set_result_relation_compat(estate, relinfo) \
	((estate)->es_opened_result_relations = \
	 lappend((estate)->es_opened_result_relations, relinfo))
#define ExecSimpleRelationUpdate_compat(relinfo, estate, epq, old_slot, new_slot) \
	ExecSimpleRelationUpdate(relinfo, estate, epq, old_slot, new_slot)
#else
#define set_result_relation_compat(estate, relinfo) \
	((estate)->es_result_relations = (relinfo), \
	 (estate)->es_num_result_relations = 1, \
	 (estate)->es_result_relation_info = (relinfo))
#define ExecSimpleRelationUpdate_compat(relinfo, estate, epq, old_slot, new_slot) \
	ExecSimpleRelationUpdate(estate, epq, old_slot, new_slot)
#endif

#endif
