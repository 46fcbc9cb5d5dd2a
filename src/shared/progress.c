/*
 * progress.c
 *	  The table of long acts in shared memory.
 *
 * An entry is taken, changed and given back by its session alone, under
 * settlement_shared->lock; others only read.
 */
#include "postgres.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "shared/progress.h"

#define SHOW_EACH	100			/* rows */

static ProgressEntry *mine = NULL;
static int64 advanced;			/* not shown yet */

static void
copy_text(char *out, size_t size, const char *text)
{
	size_t		len = strlen(text);

	if (len >= size)
		len = pg_mbcliplen(text, len, size - 1);
	memcpy(out, text, len);
	out[len] = '\0';
}

void
progress_end(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	mine->pid = 0;
	LWLockRelease(settlement_shared->lock);
	mine = NULL;
}

static void
end_at_rollback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_ABORT)
		progress_end();
}

static void
end_at_exit(int code, Datum arg)
{
	progress_end();
}

static void
register_callbacks(void)
{
	static bool registered = false;

	if (registered)
		return;
	RegisterXactCallback(end_at_rollback, NULL);
	before_shmem_exit(end_at_exit, (Datum) 0);
	registered = true;
}

void
progress_begin(const char *act, const char *target, int64 total)
{
	TimestampTz now = GetCurrentTimestamp();

	if (settlement_shared == NULL)
		return;
	register_callbacks();
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_PROGRESS && mine == NULL; i++)
		if (settlement_shared->progress[i].pid == 0)
			mine = &settlement_shared->progress[i];
	if (mine != NULL)
	{
		advanced = 0;
		memset(mine, 0, sizeof(*mine));
		mine->pid = MyProcPid;
		mine->database = MyDatabaseId;
		mine->started_at = now;
		mine->total = total;
		copy_text(mine->act, sizeof(mine->act), act);
		copy_text(mine->target, sizeof(mine->target), target);
	}
	LWLockRelease(settlement_shared->lock);
}

void
progress_update(const char *phase, int64 done, int64 failed)
{
	if (mine == NULL)
		return;
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (phase != NULL)
		copy_text(mine->phase, sizeof(mine->phase), phase);
	mine->done = done;
	mine->failed = failed;
	LWLockRelease(settlement_shared->lock);
}

void
progress_advance(int64 n)
{
	if (mine == NULL)
		return;
	advanced += n;
	if (advanced < SHOW_EACH)
		return;
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	mine->done += advanced;
	LWLockRelease(settlement_shared->lock);
	advanced = 0;
}

int
progress_list(ProgressEntry entries[MAX_PROGRESS])
{
	int			n = 0;

	if (settlement_shared == NULL)
		return 0;
	LWLockAcquire(settlement_shared->lock, LW_SHARED);
	for (int i = 0; i < MAX_PROGRESS; i++)
		if (settlement_shared->progress[i].pid != 0 &&
			settlement_shared->progress[i].database == MyDatabaseId)
			entries[n++] = settlement_shared->progress[i];
	LWLockRelease(settlement_shared->lock);
	return n;
}
