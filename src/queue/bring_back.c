/*
 * bring_back.c
 *	  After the clock was set back: what waits for a time of the former clock.
 *
 * A wait that began in the future, as the clock says now, was written by a clock
 * that was ahead, and would last longer by as much.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "queue/bring_back.h"
#include "queue/statement.h"
#include "shared/clock.h"

/*
 * $1 now  $2 what lies beyond was written by another clock  $3 limit
 *
 * A pause has an end of somebody's choice, and a redrive that is spread over time
 * bears no time at which its wait began.
 */
static Statement bring_back_deferred = {
	"WITH r AS (SELECT id FROM settlement.deferred"
	"  WHERE retry_at > $2 AND retry_at < 'infinity' AND reason <> 'paused'"
	"  AND GREATEST(last_sent_at, first_sent_at, enqueued_at) > $2 LIMIT $3 FOR UPDATE SKIP LOCKED) "
	"UPDATE settlement.deferred d SET retry_at = $1 FROM r WHERE d.id = r.id",
	3, {TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID}
};

static Statement bring_back_unapplied = {
	"WITH r AS (SELECT id FROM settlement.unapplied WHERE next_apply_at > $2"
	"  AND GREATEST(recorded_at, last_failed_at) > $2 LIMIT $3 FOR UPDATE SKIP LOCKED) "
	"UPDATE settlement.unapplied u SET next_apply_at = $1 FROM r WHERE u.id = r.id",
	3, {TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID}
};

int
bring_back_waits(int max)
{
	TimestampTz now = GetCurrentTransactionStartTimestamp();
	Datum		values[3];
	int			n_deferred;
	int			n_unapplied;

	values[0] = TimestampTzGetDatum(now);
	values[1] = TimestampTzGetDatum(TimestampTzPlusMilliseconds(now, CLOCK_TOLERANCE_MS));
	values[2] = Int32GetDatum(max);
	SPI_connect();
	statement_run(&bring_back_deferred, values);
	n_deferred = (int) SPI_processed;
	statement_run(&bring_back_unapplied, values);
	n_unapplied = (int) SPI_processed;
	SPI_finish();
	return Max(n_deferred, n_unapplied);
}
