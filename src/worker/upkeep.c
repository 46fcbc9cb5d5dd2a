/*
 * upkeep.c
 *	  What a worker does between turns: whether this database may send, claims of
 *	  workers that are gone, outcomes that wait to be applied, redrives at a pace,
 *	  sums for those who look, old attempts, and what a clock that was set has upset.
 *
 * Each step is its own short transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "queue/bring_back.h"
#include "queue/housekeeping.h"
#include "queue/identity.h"
#include "queue/recover.h"
#include "queue/redrives.h"
#include "queue/tally.h"
#include "queue/tradelog.h"
#include "queue/unapplied.h"
#include "shared/logline.h"
#include "shared/pace.h"
#include "shared/settings.h"
#include "worker/slots.h"
#include "worker/worker.h"

#define GOOD_STATE_CHECK_MS	5000
#define FOLD_MS				1000
#define RETENTION_MS		60000
#define RETENTION_AGAIN_MS	50	/* while there are more, at least */
#define RETENTION_SHARE		20	/* of the time, one part */
#define RETENTION_BATCH		2000
#define UNAPPLIED_BATCH		100
#define UNAPPLIED_MS		100
#define UNAPPLIED_BUSY_MS	10	/* while requests are under way; one row may take
								 * settlement.apply_timeout all the same */
#define UNAPPLIED_SHARE		4	/* then the next waits for this many times as long */
#define BRING_BACK_BATCH	5000

/* ------------------------------------------------------ may we send at all */

static SendState
database_state(Worker *w)
{
	SendState	state;

	session_begin();
	if (!versions_agree())
		state = SEND_VERSION;
	else
		state = identity_check(w->db);
	session_commit();
	return state;
}

static SendState
find_state(Worker *w)
{
	if (RecoveryInProgress())
		return SEND_STANDBY;
	if (!settlement_enabled)
		return SEND_DISABLED;
	if ((w->client == NULL || w->reconfigure) && w->pool->n_used == 0)
	{
		SendState	state = sender_configure(w);

		if (state != SEND_OK)
			return state;
	}
	return database_state(w);
}

static char *
fenced_fields(void)
{
	StringInfoData fields;

	initStringInfo(&fields);
	log_field(&fields, "reason", identity_reason() ? identity_reason() : "unknown");
	return fields.data;
}

static void
say_state(SendState state)
{
	switch (state)
	{
		case SEND_OK:
			ereport(LOG, (errcode(LOG_SENDING), errmsg("settlement worker sends to the wallet")));
			break;
		case SEND_NO_URL:
			ereport(LOG,
					(errcode(LOG_NOT_SENDING),
					 errmsg("settlement sends nothing: settlement.wallet_url is not set"),
					 errhint("Set it in postgresql.conf or with ALTER DATABASE ... SET, and reload.")));
			break;
		case SEND_FENCED:
			ereport(LOG,
					(errcode(LOG_NOT_SENDING),
					 errmsg("settlement sends nothing: this database is not the one that may send"),
					 errdetail_internal("%s", fenced_fields()),
					 errhint("If it is not a copy of a database that still sends, call settlement.adopt(reason).")));
			break;
		case SEND_VERSION:
			ereport(LOG,
					(errcode(LOG_NOT_SENDING),
					 errmsg("settlement sends nothing: library version %s and the extension's SQL objects differ",
							SETTLEMENT_VERSION),
					 errhint("Run ALTER EXTENSION settlement UPDATE, or restart the server with the matching library.")));
			break;
		default:
			ereport(LOG,
					(errcode(LOG_NOT_SENDING),
					 errmsg("settlement sends nothing: %s", send_state_name(state))));
	}
}

