/*
 * http.c
 *	  All of libcurl: a multi handle driven by its socket actions over our own
 *	  epoll set, with easy handles that are set up once and used again.
 *
 * Keeps true: a request is sent at most once per exchange (prereq_cb); an
 * exchange with maybe_sent false sent nothing; a reply that has arrived is read
 * before time is called on it; nothing is read of a connection that spoke while
 * idle (sockets.c); no call blocks.
 *
 * Callbacks fill bounded buffers and return; none allocates except for the
 * reply, none calls back into libcurl.
 *
 * Cost: libcurl's work per request is the dearest part of a settlement.  It
 * formats headers byte by byte, so there are few and short ones (no Accept, and
 * no Expect: libcurl adds that to bodies of 1 MB and more only); it parses a URL
 * for each request unless it is given a parsed one; all options that do not
 * change are set once.
 *
 * libcurl's own time limit is not used: it is checked before the sockets are
 * read.  Only its limit on connecting is, since it divides it over addresses.
 */
#include "wallet/http.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "policy/idempotency.h"
#include "wallet/sockets.h"

/* PROTOCOLS_STR came with 7.85, QUICK_EXIT with 7.87. */
#define CURL_VERSION_NEEDED	0x075700

#define HEADERS_MAX			65536	/* bytes of headers in one reply */
#define REPLY_FIRST			2048	/* first size of a reply buffer */
#define EVENTS_PER_POLL		256
#define POLLS_PER_RUN		32
#define EPOCH_HEADER		"Settlement-Epoch: "
#define LINEAGE_HEADER		"Settlement-Lineage: "
#define KEY_HEADER			"Idempotency-Key: "
#define TRACE_HEADER		"traceparent: "
#define TRACEPARENT_MAX		64

/* A call this late was not waiting for us: see forgive_pause. */
#define LATE_US				INT64_C(50000)

/*
 * Idle connections are not used again after this: many servers close them at
 * five seconds, and a request that crosses with the close ends as unknown.
 */
#define IDLE_MAX_S			3L

typedef enum ExchangeState
{
	EXCHANGE_IDLE = 0,
	EXCHANGE_QUEUED,			/* http_start to start_queued */
	EXCHANGE_RUNNING,			/* start_queued to finish */
	EXCHANGE_ENDED				/* finish to http_release */
} ExchangeState;

typedef struct ExchangeList
{
	HttpExchange *first;
	HttpExchange *last;
} ExchangeList;

struct HttpExchange
{
	Http	   *http;
	void	   *owner;
	CURL	   *easy;
	ExchangeState state;
	bool		added;			/* to the multi handle */
	HttpExchange *prev;
	HttpExchange *next;
	HttpExchange *sibling;		/* in http->all */

	/* Of this request. */
	HttpMethod	method;			/* what the easy handle is set up for */
	bool		set_up;
	bool		resend_blocked;
	bool		refused_address;
	bool		too_large;
	int64_t		started_us;
	int64_t		deadline_us;
	int64_t		forgiven_ms;	/* time taken off while connecting */
	const char *body;			/* what the easy handle points at */
	HttpReply	reply;
	char	   *buffer;			/* the reply's body */
	size_t		buffer_size;
	size_t		max_reply;		/* what the easy handle is set up for */
	size_t		header_bytes;

	/* Header nodes of our own, written in place. */
	struct curl_slist key_node;
	struct curl_slist epoch_node;
	struct curl_slist lineage_node;
	struct curl_slist trace_node;
	char		key_text[sizeof KEY_HEADER + IDEMPOTENCY_KEY_LEN];
	char		epoch_text[sizeof EPOCH_HEADER + 24];
	char		lineage_text[sizeof LINEAGE_HEADER + LINEAGE_LEN];
	char		trace_text[sizeof TRACE_HEADER + TRACEPARENT_MAX];
	int64_t		epoch;			/* in epoch_text */
	char		error[CURL_ERROR_SIZE];
};

