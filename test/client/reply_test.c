/*
 * reply_test.c
 *	  What the wallet client makes of replies: broken, slow, hostile, not its own.
 */
#include "fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "wallet/http.h"

/* ---- after it is sent ---- */

static void
timeout_after_sending_is_unknown(void **state)
{
	int64_t		start = now_ms();

	(void) state;
	config.request_timeout_ms = 200 * slow;
	serve(never_reply);
	expect_unknown(attempt(1), TRANSPORT_TIMEOUT);
	assert_string_equal(results[0].verdict.error_class, "network_timeout");
	assert_int_equal(results[0].phase, PHASE_SENT);
	assert_true(now_ms() - start >= 190 * slow);
	assert_int_equal(counters().connections_now, 0);
}

static bool
truncate_length(Request *r)
{
	send_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"success\":true,\"settlement_id\":\"s\"}");
	return false;
}

static bool
truncate_chunk(Request *r)
{
	send_text(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
			  "23\r\n{\"success\":true,\"settlement_id\":\"s\"}");
	return false;
}

static bool
truncate_head(Request *r)
{
	send_text(r, "HTTP/1.1 200 OK\r\nContent-Le");
	return false;
}

static void
truncated_reply_is_unknown(void **state)
{
	(void) state;
	serve(truncate_length);
	expect_unknown(attempt(1), TRANSPORT_PROTOCOL);
	assert_int_equal(results[0].phase, PHASE_REPLYING);
	wallet_client_destroy(client);
	server_stop(server);
	config.url = NULL;
	serve(truncate_chunk);
	assert_int_equal(attempt(2)->verdict.outcome, OUTCOME_UNKNOWN);
	assert_int_not_equal(results[1].facts.transport, TRANSPORT_OK);
	wallet_client_destroy(client);
	server_stop(server);
	config.url = NULL;
	serve(truncate_head);
	assert_int_equal(attempt(3)->verdict.outcome, OUTCOME_UNKNOWN);
	assert_true(results[2].facts.maybe_sent);
}

static bool
drip(Request *r)
{
	const char *reply = "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
		"{\"success\":true,\"settlement_id\":\"s-123\"}";

	for (; *reply != '\0'; reply++)
	{
		send_bytes(r, reply, 1);
		sleep_ms(15 * slow);
	}
	return true;
}

static void
dripping_reply_is_timed_out(void **state)
{
	int64_t		start = now_ms();

	(void) state;
	config.request_timeout_ms = 800 * slow;
	serve(drip);
	expect_unknown(attempt(1), TRANSPORT_TIMEOUT);
	assert_int_equal(results[0].phase, PHASE_REPLYING);
	assert_true(now_ms() - start >= 790 * slow);
}

static void
dripping_reply_in_time_is_read(void **state)
{
	(void) state;
	config.request_timeout_ms = 5000 * slow;
	serve(drip);
	assert_int_equal(attempt(1)->verdict.outcome, OUTCOME_SETTLED);
}

