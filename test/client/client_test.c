/*
 * client_test.c
 *	  The wallet client against a server that misbehaves.
 *
 * What every test of a broken exchange looks at: how many requests reached the
 * server, whether maybe_sent says so, and that nothing that may have been
 * executed is called anything but unknown.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "server.h"
#include "wallet/client.h"
#include "wallet/http.h"

#define SECRET		"Bearer s3cr3t-t0k3n-abc"
#define MAX_RESULTS 2000

static const WalletTrade trade = {
	"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
	"0.5", "25000", "50000", "25", "12.5"
};

static WalletConfig config;
static char url[128];
static WalletClient *client;
static Server *server;
static WalletResult results[MAX_RESULTS];
static int	n_results;

/* CLIENT_TEST_SLOW: how much slower than usual everything is (valgrind). */
static int	slow = 1;

/* ---- helpers ---- */

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int
set_up(void **state)
{
	const WalletConfig usual = {
		.adapter = "native",.authorization = SECRET,
		.plain_http = PLAIN_HTTP_LOOPBACK,
		.connect_timeout_ms = 1000,.request_timeout_ms = 2000,
		.max_response_size = 65536,.max_connections = 8,
	};

	(void) state;
	config = usual;
	config.connect_timeout_ms *= slow;
	config.request_timeout_ms *= slow;
	n_results = 0;
	server = NULL;
	client = NULL;
	return 0;
}

static int
tear_down(void **state)
{
	(void) state;
	wallet_client_destroy(client);
	if (server != NULL)
		server_stop(server);
	return 0;
}

static void
start_client(void)
{
	char		err[256] = "";

	if (config.url == NULL)
	{
		snprintf(url, sizeof url, "http://127.0.0.1:%d", server_port(server));
		config.url = url;
	}
	client = wallet_client_create(&config, err, sizeof err);
	assert_string_equal(err, "");
	assert_non_null(client);
}

static void
serve(Script script)
{
	server = server_start(script, NULL, NULL);
	start_client();
}

static const char *
key_of(int n)
{
	static char key[IDEMPOTENCY_KEY_LEN + 1];

	snprintf(key, sizeof key, "00000000-0000-5000-8000-%012d", n);
	return key;
}

static void
submit(int n)
{
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, key_of(n), 1, 7,
									 "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
									 (void *) (intptr_t) n));
}

static void
take_results(void)
{
	const WalletResult *result;

	while ((result = wallet_client_next(client)) != NULL)
	{
		assert_true(n_results < MAX_RESULTS);
		assert_null(strstr(result->message, "s3cr3t"));
		assert_null(strstr(result->code, "s3cr3t"));
		results[n_results++] = *result;
	}
}

/* As the worker does it: run, take, wait on the descriptor. */
static void
run_until_results(int n)
{
	int64_t		end = now_ms() + 10000 * slow;

	for (;;)
	{
		struct pollfd p = {wallet_client_fd(client), POLLIN, 0};
		int			timeout;

		wallet_client_run(client);
		take_results();
		if (n_results >= n)
			return;
		assert_true(now_ms() < end);
		timeout = wallet_client_timeout_ms(client);
		poll(&p, 1, timeout < 0 || timeout > 1000 ? 1000 : timeout);
	}
}

/* Run for a while without taking results. */
static void
run_for(int ms)
{
	int64_t		end = now_ms() + ms;

	while (now_ms() < end)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
}

static const WalletResult *
attempt(int n)
{
	submit(n);
	run_until_results(n_results + 1);
	return &results[n_results - 1];
}

static void
expect_settled(const WalletResult *result)
{
	char		id[64];

	assert_int_equal(result->verdict.outcome, OUTCOME_SETTLED);
	snprintf(id, sizeof id, "s-%s", key_of((int) (intptr_t) result->context));
	assert_string_equal(result->settlement_id, id);
	assert_int_equal(result->phase, PHASE_REPLIED);
	assert_true(result->duration_us > 0);
}

static void
expect_unknown(const WalletResult *result, Transport transport)
{
	assert_true(result->facts.maybe_sent);
	assert_string_equal(transport_name(result->facts.transport), transport_name(transport));
	assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
	assert_true(result->message[0] != '\0');
	assert_string_equal(result->settlement_id, "");
}

static void
expect_not_sent(const WalletResult *result, Transport transport)
{
	assert_false(result->facts.maybe_sent);
	assert_string_equal(transport_name(result->facts.transport), transport_name(transport));
	assert_int_equal(result->verdict.outcome, OUTCOME_NOT_EXECUTED);
	assert_true(result->phase <= PHASE_CONNECTING);
	assert_true(result->message[0] != '\0');
}

static WalletCounters
counters(void)
{
	WalletCounters c;

	wallet_client_counters(client, &c);
	return c;
}

/*
 * One attempt that settles, then wait until its connection is at its end: closed
 * by libcurl, or cut by us while it was idle.
 */
static void
settle_and_lose_connection(int n)
{
	uint64_t	cut = counters().connections_cut;
	int64_t		end = now_ms() + 5000 * slow;

	expect_settled(attempt(n));
	while (counters().connections_now > 0 && counters().connections_cut == cut)
	{
		assert_true(now_ms() < end);
		wallet_client_run(client);
	}
}

/* ---- scripts ---- */

static bool
settle(Request *r)
{
	send_success(r);
	return true;
}

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

