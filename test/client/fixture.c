/*
 * fixture.c
 *	  What the tests of the wallet client share.
 */
#include "fixture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

const WalletTrade trade = {
	"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
	"0.5", "25000", "50000", "25", "12.5"
};

WalletConfig config;
char		url[128];
WalletClient *client;
Server	   *server;
WalletResult results[MAX_RESULTS];
int			n_results;
int			slow = 1;

bool
fixture_init(void)
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
	return wallet_global_init() == NULL;
}

int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int
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

int
tear_down(void **state)
{
	(void) state;
	wallet_client_destroy(client);
	if (server != NULL)
		server_stop(server);
	return 0;
}

void
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

void
serve(Script script)
{
	server = server_start(script, NULL, NULL);
	start_client();
}

const char *
key_of(int n)
{
	static char key[IDEMPOTENCY_KEY_LEN + 1];

	snprintf(key, sizeof key, "00000000-0000-5000-8000-%012d", n);
	return key;
}

void
submit(int n)
{
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, key_of(n), 1, 7,
									 "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
									 (void *) (intptr_t) n));
}

void
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

void
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

void
run_for(int ms)
{
	int64_t		end = now_ms() + ms;

	while (now_ms() < end)
	{
		wallet_client_run(client);
		sleep_ms(1);
	}
}

const WalletResult *
attempt(int n)
{
	submit(n);
	run_until_results(n_results + 1);
	return &results[n_results - 1];
}

void
expect_settled(const WalletResult *result)
{
	char		id[64];

	assert_int_equal(result->verdict.outcome, OUTCOME_SETTLED);
	snprintf(id, sizeof id, "s-%s", key_of((int) (intptr_t) result->context));
	assert_string_equal(result->settlement_id, id);
	assert_int_equal(result->phase, PHASE_REPLIED);
	assert_true(result->duration_us > 0);
}

void
expect_unknown(const WalletResult *result, Transport transport)
{
	assert_true(result->facts.maybe_sent);
	assert_string_equal(transport_name(result->facts.transport), transport_name(transport));
	assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
	assert_true(result->message[0] != '\0');
	assert_string_equal(result->settlement_id, "");
}

void
expect_not_sent(const WalletResult *result, Transport transport)
{
	assert_false(result->facts.maybe_sent);
	assert_string_equal(transport_name(result->facts.transport), transport_name(transport));
	assert_int_equal(result->verdict.outcome, OUTCOME_NOT_EXECUTED);
	assert_true(result->phase <= PHASE_CONNECTING);
	assert_true(result->message[0] != '\0');
}

WalletCounters
counters(void)
{
	WalletCounters c;

	wallet_client_counters(client, &c);
	return c;
}

void
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

bool
settle(Request *r)
{
	send_success(r);
	return true;
}

bool
never_reply(Request *r)
{
	char		byte;

	while (recv(r->fd, &byte, 1, 0) > 0)
		;
	return false;
}

bool
settle_then_close(Request *r)
{
	send_success(r);
	return false;
}

bool
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
