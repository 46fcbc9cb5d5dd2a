/*
 * recover.c
 *	  Take over the claims of workers that are gone.
 *
 * What a dead worker had sent is not known, so each of its trades may have been
 * executed: they fall due at once, under the same key.  The claims row is locked
 * first; one that its owner holds at this moment is being finished after all,
 * and is skipped.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "queue/facts.h"
#include "queue/frontier.h"
#include "queue/recover.h"
#include "queue/redrives.h"
#include "queue/statement.h"

/* The key of our advisory lock. */
#define ADVISORY_CLASS	0x53544c4d	/* "STLM" */
#define ADVISORY_RECOVERY	1

#define TAKE_OVER(condition) \
	"WITH c AS (SELECT boot, token, ids, claimed_at, format AS c_format FROM settlement.claims WHERE " condition \
	" ORDER BY boot, token LIMIT $3 FOR UPDATE SKIP LOCKED), " \
	"r AS (SELECT unnest(ids) AS r_id, claimed_at, c_format FROM c), " \
	"m AS (DELETE FROM settlement.queue q USING r WHERE q.id = r.r_id RETURNING q.*, r.claimed_at, r.c_format), " \
	"i AS (INSERT INTO settlement.deferred (retry_at, reason, last_sent_at, last_class, " FACT_COLUMNS ") " \
	"SELECT pg_catalog.now(), 'recovered', claimed_at, CASE WHEN id = ANY ($4) THEN 'worker_crash' END, enqueued_at, attached_id, leaf, attempts + 1, " \
	"generation, charged, crashes + (id = ANY ($4))::int, CASE format WHEN 0 THEN c_format ELSE format END, true, lookup_first, trade_tid, trade_id, row_key, symbol, " \
	"buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, quote_amount, buyer_fee, " \
	"seller_fee, trace_id, COALESCE(first_sent_at, claimed_at), pending_ms, fingerprint FROM m), " \
	"x AS (DELETE FROM settlement.claims d USING c WHERE d.boot = c.boot AND d.token = c.token) " \
	"SELECT (SELECT pg_catalog.count(*) FROM c), (SELECT pg_catalog.count(*) FROM m)"

static Statement take_other_boots = {
	TAKE_OVER("boot <> $1 AND $2 = 0"), 4, {INT8OID, INT4OID, INT4OID, INT8ARRAYOID}
};

static Statement take_slot = {
	TAKE_OVER("boot = $1 AND slot = $2"), 4, {INT8OID, INT4OID, INT4OID, INT8ARRAYOID}
};

/* A trade that crashed its worker before the claim was committed. */
static Statement take_crashed = {
	"WITH m AS (DELETE FROM settlement.queue WHERE id = ANY ($1) RETURNING *) "
	"INSERT INTO settlement.deferred (retry_at, reason, last_class, " FACT_COLUMNS ") "
	"SELECT pg_catalog.now(), 'recovered', 'worker_crash', enqueued_at, attached_id, leaf, attempts, "
	"generation, charged, crashes + 1, format, maybe_executed, lookup_first, trade_tid, trade_id, row_key, "
	"symbol, buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, quote_amount, "
	"buyer_fee, seller_fee, trace_id, first_sent_at, pending_ms, fingerprint FROM m",
	1, {INT8ARRAYOID}
};

/*
 * Writing this outcome to its trade row (a user's trigger, most likely) crashed
 * the server: seldom again, from a minute on by factors of ten.
 */
static Statement delay_unapplied = {
	"UPDATE settlement.unapplied SET failures = failures + 1, "
	"last_failure = 'the server crashed while the trade row was written', last_failed_at = pg_catalog.now(), "
	"next_apply_at = pg_catalog.now() + interval '1 minute' * 10 ^ LEAST(failures, 3) "
	"WHERE id = ANY ($1)",
	1, {INT8ARRAYOID}
};

/* What a worker was handling when the server crashed. */
typedef enum Crashed
{
	CRASHED_NOTHING,
	CRASHED_TRADE,				/* id of queue */
	CRASHED_OUTCOME,			/* of unapplied */
	CRASHED_REDRIVE				/* of redrives; 0: policies */
} Crashed;

