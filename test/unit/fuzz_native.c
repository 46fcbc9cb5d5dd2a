/*
 * fuzz_native.c
 *	  Any bytes as a reply: nothing crashes, no bound is broken, and only a reply
 *	  that a strict reader also takes for a success counts as one.
 *
 * With -DLIBFUZZER it is a libFuzzer target (`make fuzz`); without, a program
 * that runs the files of corpus/ and seeded mutations of them, and prints TAP.
 */
#define CORPUS		"corpus"

#include "fuzz.h"

#include <jansson.h>

#include "wallet/adapter.h"
#include "wallet/json.h"
#include "wallet/plain_reply.h"

#define KEY		"01234567-89ab-5cde-8f01-23456789abcd"
#define SECRET	"Bearer s3cr3t-t0k3n"

static void
check_text(const char *text, size_t max)
{
	const char *end = memchr(text, '\0', max + 1);

	require(end != NULL, "text without end");
	require(strstr(text, "s3cr3t-t0k3n") == NULL, "secret in a text");
	while (*text != '\0')
	{
		size_t		n = utf8_length(text);

		require(n > 0, "text is not UTF-8");
		text += n;
	}
}

static void
check_success(const WalletResult *result, const char *data, size_t size)
{
	json_t	   *strict;

	if (!result->facts.parsed || result->facts.success != 1)
		return;
	strict = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);
	require(json_is_true(json_object_get(strict, "success")), "success made up");
	if (result->facts.has_settlement_id)
		require(strcmp(result->settlement_id,
					   json_string_value(json_object_get(strict, "settlement_id"))) == 0,
				"settlement id made up");
	json_decref(strict);
}

/* What is read without the parser the parser reads, too, and as the same. */
static void
check_plain(const char *data, size_t size)
{
	static const char *const known[] = {"success", "settlement_id", "message",
	"buyer_reservation_released", "seller_reservation_released"};
	size_t		members = 0;
	PlainReply	plain;
	json_t	   *strict;
	const json_t *message;

	if (!plain_reply_read(data, size, &plain))
		return;
	strict = json_loadb(data, size, JSON_REJECT_DUPLICATES, NULL);
	require(json_is_object(strict), "a plain reply that is not JSON");
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		members += json_object_get(strict, known[i]) != NULL;
	require(json_object_size(strict) == members, "a plain reply with another member");
	require(json_is_true(json_object_get(strict, "success")), "a plain success made up");
	require(strcmp(plain.settlement_id,
				   json_string_value(json_object_get(strict, "settlement_id"))) == 0,
			"a plain settlement id made up");
	message = json_object_get(strict, "message");
	require(message == NULL ? plain.message[0] == '\0' :
			strcmp(plain.message, json_string_value(message)) == 0,
			"a plain message made up");
	json_decref(strict);
}

static void
check_verdict(WalletVerb verb, const WalletResult *result)
{
	AttemptFacts facts = result->facts;
	Verdict		verdict;

	facts.maybe_sent = true;
	facts.transport = TRANSPORT_OK;
	for (facts.http_status = 100; facts.http_status < 600; facts.http_status += 11)
	{
		if (verb == WALLET_LOOKUP)
			outcome_of_lookup(&facts, &verdict);
		else
			verdict = outcome_of_settle(&facts);
		require(verdict.outcome != OUTCOME_SETTLED ||
				(facts.parsed && facts.success == 1 && facts.has_settlement_id),
				"settled without saying so");
	}
}

static void
read_as(WalletVerb verb, const char *request, const char *data, size_t size)
{
	ReplyContext context = {verb, KEY, request, SECRET, data, size};
	WalletResult result;

	memset(&result, 0, sizeof result);
	result.facts.success = -1;
	native_adapter.read_reply(&context, &result);
	check_text(result.settlement_id, WALLET_ID_MAX);
	check_text(result.code, WALLET_CODE_MAX);
	check_text(result.message, WALLET_MESSAGE_MAX);
	require(result.facts.has_settlement_id == (result.settlement_id[0] != '\0'),
			"settlement id and its flag differ");
	check_success(&result, data, size);
	check_verdict(verb, &result);
}

static void
run_one(const char *data, size_t size)
{
	static const WalletTrade trade = {
		"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
		"0.5", "25000", "50000", "25", "12.5"
	};
	char		request[1024];

	check_plain(data, size);
	require(native_adapter.request_body(1, &trade, request, sizeof request) > 0, "body");
	read_as(WALLET_SETTLE, request, data, size);
	read_as(WALLET_LOOKUP, request, data, size);
	read_as(WALLET_LOOKUP, "", data, size); /* nothing to compare an echo with */
}

#include "fuzz_main.h"
