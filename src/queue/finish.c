/*
 * finish.c
 *	  Record what the wallet answered.
 *
 * Evidence first: each row leaves the queue and its facts go where they belong,
 * under the lock of its claims row, so that a takeover and a finish cannot both
 * win; only rows that our own DELETE returned are acted upon.  Then the trade
 * rows, in a subtransaction: what cannot be written goes to unapplied and is
 * tried again alone, never resent.
 *
 * A worker whose claim was taken over may write one thing only: that the wallet
 * settled the key.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "queue/apply.h"
#include "queue/decision.h"
#include "queue/facts.h"
#include "queue/finish.h"
#include "queue/frontier.h"
#include "queue/key.h"
#include "queue/late.h"
#include "queue/remove.h"
#include "queue/statement.h"
#include "queue/unapplied.h"
#include "shared/settings.h"

/* One finished trade on its way through a turn. */
struct Ending
{
	TradeFlight *flight;
	Decision	decision;
	bool		mine;			/* claim stands and the row left the queue */
	char	   *error;			/* for the trade row and the log; NULL: none */
};

static Statement finish_claims = {
	"DELETE FROM settlement.claims WHERE boot = $1 AND token = ANY ($2) RETURNING token",
	2, {INT8OID, INT8ARRAYOID}
};

static Statement lock_claims = {
	"SELECT token FROM settlement.claims WHERE boot = $1 AND token = ANY ($2) FOR UPDATE",
	2, {INT8OID, INT8ARRAYOID}
};

#define MOVED_FACTS \
	"enqueued_at, attached_id, leaf, r_attempts, generation, charged, crashes, " \
	"r_format, r_maybe, r_lookup, trade_tid, trade_id, row_key, symbol, " \
	"buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, " \
	"quote_amount, buyer_fee, seller_fee, trace_id, r_first_sent, pending_ms, " \
	"r_fingerprint"

static Statement move_to_dlq = {
	"WITH r AS (SELECT * FROM unnest($1::int8[], $2::int4[], $3::int4[], $4::bool[], $5::bool[], "
	"$6::timestamptz[], $7::bytea[], $8::text[], $9::text[], $10::text[], $11::int4[], $12::text[], $13::bool[]) "
	"AS r(r_id, r_attempts, r_format, r_maybe, r_lookup, r_first_sent, r_fingerprint, "
	"status, class, code, http_status, message, final_rejection)), "
	"m AS (DELETE FROM settlement.queue q USING r WHERE q.id = r.r_id RETURNING q.*, r.*), "
	"i AS (INSERT INTO settlement.dlq (status, class, code, http_status, message, final_rejection, "
	FACT_COLUMNS ") SELECT status, class, code, NULLIF(http_status, 0), message, final_rejection, " MOVED_FACTS " FROM m) "
	"SELECT id FROM m",
	13, {INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, BOOLARRAYOID, BOOLARRAYOID,
		TIMESTAMPTZARRAYOID, BYTEAARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
	TEXTARRAYOID, INT4ARRAYOID, TEXTARRAYOID, BOOLARRAYOID}
};

static Statement move_to_deferred = {
	"WITH r AS (SELECT * FROM unnest($1::int8[], $2::int4[], $3::int4[], $4::bool[], $5::bool[], "
	"$6::timestamptz[], $7::bytea[], $8::text[], $9::text[], $10::text[], $11::int4[], $12::text[], $13::bool[], "
	"$14::timestamptz[], $15::timestamptz[]) "
	"AS r(r_id, r_attempts, r_format, r_maybe, r_lookup, r_first_sent, r_fingerprint, "
	"reason, class, code, http_status, message, chargeable, retry_at, sent_at)), "
	"m AS (DELETE FROM settlement.queue q USING r WHERE q.id = r.r_id RETURNING q.*, r.*), "
	"i AS (INSERT INTO settlement.deferred (retry_at, reason, chargeable, last_sent_at, last_class, last_code, "
	"last_status, last_message, " FACT_COLUMNS ") SELECT retry_at, reason, chargeable, sent_at, class, code, "
	"NULLIF(http_status, 0), message, " MOVED_FACTS " FROM m) "
	"SELECT id FROM m",
	15, {INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, BOOLARRAYOID, BOOLARRAYOID,
		TIMESTAMPTZARRAYOID, BYTEAARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		TEXTARRAYOID, INT4ARRAYOID, TEXTARRAYOID, BOOLARRAYOID,
	TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID}
};