static bool
huge_length(Request *r)
{
	send_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{");
	return never_reply(r);
}

static bool
huge_chunks(Request *r)
{
	char		chunk[4106];

	memset(chunk, 'x', sizeof chunk);
	memcpy(chunk, "1000\r\n", 6);
	memcpy(chunk + 4102, "\r\n", 2);
	send_text(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 1000; i++)
		send_bytes(r, chunk, 4104);
	return false;
}

static bool
huge_headers(Request *r)
{
	send_text(r, "HTTP/1.1 200 OK\r\n");
	for (int i = 0; i < 100000; i++)
		send_text(r, "X-Filler: 0123456789012345678901234567890123456789\r\n");
	return false;
}

static void
huge_replies_are_cut_off(void **state)
{
	const Script scripts[] = {huge_length, huge_chunks, huge_headers};

	(void) state;
	for (int i = 0; i < 3; i++)
	{
		config.url = NULL;
		serve(scripts[i]);
		expect_unknown(attempt(i + 1), TRANSPORT_TOO_LARGE);
		assert_string_equal(results[i].verdict.error_class, "wallet_reply");
		wallet_client_destroy(client);
		server_stop(server);
		client = NULL;
		server = NULL;
	}
}

static void
largest_reply_that_is_allowed_is_read(void **state)
{
	(void) state;
	serve(largest_allowed);
	expect_settled(attempt(1));
	expect_settled(attempt(2));
	assert_int_equal(server_connections(server), 1);
}

static bool
garbage(Request *r)
{
	static const char *const texts[] = {
		"\x16\x03\x01\x02\x00garbage\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
		"{\"success\":true,\"settlement_id\":\"s\"}", "HTTP/9.9 200 OK\r\n\r\n{}",
		"HTTP/1.1 OK 200\r\n\r\n", "\r\n\r\n\r\n",
	};

	send_text(r, texts[(r->n - 1) % 6]);
	return false;
}

static void
garbage_is_unknown(void **state)
{
	(void) state;
	serve(garbage);
	for (int i = 1; i <= 6; i++)
	{
		const WalletResult *result = attempt(i);

		assert_true(result->facts.maybe_sent);
		assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
	}
	run_for(30);
	assert_int_equal(server_requests(server), 6);
}

static bool
redirect(Request *r)
{
	char		reply[256];
	static const char *const statuses[] = {"301 A", "302 B", "303 C", "307 D", "308 E"};

	snprintf(reply, sizeof reply, "HTTP/1.1 %s\r\nLocation: http://127.0.0.1:%d/other\r\n"
			 "Content-Length: 0\r\n\r\n", statuses[(r->n - 1) % 5], server_port(r->server));
	send_text(r, reply);
	return true;
}

static void
redirects_are_not_followed(void **state)
{
	(void) state;
	serve(redirect);
	for (int i = 1; i <= 5; i++)
	{
		const WalletResult *result = attempt(i);

		assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
		assert_string_equal(result->verdict.error_class, "wallet_redirect");
		assert_int_equal(result->verdict.signal, SIGNAL_OPEN_NOW);
	}
	run_for(30);
	assert_int_equal(server_requests(server), 5);
}

static bool
statuses(Request *r)
{
	static const struct
	{
		const char *status;
		const char *body;
	}			replies[] = {
		{"422 Unprocessable", "{\"error\":\"x\",\"code\":\"KEY_CONFLICT\"}"},
		{"412 Precondition Failed", "{\"error\":\"x\",\"code\":\"STALE_EPOCH\"}"},
		{"402 Payment Required", "{\"error\":\"short\",\"code\":\"INSUFFICIENT_BALANCE\"}"},
		{"401 Unauthorized", "you sent " SECRET " which is wrong"},
		{"500 Oops", "{\"message\":\"you sent " SECRET "\"}"},
		{"404 Not Found", "<html>"},
	};

	send_reply(r, replies[(r->n - 1) % 6].status, replies[(r->n - 1) % 6].body);
	return true;
}

static void
replies_become_outcomes(void **state)
{
	const Outcome expected[] = {
		OUTCOME_CONFLICT, OUTCOME_FENCED, OUTCOME_REJECTED, OUTCOME_NOT_EXECUTED,
		OUTCOME_UNKNOWN, OUTCOME_NOT_EXECUTED,
	};

	(void) state;
	serve(statuses);
	for (int i = 1; i <= 6; i++)
		assert_int_equal(attempt(i)->verdict.outcome, expected[i - 1]);
	assert_string_equal(results[2].code, "INSUFFICIENT_BALANCE");
	assert_string_equal(results[2].message, "short");
	assert_string_equal(results[3].message, "HTTP status 401, body is not a JSON object");
	assert_int_equal(results[5].facts.http_status, 404);
}

static bool
retry_after(Request *r)
{
	char		reply[256];
	char		when[64] = "7";
	time_t		later = time(NULL) + 30;

	if (r->n == 2)
		strftime(when, sizeof when, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&later));
	if (r->n == 3)
		strcpy(when, "99999999999999999999");
	if (r->n == 4)
		strcpy(when, "soon");
	if (r->n == 5)
		strcpy(when, "-3");
	snprintf(reply, sizeof reply, "HTTP/1.1 429 Slow\r\nRetry-After: %s\r\n"
			 "Content-Length: 0\r\n\r\n", when);
	send_text(r, reply);
	return true;
}

