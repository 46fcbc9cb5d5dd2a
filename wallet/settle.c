/*
 * settle.c
 *	  The wallet contract: one settle request, one look-up.
 *
 * What is checked first wins: the key, the epoch, what is remembered of the key,
 * the shape of the trade, the money.  Everything from the third on is remembered
 * under the key, a rejection too; before that nothing is.
 */
#include "settle.h"

#include <stdlib.h>
#include <string.h>

#include "amount.h"
#include "batch.h"
#include "http.h"
#include "misbehave.h"
#include "reply.h"
#include "settle_batch.h"

void
settle_choose_fault(Request *request, FaultPath path)
{
	Server	   *server = request->server;
	const Trade *trade = &request->trade;
	FaultSubject subject = {
		.path = path,
		.trade_id = request->has_trade ? trade->trade_id : "",
		.buyer_id = request->has_trade ? trade->buyer_id : "",
		.seller_id = request->has_trade ? trade->seller_id : "",
		.base_currency = request->has_trade ? trade->base_currency : "",
		.quote_currency = request->has_trade ? trade->quote_currency : "",
		.key = request->key,
		.reused = request->peer->requests > 1,
		.in_flight = server->in_flight += path != FAULT_BATCH,
	};

	request->counted = path != FAULT_BATCH;
	if (server->in_flight > server->stats.most_in_flight)
		server->stats.most_in_flight = server->in_flight;
	if (server->faults.count > 0)
		request->fault = faults_decide(&server->faults, &subject);
	if (request->fault.rule != NULL)
		server->stats.faults[request->fault.plan.action]++;
}

/* The reply is ready. */
static void
leave(void *argument)
{
	Request    *request = argument;

	if (request->fault.rule == NULL)
		http_finish(request);
	else
		misbehave(request);
}

void
settle_go_on(Request *request, int64_t delay_ms, void (*step) (void *argument))
{
	if (delay_ms <= 0 ||
		!timers_set(&request->server->timers, &request->timer,
					time_monotonic_us() + delay_ms * 1000, step, request))
		step(request);
}

/* The reply is true and, if it speaks of an effect, committed. */
static void
reply_is_true(Request *request)
{
	int64_t		delay_ms = request->fault.plan.reply_delay_ms;

	for (size_t i = 0; i < request->item_count; i++)
		if (request->items[i]->fault.plan.reply_delay_ms > delay_ms)
			delay_ms = request->items[i]->fault.plan.reply_delay_ms;
	settle_go_on(request, delay_ms, leave);
}

static void
settle_start(void *argument)
{
	Request    *request = argument;

	if (request->fault.rule == NULL || request->fault.plan.apply)
		batch_add(request);
	else
		misbehave(request);
}

void
settle_handle(Request *request)
{
	const char *key = http_header(request, "Idempotency-Key");

	request->server->stats.settle_requests++;
	if (key == NULL || !uuid_normalize(request->key, key))
		request->key[0] = '\0';
	trade_parse(&request->trade, request->body == NULL ? "" : request->body,
				request->length);
	request->has_trade = true;
	settle_choose_fault(request, FAULT_SETTLE);
	request->state = REQUEST_PARKED;
	settle_go_on(request, request->fault.plan.delay_ms, settle_start);
}

static void
refuse(Request *request, int status, const char *code, uint64_t *counter,
	   const char *message)
{
	request->counter = counter;
	reply_error(request, status, code, message);
}

bool
settle_check_epoch(Request *request, bool *database_ok)
{
	Server	   *server = request->server;
	const char *header = http_header(request, "Settlement-Epoch");
	const char *lineage = http_header(request, "Settlement-Lineage");
	int64_t		highest;

	*database_ok = true;
	if (header == NULL)
		return true;
	if (!number_parse(&request->epoch, header, 0, INT64_MAX))
	{
		refuse(request, 400, "INVALID_REQUEST", &server->stats.invalid_request,
			   "Settlement-Epoch must be a whole number");
		return false;
	}
	if (lineage == NULL)
		lineage = "";
	highest = answers_epoch(&server->answers, lineage);
	if (request->epoch < highest)
	{
		request->counter = &server->stats.stale_epoch;
		reply_stale_epoch(request, highest);
		return false;
	}
	if (request->epoch > highest)
		*database_ok = answers_set_epoch(&server->answers, lineage, request->epoch);
	return true;
}

static void
replay(Request *request, StoredAnswer *stored)
{
	Stats	   *stats = &request->server->stats;

	if (memcmp(stored->fingerprint, request->fingerprint, FINGERPRINT_LEN) != 0)
	{
		free(stored->body);
		refuse(request, 422, "KEY_CONFLICT", &stats->key_conflict,
			   "the key was used with another body");
		return;
	}
	request->counter = &stats->replays;
	reply_set(request, stored->status, stored->body);
}

