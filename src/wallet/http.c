/*
 * http.c
 *	  An HTTP client: a multi handle of libcurl, driven by its socket actions over
 *	  our own epoll set.  This and the other http_*.c are all of libcurl.
 *
 * Keeps true: a reply that has arrived is read before time is called on it;
 * nothing is read of a connection that spoke while idle (sockets.c); no call
 * blocks.  That a request is sent once is kept in http_options.c.
 *
 * libcurl's own time limit is not used: it is checked before the sockets are
 * read.  Only its limit on connecting is, since it divides it over addresses.
 */
#include "wallet/http_private.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* PROTOCOLS_STR came with 7.85, QUICK_EXIT with 7.87. */
#define CURL_VERSION_NEEDED	0x075700

/* From 8.22 on connections are not looked at again within a second. */
#define CURL_VERSION_TRUSTS	0x081600

#define EVENTS_PER_POLL		256
#define POLLS_PER_RUN		32

/* A call this late was not waiting for us: see forgive_pause. */
#define LATE_US				INT64_C(50000)

static bool trusts_recent;		/* the libcurl that we run with does so */

int64_t
http_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- lists ---- */

void
http_list_append(ExchangeList *list, HttpExchange *x)
{
	x->prev = list->last;
	x->next = NULL;
	if (list->last != NULL)
		list->last->next = x;
	else
		list->first = x;
	list->last = x;
}

void
http_list_remove(ExchangeList *list, HttpExchange *x)
{
	if (x->prev != NULL)
		x->prev->next = x->next;
	else
		list->first = x->next;
	if (x->next != NULL)
		x->next->prev = x->prev;
	else
		list->last = x->prev;
	x->prev = x->next = NULL;
}

/* ---- a client ---- */

const char *
http_global_init(void)
{
	const curl_version_info_data *version;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return "libcurl could not be initialised";
	version = curl_version_info(CURLVERSION_NOW);
	if (version->version_num < CURL_VERSION_NEEDED)
		return "libcurl is older than 7.87";
	if ((version->features & CURL_VERSION_ASYNCHDNS) == 0)
		return "libcurl was built without an asynchronous resolver";
	if ((version->features & CURL_VERSION_SSL) == 0)
		return "libcurl was built without TLS";
	trusts_recent = version->version_num >= CURL_VERSION_TRUSTS;
	return NULL;
}

static char *
copy_or_null(const char *text, bool *failed)
{
	char	   *copy;

	if (!is_set(text))
		return NULL;
	copy = strdup(text);
	if (copy == NULL)
		*failed = true;
	return copy;
}

static bool
add_header(struct curl_slist **list, const char *text)
{
	struct curl_slist *grown = curl_slist_append(*list, text);

	if (grown != NULL)
		*list = grown;
	return grown != NULL;
}

static bool
add_authorization(struct curl_slist **list, const char *value)
{
	char	   *text;
	bool		done;

	if (!is_set(value))
		return true;
	text = malloc(strlen(value) + sizeof "Authorization: ");
	if (text == NULL)
		return false;
	sprintf(text, "Authorization: %s", value);
	done = add_header(list, text);
	memset(text, 0, strlen(text));
	free(text);
	return done;
}

/* Everything that may run out of memory; what is half done is http_destroy's. */
static bool
http_fill(Http *http, const HttpConfig *config)
{
	bool		failed = false;
	HttpConfig *own = &http->config;

	*own = *config;
	own->post_path = own->batch_path = NULL;
	own->url = copy_or_null(config->url, &failed);
	own->ca_file = copy_or_null(config->ca_file, &failed);
	own->cert_file = copy_or_null(config->cert_file, &failed);
	own->key_file = copy_or_null(config->key_file, &failed);
	own->authorization = NULL;	/* lives in the header list only */
	http->post_url = http_parse_url(config->url, config->post_path);
	if (config->batch_path != NULL)
		http->batch_url = http_parse_url(config->url, config->batch_path);
	http->sockets = sockets_create();
	http->multi = curl_multi_init();
	return !failed && http->post_url != NULL && http->sockets != NULL &&
		(config->batch_path == NULL || http->batch_url != NULL) && http->multi != NULL &&
		add_header(&http->common, "Content-Type: application/json") &&
		add_header(&http->common, "User-Agent: settlement") &&
		add_authorization(&http->common, config->authorization);
}

Http *
http_create(const HttpConfig *config, char *err, size_t errlen)
{
	Http	   *http = calloc(1, sizeof *http);

	if (http == NULL || !http_fill(http, config))
	{
		snprintf(err, errlen, "out of memory or descriptors");
		http_destroy(http);
		return NULL;
	}
	http->timer_us = http->promised_us = -1;
	http->last_run_us = http_now_us();
	http_set_multi_options(http);
	return http;
}

void
http_set_lineage(Http *http, const char *lineage)
{
	snprintf(http->lineage, sizeof http->lineage, "%s", lineage);
}

