/*
 * fuzz_batch.c
 *	  Any bytes as the reply to a request of three trades: nothing crashes, no
 *	  trade is given an answer that a strict reader does not find under its own
 *	  key, and nothing is settled that does not say so.
 */
#define CORPUS		"corpus_batch"

#include "fuzz.h"

#include <jansson.h>
#include <strings.h>

#include "wallet/batch.h"

#define N		3
#define SECRET	"Bearer s3cr3t-t0k3n"

static const char *const keys[N] = {
	"01234567-89ab-5cde-8f01-23456789abc0",
	"01234567-89ab-5cde-8f01-23456789abc1",
	"01234567-89ab-5cde-8f01-23456789abc2",
};

static const WalletTrade trade = {
	"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
	"0.5", "25000", "50000", "25", "12.5"
};

/* The one element that names the key; NULL when there is none, or another too. */
static const json_t *
strict_answer(const json_t *list, const char *key)
{
	const json_t *found = NULL;

	for (size_t i = 0; i < json_array_size(list); i++)
	{
		const json_t *element = json_array_get(list, i);
		const char *named = json_string_value(json_object_get(element, "idempotency_key"));

		if (named == NULL || strcasecmp(named, key) != 0)
			continue;
		if (found != NULL)
			return NULL;
		found = element;
	}
	return found;
}

static void
check_item(const Batch *batch, int i, const char *request, const json_t *list)
{
	const BatchItem *item = &batch->items[i];
	const json_t *strict = strict_answer(list, keys[i]);
	ReplyContext context = {.key = keys[i],.request = request,.secret = SECRET};
	WalletResult result;
	Verdict		verdict;

	require(item->named == (strict != NULL), "answer made up or lost");
	if (strict == NULL)
		return;
	require(item->answer.status == 0 ||
			item->answer.status == json_integer_value(json_object_get(strict, "status")),
			"status made up");
	memset(&result, 0, sizeof result);
	result.facts.success = -1;
	if (item->answer.status != 0)
		native_adapter.read_item(&context, item->answer.body, &result);
	result.facts.maybe_sent = true;
	result.facts.http_status = item->answer.status != 0 ? item->answer.status : 200;
	require(strstr(result.message, "s3cr3t-t0k3n") == NULL, "secret in a text");
	verdict = outcome_of_settle(&result.facts);
	if (verdict.outcome != OUTCOME_SETTLED)
		return;
	strict = json_object_get(strict, "body");
	require(json_is_true(json_object_get(strict, "success")), "success made up");
	require(strcmp(result.settlement_id,
				   json_string_value(json_object_get(strict, "settlement_id"))) == 0,
			"settlement id of another trade");
}

static void
run_one(const char *data, size_t size)
{
	Batch	   *batch = batch_create(&native_adapter);
	json_t	   *list = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);

	require(batch != NULL, "memory");
	for (int i = 0; i < N; i++)
		require(batch_add(batch, 1, &trade, keys[i], NULL, NULL) == BATCH_ADDED, "add");
	require(batch_finish(batch), "finish");
	if (batch_open(batch, data, size))
	{
		require(json_is_array(list) && json_array_size(list) <= N, "no such reply");
		for (int i = 0; i < N; i++)
			check_item(batch, i, batch_request(batch, i), list);
	}
	json_decref(list);
	batch_destroy(batch);
}

#include "fuzz_main.h"
