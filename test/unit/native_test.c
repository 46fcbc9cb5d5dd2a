/*
 * native_test.c
 *	  The native adapter: the bytes of a request, and what replies of every kind,
 *	  good and hostile, are taken for.
 */
#include "unit.h"

#include <jansson.h>
#include <stdlib.h>

#include "wallet/adapter.h"

#define KEY		"01234567-89ab-5cde-8f01-23456789abcd"
#define SECRET	"Bearer s3cr3t-t0k3n"

static const WalletTrade trade = {
	"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
	"0.5", "25000", "50000", "25", "12.5"
};

static const char *const body =
"{\"trade_id\":\"42\",\"buyer_id\":\"alice\",\"seller_id\":\"bob\","
"\"buyer_order_id\":\"o-1\",\"seller_order_id\":\"o-2\","
"\"base_currency\":\"BTC\",\"quote_currency\":\"USDT\","
"\"base_amount\":\"0.5\",\"quote_amount\":\"25000\",\"price\":\"50000\","
"\"buyer_fee\":\"25\",\"seller_fee\":\"12.5\"}";

static WalletResult result;

static void
read_bytes(WalletVerb verb, const char *request, const char *reply, size_t len)
{
	ReplyContext context = {verb, KEY, request, SECRET, reply, len};

	memset(&result, 0, sizeof result);
	result.verb = verb;
	result.facts.success = -1;
	result.facts.retry_after_ms = -1;
	native_adapter.read_reply(&context, &result);
}

static void
read_reply(const char *reply)
{
	read_bytes(WALLET_SETTLE, body, reply, strlen(reply));
}

static void
bytes_of_format_1_never_change(void **state)
{
	char		out[1024];

	(void) state;
	assert_int_equal(native_adapter.request_body(1, &trade, out, sizeof out), strlen(body));
	assert_string_equal(out, body);
	assert_int_equal(native_adapter.request_body(1, &trade, out, strlen(body)), -1);
	assert_int_equal(native_adapter.request_body(0, &trade, out, sizeof out), -1);
	assert_int_equal(native_adapter.request_body(2, &trade, out, sizeof out), -1);
}

static void
hostile_texts_stay_inside_their_value(void **state)
{
	WalletTrade evil = trade;
	char		out[1024];
	json_t	   *read;

	(void) state;
	evil.trade_id = "\",\"price\":\"1\"}\\";
	assert_true(native_adapter.request_body(1, &evil, out, sizeof out) > 0);
	read = json_loads(out, JSON_REJECT_DUPLICATES, NULL);
	assert_int_equal(json_object_size(read), 12);
	assert_string_equal(json_string_value(json_object_get(read, "trade_id")), evil.trade_id);
	assert_string_equal(json_string_value(json_object_get(read, "price")), "50000");
	json_decref(read);
	evil.trade_id = "\xff";
	assert_int_equal(native_adapter.request_body(1, &evil, out, sizeof out), -1);
	evil.trade_id = NULL;
	assert_int_equal(native_adapter.request_body(1, &evil, out, sizeof out), -1);
}

static void
lookup_path_holds_the_key(void **state)
{
	char		out[128];

	(void) state;
	assert_true(native_adapter.lookup_path(KEY, out, sizeof out) > 0);
	assert_string_equal(out, "/api/wallets/settlements/" KEY);
	assert_int_equal(native_adapter.lookup_path(KEY, out, 20), -1);
}

static void
reads_a_success(void **state)
{
	(void) state;
	read_reply("{\"success\":true,\"settlement_id\":\"s-1\",\"buyer_reservation_released\":true,"
			   "\"seller_reservation_released\":true,\"message\":\"done\"}\n");
	assert_true(result.facts.parsed);
	assert_int_equal(result.facts.success, 1);
	assert_true(result.facts.has_settlement_id);
	assert_false(result.facts.echo_mismatch);
	assert_int_equal(result.facts.code, CODE_NONE);
	assert_string_equal(result.settlement_id, "s-1");
	assert_string_equal(result.message, "done");
}

