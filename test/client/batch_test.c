/*
 * batch_test.c
 *	  Several trades in one request, against a server that misbehaves.
 *
 * What each test looks at: how many requests reached the server, and that no
 * trade is called anything but what the server said of that trade.
 */
#include "fixture.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define MAX_ANSWERS 64
#define TRACE	"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static WalletResult answers[MAX_ANSWERS];	/* by number of the trade */
static int	n_answers;

static int
set_up_answers(void **state)
{
	n_answers = 0;
	memset(answers, 0, sizeof answers);
	return set_up(state);
}

static void
add(const WalletTrade *one, int n)
{
	assert_true(wallet_batch_add(client, one, key_of(n), 1, 7, TRACE, (void *) (intptr_t) n));
}

/* Trades from..to in one request. */
static void
submit_batch(int from, int to)
{
	assert_true(wallet_batch_begin(client));
	for (int n = from; n <= to; n++)
		add(&trade, n);
	wallet_batch_send(client, 7);
}

/* As the worker does it: open, peek, next. */
static void
take_answers(void)
{
	for (;;)
	{
		void	   *context;
		const WalletResult *result;

		wallet_client_open(client);
		context = wallet_client_peek(client);
		result = wallet_client_next(client);
		assert_true((result == NULL) == (context == NULL));
		if (result == NULL)
			return;
		assert_ptr_equal(result->context, context);
		assert_null(strstr(result->message, "s3cr3t"));
		answers[(intptr_t) context] = *result;
		n_answers++;
	}
}

static void
run_until_answered(int n)
{
	int64_t		end = now_ms() + 10000 * slow;

	for (;;)
	{
		struct pollfd p = {wallet_client_fd(client), POLLIN, 0};
		int			timeout;

		wallet_client_run(client);
		take_answers();
		if (n_answers >= n)
			break;
		assert_true(now_ms() < end);
		timeout = wallet_client_timeout_ms(client);
		poll(&p, 1, timeout < 0 || timeout > 1000 ? 1000 : timeout);
	}
	assert_int_equal(n_answers, n);
	assert_int_equal(wallet_client_in_flight(client), 0);
}

static void
settle_batch(int n)
{
	submit_batch(1, n);
	run_until_answered(n_answers + n);
}

static void
expect_settled_item(int n)
{
	char		id[64];

	snprintf(id, sizeof id, "s-%s", key_of(n));
	assert_int_equal(answers[n].verdict.outcome, OUTCOME_SETTLED);
	assert_string_equal(answers[n].settlement_id, id);
	assert_int_equal(answers[n].phase, PHASE_REPLIED);
}

static void
expect(int n, Outcome outcome, const char *error_class, int status)
{
	assert_string_equal(outcome_name(answers[n].verdict.outcome), outcome_name(outcome));
	assert_string_equal(answers[n].verdict.error_class, error_class);
	assert_int_equal(answers[n].facts.http_status, status);
	assert_true(answers[n].message[0] != '\0');
	assert_string_equal(answers[n].settlement_id, "");
}

/* One sign of the wallet's health, not one per trade. */
static void
expect_whole(int n, Outcome outcome, const char *error_class, int status, BreakerSignal signal)
{
	for (int i = 1; i <= n; i++)
	{
		expect(i, outcome, error_class, status);
		assert_false(answers[i].verdict.chargeable);
		assert_false(answers[i].verdict.definite);
		assert_int_equal(answers[i].verdict.signal, i == 1 ? signal : SIGNAL_NONE);
		assert_false(i > 1 && answers[i].verdict.slow_down);
	}
}

/* ---- scripts ---- */

static bool
settle_each(Request *r)
{
	if (strstr(r->head, "/settle-batch ") != NULL)
		send_batch_success(r);
	else
		send_success(r);
	return true;
}

static bool
just_close(Request *r)
{
	(void) r;
	return false;
}

static bool
settle_first_close_second(Request *r)
{
	if (r->n == 1)
		send_batch_success(r);
	return r->n == 1;
}