struct Http
{
	CURLM	   *multi;
	Sockets    *sockets;
	HttpConfig	config;			/* its texts are ours */
	CURLU	   *post_url;		/* parsed once */
	CURLU	   *batch_url;		/* or NULL */
	struct curl_slist *common;	/* headers of every request */
	char		lineage[LINEAGE_LEN + 1];	/* "": none */
	HttpExchange *all;
	ExchangeList queued;
	ExchangeList running;		/* in the order of their deadlines */
	ExchangeList ended;
	int64_t		timer_us;		/* when libcurl wants to be called; -1 never */
	int64_t		last_run_us;
	int64_t		promised_us;	/* latest next run we asked for; -1 none */
	uint64_t	resends_blocked;
};

static int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static bool
is_set(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* ---- lists ---- */

static void
list_append(ExchangeList *list, HttpExchange *x)
{
	x->prev = list->last;
	x->next = NULL;
	if (list->last != NULL)
		list->last->next = x;
	else
		list->first = x;
	list->last = x;
}

static void
list_remove(ExchangeList *list, HttpExchange *x)
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

/* ---- callbacks of libcurl ---- */

static int
socket_cb(CURL *easy, curl_socket_t fd, int what, void *arg, void *unused)
{
	Http	   *http = arg;
	uint32_t	events = 0;

	(void) easy;
	(void) unused;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= EPOLLIN;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= EPOLLOUT;

	/* When it fails the request runs into its deadline; -1 would end them all. */
	sockets_watch(http->sockets, fd, events);
	return 0;
}

static int
timer_cb(CURLM *multi, long timeout_ms, void *arg)
{
	Http	   *http = arg;

	(void) multi;
	http->timer_us = timeout_ms < 0 ? -1 : now_us() + (int64_t) timeout_ms * 1000;
	return 0;
}

static bool
is_loopback4(const struct in_addr *address)
{
	return ntohl(address->s_addr) >> 24 == 127;
}

static bool
is_loopback(const struct curl_sockaddr *address)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	if (address->family == AF_INET && address->addrlen >= sizeof in)
	{
		memcpy(&in, &address->addr, sizeof in);
		return is_loopback4(&in.sin_addr);
	}
	if (address->family == AF_INET6 && address->addrlen >= sizeof in6)
	{
		memcpy(&in6, &address->addr, sizeof in6);
		return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
	}
	return false;
}

/*
 * Refuses the second connection of an exchange that may have sent: libcurl opens
 * one only to send again.
 */
static curl_socket_t
open_cb(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
	HttpExchange *x = arg;

	(void) purpose;
	if (x->reply.maybe_sent)
	{
		x->resend_blocked = true;
		return CURL_SOCKET_BAD;
	}
	if (x->http->config.loopback_only && !is_loopback(address))
	{
		x->refused_address = true;
		return CURL_SOCKET_BAD;
	}
	return sockets_open(x->http->sockets, address->family, address->socktype,
						address->protocol);
}

/* Belongs to the connection, which may outlive the exchange that opened it. */
static int
close_cb(void *arg, curl_socket_t fd)
{
	Http	   *http = arg;

	sockets_close(http->sockets, fd);
	return 0;
}

/* Called before each send: the only witness of what may have left. */
static int
prereq_cb(void *arg, char *primary_ip, char *local_ip, int primary_port,
		  int local_port)
{
	HttpExchange *x = arg;

	(void) primary_ip;
	(void) local_ip;
	(void) primary_port;
	(void) local_port;
	if (x->reply.maybe_sent)
	{
		x->resend_blocked = true;
		return CURL_PREREQFUNC_ABORT;
	}
	x->reply.maybe_sent = true;
	return CURL_PREREQFUNC_OK;
}

/* Headers are libcurl's; only their number is ours, since it keeps them all. */
static size_t
header_cb(char *bytes, size_t size, size_t n, void *arg)
{
	HttpExchange *x = arg;

	(void) bytes;
	x->header_bytes += size * n;
	if (x->header_bytes > HEADERS_MAX)
	{
		x->too_large = true;
		return 0;
	}
	return size * n;
}

