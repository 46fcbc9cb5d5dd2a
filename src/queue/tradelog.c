/*
 * tradelog.c
 *	  Lines about single trades in the server log.
 *
 * The message says what happened to which trade, the detail has everything else
 * as fields.  Nothing in here looks at a catalog or a table: the transaction is
 * over.  An outage makes each trade fail again and again; what is held back here
 * is in settlement.attempts all the same.
 */
#include "postgres.h"

#include "pgver.h"
#include "policy/lograte.h"
#include "queue/tradelog.h"
#include "shared/logline.h"
#include "shared/settings.h"

#define INTERVAL_US		(INT64CONST(60) * USECS_PER_SEC)

/* More kinds than there are classes of failures (policy/outcome.c). */
#define MAX_KINDS		32

typedef struct Kind
{
	const char *name;
	LogRate		rate;
} Kind;

static Kind kinds[MAX_KINDS];

/* -------------------------------------------------------------- how many */

/* The last one stands for all that found no place. */
static Kind *
find_kind(const char *name)
{
	int			i = 0;

	while (i < MAX_KINDS - 1 && kinds[i].name != NULL && strcmp(kinds[i].name, name) != 0)
		i++;
	if (kinds[i].name == NULL)
		kinds[i].name = i < MAX_KINDS - 1 ? name : "other";
	return &kinds[i];
}

static void
summarize(Kind *kind, TimestampTz now, bool at_once)
{
	StringInfoData fields;
	int64		n = lograte_summary(&kind->rate, INTERVAL_US, now, at_once);

	if (n == 0)
		return;
	initStringInfo(&fields);
	log_field(&fields, "class", kind->name);
	log_field_int(&fields, "count", n);
	ereport(LOG,
			(errcode(LOG_HELD_BACK),
			 errmsg("%lld more failures of class \"%s\" were not written to the log",
					(long long) n, kind->name),
			 errdetail_internal("%s", fields.data)));
	pfree(fields.data);
}

bool
tradelog_admit(const char *name)
{
	Kind	   *kind = find_kind(name);
	TimestampTz now = GetCurrentTimestamp();

	summarize(kind, now, false);
	return lograte_admit(&kind->rate, settlement_log_attempts, INTERVAL_US, now);
}

void
tradelog_summarize(TimestampTz now, bool at_once)
{
	for (int i = 0; i < MAX_KINDS && kinds[i].name != NULL; i++)
		summarize(&kinds[i], now, at_once);
}

/* ---------------------------------------------------------------- fields */

static void
trade_fields(StringInfo fields, const TradeFlight *flight)
{
	const WalletTrade *wire = &flight->wire;

	log_field(fields, "trade_id", wire->trade_id);
	log_field_int(fields, "attached_id", flight->attached_id);
	log_field(fields, "symbol", flight->symbol);
	log_field(fields, "buyer", wire->buyer_id);
	log_field(fields, "seller", wire->seller_id);
	log_field(fields, "price", wire->price);
	log_field(fields, "quantity", wire->base_amount);
	log_field(fields, "quote_amount", wire->quote_amount);
	log_field(fields, "buyer_fee", wire->buyer_fee);
	log_field(fields, "seller_fee", wire->seller_fee);
	log_field(fields, "key", flight->key);
	log_field(fields, "trace_id", flight->trace);
}

static void
attempt_fields(StringInfo fields, const Ending *ending)
{
	const TradeFlight *flight = ending->flight;
	const WalletResult *result = &flight->result;
	char		span[17];

	log_field_int(fields, "attempt", ending->decision.attempts);
	log_field(fields, "verb", result->verb == WALLET_LOOKUP ? "lookup" : "settle");
	log_field(fields, "class", ending->decision.class);
	log_field(fields, "code", result->code);
	if (result->facts.http_status != 0)
		log_field_int(fields, "http_status", result->facts.http_status);
	if (flight->local_class == NULL)
	{
		log_field(fields, "phase", phase_name(result->phase));
		log_field_ms(fields, "duration_ms", result->duration_us);
		snprintf(span, sizeof(span), "%016llx", (unsigned long long) flight->span_id);
		log_field(fields, "span_id", span);
	}
	log_field(fields, "message", result->message);
}

