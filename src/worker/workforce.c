/*
 * workforce.c
 *	  Keeps as many workers running in each database as it wants.
 *
 * Runs in the launcher only.  What should be is computed from shared memory at
 * each pass, so that a launcher that was restarted goes on where the former
 * one stopped.  Takes settlement_shared->lock; processes are registered outside
 * of it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "shared/settings.h"
#include "worker/process.h"
#include "worker/slots.h"
#include "worker/workforce.h"

#define LONGEST_WAIT_MS		60000L
#define REGISTER_RETRY_MS	1000L	/* no process was free */
#define START_TIMEOUT_MS	30000	/* a worker whose handle we do not have */

/* Workers that this launcher registered, until they have come up. */
typedef struct Start
{
	BackgroundWorkerHandle *handle;
	uint32		generation;
} Start;

typedef struct Plan
{
	int			wanted;
	int			target;			/* what max_workers leaves of that */
	int			live;			/* starting or running, not asked to leave */
	TimestampTz start_after;
} Plan;

static Start *starts = NULL;

/* ------------------------------------------------- workers that come not up */

/*
 * A worker attaches to its slot by itself.  One that could not (fork failed,
 * the database refused it) leaves the slot to us.
 */
static void
reap(TimestampTz now)
{
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];
		Start	   *start = &starts[i];
		uint32		lost_generation = 0;
		bool		lost;
		pid_t		pid;

		if (start->handle != NULL)
		{
			if (GetBackgroundWorkerPid(start->handle, &pid) != BGWH_STOPPED)
				continue;
			pfree(start->handle);
			start->handle = NULL;
			slot_unstarted(i, start->generation, true);
			continue;
		}

		/* registered by a launcher before us */
		LWLockAcquire(settlement_shared->lock, LW_SHARED);
		lost = slot->state == SLOT_STARTING &&
			TimestampDifferenceExceeds(slot->started_at, now, START_TIMEOUT_MS);
		if (lost)
			lost_generation = slot->generation;
		LWLockRelease(settlement_shared->lock);
		if (lost)
			slot_unstarted(i, lost_generation, true);
	}
}

/* ------------------------------------------------------------------ plans */

/*
 * Share max_workers out, one worker each in turn, so that a database that wants
 * many does not starve the others.
 */
static void
share_out(Plan *plans)
{
	int			left = settlement_max_workers;
	bool		given = true;

	while (given && left > 0)
	{
		given = false;
		for (int i = 0; i < MAX_DATABASES && left > 0; i++)
		{
			if (plans[i].target < plans[i].wanted)
			{
				plans[i].target++;
				left--;
				given = true;
			}
		}
	}
}

/* Ask workers to leave that are too many or know an old configuration. */
static void
stop_surplus(Plan *plans)
{
	for (int i = settlement_shared->n_slots - 1; i >= 0; i--)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];
		Plan	   *plan;

		if ((slot->state != SLOT_STARTING && slot->state != SLOT_RUNNING) ||
			slot->stop_requested)
			continue;
		plan = &plans[slot->db];
		if (plan->live > plan->target ||
			slot->config_hash != settlement_shared->databases[slot->db].config_hash)
		{
			slot_stop_locked(slot);
			plan->live--;
		}
	}
}

/* Fills in plans and acts on those that need no new process. */
static void
make_plans(const bool *allowed, Plan *plans)
{
	memset(plans, 0, sizeof(Plan) * MAX_DATABASES);

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DbState    *db = &settlement_shared->databases[i];

		if (OidIsValid(db->database) && db->has_extension &&
			db->holds == 0 && allowed[i])
			plans[i].wanted = db->wanted;
		plans[i].start_after = Max(db->restart_after,
								   settlement_shared->workers_after);
	}
	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if ((slot->state == SLOT_STARTING || slot->state == SLOT_RUNNING) &&
			!slot->stop_requested)
			plans[slot->db].live++;
	}
	share_out(plans);
	stop_surplus(plans);
	for (int i = 0; i < MAX_DATABASES; i++)
		settlement_shared->databases[i].workers_missing =
			plans[i].wanted - plans[i].target;
	LWLockRelease(settlement_shared->lock);
}

static void
complain_of_missing(const Plan *plans)
{
	static int	complained_of = 0;
	int			missing = 0;

	for (int i = 0; i < MAX_DATABASES; i++)
		missing += plans[i].wanted - plans[i].target;
	if (missing > 0 && missing != complained_of)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("%d settlement workers are not started", missing),
				 errdetail("The databases want %d more than settlement.max_workers (%d).",
						   missing, settlement_max_workers),
				 errhint("Increase settlement.max_workers, or lower settlement.workers.")));
	complained_of = missing;
}

/* ------------------------------------------------------------------ start */

/* False when there is no slot or no process; the latter is tried again. */
static bool
start_worker(DbState *db, bool *no_process)
{
	MemoryContext old;
	WorkerArgs	args;
	Start	   *start;
	int			slot;

	args.database = db->database;
	slot = slot_reserve(db, &args.generation);
	if (slot < 0)
		return false;

	start = &starts[slot];
	if (start->handle != NULL)
		pfree(start->handle);
	old = MemoryContextSwitchTo(TopMemoryContext);
	start->generation = args.generation;
	start->handle = process_start(PROCESS_WORKER, Int32GetDatum(slot),
								  &args, sizeof(args));
	MemoryContextSwitchTo(old);
	if (start->handle == NULL)
	{
		slot_unstarted(slot, args.generation, false);
		*no_process = true;
		return false;
	}
	return true;
}

long
workforce_adjust(const bool allowed[MAX_DATABASES], TimestampTz now)
{
	Plan		plans[MAX_DATABASES];
	long		wait = LONGEST_WAIT_MS;
	bool		no_process = false;

	if (starts == NULL)
		starts = MemoryContextAllocZero(TopMemoryContext,
										sizeof(Start) * settlement_shared->n_slots);
	reap(now);
	make_plans(allowed, plans);
	complain_of_missing(plans);

	for (int i = 0; i < MAX_DATABASES && !no_process; i++)
	{
		Plan	   *plan = &plans[i];

		if (plan->live >= plan->target)
			continue;
		if (plan->start_after > now)
		{
			wait = Min(wait, TimestampDifferenceMilliseconds(now, plan->start_after) + 1);
			continue;
		}
		while (plan->live < plan->target &&
			   start_worker(&settlement_shared->databases[i], &no_process))
			plan->live++;
	}
	if (no_process)
		return Min(wait, REGISTER_RETRY_MS);
	process_suffices(PROCESS_WORKER);
	return wait;
}