void
http_destroy(Http *http)
{
	if (http == NULL)
		return;
	while (http->all != NULL)
		http_exchange_destroy(http->all);
	if (http->multi != NULL)
		curl_multi_cleanup(http->multi);
	for (struct curl_slist *node = http->common; node != NULL; node = node->next)
		memset(node->data, 0, strlen(node->data));
	curl_slist_free_all(http->common);
	sockets_destroy(http->sockets);
	curl_url_cleanup(http->post_url);
	curl_url_cleanup(http->batch_url);
	free((char *) http->config.url);
	free((char *) http->config.ca_file);
	free((char *) http->config.cert_file);
	free((char *) http->config.key_file);
	free(http);
}

/* ---- driving ---- */

/* Time is up: sent or not is in the facts. */
static void
expire(HttpExchange *x)
{
	snprintf(x->error, sizeof x->error,
			 x->reply.maybe_sent ? "no complete reply within %d ms" :
			 "request could not be sent within %d ms",
			 x->http->config.request_timeout_ms);
	http_finish(x, CURLE_OPERATION_TIMEDOUT);
	http_detach(x);
}

void
http_start(HttpExchange *x, const HttpRequest *request)
{
	static const HttpReply nothing = {.retry_after_ms = -1,.body = "",.error = ""};

	x->reply = nothing;
	x->resend_blocked = x->refused_address = x->too_large = false;
	x->header_bytes = 0;
	x->error[0] = '\0';
	x->started_us = http_now_us();
	x->deadline_us = x->started_us +
		(int64_t) x->http->config.request_timeout_ms * 1000;
	x->state = EXCHANGE_QUEUED;
	http_list_append(&x->http->queued, x);
	if (!http_set_request_options(x, request))
		http_finish(x, CURLE_OUT_OF_MEMORY);
}

/*
 * Only after the sockets were read: a start may take an idle connection, and by
 * then those that spoke out of turn are cut.  What waited for longer than it may
 * last is not sent at all: others may have taken it over.
 */
static void
start_queued(Http *http, int64_t now)
{
	HttpExchange *x;

	while ((x = http->queued.first) != NULL)
	{
		if (x->deadline_us <= now)
		{
			expire(x);
			continue;
		}
		http_list_remove(&http->queued, x);
		x->state = EXCHANGE_RUNNING;
		http_list_append(&http->running, x);
		x->added = curl_multi_add_handle(http->multi, x->easy) == CURLM_OK;
		if (!x->added)
			http_finish(x, CURLE_FAILED_INIT);
	}
}

static void
collect_ended(Http *http)
{
	CURLMsg    *message;
	int			left;

	while ((message = curl_multi_info_read(http->multi, &left)) != NULL)
	{
		char	   *private = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
		if (((HttpExchange *) private)->state == EXCHANGE_RUNNING)
			http_finish((HttpExchange *) private, message->data.result);
	}
}

static void
expire_overdue(Http *http, int64_t now, bool unsent_only)
{
	HttpExchange *next;

	for (HttpExchange *x = http->running.first;
		 x != NULL && x->deadline_us <= now; x = next)
	{
		next = x->next;
		if (!unsent_only || !x->reply.maybe_sent)
			expire(x);
	}
}

/* Move what is not sent yet to the end of another list. */
static void
move_unsent(ExchangeList *from, ExchangeList *to)
{
	HttpExchange *next;

	for (HttpExchange *x = from->first; x != NULL; x = next)
	{
		next = x->next;
		if (x->reply.maybe_sent)
			continue;
		http_list_remove(from, x);
		http_list_append(to, x);
	}
}

/* Both are in the order of their deadlines; the second one becomes empty. */
static void
merge_lists(ExchangeList *list, ExchangeList *other)
{
	ExchangeList merged = {0};

	while (list->first != NULL || other->first != NULL)
	{
		bool		from_other = list->first == NULL ||
			(other->first != NULL && other->first->deadline_us < list->first->deadline_us);
		ExchangeList *source = from_other ? other : list;
		HttpExchange *x = source->first;

		http_list_remove(source, x);
		http_list_append(&merged, x);
	}
	*list = merged;
}

/*
 * Give back the time since its start, or the last run, unless it is too long.  Many
 * pauses together give no more than one may.
 */
static void
postpone_deadline(HttpExchange *x, int64_t now)
{
	int64_t		last = x->http->last_run_us;
	int64_t		pause = now - (x->started_us > last ? x->started_us : last);
	int64_t		max_pause = (int64_t) x->http->config.max_pause_ms * 1000;
	int64_t		latest = x->started_us +
		(int64_t) x->http->config.request_timeout_ms * 1000 + max_pause;

	if (pause <= 0 || pause > max_pause)
		return;
	x->deadline_us += pause;
	if (x->deadline_us > latest)
		x->deadline_us = latest;
}

/*
 * We were called late (the caller was in a long commit).  Time in which libcurl
 * could not work is taken off the time it has to connect, and to send.
 */
static void
forgive_pause(Http *http, int64_t now)
{
	int64_t		pause_ms = (now - http->last_run_us) / 1000;
	ExchangeList unsent = {0};

	for (HttpExchange *x = http->queued.first; x != NULL; x = x->next)
		postpone_deadline(x, now);
	if (http->promised_us < 0 || now - http->promised_us < LATE_US)
		return;
	move_unsent(&http->running, &unsent);
	for (HttpExchange *x = unsent.first; x != NULL; x = x->next)
	{
		postpone_deadline(x, now);
		x->forgiven_ms += pause_ms;
		curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS,
						 (long) (http->config.connect_timeout_ms + x->forgiven_ms));
	}
	merge_lists(&http->running, &unsent);
}