/* Status first, what it came to; palloc'ed. */
static char *
ending_fields(const Ending *ending, const char *status)
{
	const Decision *d = &ending->decision;
	StringInfoData fields;

	initStringInfo(&fields);
	log_field(&fields, "status", status);
	if (d->fate == FATE_SETTLED)
		log_field(&fields, "settlement_id", ending->flight->result.settlement_id);
	trade_fields(&fields, ending->flight);
	attempt_fields(&fields, ending);
	if (d->fate == FATE_DEFERRED)
	{
		log_field(&fields, "reason", d->reason);
		log_field(&fields, "maybe_executed", d->maybe_executed ? "true" : "false");
		log_field_ms(&fields, "retry_in_ms", d->retry_at - ending->flight->answered_at);
	}
	return fields.data;
}

/* ----------------------------------------------------------------- lines */

static void
log_settled(const Ending *ending)
{
	const char *trade = log_text(ending->flight->wire.trade_id);

	if (!ending->mine)
		ereport(LOG,
				(errcode(LOG_SETTLED_LATE),
				 errmsg("trade \"%s\" was settled by a worker that had lost its claim", trade),
				 errdetail_internal("%s", ending_fields(ending, "SETTLED"))));
	else if (settlement_log_settlements == LOG_SETTLEMENTS_ALL &&
			 random_fraction() < settlement_log_sample_rate)
		ereport(LOG,
				(errcode(LOG_TRADE_SETTLED),
				 errmsg("trade \"%s\" settled", trade),
				 errdetail_internal("%s", ending_fields(ending, "SETTLED"))));
}

static void
log_dead(const char *trade_id, const char *status, const char *class, const char *fields)
{
	if (strcmp(status, "UNKNOWN") == 0)
		ereport(LOG,
				(errcode(LOG_TRADE_UNKNOWN),
				 errmsg("outcome of trade \"%s\" is unknown: %s", log_text(trade_id), class),
				 errdetail_internal("%s", fields),
				 errhint("settlement.lookup() asks the wallet.")));
	else
		ereport(LOG,
				(errcode(LOG_TRADE_FAILED),
				 errmsg("trade \"%s\" failed: %s", log_text(trade_id), class),
				 errdetail_internal("%s", fields)));
}

static void
log_attempt(const Ending *ending)
{
	const char *class = ending->decision.class ? ending->decision.class : "other";

	if (tradelog_admit(class))
		ereport(LOG,
				(errcode(LOG_ATTEMPT_FAILED),
				 errmsg("attempt for trade \"%s\" failed: %s",
						log_text(ending->flight->wire.trade_id), class),
				 errdetail_internal("%s", ending_fields(ending, "PENDING"))));
}

void
tradelog_ending(const Ending *ending)
{
	if (settlement_log_settlements == LOG_SETTLEMENTS_NONE)
		return;
	if (ending->decision.fate == FATE_SETTLED)
		log_settled(ending);
	else if (!ending->mine)
		return;
	else if (ending->decision.fate == FATE_DEAD)
		log_dead(ending->flight->wire.trade_id, ending->decision.status,
				 ending->decision.class, ending_fields(ending, ending->decision.status));
	else
		log_attempt(ending);
}

void
tradelog_death(const Death *death)
{
	const ApplyRow *row = &death->row;
	StringInfoData fields;

	if (settlement_log_settlements == LOG_SETTLEMENTS_NONE)
		return;
	initStringInfo(&fields);
	log_field(&fields, "status", row->status);
	log_field(&fields, "trade_id", row->trade_id);
	log_field_int(&fields, "attached_id", row->attached_id);
	log_field(&fields, "symbol", death->symbol);
	log_field(&fields, "buyer", death->buyer_id);
	log_field(&fields, "seller", death->seller_id);
	log_field(&fields, "quantity", death->quantity);
	log_field(&fields, "quote_amount", death->quote_amount);
	log_field(&fields, "trace_id", death->trace);
	log_field_int(&fields, "attempt", row->attempts);
	log_field(&fields, "class", death->class);
	log_field(&fields, "code", death->code);
	if (death->http_status != 0)
		log_field_int(&fields, "http_status", death->http_status);
	log_field(&fields, "message", death->message);
	log_dead(row->trade_id, row->status, death->class, fields.data);
}