static void
check_state(Worker *w, TimestampTz now)
{
	static SendState said = SEND_STARTING;
	uint32		before = pg_atomic_read_u32(&w->db->send_state);
	SendState	state;

	/* a new client only when the old one has nothing in flight */
	if (w->reconfigure && w->pool->n_used > 0)
		return;
	/*
	 * An idle database in good order is looked at seldom, all others often, and
	 * at once when somebody asked for it (SEND_STARTING).
	 */
	if (!w->reconfigure && before == SEND_OK && w->client != NULL && settlement_enabled &&
		!TimestampDifferenceExceeds(w->state_checked_at, now, GOOD_STATE_CHECK_MS))
		return;
	if (!w->reconfigure && before != SEND_STARTING && w->state_checked_at != 0 &&
		!TimestampDifferenceExceeds(w->state_checked_at, now, STATE_CHECK_MS))
		return;
	w->state_checked_at = now;
	state = find_state(w);
	/* also after it was disabled, or fenced, in between */
	if (state == SEND_OK && !identity_epoch_raised(w->db))
		state = SEND_STALE_EPOCH;
	/* what another process has found or asked for meanwhile is newer */
	if (!pg_atomic_compare_exchange_u32(&w->db->send_state, &before, state))
		return;
	if (state != said)
		say_state(state);
	said = state;
	if (state == SEND_OK && before != SEND_OK)
		shmem_wake_all_workers(w->db);
}

/* -------------------------------------------------------------- recovery */

static void
recover_boots(Worker *w)
{
	int			n_claims = RECOVER_BATCH;
	int			total = 0;
	int			crashed;

	if (pg_atomic_read_u32(&w->db->recovered) != 0 ||
		pg_atomic_read_u32(&w->db->send_state) != SEND_OK)
		return;
	while (n_claims == RECOVER_BATCH)
	{
		int			n = 0;

		session_begin();
		n_claims = recover_other_boots(w->db, &n);
		session_commit();
		total += n;
		pg_atomic_fetch_sub_u64(&w->db->depth_change, n);
		CHECK_FOR_INTERRUPTS();
	}
	session_begin();
	crashed = recover_crashed(w->db);
	session_commit();
	pg_atomic_fetch_sub_u64(&w->db->depth_change, crashed);
	recover_crashed_done(w->db);
	pg_atomic_write_u32(&w->db->recovered, 1);
	pg_atomic_write_u64(&w->db->next_due, 0);
	shmem_count(w->db, COUNT_RECOVERED, total);
	if (total > 0)
		ereport(LOG,
				(errcode(LOG_TAKEN_OVER),
				 errmsg("settlement took over %d trades that were in flight before the restart", total)));
	shmem_wake_all_workers(w->db);
}

/* Move every claim of a slot; returns the number of trades. */
static int
take_slot_claims(Worker *w, int slot)
{
	int			n_claims = RECOVER_BATCH;
	int			total = 0;

	while (n_claims == RECOVER_BATCH)
	{
		int			n = 0;

		session_begin();
		n_claims = recover_slot_claims(w->db, slot, &n);
		session_commit();
		total += n;
		pg_atomic_fetch_sub_u64(&w->db->depth_change, n);
	}
	if (total > 0)
	{
		pg_atomic_write_u64(&w->db->next_due, 0);
		shmem_count(w->db, COUNT_RECOVERED, total);
	}
	return total;
}

/* One worker at a time recovers a database's orphans. */
static bool
recovery_begin(Worker *w)
{
	uint32		nobody = 0;

	return pg_atomic_compare_exchange_u32(&w->db->recoverer, &nobody, w->slot_index + 1);
}

static void
recovery_end(Worker *w)
{
	uint32		me = w->slot_index + 1;

	pg_atomic_compare_exchange_u32(&w->db->recoverer, &me, 0);
}

static void
recover_orphan(Worker *w, int index)
{
	WorkerSlot *slot = &settlement_shared->slots[index];
	uint32		generation = slot->generation;
	int			n;

	n = take_slot_claims(w, index);
	/* it may have died between a commit and saying so */
	pg_atomic_write_u64(&w->db->next_due, 0);
	pg_atomic_write_u64(&w->db->next_apply, 0);
	recover_slot_flights(w->db, index);
	slot_free_orphan(index, generation);
	ereport(LOG,
			(errcode(LOG_TAKEN_OVER),
			 errmsg("settlement took over %d trades from a worker that is gone", n)));
}

/* Its process lives, but has not come by for longer than any request lasts. */
static bool
is_frozen(WorkerSlot *slot, TimestampTz now)
{
	return slot->state == SLOT_RUNNING && slot->n_flights > 0 &&
		TimestampDifferenceExceeds((TimestampTz) pg_atomic_read_u64(&slot->heartbeat),
								   now, settlement_request_timeout + TAKEOVER_GRACE_MS);
}