static size_t
write_cb(char *bytes, size_t size, size_t n, void *arg)
{
	HttpExchange *x = arg;
	size_t		len = size * n;
	size_t		need = x->reply.body_len + len;

	if (need > x->max_reply)
	{
		x->too_large = true;
		return 0;
	}
	if (need > x->buffer_size)
	{
		size_t		grown_size = x->buffer_size > 0 ? x->buffer_size : REPLY_FIRST;
		char	   *grown;

		while (grown_size < need)
			grown_size *= 2;
		grown = realloc(x->buffer, grown_size);
		if (grown == NULL)
			return 0;
		x->buffer = grown;
		x->buffer_size = grown_size;
	}
	memcpy(x->buffer + x->reply.body_len, bytes, len);
	x->reply.body_len = need;
	return len;
}

/* ---- once per process, and URLs ---- */

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
	return NULL;
}

/* One part of a URL, to be freed with curl_free; NULL when it has none. */
static char *
url_part(const char *url, CURLUPart part)
{
	CURLU	   *parsed = curl_url();
	char	   *text = NULL;

	if (parsed != NULL &&
		curl_url_set(parsed, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
		curl_url_get(parsed, part, &text, 0) != CURLUE_OK)
		text = NULL;
	curl_url_cleanup(parsed);
	return text;
}

static bool
has_part(const char *url, CURLUPart part)
{
	char	   *text = url_part(url, part);
	bool		has = is_set(text);

	curl_free(text);
	return has;
}

const char *
http_check_url(const char *url)
{
	const char *problem = NULL;
	char	   *scheme;

	for (const char *c = url; *c != '\0'; c++)
		if ((unsigned char) *c <= 0x20 || *c == 0x7f)
			return "URL holds a space or a control character";
	scheme = url_part(url, CURLUPART_SCHEME);
	if (scheme == NULL || strncmp(url + strlen(scheme), "://", 3) != 0 ||
		url[strlen(scheme) + 3] == '/')
		problem = "not a URL of the form http://host or https://host";
	else if (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0)
		problem = "URL must begin with http:// or https://";
	else if (!has_part(url, CURLUPART_HOST))
		problem = "URL has no host";
	else if (has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD))
		problem = "URL must not hold a user or a password";
	else if (strchr(url, '?') != NULL)
		problem = "URL must not hold a query";
	else if (strchr(url, '#') != NULL)
		problem = "URL must not hold a fragment";
	curl_free(scheme);
	return problem;
}

bool
http_url_is_plain(const char *url)
{
	char	   *scheme = url_part(url, CURLUPART_SCHEME);
	bool		plain = scheme == NULL || strcasecmp(scheme, "https") != 0;

	curl_free(scheme);
	return plain;
}

bool
http_url_is_loopback(const char *url)
{
	char	   *host = url_part(url, CURLUPART_HOST);
	struct in_addr in;
	struct in6_addr in6;
	bool		loopback = false;
	size_t		len;

	if (host == NULL)
		return false;
	len = strlen(host);
	if (strcasecmp(host, "localhost") == 0)
		loopback = true;
	else if (inet_pton(AF_INET, host, &in) == 1)
		loopback = is_loopback4(&in);
	else if (len > 2 && host[0] == '[')
	{
		host[len - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &in6) == 1)
			loopback = IN6_IS_ADDR_LOOPBACK(&in6);
	}
	curl_free(host);
	return loopback;
}

/* ---- a client ---- */

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

/* base without its trailing slashes, and the path */
static char *
join_url(const char *base, const char *path)
{
	size_t		base_len = strlen(base);
	size_t		path_len = strlen(path);
	char	   *url;

	while (base_len > 0 && base[base_len - 1] == '/')
		base_len--;
	url = malloc(base_len + path_len + 1);
	if (url != NULL)
	{
		memcpy(url, base, base_len);
		memcpy(url + base_len, path, path_len + 1);
	}
	return url;
}