static void
retry_after_is_read_as_seconds_or_date(void **state)
{
	(void) state;
	serve(retry_after);
	assert_int_equal(attempt(1)->verdict.retry_after_ms, 7000);
	assert_true(results[0].verdict.slow_down);
	assert_in_range(attempt(2)->verdict.retry_after_ms, 27000, 31000);
	assert_true(attempt(3)->verdict.retry_after_ms >= -1);
	assert_int_equal(attempt(4)->verdict.retry_after_ms, -1);
	assert_int_equal(attempt(5)->verdict.retry_after_ms, -1);
}

/* ---- a reply that is not ours ---- */

static bool
reply_twice_at_once(Request *r)
{
	char		reply[512];
	char		body[128];
	int			len;

	snprintf(body, sizeof body, "{\"success\":true,\"settlement_id\":\"s-%s\"}", r->key);
	len = snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
				   strlen(body), body);
	memcpy(reply + len, reply, (size_t) len);
	send_bytes(r, reply, (size_t) len * 2);
	return true;
}

static bool
reply_twice_later(Request *r)
{
	send_success(r);
	sleep_ms(5);
	send_success(r);
	return true;
}

static void
second_reply_is_never_the_answer_to_the_next_request(void **state)
{
	const Script scripts[] = {reply_twice_at_once, reply_twice_later};

	(void) state;
	for (int s = 0; s < 2; s++)
	{
		config.url = NULL;
		n_results = 0;
		serve(scripts[s]);
		for (int i = 1; i <= 10; i++)
				settle_and_lose_connection(i);
		wallet_client_destroy(client);
		server_stop(server);
		client = NULL;
		server = NULL;
	}
}

static void
send_success_with_echo(Request *r)
{
	char		body[256];

	snprintf(body, sizeof body, "{\"success\":true,\"settlement_id\":\"s-%s\","
			 "\"idempotency_key\":\"%s\"}", r->key, r->key);
	send_reply(r, "200 OK", body);
}

/* The stale reply comes only once the next request is there. */
static bool
reply_late_to_the_last(Request *r)
{
	char		key[64];

	if (r->n_here == 2)
	{
		strcpy(key, r->key);
		strcpy(r->key, r->scratch);
		send_success_with_echo(r);
		strcpy(r->key, key);
		sleep_ms(5);
	}
	strcpy(r->scratch, r->key);
	send_success_with_echo(r);
	return true;
}

static void
stale_reply_in_flight_is_told_by_its_echo(void **state)
{
	const WalletResult *result;

	(void) state;
	serve(reply_late_to_the_last);
	expect_settled(attempt(1));
	result = attempt(2);
	assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
	assert_true(result->facts.echo_mismatch);
	/* Its connection is one reply behind: it must not be used again. */
	expect_settled(attempt(3));
	assert_int_equal(server_connections(server), 2);
}

static bool
speak_twice(Request *r)
{
	send_success(r);
	send_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 51\r\n\r\n"
			  "{\"success\":true,\"settlement_id\":\"unasked-for-0000\"}");
	return true;
}

static void
bytes_on_an_idle_connection_are_never_an_answer(void **state)
{
	(void) state;
	serve(speak_twice);
	for (int i = 1; i <= 10; i++)
		settle_and_lose_connection(i);
}

/* ---- look-ups and unsendable requests ---- */

static bool
lookup_script(Request *r)
{
	if (r->n == 1)
		send_reply(r, "200 OK", "{\"success\":true,\"settlement_id\":\"s-9\"}");
	else if (r->n == 2)
		send_reply(r, "404 Not Found", "{\"error\":\"x\",\"code\":\"UNKNOWN_KEY\"}");
	else if (r->n == 3)
		send_reply(r, "404 Not Found", "not here");
	else if (r->n == 4)
		send_reply(r, "422 X", "{\"error\":\"x\",\"code\":\"USER_NOT_FOUND\"}");
	else if (r->n == 5)
		send_reply(r, "202 Accepted", "");
	else
		send_success(r);
	return true;
}