/* A reply made of pieces: %0 to %9 are the keys of the batch. */
static const char *reply_status;
static const char *reply_text;

static bool
reply_as_told(Request *r)
{
	char		keys[BATCH_KEYS_MAX][64];
	char		body[8192];
	size_t		len = 0;
	int			n = batch_keys(r, keys);

	for (const char *c = reply_text; *c != '\0'; c++)
		if (*c == '%' && c[1] - '0' < n)
			len += (size_t) sprintf(body + len, "%s", keys[*++c - '0']);
		else
			body[len++] = *c;
	body[len] = '\0';
	send_reply(r, reply_status, body);
	return true;
}

#define OK(i) "{\"idempotency_key\":\"%" #i "\",\"status\":200,\"body\":{\"success\":true,\"settlement_id\":\"s-%" #i "\"}}"
#define NO(i, status, more) "{\"idempotency_key\":\"%" #i "\",\"status\":" #status more "}"

static void
told(const char *status, const char *text, int n)
{
	reply_status = status;
	reply_text = text;
	serve(reply_as_told);
	settle_batch(n);
}

/* ---- the good case ---- */

static void
batch_is_one_request(void **state)
{
	const Request *r;

	(void) state;
	serve(settle_each);
	submit_batch(1, 5);
	assert_int_equal(wallet_client_in_flight(client), 5);
	run_until_answered(5);
	for (int i = 1; i <= 5; i++)
	{
		expect_settled_item(i);
		assert_int_equal(answers[i].trades, 5);
	}
	assert_int_equal(server_requests(server), 1);
	r = server_last_request(server);
	assert_int_equal(strncmp(r->head, "POST /api/wallets/settle-batch HTTP/1.1\r\n", 41), 0);
	assert_string_equal(r->key, "");
	assert_non_null(strstr(r->head, "\r\nSettlement-Epoch: 7\r\n"));
	assert_non_null(strstr(r->head, "\r\nAuthorization: Bearer s3cr3t"));
	assert_null(strstr(r->head, "\r\nExpect"));
	assert_int_equal(strncmp(r->body, "[{\"idempotency_key\":\"", 21), 0);
	assert_non_null(strstr(r->body, "\"traceparent\":\"" TRACE "\""));
}

/* The same handles and connections serve both kinds. */
static void
batches_and_single_requests_take_turns(void **state)
{
	(void) state;
	serve(settle_each);
	for (int turn = 0; turn < 10; turn++)
	{
		n_answers = 0;
		settle_batch(3);
		submit(4);
		run_until_answered(4);
		for (int i = 1; i <= 4; i++)
			expect_settled_item(i);
		assert_int_equal(answers[4].trades, 1);
	}
	assert_int_equal(server_requests(server), 20);
	assert_int_equal(server_connections(server), 1);
	n_answers = 0;
	submit_batch(1, 3);
	submit(4);
	submit_batch(5, 9);
	run_until_answered(9);
	for (int i = 1; i <= 9; i++)
		expect_settled_item(i);
}

static void
answers_may_stand_in_any_order(void **state)
{
	(void) state;
	told("200 OK", "[" OK(2) "," OK(0) "," OK(1) "]", 3);
	for (int i = 1; i <= 3; i++)
		expect_settled_item(i);
}

