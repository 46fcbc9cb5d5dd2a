/*
 * http_options.c
 *	  What libcurl is told once: options that never change, and its callbacks.
 *
 * Keeps true: a request is sent at most once per exchange, and one with maybe_sent
 * false sent nothing (prereq_cb, open_cb).
 *
 * Callbacks fill bounded buffers and return; none allocates except for the
 * reply, none calls back into libcurl.
 */
#include "wallet/http_private.h"

#include <stdlib.h>

#define HEADERS_MAX			65536	/* bytes of headers in one reply */
#define REPLY_FIRST			512		/* first size of a reply buffer */
#define RECEIVE_SIZE		1024	/* libcurl's, per request in flight; holds a usual reply */

/*
 * Idle connections are not used again after this: many servers close them at
 * five seconds, and a request that crosses with the close ends as unknown.
 */
#define IDLE_MAX_S			3L

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
	http->timer_us = timeout_ms < 0 ? -1 : http_now_us() + (int64_t) timeout_ms * 1000;
	return 0;
}

static bool
is_loopback(const struct curl_sockaddr *address)
{
	struct sockaddr_in in;
	struct sockaddr_in6 in6;

	if (address->family == AF_INET && address->addrlen >= sizeof in)
	{
		memcpy(&in, &address->addr, sizeof in);
		return http_is_loopback4(&in.sin_addr);
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

	if (x->http->config.inspect)
		http_inspect_header(x, bytes, size * n);
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

bool
http_set_constant_options(HttpExchange *x)
{
	CURL	   *easy = x->easy;
	const HttpConfig *config = &x->http->config;
	CURLcode	rc = CURLE_OK;

#define SET(option, value) \
	do { if (rc == CURLE_OK) rc = curl_easy_setopt(easy, option, value); } while (0)
	SET(CURLOPT_PRIVATE, x);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_BUFFERSIZE, (long) RECEIVE_SIZE);
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
	if (config->inspect)
		SET(CURLOPT_CERTINFO, 1L);
#undef SET
	return rc == CURLE_OK;
}

void
http_set_multi_options(Http *http)
{
	CURLM	   *multi = http->multi;

	curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
	curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, http);
	curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, timer_cb);
	curl_multi_setopt(multi, CURLMOPT_TIMERDATA, http);
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
					  (long) http->config.max_connections);
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) http->config.max_connections);
#if LIBCURL_VERSION_NUM >= 0x081400
	curl_multi_setopt(multi, CURLMOPT_QUICK_EXIT, 1L);	/* as CURLOPT_QUICK_EXIT before */
#endif
}
