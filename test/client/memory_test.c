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
 * Each attempt has a key of its own.  Memory may run out right after the request
 * was sent: then the result is there before the server has read the request, and
 * that is counted for its key all the same, at the latest when all is done.
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
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server.h"
#include "wallet/client.h"

#define KEY_FORMAT	"00000000-0000-5000-8000-%012d"
#define MAX_ATTEMPTS	65536
#define N_REQUESTS	2
#define N_BATCH		3

/* One key, one attempt.  seen is the server's, under lock. */
typedef struct Attempt
{
	char		key[IDEMPOTENCY_KEY_LEN + 1];
	int			seen;			/* requests with this key */
	Outcome		outcome;
} Attempt;

static const WalletTrade trade = {
	"42", "alice", "bob", "o-1", "o-2", "BTC", "USDT",
	"0.5", "25000", "50000", "25", "12.5"
};

static Attempt attempts[MAX_ATTEMPTS];
static int	n_attempts;			/* of all lives of one sweep */
static int	n_strange;			/* requests that nobody asked for so */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

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

static Attempt *
new_attempt(void)
{
	Attempt    *a = &attempts[n_attempts];

	assert_true(n_attempts < MAX_ATTEMPTS);
	snprintf(a->key, sizeof a->key, KEY_FORMAT, n_attempts++);
	a->outcome = OUTCOME_UNKNOWN;	/* of an abandoned client it stays so */
	return a;
}

/* Called with the lock held. */
static void
count_key(const char *key)
{
	int			n;

	if (sscanf(key, KEY_FORMAT, &n) == 1 && n >= 0 && n < MAX_ATTEMPTS)
		attempts[n].seen++;
	else
		n_strange++;
}

/* What is read without the JSON parser needs no memory: this is not. */
static void
send_unusual_success(Request *r)
{
	char		body[256];

	snprintf(body, sizeof body, "{\"success\":true,\"settlement_id\":\"\\u0073-%s\"}", r->key);
	send_reply(r, "200 OK", body);
}

static bool
settle(Request *r)
{
	static char body[sizeof r->body];	/* the same for each single request */
	char		keys[BATCH_KEYS_MAX][64];
	bool		is_batch = strstr(r->head, "/settle-batch ") != NULL;

	pthread_mutex_lock(&lock);
	if (!is_batch)
	{
		count_key(r->key);
		if (body[0] == '\0')
			strcpy(body, r->body);
		if (strcmp(r->body, body) != 0)
			n_strange++;
	}
	else
		for (int i = batch_keys(r, keys) - 1; i >= 0; i--)
			count_key(keys[i]);
	if (strstr(r->head, "Authorization: Bearer secret\r\n") == NULL)
		n_strange++;
	pthread_mutex_unlock(&lock);
	if (is_batch)
		send_batch_success(r);
	else
		send_unusual_success(r);
	return true;
}

/* Does what the client said agree with what the server has seen of it so far? */
static void
check_seen(Attempt *a)
{
	int			seen;

	pthread_mutex_lock(&lock);
	seen = a->seen;
	pthread_mutex_unlock(&lock);
	assert_true(seen <= 1);
	if (a->outcome == OUTCOME_SETTLED)
		assert_int_equal(seen, 1);
	else if (a->outcome == OUTCOME_NOT_EXECUTED)
		assert_int_equal(seen, 0);
}

static void
check(const WalletResult *result)
{
	Attempt    *a = result->context;
	char		id[64];

	snprintf(id, sizeof id, "s-%s", a->key);
	a->outcome = result->verdict.outcome;
	switch (a->outcome)
	{
		case OUTCOME_SETTLED:
			assert_string_equal(result->settlement_id, id);
			break;
		case OUTCOME_NOT_EXECUTED:
			assert_false(result->facts.maybe_sent);
			break;
		default:
			assert_int_equal(a->outcome, OUTCOME_UNKNOWN);
			assert_true(result->facts.maybe_sent);
	}
	check_seen(a);
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Take results until so many have come. */
static void
take(WalletClient *client, int left)
{
	int64_t		end = now_ms() + 10000 * slow();

	while (left > 0)
	{
		struct pollfd p = {wallet_client_fd(client), POLLIN, 0};
		int			timeout = wallet_client_timeout_ms(client);
		const WalletResult *result;

		assert_true(now_ms() < end);
		poll(&p, 1, timeout < 0 || timeout > 100 ? 100 : timeout);
		wallet_client_run(client);
		for (; (result = wallet_client_next(client)) != NULL; left--)
			check(result);
	}
}

/* One request, from submit to result. */
static void
request(WalletClient *client)
{
	Attempt    *a = new_attempt();

	armed = true;
	assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, a->key, 1, 7, NULL, a));
	take(client, 1);
	armed = false;
}

/* Several trades in one request; where that cannot be, each alone. */
static void
batch(WalletClient *client)
{
	bool		begun;

	armed = true;
	begun = wallet_batch_begin(client);
	for (int i = 0; i < N_BATCH; i++)
	{
		Attempt    *a = new_attempt();

		if (begun && wallet_batch_add(client, &trade, a->key, 1, 7, NULL, a))
			continue;
		if (begun)
			wallet_batch_send(client, 7);
		begun = false;
		assert_true(wallet_client_submit(client, WALLET_SETTLE, &trade, a->key, 1, 7, NULL, a));
	}
	if (begun)
		wallet_batch_send(client, 7);
	take(client, N_BATCH);
	armed = false;
	assert_int_equal(wallet_client_in_flight(client), 0);
}

/* A client's life; true when memory ran out in it. */
static bool
life(const char *url, long from, long to)
{
	const WalletConfig config = {
		.adapter = "native",.url = url,.authorization = "Bearer secret",
		.plain_http = PLAIN_HTTP_LOOPBACK,
		.connect_timeout_ms = 100 * slow(),.request_timeout_ms = 100 * slow(),
		.max_response_size = 65536,.max_connections = N_BATCH + 1,
	};
	char		err[256] = "";
	WalletClient *volatile client;

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
		return true;
	}
	for (int i = 0; client != NULL && i < N_REQUESTS; i++)
		request(client);
	if (client != NULL)
		batch(client);
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
	memset(attempts, 0, sizeof attempts);
	n_attempts = n_strange = 0;
	while (life(url, n, for_good ? 1000000 : n))
		n++;
	assert_true(n > 50);
	print_message("# %ld allocations, %d attempts, %d clients abandoned\n",
				  n - 1, n_attempts, n_abandoned);
	server_stop(server);
	for (int i = 0; i < n_attempts; i++)
		check_seen(&attempts[i]);
	assert_int_equal(n_strange, 0);
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