static void
each_trade_has_an_answer_of_its_own(void **state)
{
	(void) state;
	told("207 Multi-Status", "["
		 NO(0, 422, ",\"body\":{\"error\":\"x\",\"message\":\"short\",\"code\":\"INSUFFICIENT_BALANCE\"}") ","
		 OK(1) ","
		 NO(2, 429, ",\"retry_after\":2") ","
		 NO(3, 202, "") ","
		 NO(4, 500, "") ","
		 NO(5, 422, ",\"body\":{\"code\":\"KEY_CONFLICT\",\"message\":\"m\"}") ","
		 NO(6, 301, "") ","
		 "{\"idempotency_key\":\"%7\",\"status\":200,\"body\":{\"success\":true}}"
		 "]", 8);
	expect(1, OUTCOME_REJECTED, "insufficient_balance", 422);
	assert_string_equal(answers[1].message, "short");
	expect_settled_item(2);
	expect(3, OUTCOME_NOT_EXECUTED, "rate_limited", 429);
	assert_true(answers[3].verdict.slow_down && answers[3].verdict.retry_after_ms == 2000);
	expect(4, OUTCOME_PENDING, "wallet_pending", 202);
	expect(5, OUTCOME_UNKNOWN, "wallet_error", 500);
	expect(6, OUTCOME_CONFLICT, "key_conflict", 422);
	expect(7, OUTCOME_UNKNOWN, "wallet_reply", 207);
	expect(8, OUTCOME_UNKNOWN, "wallet_reply", 200);
}

/* ---- replies that cannot be believed ---- */

static void
trade_that_is_left_out_is_unknown(void **state)
{
	(void) state;
	told("200 OK", "[" OK(2) "," OK(0) "]", 3);
	expect_settled_item(1);
	expect_settled_item(3);
	expect(2, OUTCOME_UNKNOWN, "wallet_reply", 200);
	assert_string_equal(answers[2].message, "the reply to its batch of 3 leaves it out");
	assert_int_equal(answers[2].verdict.signal, SIGNAL_NONE);
}

static void
key_twice_spoils_the_reply(void **state)
{
	(void) state;
	told("200 OK", "[" OK(0) "," OK(1) "," OK(1) "]", 3);
	expect_whole(3, OUTCOME_UNKNOWN, "wallet_reply", 200, SIGNAL_FAILED);
}

static void
key_that_was_not_sent_spoils_the_reply(void **state)
{
	(void) state;
	told("200 OK", "[" OK(0) ",{\"idempotency_key\":\"00000000-0000-5000-8000-000000000777\",\"status\":200,"
		 "\"body\":{\"success\":true,\"settlement_id\":\"x\"}}]", 2);
	expect_whole(2, OUTCOME_UNKNOWN, "wallet_reply", 200, SIGNAL_FAILED);
}

static void
one_answer_settles_not_all(void **state)
{
	(void) state;
	told("200 OK", "{\"success\":true,\"settlement_id\":\"s-1\"}", 3);
	expect_whole(3, OUTCOME_UNKNOWN, "wallet_reply", 200, SIGNAL_FAILED);
}

static void
list_with_an_error_status_settles_none(void **state)
{
	(void) state;
	told("500 Internal Server Error", "[" OK(0) "," OK(1) "]", 2);
	expect_whole(2, OUTCOME_UNKNOWN, "wallet_error", 500, SIGNAL_FAILED);
}

static void
echo_of_another_trade_harms_only_its_own(void **state)
{
	(void) state;
	told("200 OK", "[" OK(0) ",{\"idempotency_key\":\"%1\",\"status\":200,\"body\":{\"success\":true,"
		 "\"settlement_id\":\"x\",\"trade_id\":\"43\"}}," OK(2) "]", 3);
	expect_settled_item(1);
	expect_settled_item(3);
	assert_int_equal(answers[2].verdict.outcome, OUTCOME_UNKNOWN);
	assert_true(answers[2].facts.echo_mismatch);
}

/* ---- refused as a whole ---- */

static void
refusal_of_the_whole_rejects_none(void **state)
{
	(void) state;
	told("422 Unprocessable Entity", "{\"error\":\"x\",\"message\":\"m\",\"code\":\"INSUFFICIENT_BALANCE\"}", 3);
	expect_whole(3, OUTCOME_UNKNOWN, "wallet_batch", 422, SIGNAL_NONE);
	assert_false(answers[1].verdict.no_batches);
}

static void
wallet_without_batches(void **state)
{
	(void) state;
	told("404 Not Found", "<html>404</html>", 3);
	expect_whole(3, OUTCOME_NOT_EXECUTED, "wallet_batch", 404, SIGNAL_NONE);
	assert_true(answers[1].verdict.no_batches);
}

