/*
 * evidence.c
 *	  Record what the wallet answered in our own tables.
 *
 * Under the lock of its claims row each trade leaves the queue, and its facts go
 * where they belong, so that a takeover and a finish cannot both win; only rows
 * that our own DELETE returned are acted upon.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "queue/claims.h"
#include "queue/ending.h"
#include "queue/facts.h"
#include "queue/remove.h"
#include "queue/statement.h"

/*
 * A finally rejected key that may have been sent by another copy of this database,
 * or before a restore: the keys after it may have been, too.
 */
#define ASK_FOR_THE_NEXT_KEY \
	"r_lookup OR (final_rejection AND COALESCE(r_first_sent <= GREATEST(enqueued_at, " \
	"(SELECT original_until FROM settlement.identity)), false))"

/* With what stands for lookup_first. */
#define MOVED_FACTS(lookup) \
	"enqueued_at, attached_id, leaf, r_attempts, generation, charged, crashes, " \
	"r_format, r_maybe, " lookup ", trade_tid, trade_id, row_key, symbol, " \
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
	FACT_COLUMNS ") SELECT status, class, code, NULLIF(http_status, 0), message, final_rejection, " MOVED_FACTS(ASK_FOR_THE_NEXT_KEY) " FROM m) "
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
	"NULLIF(http_status, 0), message, " MOVED_FACTS("r_lookup") " FROM m) "
	"SELECT id FROM m",
	15, {INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, BOOLARRAYOID, BOOLARRAYOID,
		TIMESTAMPTZARRAYOID, BYTEAARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
		TEXTARRAYOID, INT4ARRAYOID, TEXTARRAYOID, BOOLARRAYOID,
	TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID}
};

/* ---------------------------------------------------------------- claims */

/*
 * Lock the claims rows of these endings, or delete those whose last trades they
 * are.
 */
static void
hold_claims(Ending *endings, int n)
{
	OpenClaim **claims = palloc(sizeof(OpenClaim *) * n);
	OpenClaim **full = palloc(sizeof(OpenClaim *) * n);
	OpenClaim **partial = palloc(sizeof(OpenClaim *) * n);
	int			n_claims = 0;
	int			n_full = 0;
	int			n_partial = 0;

	for (int i = 0; i < n; i++)
		if (endings[i].flight->claim->finishing++ == 0)
			claims[n_claims++] = endings[i].flight->claim;
	for (int i = 0; i < n_claims; i++)
	{
		if (claims[i]->finishing + claims[i]->withdrawn == claims[i]->remaining)
			full[n_full++] = claims[i];
		else
			partial[n_partial++] = claims[i];
	}
	claims_delete(full, n_full);
	claims_lock(partial, n_partial);
}

/* ------------------------------------------------------------------ moves */

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

void
evidence_record(Finish *finish, Ending *endings)
{
	Ending	  **chosen = palloc(sizeof(Ending *) * finish->n);
	int			n;

	hold_claims(endings, finish->n);
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