static void
reads_an_error(void **state)
{
	(void) state;
	read_reply("{\"error\":\"no\",\"message\":\"buyer is short\",\"code\":\"INSUFFICIENT_BALANCE\"}");
	assert_true(result.facts.parsed);
	assert_int_equal(result.facts.success, -1);
	assert_int_equal(result.facts.code, CODE_REJECTION);
	assert_string_equal(result.code, "INSUFFICIENT_BALANCE");
	assert_string_equal(result.message, "buyer is short");
	read_reply("{\"error\":\"only this\"}");
	assert_string_equal(result.message, "only this");
}

static void
codes_mean_what_the_contract_says(void **state)
{
	const struct
	{
		const char *code;
		ReplyCode	settle;
		ReplyCode	lookup;
	}			expected[] = {
		{"INSUFFICIENT_BALANCE", CODE_REJECTION, CODE_REJECTION},
		{"USER_NOT_FOUND", CODE_REJECTION, CODE_REJECTION},
		{"RESERVATION_NOT_FOUND", CODE_REJECTION, CODE_REJECTION},
		{"INVALID_REQUEST", CODE_REJECTION, CODE_UNRECOGNISED},
		{"KEY_CONFLICT", CODE_KEY_CONFLICT, CODE_UNRECOGNISED},
		{"STALE_EPOCH", CODE_STALE_EPOCH, CODE_STALE_EPOCH},
		{"UNKNOWN_KEY", CODE_UNRECOGNISED, CODE_UNKNOWN_KEY},
		{"insufficient_balance", CODE_UNRECOGNISED, CODE_UNRECOGNISED},
		{"OK", CODE_UNRECOGNISED, CODE_UNRECOGNISED},
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(expected); i++)
	{
		assert_int_equal(native_adapter.reply_code(WALLET_SETTLE, expected[i].code),
						 expected[i].settle);
		assert_int_equal(native_adapter.reply_code(WALLET_LOOKUP, expected[i].code),
						 expected[i].lookup);
	}
}

static void
success_must_be_a_boolean(void **state)
{
	const char *replies[] = {
		"{\"success\":\"true\",\"settlement_id\":\"s\"}", "{\"success\":1,\"settlement_id\":\"s\"}",
		"{\"success\":null,\"settlement_id\":\"s\"}", "{\"success\":[true],\"settlement_id\":\"s\"}",
		"{\"Success\":true,\"settlement_id\":\"s\"}", "{\"settlement_id\":\"s\"}",
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(replies); i++)
	{
		read_reply(replies[i]);
		assert_true(result.facts.parsed);
		assert_int_equal(result.facts.success, -1);
	}
	read_reply("{\"success\":false}");
	assert_int_equal(result.facts.success, 0);
}

/* Only a refusal tells an epoch, and only one that can still be outdone. */
static void
a_refusal_may_tell_the_epoch_seen(void **state)
{
	const char *nothing[] = {
		"{\"code\":\"STALE_EPOCH\"}", "{\"code\":\"STALE_EPOCH\",\"epoch\":\"7\"}",
		"{\"code\":\"STALE_EPOCH\",\"epoch\":-7}", "{\"code\":\"STALE_EPOCH\",\"epoch\":9223372036854775807}",
		"{\"code\":\"USER_NOT_FOUND\",\"epoch\":7}", "{\"epoch\":7}",
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(nothing); i++)
	{
		read_reply(nothing[i]);
		assert_int_equal(result.newer_epoch, 0);
	}
	read_reply("{\"code\":\"STALE_EPOCH\",\"epoch\":2757434}");
	assert_int_equal(result.newer_epoch, 2757434);
}