static Statement insert_attempts = {
	"INSERT INTO settlement.attempts (at, attached_id, trade_id, generation, attempt, verb, outcome, "
	"class, phase, http_status, code, message, duration, slot) "
	"SELECT at, a, t, g, n, v, o, c, p, NULLIF(h, 0), k, m, d * interval '1 microsecond', $14 "
	"FROM unnest($1::timestamptz[], $2::int4[], $3::text[], $4::int4[], $5::int4[], $6::text[], "
	"$7::text[], $8::text[], $9::text[], $10::int4[], $11::text[], $12::text[], $13::int8[]) "
	"AS r(at, a, t, g, n, v, o, c, p, h, k, m, d)",
	14, {TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTARRAYOID, INT4ARRAYOID, INT4ARRAYOID,
		TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID,
	TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, INT4OID}
};

/* An empty text is an absent one. */
static const char *
or_null(const char *text)
{
	return text[0] == '\0' ? NULL : text;
}

/* ---------------------------------------------------------------- claims */

/* Mark the claims whose tokens the last statement returned. */
static void
mark_held(OpenClaim **claims, int n)
{
	for (uint64 r = 0; r < SPI_processed; r++)
	{
		int64		token = result_int8(r, 1);

		for (int i = 0; i < n; i++)
			if (claims[i]->token == token)
				claims[i]->lost = false;
	}
}

/*
 * Lock the claims rows of these endings, or delete those whose last trades they
 * are.  A claim that has no row any more was taken over.
 */
static void
hold_claims(Ending *endings, int n)
{
	OpenClaim **claims = palloc(sizeof(OpenClaim *) * n);
	int64	   *full = palloc(sizeof(int64) * n);
	int64	   *partial = palloc(sizeof(int64) * n);
	int			n_claims = 0;
	int			n_full = 0;
	int			n_partial = 0;
	Datum		values[2];

	for (int i = 0; i < n; i++)
		if (endings[i].flight->claim->finishing++ == 0)
			claims[n_claims++] = endings[i].flight->claim;
	for (int i = 0; i < n_claims; i++)
	{
		if (claims[i]->finishing == claims[i]->remaining)
			full[n_full++] = claims[i]->token;
		else
			partial[n_partial++] = claims[i]->token;
		claims[i]->lost = true;
	}
	values[0] = Int64GetDatum((int64) settlement_shared->boot);
	if (n_full > 0)
	{
		values[1] = int8_array(full, n_full);
		statement_run(&finish_claims, values);
		mark_held(claims, n_claims);
	}
	if (n_partial > 0)
	{
		values[1] = int8_array(partial, n_partial);
		statement_run(&lock_claims, values);
		mark_held(claims, n_claims);
	}
}

/* -------------------------------------------------------------- evidence */

static int
select_endings(Ending *endings, int n, Fate fate, Ending **chosen)
{
	int			m = 0;

	for (int i = 0; i < n; i++)
		if (!endings[i].flight->claim->lost && endings[i].decision.fate == fate)
			chosen[m++] = &endings[i];
	return m;
}

/* The last statement returned the ids that it removed from the queue. */
static void
mark_removed(Finish *finish, Ending **chosen, int n)
{
	finish->n_removed += SPI_processed;
	if (SPI_processed == n)
	{
		for (int i = 0; i < n; i++)
			chosen[i]->mine = true;
		return;
	}
	for (uint64 r = 0; r < SPI_processed; r++)
	{
		int64		id = result_int8(r, 1);

		for (int i = 0; i < n; i++)
			if (chosen[i]->flight->queue_id == id)
				chosen[i]->mine = true;
	}
}

