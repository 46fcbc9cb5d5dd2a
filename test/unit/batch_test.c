/*
 * batch_test.c
 *	  Several trades in one request: its bytes, and which answer of the reply is
 *	  taken for which trade.
 */
#include "unit.h"

#include <jansson.h>
#include <stdlib.h>

#include "wallet/batch.h"

static const WalletTrade trade = {
	"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
	"0.5", "25000", "50000", "25", "12.5"
};

static Batch *batch;

static int
set_up(void **state)
{
	(void) state;
	batch = batch_create(&native_adapter);
	return batch == NULL;
}

static int
tear_down(void **state)
{
	(void) state;
	batch_destroy(batch);
	return 0;
}

static const char *
key_of(int n)
{
	static char key[IDEMPOTENCY_KEY_LEN + 1];

	snprintf(key, sizeof key, "00000000-0000-5000-8000-%012x", (unsigned) n);
	return key;
}

static BatchAdd
add(int n)
{
	return batch_add(batch, 1, &trade, key_of(n), NULL, (void *) (intptr_t) n);
}

/* Keys 10, 11, ... */
static void
fill(int n)
{
	batch_clear(batch);
	for (int i = 0; i < n; i++)
		assert_int_equal(add(10 + i), BATCH_ADDED);
	assert_true(batch_finish(batch));
}

static bool
read_text(const char *reply)
{
	return batch_open(batch, reply, strlen(reply));
}

/* An answer of the list; %s are keys. */
#define ANSWER "{\"idempotency_key\":\"%s\",\"status\":200,\"body\":{\"success\":true,\"settlement_id\":\"s-%s\"}}"

static void
put_answer(char *out, int n, const char *before)
{
	char		key[IDEMPOTENCY_KEY_LEN + 1];

	strcpy(key, key_of(n));
	sprintf(out + strlen(out), "%s" ANSWER, before, key, key);
}

static void
items_hold_the_bytes_of_a_single_request(void **state)
{
	char		alone[1024];
	json_t	   *read;

	(void) state;
	fill(3);
	assert_true(native_adapter.request_body(1, &trade, alone, sizeof alone) > 0);
	read = json_loadb(batch->bytes, batch->len, JSON_REJECT_DUPLICATES, NULL);
	assert_int_equal(json_array_size(read), 3);
	for (int i = 0; i < 3; i++)
	{
		const json_t *item = json_array_get(read, (size_t) i);

		assert_string_equal(json_string_value(json_object_get(item, "idempotency_key")), key_of(10 + i));
		assert_null(json_object_get(item, "traceparent"));
		assert_int_equal(json_object_size(json_object_get(item, "trade")), 12);
		assert_non_null(strstr(batch->bytes, alone));
	}
	json_decref(read);
	for (int i = 2; i >= 0; i--)
		assert_string_equal(batch_request(batch, i), alone);
}