static void
settlement_id_must_be_a_bounded_text(void **state)
{
	char		reply[1024];
	char		id[WALLET_ID_MAX + 2];
	const char *replies[] = {
		"{\"success\":true,\"settlement_id\":\"\"}", "{\"success\":true,\"settlement_id\":7}",
		"{\"success\":true,\"settlement_id\":null}", "{\"success\":true,\"settlement_id\":\"a\\nb\"}",
		"{\"success\":true,\"settlement_id\":{}}", "{\"success\":true}",
		"{\"success\":true,\"settlement_id\":\"" SECRET "\"}",
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(replies); i++)
	{
		read_reply(replies[i]);
		assert_false(result.facts.has_settlement_id);
		assert_string_equal(result.settlement_id, "");
	}
	memset(id, 'i', sizeof id);
	id[WALLET_ID_MAX] = '\0';
	snprintf(reply, sizeof reply, "{\"settlement_id\":\"%s\"}", id);
	read_reply(reply);
	assert_true(result.facts.has_settlement_id);
	assert_string_equal(result.settlement_id, id);
	id[WALLET_ID_MAX] = 'i';
	id[WALLET_ID_MAX + 1] = '\0';
	snprintf(reply, sizeof reply, "{\"settlement_id\":\"%s\"}", id);
	read_reply(reply);
	assert_false(result.facts.has_settlement_id);
}

static void
what_is_no_object_changes_no_fact(void **state)
{
	const char *replies[] = {
		"", " ", "null", "true", "1", "\"x\"", "[]", "[{\"success\":true}]", "{", "}",
		"{\"success\":true,\"settlement_id\":\"s\"", "{\"success\":true} {\"success\":true}",
		"{\"success\":true}x", "{success:true}", "{'success':true}", "{\"success\":True}",
		"\xef\xbb\xbf{\"success\":true}", "{\"success\":true,}", "{\"a\":\"\xff\"}",
		"{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\u0000\"}",
		"{\"success\":true,\"success\":true}", "{\"success\":false,\"success\":true}",
		"{\"a\":1e99999}", "{\"a\":123456789012345678901234567890}", "{\"a\":01}",
		"{\"a\":\"\n\"}", "<html>502</html>", "HTTP/1.1 200 OK",
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(replies); i++)
	{
		read_reply(replies[i]);
		assert_false(result.facts.parsed);
		assert_int_equal(result.facts.success, -1);
		assert_false(result.facts.has_settlement_id);
		assert_int_equal(result.facts.code, CODE_NONE);
	}
	read_bytes(WALLET_SETTLE, body, "{\"success\":true}\0", 17);
	assert_false(result.facts.parsed);
	read_bytes(WALLET_SETTLE, body, "{\"success\":\0true}", 17);
	assert_false(result.facts.parsed);
}

static void
deep_nesting_is_survived(void **state)
{
	size_t		n = 60000;
	char	   *reply = malloc(n + 1);

	(void) state;
	for (size_t i = 0; i < n; i++)
		reply[i] = '[';
	read_bytes(WALLET_SETTLE, body, reply, n);
	assert_false(result.facts.parsed);
	for (size_t i = 0; i + 5 <= n; i += 5)
		memcpy(reply + i, "{\"a\":", 5);
	read_bytes(WALLET_SETTLE, body, reply, n);
	assert_false(result.facts.parsed);
	free(reply);
}

static void
expect_echo(const char *member, bool mismatch)
{
	char		reply[512];

	snprintf(reply, sizeof reply, "{\"success\":true,\"settlement_id\":\"s\",%s}", member);
	read_reply(reply);
	assert_true(result.facts.parsed);
	assert_int_equal(result.facts.echo_mismatch, mismatch);
}

