/*
 * settle_batch.c
 *	  The wallet contract: several trades in one request.
 *
 * Each item is a Request of its own, with its own key, effect, stored answer and
 * rule of misbehaviour; only the connection is the batch's, and the transaction.
 * What an item is remembered by are the bytes of its trade, so that the same trade
 * sent alone is the same request.
 *
 * The answers stand in the opposite order of the items: who goes by their places
 * is found out.
 */
#include "settle_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "json_items.h"
#include "misbehave.h"
#include "reply.h"
#include "settle.h"

#define ITEMS_MAX	1000

static void
item_free(Request *item)
{
	item->server->in_flight -= item->counted;
	trade_free(&item->trade);
	fault_release(&item->fault);
	reply_free(&item->reply);
	free(item->body);
	free(item);
}

void
settle_batch_free(Request *request)
{
	for (size_t i = 0; i < request->item_count; i++)
		item_free(request->items[i]);
	free(request->items);
}

/* ---- taking it apart ---- */

/* What is wrong with the batch as a whole; NULL: nothing. */
static const char *
problem_of(json_t *list)
{
	size_t		i;
	json_t	   *item;
	json_t	   *seen;
	const char *problem = NULL;

	if (!json_is_array(list) || json_array_size(list) == 0)
		return "the body must be a JSON array of items";
	seen = json_object();
	json_array_foreach(list, i, item)
	{
		const char *text = json_string_value(json_object_get(item, "idempotency_key"));
		char		key[UUID_LEN + 1];

		if (text == NULL || !uuid_normalize(key, text))
			problem = "each item needs an idempotency_key that is a UUID";
		else if (json_object_get(seen, key) != NULL)
			problem = "the idempotency_key of each item must be another";
		else
			json_object_set_new(seen, key, json_true());
	}
	json_decref(seen);
	return problem;
}

static Request *
make_item(Request *batch, const json_t *source, const TextSpan *trade)
{
	Request    *item = calloc(1, sizeof(Request));
	const char *text = trade->text == NULL ? "" : trade->text;

	if (item == NULL)
		return NULL;
	item->server = batch->server;
	item->connection = batch->connection;
	item->peer = batch->peer;
	item->epoch = -1;
	item->reply = (Reply) {.retry_after = -1};
	item->length = trade->length;
	item->body = strndup(text, trade->length);
	uuid_normalize(item->key, json_string_value(json_object_get(source, "idempotency_key")));
	trade_parse(&item->trade, text, trade->length);
	item->has_trade = true;
	return item;
}

/* False: out of memory. */
static bool
make_items(Request *request, const json_t *list)
{
	size_t		n = json_array_size(list);
	TextSpan   *trades = calloc(n, sizeof(TextSpan));

	request->items = calloc(n, sizeof(Request *));
	if (trades == NULL || request->items == NULL)
	{
		free(trades);
		return false;
	}
	json_items_find(request->body, "trade", trades, n);
	for (size_t i = 0; i < n; i++)
	{
		Request    *item = make_item(request, json_array_get(list, i), &trades[i]);

		if (item == NULL)
			break;
		request->items[request->item_count++] = item;
	}
	free(trades);
	return request->item_count == n;
}

/* ---- on its way ---- */

static void
batch_start(void *argument)
{
	Request    *request = argument;

	if (request->fault.rule == NULL || request->fault.plan.apply)
		batch_add(request);
	else
		misbehave(request);
}

/* The slowest of them holds up the others. */
static int64_t
choose_faults(Request *request)
{
	int64_t		delay_ms;

	settle_choose_fault(request, FAULT_BATCH);
	delay_ms = request->fault.plan.delay_ms;
	for (size_t i = 0; i < request->item_count; i++)
	{
		Request    *item = request->items[i];

		settle_choose_fault(item, FAULT_SETTLE);
		if (item->fault.plan.delay_ms > delay_ms)
			delay_ms = item->fault.plan.delay_ms;
	}
	return delay_ms;
}

void
settle_batch_handle(Request *request)
{
	Stats	   *stats = &request->server->stats;
	json_t	   *list = request->body == NULL ? NULL :
		json_loadb(request->body, request->length, JSON_REJECT_DUPLICATES, NULL);
	const char *problem = problem_of(list);
	bool		made = false;

	stats->batch_requests++;
	if (problem != NULL)
	{
		stats->invalid_request++;
		reply_error(request, 400, "INVALID_REQUEST", problem);
	}
	else if (json_array_size(list) > ITEMS_MAX)
		reply_error(request, 413, NULL, "the batch has more than 1000 items");
	else if (!(made = make_items(request, list)))
		reply_error(request, 500, NULL, "out of memory");
	json_decref(list);
	if (!made)
		return;
	stats->settle_requests += request->item_count;
	request->state = REQUEST_PARKED;
	settle_go_on(request, choose_faults(request), batch_start);
}

bool
settle_batch_in_transaction(Request *request)
{
	bool		database_ok;

	if (!settle_check_epoch(request, &database_ok) || !database_ok)
		return database_ok;
	for (size_t i = 0; i < request->item_count; i++)
	{
		Request    *item = request->items[i];

		if ((item->fault.rule == NULL || item->fault.plan.apply) &&
			!settle_in_transaction(item))
			return false;
	}
	return true;
}

/* ---- the answer ---- */

static void
write_answer(FILE *out, const Request *item, const char *key)
{
	fprintf(out, "{\"idempotency_key\":\"%s\",\"status\":%d", key, item->reply.status);
	if (item->reply.retry_after >= 0)
		fprintf(out, ",\"retry_after\":%lld", (long long) item->reply.retry_after);
	if (item->reply.length > 0)
	{
		fputs(",\"body\":", out);
		fwrite(item->reply.body, 1, item->reply.length, out);
	}
	fputc('}', out);
}

/*
 * An item's rule is played upon its answer, or, when it is about the connection,
 * becomes that of the whole.
 */
static void
play_item(Request *request, Request *item)
{
	if (item->fault.rule == NULL || misbehave_item(item) || request->fault.rule != NULL)
		return;
	request->fault = item->fault;
	item->fault = (Fault) {.rule = NULL};
}

static void
write_item(FILE *out, const Request *item, bool *first)
{
	FaultAction action = item->fault.rule != NULL ? item->fault.plan.action : ACTION_PASS;
	char		key[UUID_LEN + 1];

	if (action == ACTION_LEAVE_OUT)
		return;
	memcpy(key, item->key, sizeof(key));
	if (action == ACTION_WRONG_KEY)
		uuid_make(key);
	for (int times = action == ACTION_TWICE ? 2 : 1; times > 0; times--)
	{
		if (!*first)
			fputc(',', out);
		*first = false;
		write_answer(out, item, key);
	}
}

void
settle_batch_done(Request *request)
{
	char	   *text = NULL;
	size_t		length = 0;
	bool		first = true;
	FILE	   *out;

	if (request->reply.status != 0)
		return;
	out = open_memstream(&text, &length);
	if (out == NULL)
	{
		reply_error(request, 500, NULL, "out of memory");
		return;
	}
	fputc('[', out);
	for (size_t i = request->item_count; i > 0; i--)
	{
		play_item(request, request->items[i - 1]);
		write_item(out, request->items[i - 1], &first);
	}
	fputc(']', out);
	fclose(out);
	reply_set(request, 200, text);
	request->reply.length = length;
}