static void
record_settled(Finish *finish, Ending **chosen, int n)
{
	TradeFlight **flights = palloc(sizeof(TradeFlight *) * n);
	bool	   *removed = palloc(sizeof(bool) * n);

	for (int i = 0; i < n; i++)
		flights[i] = chosen[i]->flight;
	finish->n_removed += remove_rows(flights, removed, n);
	for (int i = 0; i < n; i++)
		chosen[i]->mine = removed[i];
}

/* Arguments 1 to 7 of both moves: the id and the facts that change. */
static void
fact_arguments(Datum *values, Ending **chosen, int n)
{
	int64	   *ids = palloc(sizeof(int64) * n);
	int		   *attempts = palloc(sizeof(int) * n);
	int		   *format = palloc(sizeof(int) * n);
	bool	   *maybe = palloc(sizeof(bool) * n);
	bool	   *lookup = palloc(sizeof(bool) * n);
	TimestampTz *first_sent = palloc(sizeof(TimestampTz) * n);
	const uint8 **prints = palloc(sizeof(uint8 *) * n);

	for (int i = 0; i < n; i++)
	{
		const TradeFlight *flight = chosen[i]->flight;
		const Decision *d = &chosen[i]->decision;

		ids[i] = flight->queue_id;
		attempts[i] = d->attempts;
		format[i] = d->format;
		maybe[i] = d->maybe_executed;
		lookup[i] = d->lookup_first;
		first_sent[i] = d->first_sent_at;
		prints[i] = flight->has_fingerprint ? flight->fingerprint : NULL;
	}
	values[0] = int8_array(ids, n);
	values[1] = int4_array(attempts, n);
	values[2] = int4_array(format, n);
	values[3] = bool_array(maybe, n);
	values[4] = bool_array(lookup, n);
	values[5] = time_array(first_sent, n);
	values[6] = bytea_array(prints, FINGERPRINT_LEN, n);
}

/* Arguments 8 to 13: what happened. */
static void
event_arguments(Datum *values, Ending **chosen, int n, bool dead)
{
	const char **word = palloc(sizeof(char *) * n);
	const char **class = palloc(sizeof(char *) * n);
	const char **code = palloc(sizeof(char *) * n);
	const char **message = palloc(sizeof(char *) * n);
	int		   *http = palloc(sizeof(int) * n);
	bool	   *flag = palloc(sizeof(bool) * n);

	for (int i = 0; i < n; i++)
	{
		const WalletResult *result = &chosen[i]->flight->result;
		const Decision *d = &chosen[i]->decision;

		word[i] = dead ? d->status : d->reason;
		class[i] = d->class;
		code[i] = or_null(result->code);
		message[i] = or_null(result->message);
		http[i] = result->facts.http_status;
		flag[i] = dead ? d->final_rejection : d->chargeable;
	}
	values[7] = text_array(word, n);
	values[8] = text_array(class, n);
	values[9] = text_array(code, n);
	values[10] = int4_array(http, n);
	values[11] = text_array(message, n);
	values[12] = bool_array(flag, n);
}

static void
record_dead(Finish *finish, Ending **chosen, int n)
{
	Datum		values[13];

	fact_arguments(values, chosen, n);
	event_arguments(values, chosen, n, true);
	statement_run(&move_to_dlq, values);
	mark_removed(finish, chosen, n);
}

static void
record_deferred(Finish *finish, Ending **chosen, int n)
{
	TimestampTz *retry_at = palloc(sizeof(TimestampTz) * n);
	TimestampTz *sent_at = palloc(sizeof(TimestampTz) * n);
	Datum		values[15];

	for (int i = 0; i < n; i++)
	{
		retry_at[i] = chosen[i]->decision.retry_at;
		sent_at[i] = chosen[i]->flight->sent_at;
	}
	fact_arguments(values, chosen, n);
	event_arguments(values, chosen, n, false);
	values[13] = time_array(retry_at, n);
	values[14] = time_array(sent_at, n);
	statement_run(&move_to_deferred, values);
	mark_removed(finish, chosen, n);
}