static void
echo_of_the_trade_must_match(void **state)
{
	(void) state;
	expect_echo("\"trade_id\":\"42\"", false);
	expect_echo("\"trade_id\":42", false);
	expect_echo("\"trade_id\":null", false);
	expect_echo("\"trade_id\":\"4\"", true);
	expect_echo("\"trade_id\":\"421\"", true);
	expect_echo("\"trade_id\":43", true);
	expect_echo("\"trade_id\":42.0", true);
	expect_echo("\"trade_id\":\"\"", true);
	expect_echo("\"trade_id\":true", true);
	expect_echo("\"trade_id\":[\"42\"]", true);
	expect_echo("\"buyer_id\":\"alice\",\"seller_id\":\"bob\"", false);
	expect_echo("\"buyer_id\":\"bob\"", true);
	expect_echo("\"buyer_id\":\"alice\\\",\\\"seller_id\\\":\\\"bob\"", true);
	expect_echo("\"quote_currency\":\"BTC\"", true);
	expect_echo("\"other\":\"x\"", false);
}

static void
echo_of_an_amount_is_compared_as_a_number(void **state)
{
	(void) state;
	expect_echo("\"base_amount\":\"0.5\"", false);
	expect_echo("\"base_amount\":\"0.500\"", false);
	expect_echo("\"base_amount\":\"00.5\"", false);
	expect_echo("\"base_amount\":0.5", false);
	expect_echo("\"base_amount\":\"0.51\"", true);
	expect_echo("\"base_amount\":\"-0.5\"", true);
	expect_echo("\"base_amount\":\"5e-1\"", true);
	expect_echo("\"base_amount\":\"\"", true);
	expect_echo("\"base_amount\":\".5\"", true);
	expect_echo("\"base_amount\":\"0.\"", true);
	expect_echo("\"base_amount\":0.50000001", true);
	expect_echo("\"price\":50000", false);
	expect_echo("\"price\":\"50000.00\"", false);
	expect_echo("\"price\":50000.0", false);
	expect_echo("\"price\":5000", true);
	expect_echo("\"price\":\"500000\"", true);
	expect_echo("\"price\":true", true);
}

static void
echo_of_the_key_must_match(void **state)
{
	(void) state;
	expect_echo("\"idempotency_key\":\"" KEY "\"", false);
	expect_echo("\"idempotency_key\":\"01234567-89AB-5CDE-8F01-23456789ABCD\"", false);
	expect_echo("\"idempotency_key\":\"11234567-89ab-5cde-8f01-23456789abcd\"", true);
	expect_echo("\"idempotency_key\":7", true);
}

/* An echo that could match only by running out of its value. */
static void
echo_cannot_match_across_members(void **state)
{
	WalletTrade evil = trade;
	char		request[1024];
	const char *reply = "{\"trade_id\":\"x\"}";

	(void) state;
	evil.buyer_id = "\",\"trade_id\":\"x";
	assert_true(native_adapter.request_body(1, &evil, request, sizeof request) > 0);
	read_bytes(WALLET_SETTLE, request, reply, strlen(reply));
	assert_true(result.facts.echo_mismatch);
	evil.buyer_id = "trade_id\":\"x";
	assert_true(native_adapter.request_body(1, &evil, request, sizeof request) > 0);
	read_bytes(WALLET_SETTLE, request, reply, strlen(reply));
	assert_true(result.facts.echo_mismatch);
}

static void
lookup_without_a_trade_checks_the_key_only(void **state)
{
	const char *reply = "{\"success\":true,\"settlement_id\":\"s\",\"trade_id\":\"9\"}";

	(void) state;
	read_bytes(WALLET_LOOKUP, "", reply, strlen(reply));
	assert_false(result.facts.echo_mismatch);
	read_bytes(WALLET_LOOKUP, body, reply, strlen(reply));
	assert_true(result.facts.echo_mismatch);
}

static void
no_secret_comes_out(void **state)
{
	char		reply[2048];
	char		padding[WALLET_MESSAGE_MAX];

	(void) state;
	read_reply("{\"message\":\"you sent " SECRET " to us\",\"code\":\"s3cr3t-t0k3n\"}");
	assert_null(strstr(result.message, "s3cr3t"));
	assert_null(strstr(result.code, "s3cr3t"));
	/* Nor a part of it where the text is cut. */
	memset(padding, 'p', sizeof padding);
	padding[sizeof padding - 8] = '\0';
	snprintf(reply, sizeof reply, "{\"message\":\"%s s3cr3t-t0k3n\"}", padding);
	read_reply(reply);
	assert_null(strstr(result.message, "s3c"));
}

