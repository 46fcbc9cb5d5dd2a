/*
 * settlement.c
 *	  Module entry, and nothing else.
 *
 * Preloaded (shared_preload_libraries), the library has shared memory, a
 * launcher and workers.  Loaded later, by the trigger in a session, it only
 * enqueues; settlement.doctor() says what is missing.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "pgver.h"
#include "shared/settings.h"
#include "shared/shmem.h"
#include "worker/ddl_hook.h"
#include "worker/launcher.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	settings_define();
	if (!process_shared_preload_libraries_in_progress)
		return;
	shmem_install_hooks();
	/* pg_upgrade runs both clusters, and neither may change while it does */
	if (!IsBinaryUpgrade)
		launcher_register();
	ddl_hook_install();
}