static void
record_evidence(Finish *finish, Ending *endings)
{
	Ending	  **chosen = palloc(sizeof(Ending *) * finish->n);
	int			n;

	n = select_endings(endings, finish->n, FATE_SETTLED, chosen);
	if (n > 0)
		record_settled(finish, chosen, n);
	n = select_endings(endings, finish->n, FATE_DEAD, chosen);
	if (n > 0)
		record_dead(finish, chosen, n);
	n = select_endings(endings, finish->n, FATE_DEFERRED, chosen);
	if (n > 0)
		record_deferred(finish, chosen, n);
}

/* -------------------------------------------------------------- attempts */

typedef struct AttemptColumns
{
	TimestampTz *at;
	int		   *attached;
	const char **trade_id;
	int		   *generation;
	int		   *attempt;
	const char **verb;
	const char **outcome;
	const char **class;
	const char **phase;
	int		   *http;
	const char **code;
	const char **message;
	int64	   *duration;
} AttemptColumns;

static void
fill_attempt(AttemptColumns *c, int i, const Ending *ending)
{
	static const char *const lookups[] = {"settled", "rejected", "pending",
	"unknown_key", "failed"};
	const TradeFlight *flight = ending->flight;
	const WalletResult *result = &flight->result;
	bool		lookup = flight->verb == WALLET_LOOKUP;

	c->at[i] = flight->sent_at;
	c->attached[i] = flight->attached_id;
	c->trade_id[i] = flight->wire.trade_id;
	c->generation[i] = flight->generation;
	c->attempt[i] = ending->decision.attempts;
	c->verb[i] = lookup ? "lookup" : "settle";
	c->outcome[i] = lookup ? lookups[result->lookup] : outcome_name(result->verdict.outcome);
	c->class[i] = ending->decision.class;
	c->phase[i] = phase_name(result->phase);
	c->http[i] = result->facts.http_status;
	c->code[i] = or_null(result->code);
	c->message[i] = or_null(result->message);
	c->duration[i] = result->duration_us;
}

static void
record_attempts(int slot, Ending *endings, int n)
{
	AttemptColumns c;
	Datum		values[14];
	int			m = 0;

#define COLUMN(field)	c.field = palloc(sizeof(*c.field) * n)
	COLUMN(at); COLUMN(attached); COLUMN(trade_id); COLUMN(generation);
	COLUMN(attempt); COLUMN(verb); COLUMN(outcome); COLUMN(class);
	COLUMN(phase); COLUMN(http); COLUMN(code); COLUMN(message); COLUMN(duration);
#undef COLUMN
	for (int i = 0; i < n; i++)
		if (endings[i].flight->local_class == NULL &&
			(endings[i].decision.fate != FATE_SETTLED ||
			 settlement_attempt_history == ATTEMPT_HISTORY_ALL))
			fill_attempt(&c, m++, &endings[i]);
	if (m == 0)
		return;
	values[0] = time_array(c.at, m);
	values[1] = int4_array(c.attached, m);
	values[2] = text_array(c.trade_id, m);
	values[3] = int4_array(c.generation, m);
	values[4] = int4_array(c.attempt, m);
	values[5] = text_array(c.verb, m);
	values[6] = text_array(c.outcome, m);
	values[7] = text_array(c.class, m);
	values[8] = text_array(c.phase, m);
	values[9] = int4_array(c.http, m);
	values[10] = text_array(c.code, m);
	values[11] = text_array(c.message, m);
	values[12] = int8_array(c.duration, m);
	values[13] = Int32GetDatum(slot);
	statement_run(&insert_attempts, values);
}

/* ----------------------------------------------------------- trade rows */

