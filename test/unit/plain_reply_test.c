/*
 * plain_reply_test.c
 *	  The usual answer is read without the JSON parser, and no other is.  That
 *	  both read the same is fuzz_native's to show.
 */
#include "unit.h"

#include <stdlib.h>

#include "wallet/plain_reply.h"

#define ID "\"settlement_id\":\"7b0f4a52\""
#define OK "\"success\":true"

static bool
reads(const char *text, PlainReply *reply)
{
	/* of exactly this size, so that valgrind sees one byte too many */
	size_t		len = strlen(text);
	char	   *copy = malloc(len + 1);
	bool		result;

	memcpy(copy, text, len);
	copy = realloc(copy, len > 0 ? len : 1);
	result = plain_reply_read(copy, len, reply);
	free(copy);
	return result;
}

static void
takes_the_usual_answer(void **state)
{
	PlainReply	reply;

	(void) state;
	assert_true(reads("{" OK "," ID ",\"buyer_reservation_released\":true,"
					  "\"seller_reservation_released\":false,\"message\":\"Trade settled\"}", &reply));
	assert_string_equal(reply.settlement_id, "7b0f4a52");
	assert_string_equal(reply.message, "Trade settled");
	assert_true(reads(" {\n\t" ID " , " OK "\r\n} \n", &reply));
	assert_string_equal(reply.settlement_id, "7b0f4a52");
	assert_string_equal(reply.message, "");
}

static void
leaves_the_others(void **state)
{
	static const char *const others[] = {
		"", "{", "{}", "[" OK "," ID "]", "{" OK "}", "{" ID "}",
		"{" OK "," ID, "{" OK "," ID "}}", "{" OK "," ID "} x", "{" OK "," ID ",}",
		"{" OK " " ID "}", "{,," OK "," ID "}",
		"{\"success\":false," ID "}", "{\"success\":1," ID "}", "{\"success\":\"true\"," ID "}",
		"{" OK ",\"settlement_id\":\"\"}", "{" OK ",\"settlement_id\":7}",
		"{" OK "," OK "," ID "}", "{" OK "," ID "," ID "}",
		"{" OK "," ID ",\"code\":\"X\"}", "{" OK "," ID ",\"trade_id\":\"1\"}",
		"{" OK "," ID ",\"message\":\"\\u0041\"}", "{" OK "," ID ",\"message\":\"\xc3\xa9\"}",
		"{" OK "," ID ",\"message\":\"a\nb\"}", "{" OK "," ID ",\"message\":null}",
		"{" OK "," ID ",\"buyer_reservation_released\":null}",
	};
	PlainReply	reply;

	(void) state;
	for (size_t i = 0; i < LENGTH(others); i++)
		if (reads(others[i], &reply))
			fail_msg("took %s", others[i]);
}

static void
texts_are_bounded(void **state)
{
	char		text[1024];
	PlainReply	reply;

	(void) state;
	snprintf(text, sizeof text, "{" OK ",\"settlement_id\":\"%0*d\"}", WALLET_ID_MAX, 1);
	assert_true(reads(text, &reply));
	snprintf(text, sizeof text, "{" OK ",\"settlement_id\":\"%0*d\"}", WALLET_ID_MAX + 1, 1);
	assert_false(reads(text, &reply));
	snprintf(text, sizeof text, "{" OK "," ID ",\"message\":\"%0*d\"}", WALLET_MESSAGE_MAX, 1);
	assert_true(reads(text, &reply));
	snprintf(text, sizeof text, "{" OK "," ID ",\"message\":\"%0*d\"}", WALLET_MESSAGE_MAX + 1, 1);
	assert_false(reads(text, &reply));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_the_usual_answer),
		cmocka_unit_test(leaves_the_others),
		cmocka_unit_test(texts_are_bounded),
	};

	return cmocka_run_group_tests_name("plain_reply", tests, NULL, NULL);
}
