/*
 * stopping.c
 *	  SIGTERM: leave in order, and by force when that takes too long.
 *
 * A POSIX timer sends SIGTERM again when the time is up.  PostgreSQL's own
 * timeouts cannot be armed from a signal handler, and the loop cannot arm one
 * while it waits inside a commit.  Only async-signal-safe calls in the handler.
 */
#include "postgres.h"

#include <signal.h>
#include <time.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"

#include "shared/settings.h"
#include "worker/stopping.h"

#define GRACE_MS	2000

static timer_t force_timer;
static bool have_timer = false;
static struct timespec force_at;

static bool
time_is_up(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > force_at.tv_sec ||
		(now.tv_sec == force_at.tv_sec && now.tv_nsec >= force_at.tv_nsec);
}

static void
arm_timer(void)
{
	int64		ms = (int64) settlement_shutdown_timeout + GRACE_MS;
	struct itimerspec when = {0};

	clock_gettime(CLOCK_MONOTONIC, &force_at);
	force_at.tv_sec += ms / 1000;
	force_at.tv_nsec += (ms % 1000) * 1000000;
	if (force_at.tv_nsec >= 1000000000)
	{
		force_at.tv_sec++;
		force_at.tv_nsec -= 1000000000;
	}
	/* and again each second: one signal may come at a bad moment */
	when.it_value = force_at;
	when.it_interval.tv_sec = 1;
	(void) timer_settime(force_timer, TIMER_ABSTIME, &when, NULL);
}

static void
handle_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (!ShutdownRequestPending)
	{
		ShutdownRequestPending = true;
		if (have_timer)
			arm_timer();
	}
	else if (have_timer && time_is_up())
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

void
stopping_install(void)
{
	struct sigevent event = {0};

	event.sigev_notify = SIGEV_SIGNAL;
	event.sigev_signo = SIGTERM;
	have_timer = timer_create(CLOCK_MONOTONIC, &event, &force_timer) == 0;
	pqsignal(SIGTERM, handle_sigterm);
}