static void
batch_that_is_too_long_for_the_wallet(void **state)
{
	(void) state;
	told("413 Content Too Large", "", 3);
	expect_whole(3, OUTCOME_UNKNOWN, "wallet_batch", 413, SIGNAL_NONE);
	assert_true(answers[1].verdict.no_batches);
}

static void
slow_down_for_the_whole(void **state)
{
	(void) state;
	told("429 Too Many Requests", "{}", 3);
	expect_whole(3, OUTCOME_NOT_EXECUTED, "rate_limited", 429, SIGNAL_NONE);
	assert_true(answers[1].verdict.slow_down);
}

static void
stale_epoch_fences_all(void **state)
{
	(void) state;
	told("412 Precondition Failed", "{\"error\":\"x\",\"message\":\"m\",\"code\":\"STALE_EPOCH\",\"epoch\":12}", 2);
	for (int i = 1; i <= 2; i++)
	{
		expect(i, OUTCOME_FENCED, "stale_epoch", 412);
		assert_int_equal(answers[i].newer_epoch, 12);
	}
}

/* ---- sent, or not ---- */

static void
refused_connection_executes_none(void **state)
{
	(void) state;
	serve(settle_each);
	server_stop_listening(server);
	sleep_ms(20);
	settle_batch(3);
	expect_whole(3, OUTCOME_NOT_EXECUTED, "network", 0, SIGNAL_FAILED);
	assert_false(answers[1].facts.maybe_sent);
	assert_int_equal(server_requests(server), 0);
}

static void
close_after_reading_makes_all_unknown(void **state)
{
	(void) state;
	serve(just_close);
	settle_batch(3);
	expect_whole(3, OUTCOME_UNKNOWN, "network", 0, SIGNAL_FAILED);
	assert_true(answers[3].facts.maybe_sent);
	assert_int_equal(server_requests(server), 1);
}

static void
batch_is_not_sent_twice(void **state)
{
	(void) state;
	serve(settle_first_close_second);
	settle_batch(3);
	expect_settled_item(1);
	n_answers = 0;
	settle_batch(3);
	expect_whole(3, OUTCOME_UNKNOWN, "network", 0, SIGNAL_FAILED);
	assert_int_equal(answers[1].facts.transport, TRANSPORT_RESEND_BLOCKED);
	assert_int_equal(server_requests(server), 2);
}

static void
timeout_makes_all_unknown(void **state)
{
	(void) state;
	config.request_timeout_ms = 200 * slow;
	serve(never_reply);
	settle_batch(3);
	expect_whole(3, OUTCOME_UNKNOWN, "network_timeout", 0, SIGNAL_FAILED);
}

static void
what_cannot_be_written_goes_alone(void **state)
{
	static const char no_key[IDEMPOTENCY_KEY_LEN + 1] = "no key";
	WalletTrade evil = trade;

	(void) state;
	serve(settle_each);
	evil.buyer_id = "\xff";
	assert_true(wallet_batch_begin(client));
	add(&evil, 1);
	add(&trade, 2);
	assert_true(wallet_batch_add(client, &trade, no_key, 1, 7, TRACE, (void *) 3));
	add(&trade, 4);
	add(&trade, 4);				/* a second row of the same trade */
	wallet_batch_send(client, 7);
	assert_int_equal(wallet_client_in_flight(client), 5);
	run_until_answered(5);
	for (int i = 1; i <= 3; i += 2)
		assert_int_equal(answers[i].facts.transport, TRANSPORT_UNSENDABLE);
	expect_settled_item(2);
	expect_settled_item(4);
	assert_int_equal(server_requests(server), 2);
}

static void
batch_of_nothing_is_not_sent(void **state)
{
	(void) state;
	serve(settle_each);
	for (int i = 0; i < 40; i++)
	{
		assert_true(wallet_batch_begin(client));
		wallet_batch_send(client, 7);
	}
	assert_int_equal(wallet_client_in_flight(client), 0);
	settle_batch(2);
	expect_settled_item(2);
	assert_int_equal(server_requests(server), 1);
}