/* With the amounts, so that a look-up tells them from those of another request. */
static void
reply_settled(Request *request, const char *settlement_id)
{
	char		base[AMOUNT_TEXT_MAX];
	char		quote[AMOUNT_TEXT_MAX];

	(void) amount_format(base, request->trade.base_amount);
	(void) amount_format(quote, request->trade.quote_amount);
	reply_json(request, 200,
			   json_pack("{s:b s:s s:s s:s s:s s:b s:b s:s}",
						 "success", 1,
						 "settlement_id", settlement_id,
						 "trade_id", request->trade.trade_id,
						 "base_amount", base,
						 "quote_amount", quote,
						 "buyer_reservation_released", 1,
						 "seller_reservation_released", 1,
						 "message", "settled"));
}

/* Moves the money, or says why not; false: the database failed. */
static bool
execute(Request *request, int64_t now)
{
	Server	   *server = request->server;
	Stats	   *stats = &server->stats;
	char		settlement_id[UUID_LEN + 1];
	const char *why;

	if (request->trade.problem != NULL)
	{
		refuse(request, 400, "INVALID_REQUEST", &stats->invalid_request,
			   request->trade.problem);
		return true;
	}
	switch (ledger_settle(&server->ledger, &request->trade, request->key, now,
						  settlement_id, &why))
	{
		case LEDGER_DONE:
			request->counter = &stats->effects;
			reply_settled(request, settlement_id);
			return request->reply.status == 200;
		case LEDGER_INSUFFICIENT_BALANCE:
			refuse(request, 422, "INSUFFICIENT_BALANCE", &stats->insufficient_balance, why);
			return true;
		case LEDGER_USER_NOT_FOUND:
			refuse(request, 422, "USER_NOT_FOUND", &stats->user_not_found, why);
			return true;
		case LEDGER_RESERVATION_NOT_FOUND:
			refuse(request, 422, "RESERVATION_NOT_FOUND",
				   &stats->reservation_not_found, why);
			return true;
		case LEDGER_FAILED:
			break;
	}
	return false;
}

bool
settle_in_transaction(Request *request)
{
	Answers    *answers = &request->server->answers;
	int64_t		now = time_now_us();
	StoredAnswer stored;
	bool		database_ok;

	if (request->items != NULL)
		return settle_batch_in_transaction(request);
	if (request->key[0] == '\0')
	{
		refuse(request, 400, "INVALID_REQUEST", &request->server->stats.invalid_request,
			   "the Idempotency-Key header must be a UUID");
		return true;
	}
	if (!settle_check_epoch(request, &database_ok) || !database_ok)
		return database_ok;

	fingerprint_make(request->fingerprint, request->body == NULL ? "" : request->body,
					 request->length);
	switch (answers_find(answers, request->key, &stored))
	{
		case ANSWER_FOUND:
			replay(request, &stored);
			return true;
		case ANSWER_NONE:
			break;
		case ANSWER_FAILED:
			return false;
	}
	if (!execute(request, now))
		return false;
	if (request->fault.rule != NULL && request->fault.plan.forget)
		return true;
	return answers_add(answers, request->key, request->fingerprint,
					   request->reply.status, request->reply.body, now);
}

/* Each key is one settlement, rejection or replay. */
static void
count(Request *request)
{
	if (request->counter != NULL)
		++*request->counter;
	for (size_t i = 0; i < request->item_count; i++)
		count(request->items[i]);
}

void
settle_done(Request *request, bool committed)
{
	if (committed)
		count(request);
	else
	{
		request->server->stats.ledger_failures++;
		reply_error(request, 500, NULL, "the ledger could not be written");
	}
	if (request->items != NULL)
		settle_batch_done(request);
	reply_is_true(request);
}

static void
lookup_start(void *argument)
{
	Request    *request = argument;
	Stats	   *stats = &request->server->stats;
	StoredAnswer stored;

	if (request->fault.rule != NULL && !request->fault.plan.apply)
	{
		misbehave(request);
		return;
	}
	switch (answers_find(&request->server->answers, request->key, &stored))
	{
		case ANSWER_FOUND:
			stats->lookups_found++;
			reply_set(request, stored.status, stored.body);
			break;
		case ANSWER_NONE:
			stats->lookups_unknown++;
			reply_error(request, 404, "UNKNOWN_KEY", "the key has not been seen");
			break;
		case ANSWER_FAILED:
			stats->ledger_failures++;
			reply_error(request, 500, NULL, "the ledger could not be read");
			break;
	}
	reply_is_true(request);
}

void
lookup_handle(Request *request)
{
	request->server->stats.lookup_requests++;
	if (!uuid_normalize(request->key, request->path_argument))
	{
		request->key[0] = '\0';
		reply_error(request, 400, "INVALID_REQUEST", "the key must be a UUID");
		return;
	}
	settle_choose_fault(request, FAULT_LOOKUP);
	request->state = REQUEST_PARKED;
	settle_go_on(request, request->fault.plan.delay_ms, lookup_start);
}
