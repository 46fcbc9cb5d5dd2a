/*
 * durability.c
 *	  What the commit of a worker waits for.
 */
#include "postgres.h"

#include "access/xact.h"
#include "replication/syncrep.h"
#include "utils/guc.h"

#include "queue/durability.h"
#include "shared/settings.h"

/*
 * Never below on; remote_apply stays.  Where requests wait for a standby
 * (worker/held.c) no commit does, so that the loop goes on and outcomes are recorded
 * also while it is away.
 */
void
durability_set(void)
{
	const char *level = settlement_send_after == SEND_AFTER_STANDBY ? "local" : "on";

	if (settlement_send_after == SEND_AFTER_LOCAL &&
		synchronous_commit >= SYNCHRONOUS_COMMIT_REMOTE_FLUSH)
		return;
	(void) set_config_option("synchronous_commit", level, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}
