/*
 * request_test.c
 *	  What the wallet client sends, that it sends it once, and what becomes of a
 *	  request that cannot be sent.
 */
#include "fixture.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wallet/http.h"

/* ---- scripts ---- */

static bool
settle_first_close_second(Request *r)
{
	if (r->n == 1)
		send_success(r);
	return r->n == 1;
}

static bool
just_close(Request *r)
{
	(void) r;
	return false;
}

static bool
just_reset(Request *r)
{
	reset_on_close(r);
	return false;
}

static bool
settle_first_reset_second(Request *r)
{
	if (r->n == 1)
		send_success(r);
	else
		reset_on_close(r);
	return r->n == 1;
}

static bool
settle_first_then_vanish(Request *r)
{
	if (r->n == 1)
	{
		send_success(r);
		return true;
	}
	server_stop_listening(r->server);
	sleep_ms(20);
	return false;
}

/* ---- the good case ---- */

static void
request_is_sent_as_the_contract_says(void **state)
{
	const Request *r;
	char		body[1024];

	(void) state;
	serve(settle);
	expect_settled(attempt(1));
	r = server_last_request(server);
	assert_true(wallet_request_body(client, 1, &trade, body, sizeof body) > 0);
	assert_string_equal(r->body, body);
	assert_int_equal(strncmp(r->head, "POST /api/wallets/settle HTTP/1.1\r\n", 35), 0);
	assert_non_null(strstr(r->head, "\r\nIdempotency-Key: 00000000-0000-5000-8000-000000000001\r\n"));
	assert_non_null(strstr(r->head, "\r\nSettlement-Epoch: 7\r\n"));
	assert_non_null(strstr(r->head, "\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-"));
	assert_non_null(strstr(r->head, "\r\nAuthorization: " SECRET "\r\n"));
	assert_non_null(strstr(r->head, "\r\nContent-Type: application/json\r\n"));
	assert_null(strcasestr(r->head, "\r\nExpect"));
	assert_null(strcasestr(r->head, "\r\nAccept-Encoding"));
}

static void
optional_headers_are_left_out(void **state)
{
	const Request *r;

	(void) state;
	config.authorization = NULL;
	serve(settle);
	expect_settled(attempt(1));	/* once with, so that nothing of it stays */
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, key_of(2), 1, 0,
									 NULL, (void *) 2));
	run_until_results(2);
	expect_settled(&results[1]);
	r = server_last_request(server);
	assert_null(strcasestr(r->head, "Settlement-Epoch"));
	assert_null(strcasestr(r->head, "Settlement-Lineage"));
	assert_null(strcasestr(r->head, "traceparent"));
	assert_null(strcasestr(r->head, "Authorization"));
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, key_of(3), 1, 1,
									 "00-x\r\nEvil: 1", (void *) 3));
	run_until_results(3);
	assert_null(strcasestr(server_last_request(server)->head, "Evil"));
	assert_non_null(strstr(server_last_request(server)->head, "\r\nSettlement-Epoch: 1\r\n"));

	wallet_client_set_lineage(client, "0b5e6f3c-58f1-4a5e-9d0a-6f1f3f1b2c4d");
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, key_of(4), 1, 1, NULL, (void *) 4));
	run_until_results(4);
	assert_non_null(strstr(server_last_request(server)->head,
						   "\r\nSettlement-Lineage: 0b5e6f3c-58f1-4a5e-9d0a-6f1f3f1b2c4d\r\n"));
}

static void
connections_are_used_again(void **state)
{
	(void) state;
	serve(settle);
	for (int i = 1; i <= 50; i++)
		expect_settled(attempt(i));
	assert_int_equal(server_connections(server), 1);
	assert_int_equal(counters().connections_opened, 1);
	assert_int_equal(counters().resends_blocked, 0);
}

static void
base_path_of_the_url_is_kept(void **state)
{
	(void) state;
	server = server_start(settle, NULL, NULL);
	snprintf(url, sizeof url, "http://localhost:%d/v1/", server_port(server));
	config.url = url;
	start_client();
	expect_settled(attempt(1));
	assert_int_equal(strncmp(server_last_request(server)->head,
							 "POST /v1/api/wallets/settle ", 28), 0);
}

