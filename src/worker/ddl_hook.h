/*
 * ddl_hook.h
 *	  Keeps database and extension DDL and the workers out of each other's way.
 */
#ifndef SETTLEMENT_WORKER_DDL_HOOK_H
#define SETTLEMENT_WORKER_DDL_HOOK_H

/* Install the utility hook; from _PG_init under preload only. */
extern void ddl_hook_install(void);

#endif
