/*
 * late_test.c
 *	  The wallet client with many requests at a time, and a caller who comes late.
 */
#include "fixture.h"

#include <stdio.h>
#include <string.h>

static bool
settle_after_300_ms(Request *r)
{
	sleep_ms(300);
	send_success(r);
	return true;
}

static void
a_thousand_in_flight(void **state)
{
	int64_t		start;

	(void) state;
	config.max_connections = 1000;
	config.connect_timeout_ms = 5000 * slow;
	config.request_timeout_ms = 8000 * slow;
	serve(settle_after_300_ms);
	start = now_ms();
	for (int i = 1; i <= 1000; i++)
		submit(i);
	assert_int_equal(wallet_client_in_flight(client), 1000);
	run_until_results(1000);
	for (int i = 0; i < 1000; i++)
		expect_settled(&results[i]);
	assert_true(now_ms() - start < 6000 * slow);
	assert_int_equal(server_requests(server), 1000);
	assert_true(server_peak(server) <= 1000);
	assert_int_equal(wallet_client_in_flight(client), 0);
}

static bool
settle_after_10_ms(Request *r)
{
	sleep_ms(10);
	send_success(r);
	return true;
}

static void
cap_on_connections_is_kept(void **state)
{
	int			submitted = 0;

	(void) state;
	config.max_connections = 4;
	serve(settle_after_10_ms);
	while (n_results < 100)
	{
		while (submitted < 100 &&
			   wallet_client_submit(client, WALLET_SETTLE, &trade, key_of(submitted), 1, 0,
									NULL, (void *) (intptr_t) submitted))
			submitted++;
		assert_true(wallet_client_in_flight(client) <= 4);
		wallet_client_run(client);
		take_results();
		sleep_ms(1);
	}
	assert_int_equal(server_peak(server), 4);
	assert_int_equal(server_requests(server), 100);
	assert_true(counters().connections_opened <= 4);
}

static void
slow_request_does_not_hold_back_others(void **state)
{
	(void) state;
	serve(settle_after_300_ms);
	submit(1);
	run_until_results(1);
	assert_true(results[0].duration_us >= 290000);
	wallet_client_destroy(client);
	server_stop(server);
	config.url = NULL;
	n_results = 0;
	config.request_timeout_ms = 400 * slow;
	serve(never_reply);
	submit(1);
	run_for(100);
	submit(2);
	run_until_results(1);
	assert_int_equal((intptr_t) results[0].context, 1);
	run_until_results(2);
	assert_true(results[1].duration_us >= 390000 * slow);
}

/* The reply arrived in time; we were asleep past the timeout. */
static void
late_caller_still_gets_the_reply(void **state)
{
	(void) state;
	config.request_timeout_ms = 300 * slow;
	config.connect_timeout_ms = 100 * slow;
	serve(settle);
	for (int i = 1; i <= 8; i++)
		submit(i);
	while (server_requests(server) < 8)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
	sleep_ms(700 * slow);
	run_until_results(8);
	for (int i = 0; i < 8; i++)
		expect_settled(&results[i]);
}

static void
late_caller_still_gets_a_large_reply(void **state)
{
	(void) state;
	config.request_timeout_ms = 300 * slow;
	serve(largest_allowed);
	submit(1);
	while (server_requests(server) < 1)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
	sleep_ms(700 * slow);
	wallet_client_run(client);	/* in one turn */
	take_results();
	assert_int_equal(n_results, 1);
	expect_settled(&results[0]);
}

/* The connection stood in time; only the caller was late. */
static void
late_caller_does_not_lose_its_connect(void **state)
{
	(void) state;
	config.request_timeout_ms = 3000 * slow;
	config.connect_timeout_ms = 100 * slow;
	serve(settle);
	submit(1);
	wallet_client_run(client);
	assert_int_equal(server_requests(server), 0);
	sleep_ms(500 * slow);
	run_until_results(1);
	expect_settled(&results[0]);
}

/* Its time is over and it was not sent: then it is not sent at all. */
static void
late_caller_sends_nothing_after_the_deadline(void **state)
{
	(void) state;
	config.request_timeout_ms = 200 * slow;
	serve(settle);
	submit(1);
	wallet_client_run(client);	/* connects */
	sleep_ms(400 * slow);
	run_until_results(1);
	expect_not_sent(&results[0], TRANSPORT_TIMEOUT);
	run_for(50);
	assert_int_equal(server_requests(server), 0);
}