static bool
add_header(struct curl_slist **list, const char *text)
{
	struct curl_slist *grown = curl_slist_append(*list, text);

	if (grown != NULL)
		*list = grown;
	return grown != NULL;
}

/* Parsed once: libcurl would parse and print a text again for each request. */
static CURLU *
parse_url(const char *base, const char *path)
{
	char	   *text = join_url(base, path);
	CURLU	   *url = curl_url();

	if (text == NULL || url == NULL ||
		curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK)
	{
		curl_url_cleanup(url);
		url = NULL;
	}
	free(text);
	return url;
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
	http->post_url = parse_url(config->url, config->post_path);
	if (config->batch_path != NULL)
		http->batch_url = parse_url(config->url, config->batch_path);
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
	CURLM	   *multi;

	if (http == NULL || !http_fill(http, config))
	{
		snprintf(err, errlen, "out of memory or descriptors");
		http_destroy(http);
		return NULL;
	}
	http->timer_us = http->promised_us = -1;
	http->last_run_us = now_us();
	multi = http->multi;
	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer_cb);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, http);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
					  (long) config->max_connections);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) config->max_connections);
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

/* ---- an exchange ---- */

/* Options that never change.  False when libcurl refuses one. */
static bool
set_constant_options(HttpExchange *x)
{
	CURL	   *easy = x->easy;
	const HttpConfig *config = &x->http->config;
	CURLcode	rc = CURLE_OK;

#define SET(option, value) \
	do { if (rc == CURLE_OK) rc = curl_easy_setopt(easy, option, value); } while (0)
	SET(CURLOPT_PRIVATE, x);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);	/* never wait for a resolver thread */
	SET(CURLOPT_NOPROGRESS, 1L);
	SET(CURLOPT_ERRORBUFFER, x->error);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_MAXREDIRS, 0L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, 20L);
	SET(CURLOPT_TCP_KEEPINTVL, 10L);
	SET(CURLOPT_MAXAGE_CONN, IDLE_MAX_S);
	SET(CURLOPT_PREREQFUNCTION, prereq_cb);
	SET(CURLOPT_PREREQDATA, x);
	SET(CURLOPT_OPENSOCKETFUNCTION, open_cb);
	SET(CURLOPT_OPENSOCKETDATA, x);
	SET(CURLOPT_CLOSESOCKETFUNCTION, close_cb);
	SET(CURLOPT_CLOSESOCKETDATA, x->http);
	SET(CURLOPT_HEADERFUNCTION, header_cb);
	SET(CURLOPT_HEADERDATA, x);
	SET(CURLOPT_WRITEFUNCTION, write_cb);
	SET(CURLOPT_WRITEDATA, x);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) config->connect_timeout_ms);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	if (config->ca_file != NULL)
	{
		SET(CURLOPT_CAINFO, config->ca_file);
		SET(CURLOPT_CAPATH, NULL);
	}
	if (config->cert_file != NULL)
		SET(CURLOPT_SSLCERT, config->cert_file);
	if (config->key_file != NULL)
		SET(CURLOPT_SSLKEY, config->key_file);
#undef SET
	return rc == CURLE_OK;
}

HttpExchange *
http_exchange_create(Http *http, void *owner)
{
	HttpExchange *x = calloc(1, sizeof *x);

	if (x == NULL)
		return NULL;
	x->http = http;
	x->owner = owner;
	x->easy = curl_easy_init();
	if (x->easy == NULL || !set_constant_options(x))
	{
		curl_easy_cleanup(x->easy);
		free(x);
		return NULL;
	}
	strcpy(x->key_text, KEY_HEADER);
	strcpy(x->epoch_text, EPOCH_HEADER);
	strcpy(x->lineage_text, LINEAGE_HEADER);
	strcpy(x->trace_text, TRACE_HEADER);
	x->key_node.data = x->key_text;
	x->epoch_node.data = x->epoch_text;
	x->lineage_node.data = x->lineage_text;
	x->trace_node.data = x->trace_text;
	x->sibling = http->all;
	http->all = x;
	return x;
}