static Crashed
what_crashed(int64 handled, int64 *id)
{
	if (handled >= HANDLED_REDRIVES)
	{
		*id = handled - HANDLED_REDRIVES;
		return CRASHED_REDRIVE;
	}
	*id = handled < 0 ? -handled : handled;
	return handled < 0 ? CRASHED_OUTCOME : handled > 0 ? CRASHED_TRADE : CRASHED_NOTHING;
}

/* Those of this database; in *n how many. */
static Datum
crashed_ids(DbState *db, Crashed what, int *n)
{
	int64		ids[MAX_CRASHED];
	int64		id;

	*n = 0;
	for (int i = 0; i < settlement_shared->n_crashed; i++)
		if (settlement_shared->crashed[i].database == db->database &&
			what_crashed(settlement_shared->crashed[i].id, &id) == what)
			ids[(*n)++] = id;
	return int8_array(ids, *n);
}

static int
take_over(DbState *db, Statement *statement, int slot, int *n_trades)
{
	Datum		values[4];
	int			n_claims;
	int			n_crashed;

	values[0] = Int64GetDatum((int64) settlement_shared->boot);
	values[1] = Int32GetDatum(slot);
	values[2] = Int32GetDatum(RECOVER_BATCH);
	SPI_connect();
	values[3] = crashed_ids(db, CRASHED_TRADE, &n_crashed);
	statement_run(statement, values);
	n_claims = (int) result_int8(0, 1);
	*n_trades = (int) result_int8(0, 2);
	SPI_finish();
	return n_claims;
}

int
recover_other_boots(DbState *db, int *n_trades)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, ADVISORY_CLASS, ADVISORY_RECOVERY, 2);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	return take_over(db, &take_other_boots, 0, n_trades);
}

int
recover_crashed(DbState *db)
{
	Datum		ids;
	int			n;
	int			moved;

	SPI_connect();
	ids = crashed_ids(db, CRASHED_TRADE, &n);
	statement_run(&take_crashed, &ids);
	moved = (int) SPI_processed;
	ids = crashed_ids(db, CRASHED_OUTCOME, &n);
	statement_run(&delay_unapplied, &ids);
	SPI_finish();
	return moved;
}

/* What was handled is dealt with: a redrive, or all else. */
static void
forget_crashed(DbState *db, bool redrives)
{
	int64		id;

	for (int i = 0; i < settlement_shared->n_crashed; i++)
		if (settlement_shared->crashed[i].database == db->database &&
			(what_crashed(settlement_shared->crashed[i].id, &id) == CRASHED_REDRIVE) == redrives)
			settlement_shared->crashed[i].id = 0;
}

void
recover_crashed_done(DbState *db)
{
	forget_crashed(db, false);
}

bool
recover_redrives_crashed(DbState *db)
{
	int64		id;

	for (int i = 0; i < settlement_shared->n_crashed; i++)
		if (settlement_shared->crashed[i].database == db->database &&
			what_crashed(settlement_shared->crashed[i].id, &id) == CRASHED_REDRIVE)
			return true;
	return false;
}

void
recover_redrives(DbState *db)
{
	int			n;

	SPI_connect();
	redrives_crashed(crashed_ids(db, CRASHED_REDRIVE, &n));
	SPI_finish();
}

void
recover_redrives_done(DbState *db)
{
	forget_crashed(db, true);
}

int
recover_slot_claims(DbState *db, int slot, int *n_trades)
{
	return take_over(db, &take_slot, slot, n_trades);
}

void
recover_slot_flights(DbState *db, int slot_index)
{
	WorkerSlot *slot = &settlement_shared->slots[slot_index];
	int64	   *ids = palloc(sizeof(int64) * MAX_CONCURRENCY);
	int			n;

	SpinLockAcquire(&slot->mutex);
	n = slot->n_flights;
	for (int i = 0; i < n; i++)
		ids[i] = slot->flights[i].queue_id;
	SpinLockRelease(&slot->mutex);
	frontier_give_back(db, slot_index, ids, n);
	pfree(ids);
}
