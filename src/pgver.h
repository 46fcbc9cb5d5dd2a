/*
 * pgver.h
 *	  Differences between PostgreSQL 13 and 18, and nothing else.
 */
#ifndef SETTLEMENT_PGVER_H
#define SETTLEMENT_PGVER_H

#include "postgres.h"
#include "fmgr.h"

/*
 * Before 16 PGDLLEXPORT is empty outside of Windows, and PG_FUNCTION_INFO_V1
 * does not export the function itself: with -fvisibility=hidden the server
 * would not find even the magic block.
 */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname) \
extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS); \
extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, funcname)(void); \
const Pg_finfo_record * \
CppConcat(pg_finfo_, funcname)(void) \
{ \
	static const Pg_finfo_record my_finfo = {1}; \
	return &my_finfo; \
} \
extern int	no_such_variable
#endif

/* 13.2 was the first with TimestampDifferenceMilliseconds. */
#if PG_VERSION_NUM < 130002
#error "settlement needs PostgreSQL 13.2 or later"
#endif

/* Macros of variable-length values: 16 took them out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
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

/* MarkGUCPrefixReserved: 15; before, placeholders only drew a warning. */
#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix)	EmitWarningsOnPlaceholders(prefix)
#endif

/* The timeline that WAL is written to; not during recovery. */
#if PG_VERSION_NUM >= 150000
#define insertion_timeline_compat()	GetWALInsertionTimeLine()
#else
/* RecoveryInProgress sets ThisTimeLineID */
#define insertion_timeline_compat()	((void) RecoveryInProgress(), ThisTimeLineID)
#endif

/* What queue/key.c uses of pg_cryptohash, which 14 has. */
#if PG_VERSION_NUM >= 140000
#include "common/cryptohash.h"
#else
#include "common/sha2.h"
typedef pg_sha256_ctx pg_cryptohash_ctx;
#define pg_cryptohash_create(type)				((pg_cryptohash_ctx *) palloc(sizeof(pg_cryptohash_ctx)))
#define pg_cryptohash_init(ctx)					(pg_sha256_init(ctx), 0)
#define pg_cryptohash_update(ctx, data, len)	(pg_sha256_update(ctx, data, len), 0)
#define pg_cryptohash_final(ctx, out, size)		(pg_sha256_final(ctx, out), 0)
#define pg_cryptohash_free(ctx)					pfree(ctx)
#endif

/* 64 random bits, not for secrets. */
#if PG_VERSION_NUM >= 150000
#define random_bits64() pg_prng_uint64(&pg_global_prng_state)
#else
#define random_bits64() \
	((uint64) random() << 42 ^ (uint64) random() << 21 ^ (uint64) random())
#endif

/* index_beginscan: 18 added instrumentation. */
#if PG_VERSION_NUM >= 180000
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define index_beginscan_compat(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

/* index_insert of a unique key: 14 added indexUnchanged. */
#if PG_VERSION_NUM >= 140000
#define index_insert_compat(index, values, isnull, tid, heap, info) \
	index_insert(index, values, isnull, tid, heap, UNIQUE_CHECK_YES, false, info)
#else
#define index_insert_compat(index, values, isnull, tid, heap, info) \
	index_insert(index, values, isnull, tid, heap, UNIQUE_CHECK_YES, info)
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

/* 16 took permissions out of the range table; parser/parse_relation.h is included. */
#if PG_VERSION_NUM >= 160000
#define set_updated_columns_compat(permissions, entry, columns) \
	(addRTEPermissionInfo(&(permissions), entry)->updatedCols = (columns))
#else
#define set_updated_columns_compat(permissions, entry, columns) \
	((entry)->updatedCols = (columns))
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

/*
 * Updating without waiting (queue/apply_row.c): 14, 15 and 16 changed arguments,
 * and 16 tells indexes that summarize (BRIN) from others.
 */
#if PG_VERSION_NUM >= 160000
#define UpdateIndexes TU_UpdateIndexes
#define must_update_indexes(which)	((which) != TU_None)
#define ExecUpdateIndexTuples_compat(relinfo, slot, estate, which) \
	ExecInsertIndexTuples(relinfo, slot, estate, true, false, NULL, NIL, \
						  (which) == TU_Summarizing)
#else
#define UpdateIndexes bool
#define must_update_indexes(which)	(which)
#if PG_VERSION_NUM >= 140000
#define ExecUpdateIndexTuples_compat(relinfo, slot, estate, which) \
	ExecInsertIndexTuples(relinfo, slot, estate, true, false, NULL, NIL)
#else
#define ExecUpdateIndexTuples_compat(relinfo, slot, estate, which) \
	ExecInsertIndexTuples(slot, estate, false, NULL, NIL)
#endif
#endif
#if PG_VERSION_NUM >= 150000
#define ExecARUpdateTriggers_compat(estate, relinfo, tid, slot, recheck) \
	ExecARUpdateTriggers(estate, relinfo, NULL, NULL, tid, NULL, slot, recheck, NULL, false)
#else
#define ExecARUpdateTriggers_compat(estate, relinfo, tid, slot, recheck) \
	ExecARUpdateTriggers(estate, relinfo, tid, NULL, slot, recheck, NULL)
#endif

/* Inserting below the executor (queue/enqueue.c): 14 and 16 changed arguments. */
#if PG_VERSION_NUM >= 160000
#define ExecInsertIndexTuples_compat(relinfo, slot, estate) \
	ExecInsertIndexTuples(relinfo, slot, estate, false, false, NULL, NIL, false)
#elif PG_VERSION_NUM >= 140000
#define ExecInsertIndexTuples_compat(relinfo, slot, estate) \
	ExecInsertIndexTuples(relinfo, slot, estate, false, false, NULL, NIL)
#else
#define ExecInsertIndexTuples_compat(relinfo, slot, estate) \
	ExecInsertIndexTuples(slot, estate, false, NULL, NIL)
#endif
#if PG_VERSION_NUM >= 140000
#define ExecComputeStoredGenerated_compat(relinfo, estate, slot, command) \
	ExecComputeStoredGenerated(relinfo, estate, slot, command)
#else
#define ExecComputeStoredGenerated_compat(relinfo, estate, slot, command) \
	ExecComputeStoredGenerated(estate, slot, command)
#endif

/* ProcessUtility_hook: 14 added readOnlyTree. */
#if PG_VERSION_NUM >= 140000
#define PROCESS_UTILITY_PARAMETERS \
	PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, \
	ProcessUtilityContext context, ParamListInfo params, \
	QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc
#define PROCESS_UTILITY_ARGUMENTS \
	pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc
#else
#define PROCESS_UTILITY_PARAMETERS \
	PlannedStmt *pstmt, const char *queryString, \
	ProcessUtilityContext context, ParamListInfo params, \
	QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc
#define PROCESS_UTILITY_ARGUMENTS \
	pstmt, queryString, context, params, queryEnv, dest, qc
#endif

/* Who owns it: 16 has one function for all kinds of objects. */
#if PG_VERSION_NUM >= 160000
#define owns_database(oid, role)	object_ownercheck(DatabaseRelationId, oid, role)
#define owns_extension(oid, role)	object_ownercheck(ExtensionRelationId, oid, role)
#define owns_schema(oid, role)		object_ownercheck(NamespaceRelationId, oid, role)
#else
#define owns_database(oid, role)	pg_database_ownercheck(oid, role)
#define owns_extension(oid, role)	pg_extension_ownercheck(oid, role)
#define owns_schema(oid, role)		pg_namespace_ownercheck(oid, role)
#endif

#endif