static void
traceparent_goes_with_each_item(void **state)
{
	(void) state;
	assert_int_equal(batch_add(batch, 1, &trade, key_of(1), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", NULL), BATCH_ADDED);
	assert_int_equal(batch_add(batch, 1, &trade, key_of(2), "00-x\",\"evil\":\"", NULL), BATCH_ADDED);
	assert_true(batch_finish(batch));
	assert_non_null(strstr(batch->bytes, "\"traceparent\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\""));
	assert_null(strstr(batch->bytes, "evil"));
}

static void
what_cannot_be_in_a_batch_leaves_it_as_it_was(void **state)
{
	WalletTrade evil = trade;
	size_t		len;

	(void) state;
	assert_int_equal(add(1), BATCH_ADDED);
	len = batch->len;
	evil.trade_id = "\xff";
	assert_int_equal(batch_add(batch, 1, &evil, key_of(2), NULL, NULL), BATCH_UNWRITABLE);
	assert_int_equal(batch_add(batch, 2, &trade, key_of(2), NULL, NULL), BATCH_UNWRITABLE);
	assert_int_equal(batch_add(batch, 1, &trade, "short", NULL, NULL), BATCH_UNWRITABLE);
	assert_int_equal(add(1), BATCH_TWICE);
	assert_int_equal(batch_add(batch, 1, &trade, "00000000-0000-5000-8000-00000000000A", NULL, NULL), BATCH_ADDED);
	assert_int_equal(add(10), BATCH_TWICE);
	assert_int_equal(batch->n, 2);
	assert_true(batch->len > len);
}

static void
a_thousand_items_fit_and_bytes_are_bounded(void **state)
{
	char		text[60000];
	WalletTrade huge = trade;
	int			n = 0;

	(void) state;
	fill(1000);
	assert_int_equal(batch->n, 1000);
	batch_clear(batch);
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	huge.trade_id = text;
	while (batch_add(batch, 1, &huge, key_of(n), NULL, NULL) == BATCH_ADDED)
		n++;
	assert_in_range(n, 10, 20);
	assert_true(batch_finish(batch));
	assert_true(batch->len < 1024 * 1024);
}

/* In whatever order: the key decides. */
static void
answers_are_taken_by_key(void **state)
{
	char		reply[65536] = "";
	const int	n = 50;

	(void) state;
	for (int turn = 0; turn < 2; turn++)
	{
		fill(n);
		reply[0] = '\0';
		for (int i = 0; i < n; i++)
			put_answer(reply, 10 + (turn == 0 ? n - 1 - i : i), i == 0 ? "[" : ",");
		strcat(reply, "]");
		assert_true(read_text(reply));
		for (int i = 0; i < n; i++)
		{
			const json_t *body = batch->items[i].answer.body;
			char		id[64];

			sprintf(id, "s-%s", key_of(10 + i));
			assert_true(batch->items[i].named);
			assert_int_equal(batch->items[i].answer.status, 200);
			assert_string_equal(json_string_value(json_object_get(body, "settlement_id")), id);
		}
	}
}

static void
what_is_left_out_is_not_named(void **state)
{
	char		reply[4096] = "";

	(void) state;
	fill(3);
	put_answer(reply, 12, "[");
	put_answer(reply, 10, ",");
	strcat(reply, "]");
	assert_true(read_text(reply));
	assert_true(batch->items[0].named);
	assert_false(batch->items[1].named);
	assert_true(batch->items[2].named);
}

static void
keys_are_compared_without_case(void **state)
{
	(void) state;
	fill(2);
	assert_true(read_text("[{\"idempotency_key\":\"00000000-0000-5000-8000-00000000000B\",\"status\":422,\"body\":{}}]"));
	assert_false(batch->items[0].named);
	assert_int_equal(batch->items[1].answer.status, 422);
}

static void
expect_disbelief(const char *reply)
{
	fill(2);
	assert_false(read_text(reply));
	assert_null(batch->reply);
}

static void
a_key_twice_or_unknown_spoils_the_reply(void **state)
{
	char		reply[4096] = "";

	(void) state;
	put_answer(reply, 10, "[");
	put_answer(reply, 10, ",");
	strcat(reply, "]");
	expect_disbelief(reply);
	reply[0] = '\0';
	put_answer(reply, 10, "[");
	put_answer(reply, 99, ",");
	strcat(reply, "]");
	expect_disbelief(reply);
	reply[0] = '\0';
	for (int i = 0; i < 3; i++)
		put_answer(reply, 10 + i, i == 0 ? "[" : ",");
	strcat(reply, "]");
	expect_disbelief(reply);	/* one more than was asked */
	expect_disbelief("[{\"status\":200,\"body\":{}},{\"status\":200,\"body\":{}}]");
	expect_disbelief("[{\"idempotency_key\":7,\"status\":200}]");
	expect_disbelief("[{\"idempotency_key\":\"\",\"status\":200}]");
	expect_disbelief("[null]");
	expect_disbelief("[]");
	expect_disbelief("{}");
	expect_disbelief("{\"success\":true,\"settlement_id\":\"x\"}");
	expect_disbelief("");
	expect_disbelief("[{\"idempotency_key\":\"00000000-0000-5000-8000-00000000000a\",\"status\":200");
	expect_disbelief("[{\"idempotency_key\":\"00000000-0000-5000-8000-00000000000a\","
					 "\"idempotency_key\":\"00000000-0000-5000-8000-00000000000b\",\"status\":200}]");
}

/* Of the answer to one trade only what speaks of one trade. */
static void
status_of_an_item(void **state)
{
	const struct
	{
		const char *text;
		int			status;
	}			rows[] = {
		{"200", 200}, {"202", 202}, {"400", 400}, {"409", 409}, {"422", 422}, {"429", 429},
		{"500", 500}, {"599", 599}, {"401", 0}, {"403", 0}, {"301", 0}, {"100", 0}, {"600", 0},
		{"0", 0}, {"-200", 0}, {"\"200\"", 0}, {"200.0", 0}, {"null", 0}, {"4294967496", 0},
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(rows); i++)
	{
		char		reply[512];

		fill(1);
		snprintf(reply, sizeof reply, "[{\"idempotency_key\":\"%s\",\"status\":%s}]", key_of(10), rows[i].text);
		assert_true(read_text(reply));
		assert_int_equal(batch->items[0].answer.status, rows[i].status);
		assert_null(batch->items[0].answer.body);
	}
}

static void
retry_after_of_an_item(void **state)
{
	const struct
	{
		const char *text;
		int64_t		ms;
	}			rows[] = {
		{"2", 2000}, {"0", 0}, {"-1", -1}, {"\"2\"", -1}, {"1.5", -1},
		{"9223372036854775807", INT64_MAX},
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(rows); i++)
	{
		char		reply[512];

		fill(1);
		snprintf(reply, sizeof reply, "[{\"idempotency_key\":\"%s\",\"status\":429,\"retry_after\":%s}]",
				 key_of(10), rows[i].text);
		assert_true(read_text(reply));
		assert_true(batch->items[0].answer.retry_after_ms == rows[i].ms);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(items_hold_the_bytes_of_a_single_request),
		TEST(traceparent_goes_with_each_item),
		TEST(what_cannot_be_in_a_batch_leaves_it_as_it_was),
		TEST(a_thousand_items_fit_and_bytes_are_bounded),
		TEST(answers_are_taken_by_key),
		TEST(what_is_left_out_is_not_named),
		TEST(keys_are_compared_without_case),
		TEST(a_key_twice_or_unknown_spoils_the_reply),
		TEST(status_of_an_item),
		TEST(retry_after_of_an_item),
	};

	return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