static void
long_texts_are_cut_at_a_character(void **state)
{
	char		reply[4096];
	size_t		len;

	(void) state;
	strcpy(reply, "{\"message\":\"x");
	for (int i = 0; i < 600; i++)
		strcat(reply, "\xe2\x82\xac");
	strcat(reply, "\",\"code\":\"");
	for (int i = 0; i < 100; i++)
		strcat(reply, "C");
	strcat(reply, "\"}");
	read_reply(reply);
	len = strlen(result.message);
	assert_true(len <= WALLET_MESSAGE_MAX && len > WALLET_MESSAGE_MAX - 3);
	assert_int_equal((len - 1) % 3, 0);
	assert_int_equal(strlen(result.code), WALLET_CODE_MAX);
	assert_int_equal(result.facts.code, CODE_UNRECOGNISED);
}

/*
 * In a backend this name is PostgreSQL's SQL function.  This program exports one
 * too (-rdynamic), which must not get in the way of the parser.
 */
json_t *
json_object(void)
{
	fprintf(stderr, "the parser called the program's json_object\n");
	abort();
}

static void
parser_works_beside_the_json_object_of_postgresql(void **state)
{
	(void) state;
	read_reply("{\"success\":true,\"nested\":{\"a\":{}}}");
	assert_true(result.facts.parsed);
}

static void
adapters_are_found_by_name(void **state)
{
	(void) state;
	assert_ptr_equal(wallet_adapter_by_name("native"), &native_adapter);
	assert_null(wallet_adapter_by_name("Native"));
	assert_null(wallet_adapter_by_name(""));
}

static void
rejections_have_a_class_of_their_own(void **state)
{
	(void) state;
	assert_string_equal(native_adapter.rejection_class("INSUFFICIENT_BALANCE"), "insufficient_balance");
	assert_string_equal(native_adapter.rejection_class("USER_NOT_FOUND"), "user_not_found");
	assert_string_equal(native_adapter.rejection_class("KEY_CONFLICT"), "rejected");
	assert_string_equal(native_adapter.rejection_class("SOMETHING_NEW"), "rejected");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_refusal_may_tell_the_epoch_seen),
		cmocka_unit_test(rejections_have_a_class_of_their_own),
		cmocka_unit_test(bytes_of_format_1_never_change),
		cmocka_unit_test(hostile_texts_stay_inside_their_value),
		cmocka_unit_test(lookup_path_holds_the_key),
		cmocka_unit_test(reads_a_success),
		cmocka_unit_test(reads_an_error),
		cmocka_unit_test(codes_mean_what_the_contract_says),
		cmocka_unit_test(success_must_be_a_boolean),
		cmocka_unit_test(settlement_id_must_be_a_bounded_text),
		cmocka_unit_test(what_is_no_object_changes_no_fact),
		cmocka_unit_test(deep_nesting_is_survived),
		cmocka_unit_test(echo_of_the_trade_must_match),
		cmocka_unit_test(echo_of_an_amount_is_compared_as_a_number),
		cmocka_unit_test(echo_of_the_key_must_match),
		cmocka_unit_test(echo_cannot_match_across_members),
		cmocka_unit_test(lookup_without_a_trade_checks_the_key_only),
		cmocka_unit_test(no_secret_comes_out),
		cmocka_unit_test(long_texts_are_cut_at_a_character),
		cmocka_unit_test(parser_works_beside_the_json_object_of_postgresql),
		cmocka_unit_test(adapters_are_found_by_name),
	};

	return cmocka_run_group_tests_name("native", tests, NULL, NULL);
}