/* The same of one that was not even started, with a connection at hand. */
static void
late_caller_starts_nothing_after_the_deadline(void **state)
{
	(void) state;
	config.request_timeout_ms = 200 * slow;
	serve(settle);
	expect_settled(attempt(1));
	submit(2);
	sleep_ms(400 * slow);
	run_until_results(2);
	expect_not_sent(&results[1], TRANSPORT_TIMEOUT);
	run_for(50);
	assert_int_equal(server_requests(server), 1);
}

/* ... unless the caller says that it may be away for so long. */
static void
late_caller_may_send_what_is_its_own(void **state)
{
	(void) state;
	config.request_timeout_ms = 200 * slow;
	config.max_pause_ms = 10000 * slow;
	serve(settle);
	submit(1);
	wallet_client_run(client);	/* connects */
	submit(2);					/* is not even started */
	sleep_ms(400 * slow);
	run_until_results(2);
	expect_settled(&results[0]);
	expect_settled(&results[1]);
}

/* But not for longer. */
static void
caller_that_was_away_for_too_long_sends_nothing(void **state)
{
	(void) state;
	config.request_timeout_ms = 200 * slow;
	config.max_pause_ms = 300 * slow;
	serve(settle);
	submit(1);
	wallet_client_run(client);
	submit(2);
	sleep_ms(400 * slow);
	run_until_results(2);
	expect_not_sent(&results[0], TRANSPORT_TIMEOUT);
	expect_not_sent(&results[1], TRANSPORT_TIMEOUT);
	run_for(50);
	assert_int_equal(server_requests(server), 0);
}

/* A handshake that hangs, and a caller who is late each time. */
static void
many_pauses_give_no_more_than_one_may(void **state)
{
	(void) state;
	config.connect_timeout_ms = 5000 * slow;
	config.request_timeout_ms = 200 * slow;
	config.max_pause_ms = 300 * slow;
	server = server_start(never_reply, NULL, NULL);
	snprintf(url, sizeof url, "https://127.0.0.1:%d", server_port(server));
	config.url = url;
	start_client();
	submit(1);
	for (int i = 0; i < 12 && n_results == 0; i++)
	{
		wallet_client_run(client);
		take_results();
		sleep_ms(250 * slow);
	}
	assert_int_equal(n_results, 1);
	expect_not_sent(&results[0], TRANSPORT_TIMEOUT);
}

/* What was sent before is given up in its time, also behind what has got more. */
static void
what_was_sent_gets_no_time_back(void **state)
{
	(void) state;
	config.request_timeout_ms = 300 * slow;
	config.max_pause_ms = 10000 * slow;
	serve(never_reply);
	submit(1);
	while (server_requests(server) < 1)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
	submit(2);
	wallet_client_run(client);	/* connects */
	sleep_ms(400 * slow);
	wallet_client_run(client);
	take_results();
	assert_int_equal(n_results, 1);
	assert_int_equal((intptr_t) results[0].context, 1);
	run_until_results(2);
	assert_true(results[1].duration_us >= 590000 * slow);
}

static void
phases_can_be_followed(void **state)
{
	(void) state;
	serve(never_reply);
	submit(1);
	assert_int_equal(wallet_client_phase(client, (void *) 1), PHASE_PREPARED);
	wallet_client_run(client);
	assert_int_equal(wallet_client_phase(client, (void *) 1), PHASE_CONNECTING);
	while (server_requests(server) == 0)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
	assert_int_equal(wallet_client_phase(client, (void *) 1), PHASE_SENT);
	assert_int_equal(wallet_client_phase(client, (void *) 99), PHASE_PREPARED);
}

static void
destroying_in_flight_is_clean(void **state)
{
	(void) state;
	serve(never_reply);
	for (int i = 1; i <= 8; i++)
		submit(i);
	server_wait_requests(server, 0);
	run_for(30);
}

static const struct CMUnitTest tests[] = {
	TEST(a_thousand_in_flight),
	TEST(cap_on_connections_is_kept),
	TEST(slow_request_does_not_hold_back_others),
	TEST(late_caller_still_gets_the_reply),
	TEST(late_caller_still_gets_a_large_reply),
	TEST(late_caller_does_not_lose_its_connect),
	TEST(late_caller_sends_nothing_after_the_deadline),
	TEST(late_caller_starts_nothing_after_the_deadline),
	TEST(late_caller_may_send_what_is_its_own),
	TEST(caller_that_was_away_for_too_long_sends_nothing),
	TEST(many_pauses_give_no_more_than_one_may),
	TEST(what_was_sent_gets_no_time_back),
	TEST(phases_can_be_followed),
	TEST(destroying_in_flight_is_clean),
};

int
main(void)
{
	return fixture_init() ? cmocka_run_group_tests_name("late_test", tests, NULL, NULL) : 1;
}