static ExchangeList *
list_of(HttpExchange *x)
{
	switch (x->state)
	{
		case EXCHANGE_QUEUED:
			return &x->http->queued;
		case EXCHANGE_RUNNING:
			return &x->http->running;
		default:
			return NULL;
	}
}

static void
detach(HttpExchange *x)
{
	if (x->added)
		curl_multi_remove_handle(x->http->multi, x->easy);
	x->added = false;
}

void
http_exchange_destroy(HttpExchange *x)
{
	HttpExchange **link;
	ExchangeList *list;

	if (x == NULL)
		return;
	list = list_of(x);
	if (list != NULL)
		list_remove(list, x);
	for (HttpExchange *e = x->http->ended.first; e != NULL; e = e->next)
		if (e == x)
		{
			list_remove(&x->http->ended, x);
			break;
		}
	for (link = &x->http->all; *link != NULL; link = &(*link)->sibling)
		if (*link == x)
		{
			*link = x->sibling;
			break;
		}
	detach(x);
	curl_easy_cleanup(x->easy);
	free(x->buffer);
	free(x);
}

void *
http_exchange_owner(const HttpExchange *x)
{
	return x->owner;
}

/* W3C Trace Context: lower-case hex and dashes; anything else stays out. */
static bool
is_traceparent(const char *text)
{
	return text != NULL && text[0] != '\0' &&
		strlen(text) <= TRACEPARENT_MAX &&
		strspn(text, "0123456789abcdef-") == strlen(text);
}

/* Chain the header nodes that this request has; returns the first. */
static struct curl_slist *
link_headers(HttpExchange *x, const HttpRequest *request)
{
	struct curl_slist *first = x->http->common;

	if (is_traceparent(request->traceparent))
	{
		strcpy(x->trace_text + strlen(TRACE_HEADER), request->traceparent);
		x->trace_node.next = first;
		first = &x->trace_node;
	}
	if (request->epoch != 0)
	{
		if (request->epoch != x->epoch)
			snprintf(x->epoch_text, sizeof x->epoch_text, EPOCH_HEADER "%lld",
					 (long long) request->epoch);
		x->epoch = request->epoch;
		x->epoch_node.next = first;
		first = &x->epoch_node;
	}
	if (x->http->lineage[0] != '\0')
	{
		strcpy(x->lineage_text + strlen(LINEAGE_HEADER), x->http->lineage);
		x->lineage_node.next = first;
		first = &x->lineage_node;
	}
	if (request->method == HTTP_POST)
	{
		memcpy(x->key_text + strlen(KEY_HEADER), request->key, IDEMPOTENCY_KEY_LEN + 1);
		x->key_node.next = first;
		first = &x->key_node;
	}
	return first;
}

static void
set_max_reply(HttpExchange *x, size_t max_reply)
{
	if (x->max_reply != max_reply)
		curl_easy_setopt(x->easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) max_reply);
	x->max_reply = max_reply;
}

/* Only what differs from the last request of this handle is set again. */
static bool
set_request_options(HttpExchange *x, const HttpRequest *request)
{
	CURL	   *easy = x->easy;
	struct curl_slist *headers = link_headers(x, request);
	bool		same = x->set_up && x->method == request->method;
	CURLcode	rc = CURLE_OK;

	x->set_up = false;
	x->method = request->method;
	if (request->method == HTTP_GET)
	{
		char	   *url = join_url(x->http->config.url, request->path);

		curl_easy_setopt(easy, CURLOPT_CURLU, NULL);
		rc = url != NULL ? curl_easy_setopt(easy, CURLOPT_URL, url) : CURLE_OUT_OF_MEMORY;
		free(url);
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	}
	else
	{
		if (!same)
		{
			rc = curl_easy_setopt(easy, CURLOPT_CURLU, request->method == HTTP_POST ?
								  x->http->post_url : x->http->batch_url);
			curl_easy_setopt(easy, CURLOPT_POST, 1L);
		}
		/* without a key the first header is not always the same one */
		if (!same || request->key == NULL)
			curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
		if (!same || x->body != request->body)
			curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
		x->body = request->body;
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) request->body_len);
	}
	if (x->forgiven_ms != 0)
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
						 (long) x->http->config.connect_timeout_ms);
	x->forgiven_ms = 0;
	set_max_reply(x, request->max_reply > 0 ? request->max_reply : x->http->config.max_reply);
	x->set_up = rc == CURLE_OK;
	return rc == CURLE_OK;
}

