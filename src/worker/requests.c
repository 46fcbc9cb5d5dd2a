/*
 * requests.c
 *	  Notes what a transaction asks of the launcher, and does it when the
 *	  transaction ends.
 *
 * One transaction callback, registered once per backend.  At commit it takes
 * settlement_shared->lock and does what cannot fail.  A hold ends with its
 * transaction however that ends, also when the session is terminated: the exit
 * of a backend aborts its transaction first.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "shared/settings.h"
#include "shared/shmem.h"
#include "worker/requests.h"
#include "worker/slots.h"

#define MAX_HOLDS		16
#define MAX_PROBES		16
#define HOLD_GRACE_MS	5000
#define HOLD_SLICE_MS	20L

/* Of the transaction under way; all zero when it asks for nothing. */
typedef struct Requests
{
	bool		any;
	int			n_holds;
	DbState    *hold[MAX_HOLDS];
	int			n_probes;
	Oid			probe[MAX_PROBES];
	bool		new_workers;
	bool		identity_check;
	Oid			dropped;		/* extension */
	bool		forget;			/* ... is gone indeed */
} Requests;

static Requests requests;

/* ------------------------------------------------------ end of transaction */

static void
end_holds(void)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < requests.n_holds; i++)
	{
		Assert(requests.hold[i]->holds > 0);
		requests.hold[i]->holds--;
		requests.hold[i]->probe_requested = true;
	}
	LWLockRelease(settlement_shared->lock);
}

static void
ask_for_probes(void)
{
	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < MAX_DATABASES; i++)
		for (int j = 0; j < requests.n_probes; j++)
			if (settlement_shared->databases[i].database == requests.probe[j])
				settlement_shared->databases[i].probe_requested = true;
	LWLockRelease(settlement_shared->lock);
}

static void
carry_out(void)
{
	DbState    *db = shmem_database(MyDatabaseId, false);

	ask_for_probes();
	if (db == NULL)
		return;
	if (requests.forget)
		shmem_forget_extension(db);
	if (requests.new_workers)
		slots_stop_database(db);
	if (requests.identity_check)
	{
		/* adopt() has moved rows: count them again */
		pg_atomic_write_u32(&db->depth_known, 0);
		pg_atomic_write_u32(&db->send_state, SEND_STARTING);
		shmem_wake_all_workers(db);
	}
}

static void
refuse_prepare(void)
{
	if (OidIsValid(requests.dropped) || requests.new_workers)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has dropped or updated the extension settlement")));
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (!requests.any)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (OidIsValid(requests.dropped))
				requests.forget =
					get_extension_oid("settlement", true) != requests.dropped;
			return;
		case XACT_EVENT_PRE_PREPARE:
			refuse_prepare();
			return;
		case XACT_EVENT_COMMIT:
			carry_out();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			break;
		default:
			return;
	}
	end_holds();
	memset(&requests, 0, sizeof(requests));
	shmem_wake_launcher();
}

/* False when there is nobody to ask. */
static bool
note_request(void)
{
	static bool registered = false;

	if (settlement_shared == NULL)
		return false;
	if (!registered)
	{
		RegisterXactCallback(at_end_of_transaction, NULL);
		registered = true;
	}
	requests.any = true;
	return true;
}

/* ------------------------------------------------------------------ holds */

static bool
take_hold(DbState *db, Oid database)
{
	bool		taken = false;

	for (int i = 0; i < requests.n_holds; i++)
		if (requests.hold[i] == db)
			return true;
	if (requests.n_holds >= MAX_HOLDS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("one transaction cannot stop the settlement workers of more than %d databases",
						MAX_HOLDS)));

	LWLockAcquire(settlement_shared->lock, LW_EXCLUSIVE);
	if (db->database == database)
	{
		db->holds++;
		requests.hold[requests.n_holds++] = db;
		taken = true;
	}
	LWLockRelease(settlement_shared->lock);
	return taken;
}

static bool
probe_is_in(Oid database)
{
	bool		result;

	LWLockAcquire(settlement_shared->lock, LW_SHARED);
	result = settlement_shared->probe_database == database;
	LWLockRelease(settlement_shared->lock);
	return result;
}

bool
request_hold(Oid database)
{
	DbState    *db = shmem_database(database, false);
	TimestampTz start = GetCurrentTimestamp();
	int			patience = settlement_shutdown_timeout + HOLD_GRACE_MS;
	int			n;

	if (db == NULL || !note_request() || !take_hold(db, database))
		return true;

	while ((n = slots_stop_database(db)) > 0 || probe_is_in(database))
	{
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), patience))
		{
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("%d settlement workers have not left the database after %d ms",
							n, patience)));
			return false;
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 HOLD_SLICE_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* ---------------------------------------------------------- other requests */

void
request_probe(Oid database)
{
	/* Ours may be new to the launcher: have the entry now, not at commit. */
	bool		ours = database == MyDatabaseId && OidIsValid(get_extension_oid("settlement", true));

	if (!note_request() || shmem_database(database, ours) == NULL)
		return;
	if (requests.n_probes < MAX_PROBES)
		requests.probe[requests.n_probes++] = database;
}

void
request_new_workers(void)
{
	if (note_request())
		requests.new_workers = true;
}

void
request_identity_check(void)
{
	if (note_request())
		requests.identity_check = true;
}

void
request_forget_extension(Oid extension)
{
	if (!OidIsValid(requests.dropped) && note_request())
		requests.dropped = extension;
}
