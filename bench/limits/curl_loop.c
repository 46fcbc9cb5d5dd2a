/*
 * curl_loop.c
 *	  How fast can libcurl POST and read the answer, and do nothing else?
 *
 *		curl_loop URL REQUESTS_IN_FLIGHT SECONDS
 *
 * One process, one epoll set, as many reused handles as requests in flight,
 * parsed URL and header lists made once: the client of the extension without
 * anything that is about trades.  The body differs in a few digits, as trades do.
 * Prints requests per second, and CPU time per request in microseconds.
 */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define REPLY_SIZE 65536

typedef struct Request
{
	CURL	   *easy;
	struct curl_slist *headers;
	char		body[512];
	char	   *reply;
	size_t		reply_len;
} Request;

static int	epoll_fd;
static long timer_ms = -1;
static CURLU *parsed_url;
static long sent;

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static double
cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec +
		(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void
fail(const char *what)
{
	fprintf(stderr, "curl_loop: %s\n", what);
	exit(1);
}

static size_t
write_cb(char *data, size_t size, size_t n, void *arg)
{
	Request    *r = arg;

	(void) size;
	if (r->reply_len + n > REPLY_SIZE)
		return 0;
	memcpy(r->reply + r->reply_len, data, n);
	r->reply_len += n;
	return n;
}

/* Connections stay in the set while idle, so that reuse needs no system call. */
static int
socket_cb(CURL *easy, curl_socket_t fd, int what, void *arg, void *watched)
{
	struct epoll_event event = {.data.fd = fd};

	(void) easy;
	if (what == CURL_POLL_REMOVE)
		return 0;
	event.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	if (watched == (void *) (long) event.events)
		return 0;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 &&
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return -1;
	curl_multi_assign(arg, fd, (void *) (long) event.events);
	return 0;
}

static int
timer_cb(CURLM *multi, long ms, void *arg)
{
	(void) multi;
	(void) arg;
	timer_ms = ms;
	return 0;
}

static void
prepare(Request *r)
{
	char		key[80];

	r->easy = curl_easy_init();
	r->reply = malloc(REPLY_SIZE);
	if (r->easy == NULL || r->reply == NULL)
		fail("out of memory");
	snprintf(key, sizeof key, "Idempotency-Key: 00000000-0000-4000-8000-%012lx", random());
	r->headers = curl_slist_append(NULL, "Content-Type: application/json");
	r->headers = curl_slist_append(r->headers, key);
	r->headers = curl_slist_append(r->headers, "Settlement-Epoch: 1");
	r->headers = curl_slist_append(r->headers, "Expect:");
	r->headers = curl_slist_append(r->headers, "Accept:");
	curl_easy_setopt(r->easy, CURLOPT_CURLU, parsed_url);
	curl_easy_setopt(r->easy, CURLOPT_POST, 1L);
	curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
	curl_easy_setopt(r->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(r->easy, CURLOPT_WRITEFUNCTION, write_cb);
	curl_easy_setopt(r->easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(r->easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, 5000L);
}

static void
send_request(CURLM *multi, Request *r)
{
	long		i = sent++;
	int			n;

	n = snprintf(r->body, sizeof r->body,
				 "{\"trade_id\":\"%ld\",\"buyer_id\":\"user-%ld\",\"seller_id\":\"user-%ld\","
				 "\"buyer_order_id\":\"b%ld\",\"seller_order_id\":\"s%ld\",\"base_currency\":\"BTC\","
				 "\"quote_currency\":\"USDT\",\"base_amount\":\"0.0125\",\"quote_amount\":\"625.003125\","
				 "\"price\":\"50000.25\",\"buyer_fee\":\"25\",\"seller_fee\":\"12.5\"}",
				 i, i % 1000, i % 997, i, i);
	r->reply_len = 0;
	curl_easy_setopt(r->easy, CURLOPT_POSTFIELDS, r->body);
	curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE, (long) n);
	if (curl_multi_add_handle(multi, r->easy) != CURLM_OK)
		fail("could not add a request");
}

/* Send the next request for each one that is done; how many those were. */
static long
next_round(CURLM *multi, bool go_on)
{
	CURLMsg    *message;
	int			left;
	long		done = 0;

	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURL	   *easy = message->easy_handle;
		Request    *r;
		long		status = 0;

		if (message->data.result != CURLE_OK)
			fail(curl_easy_strerror(message->data.result));
		curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **) &r);
		if (status != 200 || r->reply_len == 0)
			fail("an answer other than 200");
		curl_multi_remove_handle(multi, easy);
		done++;
		if (go_on)
			send_request(multi, r);
	}
	return done;
}

static void
wait_and_act(CURLM *multi)
{
	struct epoll_event events[256];
	int			running;
	int			n = epoll_wait(epoll_fd, events, 256, timer_ms < 0 ? 1000 : (int) timer_ms);

	if (n < 0 && errno != EINTR)
		fail("epoll_wait failed");
	for (int i = 0; i < n; i++)
		curl_multi_socket_action(multi, events[i].data.fd,
								 (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
								 (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
								 (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0),
								 &running);
	if (n == 0 || timer_ms == 0)
		curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

static CURLM *
start(const char *url, long in_flight, Request *requests)
{
	CURLM	   *multi;

	signal(SIGPIPE, SIG_IGN);
	curl_global_init(CURL_GLOBAL_ALL);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	multi = curl_multi_init();
	parsed_url = curl_url();
	if (epoll_fd < 0 || multi == NULL || parsed_url == NULL ||
		curl_url_set(parsed_url, CURLUPART_URL, url, 0) != CURLUE_OK)
		fail("could not start");
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, multi);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer_cb);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, in_flight);
	for (long i = 0; i < in_flight; i++)
	{
		prepare(&requests[i]);
		send_request(multi, &requests[i]);
	}
	return multi;
}

int
main(int argc, char **argv)
{
	long		in_flight = argc == 4 ? atol(argv[2]) : 0;
	double		seconds = argc == 4 ? atof(argv[3]) : 0;
	Request    *requests;
	CURLM	   *multi;
	double		from;
	double		cpu;
	double		elapsed = 0;
	long		done = 0;

	if (in_flight < 1 || seconds <= 0)
		fail("usage: curl_loop URL REQUESTS_IN_FLIGHT SECONDS");
	requests = calloc((size_t) in_flight, sizeof *requests);
	if (requests == NULL)
		fail("out of memory");
	multi = start(argv[1], in_flight, requests);
	from = now();
	cpu = cpu_seconds();
	while (elapsed < seconds)
	{
		wait_and_act(multi);
		done += next_round(multi, true);
		elapsed = now() - from;
	}
	printf("%.0f %.3f\n", done / elapsed, (cpu_seconds() - cpu) * 1e6 / done);
	return 0;
}