static void
fill_apply_row(ApplyRow *row, const Ending *ending)
{
	const TradeFlight *flight = ending->flight;
	bool		settled = ending->decision.fate == FATE_SETTLED;

	memset(row, 0, sizeof(*row));
	row->handled_id = flight->queue_id;
	row->attached_id = flight->attached_id;
	row->leaf = flight->leaf;
	row->tid = flight->trade_tid;
	row->trade_id = flight->wire.trade_id;
	row->n_keys = flight->n_keys;
	row->row_key = flight->row_key;
	row->status = ending->decision.status;
	row->settlement_id = settled ? flight->result.settlement_id : NULL;
	row->settled_at = settled ? flight->answered_at : 0;
	row->attempts = ending->decision.attempts;
	row->error = ending->error;
}

/* Rows whose trade row could not be written now wait in unapplied. */
static void
keep_unapplied(Finish *finish, ApplyRow *rows, int n)
{
	int			m = 0;

	for (int i = 0; i < n; i++)
		if (rows[i].result != APPLY_DONE)
			rows[m++] = rows[i];
	if (m > 0)
		finish->n_unapplied += unapplied_record(rows, m, NULL);
}

static void
write_trade_rows(Finish *finish, Ending *endings)
{
	ApplyRow   *rows = palloc(sizeof(ApplyRow) * finish->n);
	int			n = 0;
	char	   *error = NULL;

	for (int i = 0; i < finish->n; i++)
		if (endings[i].mine && endings[i].decision.fate != FATE_DEFERRED)
			fill_apply_row(&rows[n++], &endings[i]);
	if (n == 0)
		return;
	if (finish->evidence_only)
		finish->n_unapplied += unapplied_record(rows, n, NULL);
	else if (apply_batch_safely(rows, n, &error))
		keep_unapplied(finish, rows, n);
	else
		finish->n_unapplied += unapplied_record(rows, n, NULL);
}

/* ---------------------------------------------------------------- turn */

static char *
error_text(const Ending *ending)
{
	const WalletResult *result = &ending->flight->result;

	if (ending->decision.fate == FATE_SETTLED)
		return NULL;
	if (result->message[0] == '\0')
		return pstrdup(ending->decision.class);
	return psprintf("%s: %s", ending->decision.class, result->message);
}

static Ending *
make_endings(Finish *finish)
{
	Ending	   *endings = palloc0(sizeof(Ending) * finish->n);

	for (int i = 0; i < finish->n; i++)
	{
		endings[i].flight = finish->flights[i];
		endings[i].decision = decide(finish->flights[i],
									 wallet_rejection_is_final(finish->client),
									 random_fraction());
		if (endings[i].decision.fate != FATE_SETTLED &&
			endings[i].decision.first_sent_at != 0)
		{
			key_fingerprint(finish->flights[i], finish->client);
			endings[i].decision.format = finish->flights[i]->format;
		}
		endings[i].error = error_text(&endings[i]);
	}
	return endings;
}

static void
count_endings(Finish *finish, Ending *endings)
{
	for (int i = 0; i < finish->n; i++)
	{
		if (!endings[i].mine)
			continue;
		switch (endings[i].decision.fate)
		{
			case FATE_SETTLED:
				finish->n_settled++;
				break;
			case FATE_DEAD:
				finish->n_dead++;
				finish->n_rejected += endings[i].decision.final_rejection;
				break;
			case FATE_DEFERRED:
				finish->n_deferred++;
				break;
		}
	}
}