static bool
never_reply(Request *r)
{
	char		byte;

	while (recv(r->fd, &byte, 1, 0) > 0)
		;
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

static bool
settle_then_close(Request *r)
{
	send_success(r);
	return false;
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
	config.connect_timeout_ms = 200;
	start_client();
	start = now_ms();
	expect_not_sent(attempt(1), TRANSPORT_TIMEOUT);
	assert_string_equal(results[0].verdict.error_class, "network_timeout");
	assert_in_range(now_ms() - start, 150, 1200);
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
	config.connect_timeout_ms = 10000;
	config.request_timeout_ms = 200;
	start_client();
	start = now_ms();
	expect_not_sent(attempt(1), TRANSPORT_TIMEOUT);
	assert_in_range(now_ms() - start, 190, 1200);
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
		sleep_ms(1500);
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
	config.request_timeout_ms = 200;
	start_client();
	submit(1);
	start = now_ms();
	while (n_results == 0 && now_ms() - start < 3000)
	{
		int64_t		before = now_ms();

		wallet_client_run(client);
		take_results();
		if (now_ms() - before > longest)
			longest = now_ms() - before;
		sleep_ms(5);
	}
	assert_in_range(now_ms() - start, 150, 1000);
	assert_true(longest < 100);
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

/* ---- after it is sent ---- */

static void
timeout_after_sending_is_unknown(void **state)
{
	int64_t		start = now_ms();

	(void) state;
	config.request_timeout_ms = 200;
	serve(never_reply);
	expect_unknown(attempt(1), TRANSPORT_TIMEOUT);
	assert_string_equal(results[0].verdict.error_class, "network_timeout");
	assert_int_equal(results[0].phase, PHASE_SENT);
	assert_in_range(now_ms() - start, 190, 1000);
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
		sleep_ms(15);
	}
	return true;
}

static void
dripping_reply_is_timed_out(void **state)
{
	int64_t		start = now_ms();

	(void) state;
	config.request_timeout_ms = 800;
	serve(drip);
	expect_unknown(attempt(1), TRANSPORT_TIMEOUT);
	assert_int_equal(results[0].phase, PHASE_REPLYING);
	assert_in_range(now_ms() - start, 790, 2000);
}

static void
dripping_reply_in_time_is_read(void **state)
{
	(void) state;
	config.request_timeout_ms = 5000;
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

static bool
largest_allowed(Request *r)
{
	static char body[65537];

	memset(body, ' ', 65536);
	memcpy(body, "{\"success\":true,\"settlement_id\":\"s-", 35);
	memcpy(body + 35, r->key, 36);
	memcpy(body + 71, "\"}", 2);
	send_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n");
	send_bytes(r, body, 65536);
	return true;
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

/* ---- many, and late ---- */

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
	config.request_timeout_ms = 400;
	serve(never_reply);
	submit(1);
	run_for(100);
	submit(2);
	run_until_results(1);
	assert_int_equal((intptr_t) results[0].context, 1);
	run_until_results(2);
	assert_true(results[1].duration_us >= 390000);
}

/* The reply arrived in time; we were asleep past the timeout. */
static void
late_caller_still_gets_the_reply(void **state)
{
	(void) state;
	config.request_timeout_ms = 300;
	config.connect_timeout_ms = 100;
	serve(settle);
	for (int i = 1; i <= 8; i++)
		submit(i);
	while (server_requests(server) < 8)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
	sleep_ms(700);
	run_until_results(8);
	for (int i = 0; i < 8; i++)
		expect_settled(&results[i]);
}

static void
late_caller_still_gets_a_large_reply(void **state)
{
	(void) state;
	config.request_timeout_ms = 300;
	serve(largest_allowed);
	submit(1);
	while (server_requests(server) < 1)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
	sleep_ms(700);
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
	config.request_timeout_ms = 3000;
	config.connect_timeout_ms = 100;
	serve(settle);
	submit(1);
	wallet_client_run(client);
	assert_int_equal(server_requests(server), 0);
	sleep_ms(500);
	run_until_results(1);
	expect_settled(&results[0]);
}

/* Its time is over and it was not sent: then it is not sent at all. */
static void
late_caller_sends_nothing_after_the_deadline(void **state)
{
	(void) state;
	config.request_timeout_ms = 200;
	serve(settle);
	submit(1);
	wallet_client_run(client);	/* connects */
	sleep_ms(400);
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

/* ---- TLS ---- */

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
	config.request_timeout_ms = 500;
	start_client();
	submit(1);
	run_until_results(1);
	assert_false(results[0].facts.maybe_sent);
	assert_int_equal(results[0].verdict.outcome, OUTCOME_NOT_EXECUTED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
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
	TEST(a_thousand_in_flight),
	TEST(cap_on_connections_is_kept),
	TEST(slow_request_does_not_hold_back_others),
	TEST(late_caller_still_gets_the_reply),
	TEST(late_caller_still_gets_a_large_reply),
	TEST(late_caller_does_not_lose_its_connect),
	TEST(late_caller_sends_nothing_after_the_deadline),
	TEST(late_caller_starts_nothing_after_the_deadline),
	TEST(phases_can_be_followed),
	TEST(destroying_in_flight_is_clean),
	TEST(lookups_ask_for_the_key),
	TEST(unsendable_requests_are_reported),
	TEST(echo_of_another_trade_is_unknown_and_costs_the_connection),
	TEST(tls_with_the_right_certificate_settles),
	TEST(tls_client_certificate_is_shown),
	TEST(tls_idle_close_is_survived),
	TEST(tls_late_caller_does_not_lose_its_handshake),
	TEST(tls_with_a_wrong_ca_is_not_executed),
	TEST(tls_with_a_wrong_name_is_not_executed),
	TEST(tls_with_a_missing_ca_file_is_not_executed),
	TEST(tls_to_a_plain_server_is_not_executed),
};

int
main(void)
{
	struct rlimit files;

	if (getenv("CLIENT_TEST_SLOW") != NULL)
		slow = atoi(getenv("CLIENT_TEST_SLOW"));
	getrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 4096)
	{
		files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (wallet_global_init() != NULL)
		return 1;
	return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
