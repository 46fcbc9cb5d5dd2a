/*
 * memory_test.c
 *	  The wallet client when memory runs out: each allocation of its life in turn
 *	  fails, ours, libcurl's and the JSON parser's alike, and then that one and all
 *	  that follow it.
 *
 * Whatever happens, the client does not crash, an attempt that was taken comes
 * out, nothing is sent twice, and what it says agrees with what the server saw:
 * settled only with the settlement id, not executed only if nothing was sent.
 *
 * libcurl 7.88 divides by zero after it could not add a transfer to one of its
 * tables.  The server makes an error of the signal, upon which the worker starts
 * afresh; so does this test.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <curl/curl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server.h"
#include "wallet/client.h"

#define KEY		"00000000-0000-5000-8000-000000000001"
#define N_REQUESTS	2
#define N_BATCH		3

static const WalletTrade trade = {
	"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
	"0.5", "25000", "50000", "25", "12.5"
};

static sigjmp_buf on_division;
static WalletClient *abandoned[16];	/* reachable, so that they are no leaks */
static int	n_abandoned;

/* Allocations of this thread are counted while armed; the server's are its own. */
static __thread bool armed;
static long allocations;
static long fail_from;
static long fail_to;

extern void *__real_malloc(size_t size);
extern void *__real_calloc(size_t n, size_t size);
extern void *__real_realloc(void *old, size_t size);
extern char *__real_strdup(const char *text);
extern void *__wrap_malloc(size_t size);
extern void *__wrap_calloc(size_t n, size_t size);
extern void *__wrap_realloc(void *old, size_t size);
extern char *__wrap_strdup(const char *text);

static bool
fails(void)
{
	if (!armed)
		return false;
	allocations++;
	return allocations >= fail_from && allocations <= fail_to;
}

void *
__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *old, size_t size)
{
	return fails() ? NULL : __real_realloc(old, size);
}

char *
__wrap_strdup(const char *text)
{
	return fails() ? NULL : __real_strdup(text);
}

static void
divided(int signal_number)
{
	(void) signal_number;
	siglongjmp(on_division, 1);
}

/* CLIENT_TEST_SLOW, as in fixture.h. */
static int
slow(void)
{
	const char *text = getenv("CLIENT_TEST_SLOW");

	return text != NULL ? atoi(text) : 1;
}

static bool
settle(Request *r)
{
	if (strstr(r->head, "/settle-batch ") != NULL)
		send_batch_success(r);
	else
		send_success(r);
	return true;
}

static void
check(const WalletResult *result, int requests, const Request *last)
{
	static char body[sizeof last->body];

	assert_true(requests <= 1);
	if (requests == 1)
	{
		if (body[0] == '\0')
			strcpy(body, last->body);
		assert_string_equal(last->body, body);
		assert_string_equal(last->key, KEY);
		assert_non_null(strstr(last->head, "Authorization: Bearer secret\r\n"));
	}
	switch (result->verdict.outcome)
	{
		case OUTCOME_SETTLED:
			assert_string_equal(result->settlement_id, "s-" KEY);
			assert_int_equal(requests, 1);
			break;
		case OUTCOME_NOT_EXECUTED:
			assert_false(result->facts.maybe_sent);
			assert_int_equal(requests, 0);
			break;
		default:
			assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
			assert_true(result->facts.maybe_sent);
	}
}

/* Of a batch: the trades of one request share its fate, unless they are answered. */
static void
check_batch(const WalletResult *result, int requests, const char *key)
{
	char		id[64];

	assert_true(requests <= N_BATCH);
	snprintf(id, sizeof id, "s-%s", key);
	switch (result->verdict.outcome)
	{
		case OUTCOME_SETTLED:
			assert_string_equal(result->settlement_id, id);
			assert_true(requests > 0);
			break;
		case OUTCOME_NOT_EXECUTED:
			assert_false(result->facts.maybe_sent);
			break;
		default:
			assert_int_equal(result->verdict.outcome, OUTCOME_UNKNOWN);
			assert_true(result->facts.maybe_sent);
	}
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* One request, from submit to result. */
static void
request(WalletClient *client, Server *server)
{
	int			before = server_requests(server);
	int64_t		end = now_ms() + 10000 * slow();
	const WalletResult *result;

	armed = true;
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, KEY, 1, 7, NULL, server));
	while ((result = wallet_client_next(client)) == NULL)
	{
		struct pollfd p = {wallet_client_fd(client), POLLIN, 0};
		int			timeout = wallet_client_timeout_ms(client);

		assert_true(now_ms() < end);
		poll(&p, 1, timeout < 0 || timeout > 100 ? 100 : timeout);
		wallet_client_run(client);
	}
	armed = false;
	assert_ptr_equal(result->context, server);
	check(result, server_requests(server) - before, server_last_request(server));
}

