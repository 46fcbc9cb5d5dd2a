/*
 * attempts.c
 *	  The history of requests: settlement.attempts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "queue/ending.h"
#include "queue/statement.h"
#include "shared/settings.h"

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

void
attempts_record(int slot, Ending *endings, int n)
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