static void
proxy_of_the_environment_is_not_used(void **state)
{
	(void) state;
	setenv("http_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	serve(settle);
	expect_settled(attempt(1));
	unsetenv("http_proxy");
	unsetenv("ALL_PROXY");
}

static bool
interim_then_settle(Request *r)
{
	send_text(r, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
	send_success(r);
	return true;
}

static void
interim_replies_are_passed_over(void **state)
{
	(void) state;
	serve(interim_then_settle);
	expect_settled(attempt(1));
	expect_settled(attempt(2));
}

static bool
settle_until_close(Request *r)
{
	char		reply[256];

	snprintf(reply, sizeof reply, "HTTP/1.0 200 OK\r\n\r\n"
			 "{\"success\":true,\"settlement_id\":\"s-%s\"}", r->key);
	send_text(r, reply);
	return false;
}

static void
reply_ended_by_close_settles(void **state)
{
	(void) state;
	serve(settle_until_close);
	expect_settled(attempt(1));
	expect_settled(attempt(2));
	assert_int_equal(server_connections(server), 2);
}

/* ---- sent at most once ---- */

static void
close_after_reading_on_a_fresh_connection(void **state)
{
	(void) state;
	serve(just_close);
	expect_unknown(attempt(1), TRANSPORT_RESET);
	run_for(50);
	assert_int_equal(server_requests(server), 1);
	assert_int_equal(results[0].phase, PHASE_SENT);
}

static void
close_after_reading_on_a_used_connection_is_not_sent_twice(void **state)
{
	(void) state;
	serve(settle_first_close_second);
	expect_settled(attempt(1));
	expect_unknown(attempt(2), TRANSPORT_RESEND_BLOCKED);
	run_for(50);
	assert_int_equal(server_requests(server), 2);
	assert_int_equal(server_connections(server), 1);
	assert_int_equal(counters().resends_blocked, 1);
}

/* Two idle connections; the third request draws a close, the fourth would not. */
static bool
close_third(Request *r)
{
	if (r->n != 3)
		send_success(r);
	return r->n != 3;
}

/* The second send would take the other idle connection. */
static void
close_after_reading_with_another_connection_idle_is_not_sent_twice(void **state)
{
	(void) state;
	serve(close_third);
	submit(1);
	submit(2);
	run_until_results(2);
	assert_int_equal(server_connections(server), 2);
	expect_unknown(attempt(3), TRANSPORT_RESEND_BLOCKED);
	run_for(50);
	assert_int_equal(server_requests(server), 3);
	assert_int_equal(counters().resends_blocked, 1);
}

static void
refused_reconnect_after_close_is_unknown(void **state)
{
	(void) state;
	serve(settle_first_then_vanish);
	expect_settled(attempt(1));
	expect_unknown(attempt(2), TRANSPORT_RESEND_BLOCKED);
	assert_int_equal(server_requests(server), 2);
}

static void
reset_after_reading(void **state)
{
	(void) state;
	serve(just_reset);
	expect_unknown(attempt(1), TRANSPORT_RESET);
	run_for(30);
	assert_int_equal(server_requests(server), 1);
}

static void
reset_after_reading_on_a_used_connection(void **state)
{
	const WalletResult *result;

	(void) state;
	serve(settle_first_reset_second);
	expect_settled(attempt(1));
	result = attempt(2);
	assert_true(result->facts.maybe_sent);
	assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
	run_for(30);
	assert_int_equal(server_requests(server), 2);
}

static void
idle_connection_that_closed_is_replaced(void **state)
{
	(void) state;
	serve(settle_then_close);
	for (int i = 1; i <= 20; i++)
		settle_and_lose_connection(i);
	assert_int_equal(server_connections(server), 20);
	assert_int_equal(counters().resends_blocked, 0);
}

/* ---- before it is sent ---- */

static void
refused_connection_is_not_executed(void **state)
{
	(void) state;
	server = server_start(settle, NULL, NULL);
	start_client();
	server_stop_listening(server);
	sleep_ms(20);
	expect_not_sent(attempt(1), TRANSPORT_CONNECT);
	assert_int_equal(results[0].phase, PHASE_CONNECTING);
	assert_int_equal(server_requests(server), 0);
}

/* A listener that never accepts, with its queue full: connecting hangs. */
static int
full_listener(int fds[8])
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t	len = sizeof address;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fds[0], (struct sockaddr *) &address, sizeof address), 0);
	assert_int_equal(listen(fds[0], 0), 0);
	getsockname(fds[0], (struct sockaddr *) &address, &len);
	for (int i = 1; i < 8; i++)
	{
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fds[i], (struct sockaddr *) &address, sizeof address);
	}
	sleep_ms(20);
	return ntohs(address.sin_port);
}