/* ---- the end of an exchange ---- */

static Transport
transport_of(CURLcode rc)
{
	switch (rc)
	{
		case CURLE_OK:
			return TRANSPORT_OK;
		case CURLE_OPERATION_TIMEDOUT:
			return TRANSPORT_TIMEOUT;
		case CURLE_COULDNT_CONNECT:
			return TRANSPORT_CONNECT;
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_RESOLVE_PROXY:
			return TRANSPORT_DNS;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_USE_SSL_FAILED:
		case CURLE_SSL_ENGINE_INITFAILED:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CRL_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_CLIENTCERT:
			return TRANSPORT_TLS;
		case CURLE_GOT_NOTHING:
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
			return TRANSPORT_RESET;
		case CURLE_FILESIZE_EXCEEDED:
			return TRANSPORT_TOO_LARGE;
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_PARTIAL_FILE:
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_HTTP2:
			return TRANSPORT_PROTOCOL;
		default:
			return TRANSPORT_OTHER;
	}
}

static void
set_error(HttpExchange *x, const char *text)
{
	if (text != x->error)
		snprintf(x->error, sizeof x->error, "%s", text);
}

/*
 * What libcurl's result means here.  Our own flags come first: what libcurl
 * reports after a blocked resend is about the second send, not about the cause.
 */
static void
judge(HttpExchange *x, CURLcode rc)
{
	HttpReply  *reply = &x->reply;

	reply->transport = transport_of(rc);
	if (rc == CURLE_OK)
		x->error[0] = '\0';
	else if (x->resend_blocked)
	{
		x->http->resends_blocked++;
		reply->transport = TRANSPORT_RESEND_BLOCKED;
		set_error(x, "connection closed by the wallet after the request was sent, "
				  "before it replied");
	}
	else if (x->refused_address)
	{
		reply->transport = TRANSPORT_CONNECT;
		set_error(x, "plain http is allowed to loopback addresses only");
	}
	else if (x->too_large || reply->transport == TRANSPORT_TOO_LARGE)
	{
		reply->transport = TRANSPORT_TOO_LARGE;
		set_error(x, "reply exceeds the maximum size");
	}
	else if (x->error[0] == '\0')
		set_error(x, curl_easy_strerror(rc));
}

/* Which phase an exchange is in, or was when it ended. */
static AttemptPhase
phase_of(const HttpExchange *x)
{
	long		status = 0;

	if (!x->reply.maybe_sent)
		return x->added ? PHASE_CONNECTING : PHASE_PREPARED;
	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	return status != 0 ? PHASE_REPLYING : PHASE_SENT;
}

/* From running or queued to ended. */
static void
finish(HttpExchange *x, CURLcode rc)
{
	Http	   *http = x->http;
	HttpReply  *reply = &x->reply;
	curl_off_t	retry_after = 0;
	long		status = 0;

	judge(x, rc);
	reply->phase = phase_of(x);
	if (reply->maybe_sent)
	{
		curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status != 200)
			curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &retry_after);
	}
	if (rc == CURLE_OK)
		reply->phase = PHASE_REPLIED;
	reply->status = (int) status;
	if (retry_after > 0)
		reply->retry_after_ms = retry_after > INT64_MAX / 1000 ?
			INT64_MAX : (int64_t) retry_after * 1000;
	reply->body = x->buffer != NULL ? x->buffer : "";
	reply->error = x->error;
	reply->duration_us = now_us() - x->started_us;
	list_remove(list_of(x), x);
	x->state = EXCHANGE_ENDED;
	list_append(&http->ended, x);
}