static void
lookups_ask_for_the_key(void **state)
{
	const LookupOutcome expected[] = {
		LOOKUP_SETTLED, LOOKUP_UNKNOWN_KEY, LOOKUP_FAILED, LOOKUP_REJECTED, LOOKUP_PENDING
	};

	(void) state;
	serve(lookup_script);
	for (int i = 0; i < 5; i++)
	{
		assert_true(wallet_client_submit(client, WALLET_LOOKUP, i % 2 ? &trade : NULL,
										 key_of(9), 1, 7, NULL, NULL));
		run_until_results(i + 1);
		assert_int_equal(results[i].verb, WALLET_LOOKUP);
		assert_int_equal(results[i].lookup, expected[i]);
		assert_false(results[i].verdict.chargeable);
	}
	assert_int_equal(strncmp(server_last_request(server)->head,
							 "GET /api/wallets/settlements/00000000-0000-5000-8000-000000000009 ", 66), 0);
	assert_null(strcasestr(server_last_request(server)->head, "Idempotency-Key"));
	assert_string_equal(server_last_request(server)->body, "");
	expect_settled(attempt(10));	/* the same handle sends a POST again */
	assert_int_equal(strncmp(server_last_request(server)->head, "POST ", 5), 0);
}

static void
unsendable_requests_are_reported(void **state)
{
	WalletTrade bad = trade;
	static char huge[100000];
	const char	no_key[IDEMPOTENCY_KEY_LEN + 1] = "";

	(void) state;
	serve(settle);
	bad.buyer_id = "\xff\xfe";
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &bad, key_of(1), 1, 0, NULL, (void *) 1));
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, no_key, 1, 0, NULL, (void *) 2));
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, key_of(3), 99, 0, NULL, (void *) 3));
	assert_true(wallet_client_submit(client, WALLET_SETTLE, NULL, key_of(4), 1, 0, NULL, (void *) 4));
	memset(huge, 'h', sizeof huge - 1);
	bad.buyer_id = huge;
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &bad, key_of(5), 1, 0, NULL, (void *) 5));
	submit(6);
	assert_int_equal(wallet_client_timeout_ms(client), 0);
	run_until_results(6);
	for (int i = 0; i < 5; i++)
	{
		assert_int_equal((intptr_t) results[i].context, i + 1);
		expect_not_sent(&results[i], TRANSPORT_UNSENDABLE);
		assert_string_equal(results[i].verdict.error_class, "invalid_trade");
		assert_int_equal(results[i].verdict.signal, SIGNAL_NONE);
		assert_true(results[i].verdict.chargeable);
	}
	expect_settled(&results[5]);
	assert_int_equal(server_requests(server), 1);
}

static bool
echo_script(Request *r)
{
	char		body[256];

	snprintf(body, sizeof body, "{\"success\":true,\"settlement_id\":\"s-%s\",\"trade_id\":\"%s\"}",
			 r->key, r->n == 2 ? "43" : "42");
	send_reply(r, "200 OK", body);
	return true;
}

static void
echo_of_another_trade_is_unknown_and_costs_the_connection(void **state)
{
	(void) state;
	serve(echo_script);
	expect_settled(attempt(1));
	assert_int_equal(attempt(2)->verdict.outcome, OUTCOME_UNKNOWN);
	assert_true(results[1].facts.echo_mismatch);
	expect_settled(attempt(3));
	assert_int_equal(server_connections(server), 2);
}

static const struct CMUnitTest tests[] = {
	TEST(timeout_after_sending_is_unknown),
	TEST(truncated_reply_is_unknown),
	TEST(dripping_reply_is_timed_out),
	TEST(dripping_reply_in_time_is_read),
	TEST(huge_replies_are_cut_off),
	TEST(largest_reply_that_is_allowed_is_read),
	TEST(garbage_is_unknown),
	TEST(redirects_are_not_followed),
	TEST(replies_become_outcomes),
	TEST(retry_after_is_read_as_seconds_or_date),
	TEST(second_reply_is_never_the_answer_to_the_next_request),
	TEST(stale_reply_in_flight_is_told_by_its_echo),
	TEST(bytes_on_an_idle_connection_are_never_an_answer),
	TEST(lookups_ask_for_the_key),
	TEST(unsendable_requests_are_reported),
	TEST(echo_of_another_trade_is_unknown_and_costs_the_connection),
};

int
main(void)
{
	return fixture_init() ? cmocka_run_group_tests_name("reply_test", tests, NULL, NULL) : 1;
}