static void
connect_timeout_is_not_executed(void **state)
{
	int			fds[8];
	int64_t		start;

	(void) state;
	snprintf(url, sizeof url, "http://127.0.0.1:%d", full_listener(fds));
	config.url = url;
	config.connect_timeout_ms = 200 * slow;
	start_client();
	start = now_ms();
	expect_not_sent(attempt(1), TRANSPORT_TIMEOUT);
	assert_string_equal(results[0].verdict.error_class, "network_timeout");
	assert_true(now_ms() - start >= 150 * slow);
	for (int i = 0; i < 8; i++)
		close(fds[i]);
}

static void
request_timeout_bounds_connecting_too(void **state)
{
	int			fds[8];
	int64_t		start;

	(void) state;
	snprintf(url, sizeof url, "http://127.0.0.1:%d", full_listener(fds));
	config.url = url;
	config.connect_timeout_ms = 10000 * slow;
	config.request_timeout_ms = 200 * slow;
	start_client();
	start = now_ms();
	expect_not_sent(attempt(1), TRANSPORT_TIMEOUT);
	assert_true(now_ms() - start >= 190 * slow);
	for (int i = 0; i < 8; i++)
		close(fds[i]);
}

/* A getaddrinfo of our own, before the library's: slow, and it looks around. */
static atomic_int resolver_calls;

static atomic_int resolver_unblocked;

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			struct addrinfo **res)
{
	static int	(*real) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **);
	const int	watched[] = {SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGALRM, SIGQUIT, SIGCHLD};
	sigset_t	mask;

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (node == NULL || strstr(node, ".test") == NULL)
		return real(node, service, hints, res);
	resolver_calls++;
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	for (size_t i = 0; i < sizeof watched / sizeof watched[0]; i++)
		if (!sigismember(&mask, watched[i]))
			resolver_unblocked++;
	if (strcmp(node, "slow.test") == 0)
		sleep_ms(1500 * slow);
	if (strcmp(node, "here.test") == 0)
		return real("127.0.0.1", service, hints, res);
	return EAI_NONAME;
}

static void
name_that_does_not_resolve_is_not_executed(void **state)
{
	(void) state;
	config.url = "https://nowhere.test";
	start_client();
	resolver_calls = resolver_unblocked = 0;
	expect_not_sent(attempt(1), TRANSPORT_DNS);
	assert_true(resolver_calls > 0);
	assert_int_equal(resolver_unblocked, 0);
}

/* Neither the timeout nor the clean-up waits for the resolver's thread. */
static void
slow_resolver_blocks_nobody(void **state)
{
	int64_t		start;
	int64_t		longest = 0;

	(void) state;
	config.url = "https://slow.test";
	config.request_timeout_ms = 200 * slow;
	start_client();
	submit(1);
	start = now_ms();
	while (n_results == 0 && now_ms() - start < 3000 * slow)
	{
		int64_t		before = now_ms();

		wallet_client_run(client);
		take_results();
		if (now_ms() - before > longest)
			longest = now_ms() - before;
		sleep_ms(5);
	}
	assert_true(now_ms() - start >= 150 * slow);
	assert_true(longest < 100 * slow);
	expect_not_sent(&results[0], TRANSPORT_TIMEOUT);
	start = now_ms();
	wallet_client_destroy(client);
	client = NULL;
	assert_true(now_ms() - start < 500);
	sleep_ms(1600);				/* let the thread go before the next test */
}

static void
name_is_resolved_off_the_main_thread(void **state)
{
	(void) state;
	server = server_start(settle, NULL, NULL);
	snprintf(url, sizeof url, "http://here.test:%d", server_port(server));
	config.url = url;
	config.plain_http = PLAIN_HTTP_ALWAYS;
	start_client();
	resolver_calls = 0;
	for (int i = 1; i <= 5; i++)
		submit(i);
	run_until_results(5);
	for (int i = 0; i < 5; i++)
		expect_settled(&results[i]);
}

/* ---- plain http ---- */

static void
expect_refused_config(const char *part)
{
	char		err[256] = "";

	assert_null(wallet_client_create(&config, err, sizeof err));
	assert_non_null(strstr(err, part));
	assert_null(strstr(err, "s3cr3t"));
}

static void
plain_http_is_refused_off_the_loopback(void **state)
{
	const char *urls[] = {
		"http://192.0.2.1", "http://wallet.example", "http://[2001:db8::1]:80",
		"http://127.0.0.1.example", "http://0.0.0.0", "http://[::ffff:192.0.2.1]",
	};

	(void) state;
	for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++)
	{
		config.url = urls[i];
		expect_refused_config("loopback");
	}
	config.url = "http://127.0.0.1:1";
	config.plain_http = PLAIN_HTTP_NEVER;
	expect_refused_config("plain http is not allowed");
	config.plain_http = PLAIN_HTTP_ALWAYS;
	config.url = "http://192.0.2.1";
	start_client();
	wallet_client_destroy(client);
	config.plain_http = PLAIN_HTTP_LOOPBACK;
	config.url = "http://[::1]:1";
	start_client();
	wallet_client_destroy(client);
	config.url = "http://127.8.8.8:1";
	start_client();
}