/* ---- bounds ---- */

static void
reply_has_room_for_each_trade(void **state)
{
	(void) state;
	config.max_response_size = 200;
	serve(settle_each);
	settle_batch(10);			/* about 1,500 bytes */
	expect_settled_item(10);
	n_answers = 0;
	tear_down(NULL);
	set_up(NULL);
	config.max_response_size = 100;
	serve(settle_each);
	settle_batch(10);
	assert_int_equal(answers[10].facts.transport, TRANSPORT_TOO_LARGE);
	expect_whole(10, OUTCOME_UNKNOWN, "wallet_reply", 200, SIGNAL_FAILED);
	n_answers = 0;
	submit(1);			/* its bound is its own */
	run_until_answered(1);
	expect_settled_item(1);
}

static void
phases_are_of_the_request(void **state)
{
	(void) state;
	serve(settle_each);
	assert_int_equal(wallet_client_phase(client, (void *) 2), PHASE_PREPARED);
	submit_batch(1, 2);
	for (int64_t end = now_ms() + 5000 * slow; now_ms() < end &&
		 wallet_client_phase(client, (void *) 2) != PHASE_REPLIED;)
		wallet_client_run(client);
	assert_int_equal(wallet_client_phase(client, (void *) 2), PHASE_REPLIED);
	assert_int_equal(wallet_client_timeout_ms(client), 0);
	assert_non_null(wallet_client_next(client));
	assert_int_equal(wallet_client_in_flight(client), 1);
	assert_int_equal(wallet_client_timeout_ms(client), 0);
	assert_non_null(wallet_client_next(client));
	assert_null(wallet_client_next(client));
}

static void
destroying_half_reported_is_clean(void **state)
{
	(void) state;
	serve(settle_each);
	submit_batch(1, 5);
	for (int64_t end = now_ms() + 5000 * slow; now_ms() < end &&
		 wallet_client_phase(client, (void *) 1) != PHASE_REPLIED;)
		wallet_client_run(client);
	assert_non_null(wallet_client_next(client));
	submit_batch(6, 8);
	assert_true(wallet_batch_begin(client));
	add(&trade, 9);
}

#define BATCH_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_answers, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BATCH_TEST(batch_is_one_request),
		BATCH_TEST(batches_and_single_requests_take_turns),
		BATCH_TEST(answers_may_stand_in_any_order),
		BATCH_TEST(each_trade_has_an_answer_of_its_own),
		BATCH_TEST(trade_that_is_left_out_is_unknown),
		BATCH_TEST(key_twice_spoils_the_reply),
		BATCH_TEST(key_that_was_not_sent_spoils_the_reply),
		BATCH_TEST(one_answer_settles_not_all),
		BATCH_TEST(list_with_an_error_status_settles_none),
		BATCH_TEST(echo_of_another_trade_harms_only_its_own),
		BATCH_TEST(refusal_of_the_whole_rejects_none),
		BATCH_TEST(wallet_without_batches),
		BATCH_TEST(batch_that_is_too_long_for_the_wallet),
		BATCH_TEST(slow_down_for_the_whole),
		BATCH_TEST(stale_epoch_fences_all),
		BATCH_TEST(refused_connection_executes_none),
		BATCH_TEST(close_after_reading_makes_all_unknown),
		BATCH_TEST(batch_is_not_sent_twice),
		BATCH_TEST(timeout_makes_all_unknown),
		BATCH_TEST(what_cannot_be_written_goes_alone),
		BATCH_TEST(batch_of_nothing_is_not_sent),
		BATCH_TEST(reply_has_room_for_each_trade),
		BATCH_TEST(phases_are_of_the_request),
		BATCH_TEST(destroying_half_reported_is_clean),
	};

	if (!fixture_init())
		return 1;
	return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