/* Several trades in one request; where that cannot be, each alone. */
static void
batch(WalletClient *client, Server *server)
{
	static char keys[N_BATCH][IDEMPOTENCY_KEY_LEN + 1];
	int			before = server_requests(server);
	int64_t		end = now_ms() + 10000 * slow();
	int			left = N_BATCH;
	bool		begun;

	armed = true;
	begun = wallet_batch_begin(client);
	for (int i = 0; i < N_BATCH; i++)
	{
		snprintf(keys[i], sizeof keys[i], "00000000-0000-5000-8000-%012d", 10 + i);
		if (begun && wallet_batch_add(client, &trade, keys[i], 1, 7, NULL, keys[i]))
			continue;
		if (begun)
			wallet_batch_send(client, 7);
		begun = false;
		assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, keys[i], 1, 7, NULL, keys[i]));
	}
	if (begun)
		wallet_batch_send(client, 7);
	while (left > 0)
	{
		struct pollfd p = {wallet_client_fd(client), POLLIN, 0};
		int			timeout = wallet_client_timeout_ms(client);
		const WalletResult *result;

		assert_true(now_ms() < end);
		poll(&p, 1, timeout < 0 || timeout > 100 ? 100 : timeout);
		wallet_client_run(client);
		while ((result = wallet_client_next(client)) != NULL)
		{
			check_batch(result, server_requests(server) - before, result->context);
			left--;
		}
	}
	armed = false;
	assert_int_equal(wallet_client_in_flight(client), 0);
}

/* A client's life; true when memory ran out in it. */
static bool
life(Server *server, const char *url, long from, long to)
{
	const WalletConfig config = {
		.adapter = "native",.url = url,.authorization = "Bearer secret",
		.plain_http = PLAIN_HTTP_LOOPBACK,
		.connect_timeout_ms = 100 * slow(),.request_timeout_ms = 100 * slow(),
		.max_response_size = 65536,.max_connections = N_BATCH + 1,
	};
	char		err[256] = "";
	WalletClient *volatile client;
	int			before = server_requests(server);

	allocations = 0;
	fail_from = from;
	fail_to = to;
	armed = true;
	client = wallet_client_create(&config, err, sizeof err);
	armed = false;
	if (client == NULL)
		assert_true(err[0] != '\0');
	if (sigsetjmp(on_division, 1) != 0)
	{
		armed = false;
		assert_true(n_abandoned < 16);
		abandoned[n_abandoned++] = client;
		assert_true(server_requests(server) - before <= N_REQUESTS + N_BATCH);
		return true;
	}
	for (int i = 0; client != NULL && i < N_REQUESTS; i++)
		request(client, server);
	if (client != NULL)
		batch(client, server);
	fail_from = allocations + 1;
	wallet_client_destroy(client);
	return allocations >= from;
}

static void
sweep(bool for_good)
{
	Server	   *server = server_start(settle, NULL, NULL);
	char		url[64];
	long		n = 1;

	signal(SIGFPE, divided);
	snprintf(url, sizeof url, "http://127.0.0.1:%d", server_port(server));
	while (life(server, url, n, for_good ? 1000000 : n))
		n++;
	assert_true(n > 50);
	print_message("# %ld allocations, %d clients abandoned\n", n - 1, n_abandoned);
	server_stop(server);
}

static void
each_allocation_may_fail(void **state)
{
	(void) state;
	sweep(false);
}

static void
memory_may_be_gone_for_good(void **state)
{
	(void) state;
	sweep(true);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(memory_may_be_gone_for_good),
	};

	if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, __wrap_malloc, free, __wrap_realloc,
							 __wrap_strdup, __wrap_calloc) != CURLE_OK)
		return 1;
	json_set_alloc_funcs(__wrap_malloc, free);
	if (wallet_global_init() != NULL)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