/* One line per failure; success only when asked for. */
static void
log_ending(const Ending *ending)
{
	const TradeFlight *flight = ending->flight;
	const Decision *d = &ending->decision;

	if (d->fate == FATE_DEAD && settlement_log_settlements >= LOG_SETTLEMENTS_FAILURES)
		ereport(LOG,
				(errmsg("settlement of trade \"%s\" failed: %s", flight->wire.trade_id, ending->error),
				 errdetail("status=%s class=%s code=%s http_status=%d symbol=%s buyer=%s seller=%s "
						   "quantity=%s quote_amount=%s attempt=%d key=%s duration_ms=%.3f",
						   d->status, d->class, flight->result.code,
						   flight->result.facts.http_status, flight->symbol,
						   flight->wire.buyer_id, flight->wire.seller_id,
						   flight->wire.base_amount, flight->wire.quote_amount,
						   d->attempts, flight->key,
						   flight->result.duration_us / 1000.0)));
	else if (d->fate == FATE_SETTLED && settlement_log_settlements == LOG_SETTLEMENTS_ALL)
		ereport(LOG,
				(errmsg("trade \"%s\" settled", flight->wire.trade_id),
				 errdetail("settlement_id=%s symbol=%s quantity=%s quote_amount=%s attempt=%d key=%s duration_ms=%.3f",
						   flight->result.settlement_id, flight->symbol,
						   flight->wire.base_amount, flight->wire.quote_amount,
						   d->attempts, flight->key,
						   flight->result.duration_us / 1000.0)));
}

void
finish_trades(DbState *db, int slot, Finish *finish)
{
	Ending	   *endings;

	if (finish->n == 0)
		return;
	endings = make_endings(finish);
	SPI_connect();
	hold_claims(endings, finish->n);
	record_evidence(finish, endings);
	record_attempts(slot, endings, finish->n);
	for (int i = 0; i < finish->n; i++)
		if (!endings[i].mine && endings[i].decision.fate == FATE_SETTLED)
			finish->n_late += late_settlement(db, endings[i].flight);
	write_trade_rows(finish, endings);
	SPI_finish();
	count_endings(finish, endings);
	finish->endings = endings;
}

static void
release_claim(OpenClaim *claim)
{
	claim->finishing--;
	if (--claim->remaining == 0)
		pfree(claim);
}

static void
count_flight(DbState *db, WorkerSlot *slot, const TradeFlight *flight)
{
	if (flight->verb == WALLET_SETTLE &&
		flight->result.verdict.outcome == OUTCOME_SETTLED)
		histogram_add(&db->duration[DURATION_SETTLE],
					  GetCurrentTimestamp() - flight->enqueued_at);
}

void
finish_committed(DbState *db, int slot_index, FlightPool *pool, Finish *finish)
{
	WorkerSlot *slot = &settlement_shared->slots[slot_index];
	int64	   *ids;

	if (finish->n == 0)
		return;
	ids = palloc(sizeof(int64) * finish->n);
	for (int i = 0; i < finish->n; i++)
	{
		if (finish->endings[i].mine)
			log_ending(&finish->endings[i]);
		ids[i] = finish->flights[i]->queue_id;
		count_flight(db, slot, finish->flights[i]);
		release_claim(finish->flights[i]->claim);
		flight_release(pool, finish->flights[i]);
	}
	frontier_forget(slot_index, ids, finish->n);
	pg_atomic_fetch_sub_u64(&db->depth_change, finish->n_removed);
	shmem_count(db, COUNT_SETTLED, finish->n_settled);
	shmem_count(db, COUNT_FAILED, finish->n_dead);
	shmem_count(db, COUNT_REJECTED, finish->n_rejected);
	shmem_count(db, COUNT_PROCESSED, finish->n_settled + finish->n_dead);
	shmem_count(db, COUNT_RETRIES, finish->n_deferred);
	shmem_count(db, COUNT_LATE_SETTLED, finish->n_late);
	pg_atomic_fetch_add_u64(&slot->settled, finish->n_settled);
	pg_atomic_fetch_add_u64(&slot->failed, finish->n_dead);
	if (finish->n_deferred > 0)
		pg_atomic_write_u64(&db->next_due, 0);
	if (finish->n_unapplied > 0)
	{
		shmem_count(db, COUNT_APPLY_FAILURES, finish->n_unapplied);
		pg_atomic_write_u64(&db->next_apply, 0);
	}
	pfree(ids);
}

void
finish_aborted(Finish *finish)
{
	for (int i = 0; i < finish->n; i++)
		finish->flights[i]->claim->finishing = 0;
}
