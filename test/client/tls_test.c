/*
 * tls_test.c
 *	  The wallet client over TLS.
 */
#include "fixture.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "wallet/certificate.h"

static void
serve_tls(const char *cert, const char *key, const char *host)
{
	server = server_start(settle, cert, key);
	snprintf(url, sizeof url, "https://%s:%d", host, server_port(server));
	config.url = url;
}

static void
tls_with_the_right_certificate_settles(void **state)
{
	(void) state;
	serve_tls("build/server.crt", "build/server.key", "localhost");
	config.ca_file = "build/ca.crt";
	start_client();
	for (int i = 1; i <= 20; i++)
		expect_settled(attempt(i));
	assert_int_equal(server_connections(server), 1);
}

/* TLS 1.3 lets the client send before the server has looked at its certificate. */
static void
tls_client_certificate_is_shown(void **state)
{
	(void) state;
	server = server_start_mutual(settle, "build/server.crt", "build/server.key", "build/ca.crt");
	snprintf(url, sizeof url, "https://localhost:%d", server_port(server));
	config.url = url;
	config.ca_file = "build/ca.crt";
	start_client();
	assert_int_not_equal(attempt(1)->verdict.outcome, OUTCOME_SETTLED);
	assert_int_equal(results[0].verdict.outcome,
					 results[0].facts.maybe_sent ? OUTCOME_UNKNOWN : OUTCOME_NOT_EXECUTED);
	assert_int_equal(server_requests(server), 0);
	wallet_client_destroy(client);
	config.cert_file = "build/server.crt";
	config.key_file = "build/server.key";
	start_client();
	expect_settled(attempt(2));
}

static void
tls_idle_close_is_survived(void **state)
{
	(void) state;
	server = server_start(settle_then_close, "build/server.crt", "build/server.key");
	snprintf(url, sizeof url, "https://localhost:%d", server_port(server));
	config.url = url;
	config.ca_file = "build/ca.crt";
	start_client();
	for (int i = 1; i <= 10; i++)
		settle_and_lose_connection(i);
	assert_int_equal(counters().resends_blocked, 0);
}

/* The handshake needs several turns: the sleep must not be counted against it. */
static void
tls_late_caller_does_not_lose_its_handshake(void **state)
{
	(void) state;
	serve_tls("build/server.crt", "build/server.key", "localhost");
	config.ca_file = "build/ca.crt";
	config.connect_timeout_ms = 200 * slow;
	config.request_timeout_ms = 5000 * slow;
	start_client();
	submit(1);
	wallet_client_run(client);
	sleep_ms(600 * slow);
	run_until_results(1);
	expect_settled(&results[0]);
}

static void
tls_with_a_wrong_ca_is_not_executed(void **state)
{
	(void) state;
	serve_tls("build/server.crt", "build/server.key", "localhost");
	config.ca_file = "build/other-ca.crt";
	start_client();
	expect_not_sent(attempt(1), TRANSPORT_TLS);
	wallet_client_destroy(client);
	config.ca_file = NULL;		/* the system's */
	start_client();
	expect_not_sent(attempt(2), TRANSPORT_TLS);
	assert_int_equal(server_requests(server), 0);
}

static void
tls_with_a_wrong_name_is_not_executed(void **state)
{
	(void) state;
	serve_tls("build/server.crt", "build/server.key", "127.0.0.1");
	config.ca_file = "build/ca.crt";
	start_client();
	expect_not_sent(attempt(1), TRANSPORT_TLS);
	assert_int_equal(server_requests(server), 0);
}

static void
tls_with_a_missing_ca_file_is_not_executed(void **state)
{
	(void) state;
	serve_tls("build/server.crt", "build/server.key", "localhost");
	config.ca_file = "build/does-not-exist.crt";
	start_client();
	expect_not_sent(attempt(1), TRANSPORT_TLS);
}

static void
tls_to_a_plain_server_is_not_executed(void **state)
{
	(void) state;
	server = server_start(settle, NULL, NULL);
	snprintf(url, sizeof url, "https://localhost:%d", server_port(server));
	config.url = url;
	config.ca_file = "build/ca.crt";
	config.request_timeout_ms = 500 * slow;
	start_client();
	submit(1);
	run_until_results(1);
	assert_false(results[0].facts.maybe_sent);
	assert_int_equal(results[0].verdict.outcome, OUTCOME_NOT_EXECUTED);
}

static void
tls_end_of_our_certificate_is_read(void **state)
{
	(void) state;
	assert_true(certificate_until("build/server.crt") > time(NULL));
	assert_int_equal(certificate_until("build/server.key"), 0);
	assert_int_equal(certificate_until("build/nothing"), 0);
}

static const struct CMUnitTest tests[] = {
	TEST(tls_with_the_right_certificate_settles),
	TEST(tls_client_certificate_is_shown),
	TEST(tls_idle_close_is_survived),
	TEST(tls_late_caller_does_not_lose_its_handshake),
	TEST(tls_with_a_wrong_ca_is_not_executed),
	TEST(tls_with_a_wrong_name_is_not_executed),
	TEST(tls_with_a_missing_ca_file_is_not_executed),
	TEST(tls_to_a_plain_server_is_not_executed),
	TEST(tls_end_of_our_certificate_is_read),
};

int
main(void)
{
	return fixture_init() ? cmocka_run_group_tests_name("tls_test", tests, NULL, NULL) : 1;
}
