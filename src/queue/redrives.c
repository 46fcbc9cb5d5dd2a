/*
 * redrives.c
 *	  Redrives at a pace and policies: calls settlement._steer() of
 *	  sql/redrives.sql, which holds what they do.
 *
 * User code may run in it: triggers of a trade table, when a row is set back to
 * PENDING.  Hence the timeout, which looks like a query cancel; _steer() traps it
 * and charges it to the redrive or the policy that it was at.  So is a crash of the
 * server: _steer() names what it is at (shared/handled.h), and redrives_crashed()
 * charges it at the next start.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"

#include "queue/redrives.h"
#include "queue/statement.h"
#include "shared/handled.h"
#include "shared/settings.h"

static Statement steer = {"SELECT settlement._steer()", 0};

static Statement charge_crashes = {
	"SELECT settlement._steer_crashed($1)", 1, {INT8ARRAYOID}
};

static TimeoutId step_timeout;
static bool step_timeout_registered = false;
static volatile sig_atomic_t step_timed_out = false;

static void
handle_step_timeout(void)
{
	step_timed_out = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
start_timeout(void)
{
	if (!step_timeout_registered)
	{
		step_timeout = RegisterTimeout(USER_TIMEOUT, handle_step_timeout);
		step_timeout_registered = true;
	}
	step_timed_out = false;
	enable_timeout_after(step_timeout, settlement_apply_timeout);
}

static void
stop_timeout(void)
{
	disable_timeout(step_timeout, false);
	if (step_timed_out)
		QueryCancelPending = false; /* it came too late to be seen */
}

int
redrives_step(void)
{
	volatile int ms = 0;

	PG_TRY();
	{
		bool		isnull;

		start_timeout();
		SPI_connect();
		statement_run(&steer, NULL);
		ms = DatumGetInt32(result_value(0, 1, &isnull));
		SPI_finish();
	}
	PG_FINALLY();
	{
		handled_end();
		stop_timeout();
	}
	PG_END_TRY();
	return ms;
}

void
redrives_crashed(Datum ids)
{
	statement_run(&charge_crashes, &ids);
}