static bool
is_overdue(const Http *http, int64_t now)
{
	return http->running.first != NULL && http->running.first->deadline_us <= now;
}

/*
 * Connections were cut: libcurl is to find that out before it sends on one.  If
 * it would not, it lets go of all that are idle; there is no way to name one.
 */
static void
drop_cut_connections(Http *http)
{
#ifdef CURLMNWC_CLEAR_CONNS
	if (trusts_recent)
		curl_multi_setopt(http->multi, CURLMOPT_NETWORK_CHANGED, CURLMNWC_CLEAR_CONNS);
#else
	(void) http;
	(void) trusts_recent;
#endif
}

/* Once, or until nothing more comes when time would be called on something. */
static void
read_sockets(Http *http, int64_t now)
{
	struct epoll_event events[EVENTS_PER_POLL];
	bool		more;
	int			running;

	for (int i = 0; i < POLLS_PER_RUN; i++)
	{
		uint64_t	cut = sockets_cut_idle(http->sockets);
		int			n = sockets_poll(http->sockets, events, EVENTS_PER_POLL, &more);

		if (sockets_cut_idle(http->sockets) != cut)
			drop_cut_connections(http);
		for (int e = 0; e < n; e++)
		{
			int			mask = 0;

			if (events[e].events & EPOLLIN)
				mask |= CURL_CSELECT_IN;
			if (events[e].events & EPOLLOUT)
				mask |= CURL_CSELECT_OUT;
			if (events[e].events & (EPOLLERR | EPOLLHUP))
				mask |= CURL_CSELECT_ERR;
			curl_multi_socket_action(http->multi, events[e].data.fd, mask, &running);
		}
		collect_ended(http);
		if (!more && (n == 0 || !is_overdue(http, now)))
			break;
	}
}

/* libcurl says only what changes: a timer that fired is off until it says more. */
static void
run_timer(Http *http)
{
	int			running;

	if (http->timer_us < 0 || http->timer_us > http_now_us())
		return;
	http->timer_us = -1;
	curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

/*
 * A resolver thread inherits our mask: signals of the process must not be
 * handled in it.  Those that report a fault of this thread stay open.
 */
static void
block_signals(sigset_t *old)
{
	sigset_t	all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGFPE);
	sigdelset(&all, SIGILL);
	sigdelset(&all, SIGABRT);
	sigdelset(&all, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &all, old);
}

void
http_run(Http *http)
{
	int64_t		now = http_now_us();
	sigset_t	old;
	int			timeout_ms;

	block_signals(&old);
	forgive_pause(http, now);
	expire_overdue(http, now, true);
	read_sockets(http, now);
	start_queued(http, now);
	run_timer(http);
	collect_ended(http);
	expire_overdue(http, now, false);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	http->last_run_us = http_now_us();
	timeout_ms = http_timeout_ms(http);
	http->promised_us = timeout_ms < 0 ? -1 :
		http->last_run_us + (int64_t) timeout_ms * 1000;
}

int
http_fd(const Http *http)
{
	return sockets_fd(http->sockets);
}

int
http_timeout_ms(const Http *http)
{
	int64_t		at = http->timer_us;
	int64_t		now;

	if (http->queued.first != NULL || http->ended.first != NULL)
		return 0;
	if (http->running.first != NULL &&
		(at < 0 || http->running.first->deadline_us < at))
		at = http->running.first->deadline_us;
	if (at < 0)
		return -1;
	now = http_now_us();
	return at <= now ? 0 : (int) ((at - now) / 1000 + 1);
}

HttpExchange *
http_next(Http *http)
{
	HttpExchange *x = http->ended.first;

	if (x != NULL)
		http_list_remove(&http->ended, x);
	return x;
}

const HttpExchange *
http_peek(const Http *http)
{
	return http->ended.first;
}

const HttpReply *
http_reply(const HttpExchange *x)
{
	return &x->reply;
}

void
http_release(HttpExchange *x)
{
	http_detach(x);
	x->state = EXCHANGE_IDLE;
}

/* The connection is found by its number, so a descriptor used again is safe. */
void
http_distrust_connection(HttpExchange *x)
{
	curl_socket_t fd = CURL_SOCKET_BAD;

	if (x->added &&
		curl_easy_getinfo(x->easy, CURLINFO_ACTIVESOCKET, &fd) == CURLE_OK &&
		fd != CURL_SOCKET_BAD)
	{
		sockets_cut(x->http->sockets, fd);
		drop_cut_connections(x->http);
	}
}

void
http_counters(const Http *http, HttpCounters *counters)
{
	counters->connections_opened = sockets_opened(http->sockets);
	counters->connections_cut = sockets_cut_idle(http->sockets);
	counters->connections_now = sockets_open_now(http->sockets);
	counters->resends_blocked = http->resends_blocked;
}