/* Time is up: sent or not is in the facts. */
static void
expire(HttpExchange *x)
{
	snprintf(x->error, sizeof x->error,
			 x->reply.maybe_sent ? "no complete reply within %d ms" :
			 "request could not be sent within %d ms",
			 x->http->config.request_timeout_ms);
	finish(x, CURLE_OPERATION_TIMEDOUT);
	detach(x);
}

/* ---- driving ---- */

void
http_start(HttpExchange *x, const HttpRequest *request)
{
	static const HttpReply nothing = {.retry_after_ms = -1,.body = "",.error = ""};

	x->reply = nothing;
	x->resend_blocked = x->refused_address = x->too_large = false;
	x->header_bytes = 0;
	x->error[0] = '\0';
	x->started_us = now_us();
	x->deadline_us = x->started_us +
		(int64_t) x->http->config.request_timeout_ms * 1000;
	x->state = EXCHANGE_QUEUED;
	list_append(&x->http->queued, x);
	if (!set_request_options(x, request))
		finish(x, CURLE_OUT_OF_MEMORY);
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
		list_remove(&http->queued, x);
		x->state = EXCHANGE_RUNNING;
		list_append(&http->running, x);
		x->added = curl_multi_add_handle(http->multi, x->easy) == CURLM_OK;
		if (!x->added)
			finish(x, CURLE_FAILED_INIT);
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
			finish((HttpExchange *) private, message->data.result);
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

/*
 * We were called late (the caller was in a long commit).  Time in which libcurl
 * could not work is taken off the time it has to connect.
 */
static void
forgive_pause(Http *http, int64_t now)
{
	int64_t		pause_ms = (now - http->last_run_us) / 1000;

	if (http->promised_us < 0 || now - http->promised_us < LATE_US)
		return;
	for (HttpExchange *x = http->running.first; x != NULL; x = x->next)
	{
		if (x->reply.maybe_sent)
			continue;
		x->forgiven_ms += pause_ms;
		curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS,
						 (long) (http->config.connect_timeout_ms + x->forgiven_ms));
	}
}

static bool
is_overdue(const Http *http, int64_t now)
{
	return http->running.first != NULL && http->running.first->deadline_us <= now;
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
		int			n = sockets_poll(http->sockets, events, EVENTS_PER_POLL, &more);

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

	if (http->timer_us < 0 || http->timer_us > now_us())
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
	int64_t		now = now_us();
	sigset_t	old;
	int			timeout_ms;

	block_signals(&old);
	expire_overdue(http, now, true);
	forgive_pause(http, now);
	read_sockets(http, now);
	start_queued(http, now);
	run_timer(http);
	collect_ended(http);
	expire_overdue(http, now, false);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	http->last_run_us = now_us();
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
	now = now_us();
	return at <= now ? 0 : (int) ((at - now) / 1000 + 1);
}

HttpExchange *
http_next(Http *http)
{
	HttpExchange *x = http->ended.first;

	if (x != NULL)
		list_remove(&http->ended, x);
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
	detach(x);
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
		sockets_cut(x->http->sockets, fd);
}

AttemptPhase
http_phase(const HttpExchange *x)
{
	return x->state == EXCHANGE_ENDED ? x->reply.phase : phase_of(x);
}

void
http_counters(const Http *http, HttpCounters *counters)
{
	counters->connections_opened = sockets_opened(http->sockets);
	counters->connections_cut = sockets_cut_idle(http->sockets);
	counters->connections_now = sockets_open_now(http->sockets);
	counters->resends_blocked = http->resends_blocked;
}