/* By the time of our own beat: no step of the clock since then is in it. */
static void
recover_workers(Worker *w)
{
	int			index = shmem_db_index(w->db);

	for (int i = 0; i < settlement_shared->n_slots; i++)
	{
		WorkerSlot *slot = &settlement_shared->slots[i];

		if (slot->db != index || i == w->slot_index)
			continue;
		if (slot->state == SLOT_ORPHANED && recovery_begin(w))
		{
			if (slot->state == SLOT_ORPHANED && slot->db == index)
				recover_orphan(w, i);
			recovery_end(w);
		}
		else if (is_frozen(slot, w->beat_at) && recovery_begin(w))
		{
			int			n = take_slot_claims(w, i);

			recovery_end(w);
			if (n > 0)
				ereport(LOG,
						(errcode(LOG_TAKEN_OVER),
						 errmsg("settlement took over %d trades from worker %d, which does not respond",
								n, (int) slot->pid)));
		}
	}
}

/* ------------------------------------------------------------- retention */

/* Few at a time, so that requests do not wait for long, by whoever comes first. */
static void
retain_attempts(Worker *w, TimestampTz now)
{
	uint64		due = pg_atomic_read_u64(&w->db->next_retention);
	TimestampTz end;
	int64		ms;
	int			n;

	if (now < upkeep_retention_at(w) ||
		!pg_atomic_compare_exchange_u64(&w->db->next_retention, &due,
										TimestampTzPlusMilliseconds(now, RETENTION_MS)))
		return;
	session_begin();
	n = forget_attempts(now - (int64) settlement_attempt_retention * 60 * USECS_PER_SEC,
						RETENTION_BATCH);
	session_commit();
	if (n < RETENTION_BATCH)
		return;
	/* beside an old snapshot each goes over what the ones before have deleted */
	end = GetCurrentTimestamp();
	ms = Max((end - now) / 1000 * RETENTION_SHARE, RETENTION_AGAIN_MS);
	pg_atomic_write_u64(&w->db->next_retention,
						TimestampTzPlusMilliseconds(end, Min(ms, RETENTION_MS)));
}

TimestampTz
upkeep_retention_at(Worker *w)
{
	return (TimestampTz) pg_atomic_read_u64(&w->db->next_retention);
}

/* -------------------------------------------------------------- redrives */

/*
 * One step, so that requests do not wait for long, by whoever comes first.  0 in
 * next_redrive, which an announcement sets meanwhile, stays.
 */
static void
step_redrives(Worker *w, TimestampTz now)
{
	uint64		due = pg_atomic_read_u64(&w->db->next_redrive);
	uint64		mine = TimestampTzPlusMilliseconds(now, settlement_poll_interval);
	int			ms;

	if (now < upkeep_redrives_at(w) ||
		!pg_atomic_compare_exchange_u64(&w->db->next_redrive, &due, mine))
		return;
	if (recover_redrives_crashed(w->db))
	{
		session_begin();
		recover_redrives(w->db);
		session_commit();
		recover_redrives_done(w->db);
	}
	session_begin();
	ms = redrives_step();
	session_commit();
	if (ms < settlement_poll_interval)
		pg_atomic_compare_exchange_u64(&w->db->next_redrive, &mine,
									   TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms));
}

TimestampTz
upkeep_redrives_at(Worker *w)
{
	if (pg_atomic_read_u32(&w->db->send_state) != SEND_OK)
		return DT_NOEND;
	return (TimestampTz) pg_atomic_read_u64(&w->db->next_redrive);
}

/* ------------------------------------------------- sums over the dead letters */

/* A standby, or a fenced copy, changes nothing. */
static void
fold_tally(Worker *w, TimestampTz now)
{
	if (pg_atomic_read_u32(&w->db->dlq_changed) == 0 ||
		pg_atomic_read_u32(&w->db->send_state) != SEND_OK ||
		!TimestampDifferenceExceeds(w->folded_at, now, FOLD_MS))
		return;
	w->folded_at = now;
	pg_atomic_write_u32(&w->db->dlq_changed, 0);
	session_begin();
	tally_fold();
	session_commit();
}

/* -------------------------------------------------------- a clock that was set */

/*
 * Beats of live workers must not look old to us, nor those of frozen ones fresh
 * for as long as the clock was set back.
 */
static void
renew_heartbeats(Worker *w, TimestampTz now)
{
	int			index = shmem_db_index(w->db);

	for (int i = 0; i < settlement_shared->n_slots; i++)
		if (settlement_shared->slots[i].db == index)
			pg_atomic_write_u64(&settlement_shared->slots[i].heartbeat, (uint64) now);
}