/* Whatever the name said: the address that is connected to is looked at. */
static void
loopback_is_checked_at_the_address(void **state)
{
	HttpConfig	http = {.post_path = "/",.loopback_only = true,
		.connect_timeout_ms = 500,.request_timeout_ms = 500,.max_reply = 1000,
	.max_connections = 1};
	HttpRequest request = {.method = HTTP_POST,.body = "{}",.body_len = 2,.key = key_of(1)};
	char		err[256];
	Http	   *h;
	HttpExchange *x;
	int64_t		end = now_ms() + 3000;

	(void) state;
	server = server_start(settle, NULL, NULL);
	snprintf(url, sizeof url, "http://0.0.0.0:%d", server_port(server));
	http.url = url;
	h = http_create(&http, err, sizeof err);
	x = http_exchange_create(h, NULL);
	http_start(x, &request);
	while (http_next(h) == NULL && now_ms() < end)
	{
		http_run(h);
		sleep_ms(1);
	}
	assert_false(http_reply(x)->maybe_sent);
	assert_int_equal(http_reply(x)->transport, TRANSPORT_CONNECT);
	assert_non_null(strstr(http_reply(x)->error, "loopback"));
	assert_int_equal(server_connections(server), 0);
	http_release(x);
	http_destroy(h);
}

static void
unusable_configurations_are_refused(void **state)
{
	(void) state;
	config.url = "http://127.0.0.1:1";
	config.adapter = "nonesuch";
	expect_refused_config("adapter");
	config.adapter = "native";
	config.url = NULL;
	expect_refused_config("URL");
	config.url = "ftp://127.0.0.1";
	expect_refused_config("http");
	config.url = "http://127.0.0.1:1";
	config.authorization = "Bearer s3cr3t\r\nEvil: 1";
	expect_refused_config("control character");
	config.authorization = NULL;
	config.max_connections = 0;
	expect_refused_config("connection");
}

static void
urls_are_checked(void **state)
{
	const char *good[] = {
		"http://h", "https://h:8443/base/path", "HTTP://H/", "https://[::1]:1/",
		"http://127.0.0.1:8080",
	};
	const char *bad[] = {
		"", "h", "localhost:8080", "//h", "ftp://h", "file:///etc/passwd", "http://",
		"http://user@h", "http://user:pw@h", "http://h?x", "http://h/?", "http://h#f",
		"http://h:99999", "http://h:x", "http://a b", "http://h/\n", "gopher://h",
		"https://:443", "http:///path",
	};

	(void) state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_null(wallet_check_url(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		if (wallet_check_url(bad[i]) == NULL)
			fail_msg("accepted: %s", bad[i]);
}

static const struct CMUnitTest tests[] = {
	TEST(request_is_sent_as_the_contract_says),
	TEST(optional_headers_are_left_out),
	TEST(connections_are_used_again),
	TEST(base_path_of_the_url_is_kept),
	TEST(proxy_of_the_environment_is_not_used),
	TEST(interim_replies_are_passed_over),
	TEST(reply_ended_by_close_settles),
	TEST(close_after_reading_on_a_fresh_connection),
	TEST(close_after_reading_on_a_used_connection_is_not_sent_twice),
	TEST(close_after_reading_with_another_connection_idle_is_not_sent_twice),
	TEST(refused_reconnect_after_close_is_unknown),
	TEST(reset_after_reading),
	TEST(reset_after_reading_on_a_used_connection),
	TEST(idle_connection_that_closed_is_replaced),
	TEST(refused_connection_is_not_executed),
	TEST(connect_timeout_is_not_executed),
	TEST(request_timeout_bounds_connecting_too),
	TEST(name_that_does_not_resolve_is_not_executed),
	TEST(slow_resolver_blocks_nobody),
	TEST(name_is_resolved_off_the_main_thread),
	TEST(plain_http_is_refused_off_the_loopback),
	TEST(loopback_is_checked_at_the_address),
	TEST(unusable_configurations_are_refused),
	TEST(urls_are_checked),
};

int
main(void)
{
	return fixture_init() ? cmocka_run_group_tests_name("request_test", tests, NULL, NULL) : 1;
}
