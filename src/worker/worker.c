/*
 * worker.c
 *	  A settlement worker: its process and its loop.
 *
 * The loop: see what the sockets have, do a turn if there is something to
 * record or to claim, look after the rest, wait for the latch or a socket.  No
 * transaction is open while it waits or while a request is in flight.
 *
 * SIGTERM, or the launcher's request to stop: nothing new is claimed, requests
 * in flight are waited for up to settlement.shutdown_timeout and recorded; what
 * is left then is recovered by others as maybe executed.
 */
#include "postgres.h"

#include <sys/resource.h>

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/timeout.h"

#include "pgver.h"
#include "queue/apply.h"
#include "queue/pauses.h"
#include "queue/tradelog.h"
#include "shared/logline.h"
#include "shared/settings.h"
#include "worker/slots.h"
#include "worker/stopping.h"
#include "worker/worker.h"

/* A worker that cannot get a transaction through this often starts afresh. */
#define MAX_ABORTS_IN_ROW	20

/* ----------------------------------------------------------------- start */

/* Each request in flight may need a connection. */
static void
raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	if (limit.rlim_cur < limit.rlim_max)
	{
		limit.rlim_cur = limit.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static Worker *
worker_create(int slot_index)
{
	Worker	   *w = MemoryContextAllocZero(TopMemoryContext, sizeof(Worker));
	MemoryContext context;

	w->slot_index = slot_index;
	w->slot = &settlement_shared->slots[slot_index];
	w->db = &settlement_shared->databases[w->slot->db];
	context = AllocSetContextCreate(TopMemoryContext, "settlement flights",
									ALLOCSET_DEFAULT_SIZES);
	w->pool = flight_pool_create(context);
	w->turn_context = AllocSetContextCreate(TopMemoryContext, "settlement turn",
											ALLOCSET_DEFAULT_SIZES);
	w->more = true;
	w->bring_back = true;		/* the clock may have been set while nobody looked */
	return w;
}

void
worker_beat(Worker *w)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		step_us = clock_look(&w->clock, now);

	w->woke_late |= w->clock.elapsed_us / 1000 > SURE_OF_CLAIMS_MS;
	w->held_doubtful |= w->woke_late && w->n_held > 0;
	if (step_us != 0)
		upkeep_clock_set(w, now, step_us);
	w->beat_at = now;
	pg_atomic_write_u64(&w->slot->heartbeat, (uint64) w->beat_at);
}

/*
 * lock_timeout comes as a SIGINT to ourselves.  Any other is ignored: a
 * cancelled wait for a standby would not be a durable claim.
 */
static void
handle_sigint(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (get_timeout_indicator(LOCK_TIMEOUT, false))
	{
		InterruptPending = true;
		QueryCancelPending = true;
		SetLatch(MyLatch);
	}
	errno = save_errno;
}

static void
start_signals(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	stopping_install();
	pqsignal(SIGINT, handle_sigint);
	BackgroundWorkerUnblockSignals();
}

/* ------------------------------------------------------------------ wait */

static void
build_wait_set(Worker *w)
{
	WaitEventSet *set = create_wait_event_set_compat(TopMemoryContext, 3);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (w->client != NULL)
		AddWaitEventToSet(set, WL_SOCKET_READABLE,
						  wallet_client_fd(w->client), NULL, NULL);
	w->wait_set = set;			/* whole, or none */
}

static long
ms_until(TimestampTz now, TimestampTz then)
{
	if (then <= now)
		return 0;
	if (then - now > INT64CONST(3600) * USECS_PER_SEC)
		return 3600 * 1000L;
	return (long) ((then - now) / 1000) + 1;
}

static long
wait_time(Worker *w, TimestampTz now)
{
	long		timeout = settlement_poll_interval;
	int			client_ms;
	long		sender_ms;

	if (w->n_held > 0 && sender_in_flight(w) < sender_concurrency(w))
		timeout = Min(timeout, held_wait_ms(w));
	if (w->client != NULL)
	{
		client_ms = wallet_client_timeout_ms(w->client);
		if (client_ms >= 0)
			timeout = Min(timeout, client_ms);
	}
	if (w->stopping)
		timeout = Min(timeout, ms_until(now, w->stop_deadline));
	if (w->retry_turn_at > now)
		return Min(timeout, ms_until(now, w->retry_turn_at));
	if (w->retry_upkeep_at > now)
		timeout = Min(timeout, ms_until(now, w->retry_upkeep_at));
	else
		timeout = Min(timeout, ms_until(now, upkeep_apply_at(w)));
	if (w->stopping)
		return timeout;
	if (w->client == NULL || pg_atomic_read_u32(&w->db->send_state) != SEND_OK)
		return Min(timeout, STATE_CHECK_MS);
	if (w->retry_upkeep_at <= now)
		timeout = Min(timeout, Min(ms_until(now, upkeep_redrives_at(w)),
								   ms_until(now, upkeep_retention_at(w))));

	sender_ms = sender_wait_ms(w, now);
	if (sender_ms > 0)
		return Min(timeout, sender_ms);
	/* the end of a timed pause is announced by nobody */
	if (pauses_everything(now))
		timeout = Min(timeout, STATE_CHECK_MS);
	if (turn_could_claim(w, now))
	{
		timeout = Min(timeout, ms_until(now, (TimestampTz) pg_atomic_read_u64(&w->db->next_due)));
		if (w->retry_claim_at > now)
			timeout = Min(timeout, ms_until(now, w->retry_claim_at));
	}
	return timeout;
}