void
upkeep_clock_set(Worker *w, TimestampTz now, int64 step_us)
{
	DbState    *db = w->db;

	ereport(LOG,
			(errcode(LOG_CLOCK_SET),
			 errmsg("the clock was set %s by %lld ms", step_us < 0 ? "back" : "forward",
					(long long) (step_us < 0 ? -step_us : step_us) / 1000)));
	renew_heartbeats(w, now);
	if (step_us > 0)
		return;
	w->retry_turn_at = w->retry_claim_at = w->retry_upkeep_at = 0;
	w->chores_at = w->state_checked_at = w->folded_at = w->next_unapplied = 0;
	if (w->stopping)
		w->stop_deadline += step_us;
	w->bring_back = true;
	SpinLockAcquire(&db->hint_mutex);
	db->marked_at = Min(db->marked_at, now);
	SpinLockRelease(&db->hint_mutex);
	/* what was answered before is not since anything that is sent from here on */
	if ((TimestampTz) pg_atomic_read_u64(&db->last_definite_at) > now)
		pg_atomic_write_u64(&db->last_definite_at, 0);
	pg_atomic_write_u64(&db->next_due, 0);
	pg_atomic_write_u64(&db->next_apply, 0);
	pg_atomic_write_u64(&db->next_redrive, 0);
	pg_atomic_write_u64(&db->next_retention, 0);
}

static void
bring_back(Worker *w)
{
	int			n = BRING_BACK_BATCH;

	if (!w->bring_back || pg_atomic_read_u32(&w->db->send_state) != SEND_OK)
		return;
	while (n >= BRING_BACK_BATCH)
	{
		session_begin();
		n = bring_back_waits(BRING_BACK_BATCH);
		session_commit();
		CHECK_FOR_INTERRUPTS();
	}
	w->bring_back = false;
	pg_atomic_write_u64(&w->db->next_due, 0);
	pg_atomic_write_u64(&w->db->next_apply, 0);
}

TimestampTz
upkeep_apply_at(Worker *w)
{
	SendState	state = pg_atomic_read_u32(&w->db->send_state);

	if (state == SEND_VERSION || state == SEND_STANDBY || state == SEND_STARTING)
		return DT_NOEND;
	return Max((TimestampTz) pg_atomic_read_u64(&w->db->next_apply), w->next_unapplied);
}

/* Rows whose triggers are slow must not take the time of all others. */
static void
apply_what_waits(Worker *w)
{
	bool		busy = w->pool->n_used > 0;
	TimestampTz start = GetCurrentTimestamp();
	int64		ms;

	unapplied_run(w->db, UNAPPLIED_BATCH, busy ? UNAPPLIED_BUSY_MS : UNAPPLIED_MS);
	ms = (GetCurrentTimestamp() - start) / 1000;
	if (busy && ms > 2 * UNAPPLIED_BUSY_MS)
		w->next_unapplied = TimestampTzPlusMilliseconds(start, ms * (1 + UNAPPLIED_SHARE));
}

/* Other people's code may run, or many rows be deleted. */
bool
upkeep_takes_time(Worker *w, TimestampTz now)
{
	return upkeep_apply_at(w) <= now || upkeep_redrives_at(w) <= now ||
		upkeep_retention_at(w) <= now;
}

void
upkeep(Worker *w, TimestampTz now)
{
	if (now < w->retry_turn_at || now < w->retry_upkeep_at)
		return;
	w->in_upkeep = true;
	check_state(w, now);
	bring_back(w);
	recover_boots(w);
	recover_workers(w);
	if (upkeep_apply_at(w) <= now)
		apply_what_waits(w);
	pace_tick(w->db, now);
	tradelog_summarize(now, false);
	if (!w->stopping)
	{
		fold_tally(w, now);
		retain_attempts(w, now);
		step_redrives(w, now);
	}
	w->in_upkeep = false;
	w->upkeep_aborts = 0;
}

void
upkeep_aborted(Worker *w)
{
	recovery_end(w);
	if (!w->in_upkeep)
		return;
	/* what failed will most likely fail again: wait, up to five seconds */
	w->in_upkeep = false;
	w->retry_upkeep_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 Min(100 << Min(w->upkeep_aborts, 6), 5000));
	w->upkeep_aborts++;
}
