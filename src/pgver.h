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

#if PG_VERSION_NUM < 130000
#error "settlement needs PostgreSQL 13 or later"
#endif

/* shmem_request_hook: 15+; before, space is requested from _PG_init. */
#if PG_VERSION_NUM >= 150000
#define HAVE_SHMEM_REQUEST_HOOK 1
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

#endif