static void
wait_for_work(Worker *w)
{
	WaitEvent	event;
	TimestampTz now = GetCurrentTimestamp();

	/* say that we wait, then look once more: a commit in between wakes us */
	pg_atomic_write_u32(&w->slot->idle,
						turn_could_claim(w, now));
	pg_memory_barrier();
	if (!turn_needed(w, now))
		(void) WaitEventSetWait(w->wait_set, wait_time(w, now), &event, 1,
								PG_WAIT_EXTENSION);
	pg_atomic_write_u32(&w->slot->idle, 0);
	ResetLatch(MyLatch);
}

/* ------------------------------------------------------------------ loop */

static void
begin_stopping(Worker *w)
{
	if (w->stopping)
		return;
	w->stopping = true;
	w->stop_deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
												   settlement_shutdown_timeout);
}

static void
handle_requests(Worker *w)
{
	CHECK_FOR_INTERRUPTS();
	if (ShutdownRequestPending || slot_stop_requested())
		begin_stopping(w);
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		w->reconfigure = true;
		w->state_checked_at = 0;
	}
}

/* All is recorded, or there is no more time. */
static bool
may_leave(Worker *w)
{
	if (!w->stopping)
		return false;
	return w->pool->n_used == 0 || GetCurrentTimestamp() >= w->stop_deadline;
}

static void
report_activity(Worker *w)
{
	static int	reported = -1;

	if (w->pool->n_used == reported)
		return;
	reported = w->pool->n_used;
	if (reported == 0)
		pgstat_report_activity(STATE_IDLE, NULL);
	else
		pgstat_report_activity(STATE_RUNNING, "settling trades");
}

/*
 * Until nothing more comes, or there is a turn's worth: what arrived while the
 * first replies were read goes into the same turn.  What was claimed ahead takes
 * the places that they leave.
 */
static void
collect_replies(Worker *w)
{
	int			before;

	do
	{
		before = w->n_answered;
		w->in_client = true;
		wallet_client_run(w->client);
		w->in_client = false;
		sender_collect(w);
		held_release(w);
	} while (w->n_answered > before && sender_in_flight(w) > 0 &&
			 w->n_answered < sender_concurrency(w));
	w->woke_late = false;
}

/*
 * For how long the requests wait that it submits is measured from here on, as is
 * for how long others leave the claims to us.
 */
static void
take_turn(Worker *w)
{
	turn_run(w);
	worker_beat(w);
}

/* What a turn has submitted must not wait for slow upkeep. */
static void
send_before_upkeep(Worker *w)
{
	held_release(w);
	collect_replies(w);
	worker_beat(w);
}

static void
loop(Worker *w)
{
	while (!may_leave(w))
	{
		TimestampTz now;

		worker_beat(w);
		handle_requests(w);
		if (w->client != NULL)
			collect_replies(w);
		held_release(w);
		now = GetCurrentTimestamp();
		if (turn_needed(w, now))
			take_turn(w);
		if (upkeep_takes_time(w, now) && w->client != NULL && sender_in_flight(w) > 0)
			send_before_upkeep(w);
		/* by the clock as it was at the last beat: a step since then is not seen yet */
		upkeep(w, w->beat_at);
		pgstat_report_stat(false);
		report_activity(w);
		if (w->wait_set == NULL)
			build_wait_set(w);
		if (!may_leave(w))
			wait_for_work(w);
	}
}

/*
 * After an error: undo the turn in memory as the transaction was undone in the
 * database.  What was sent stays in flight, what was answered is still here.
 *
 * Nothing in the wallet client raises errors, but the server makes one of a
 * SIGFPE, which libcurl 7.88 runs into when memory is short: nobody knows what
 * state it is in then, and others go on with its requests.
 */
static void
recover_from_error(Worker *w)
{
	error_context_stack = NULL;
	HOLD_INTERRUPTS();
	EmitErrorReport();
	AbortCurrentTransaction();
	LWLockReleaseAll();
	MemoryContextSwitchTo(TopMemoryContext);
	FlushErrorState();
	handled_end();
	turn_aborted(w);
	upkeep_aborted(w);
	RESUME_INTERRUPTS();
	if (w->in_client)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("settlement worker gives up after an error within the HTTP library")));
	if (w->turn.committed || w->submitting)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("settlement worker gives up after an error between a commit and its requests")));
	if (w->aborts_in_row >= MAX_ABORTS_IN_ROW)
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("settlement worker gives up after %d failed transactions in a row",
						w->aborts_in_row)));
}

static void
run(Worker *w)
{
	sigjmp_buf *outer = PG_exception_stack;
	sigjmp_buf	on_error;

	if (sigsetjmp(on_error, 1) != 0)
		recover_from_error(w);
	PG_exception_stack = &on_error;
	loop(w);
	PG_exception_stack = outer;
}

void
settlement_worker_main(Datum main_arg)
{
	int			slot_index = DatumGetInt32(main_arg);
	WorkerArgs	args;
	Worker	   *w;
	const char *why;

	memcpy(&args, MyBgworkerEntry->bgw_extra, sizeof(args));
	start_signals();
	slot_attach(slot_index, args.generation);
	BackgroundWorkerInitializeConnectionByOid(args.database, InvalidOid, 0);
	session_start();
	raise_file_limit();
	why = wallet_global_init();
	if (why != NULL)
		ereport(FATAL,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("the HTTP library cannot be used: %s", why)));
	w = worker_create(slot_index);
	handled_open(slot_index, MyDatabaseId);
	worker_beat(w);
	run(w);
	tradelog_summarize(GetCurrentTimestamp(), true);

	if (w->pool->n_used > 0)
		ereport(LOG,
				(errcode(LOG_STOPPED_IN_FLIGHT),
				 errmsg("settlement worker stops with %d trades in flight",
						w->pool->n_used)));
	slot_detach_clean();
	proc_exit(0);
}
