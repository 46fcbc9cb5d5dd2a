/*
 * http_direct.c
 *	  Plain HTTP to a numeric address, a proxy on the same host most of the time,
 *	  without libcurl.
 *
 * There is nothing to resolve, to encrypt or to redirect, and what libcurl does
 * per request is the dearest part of a settlement then: three times what sending
 * and receiving cost.  Everything else goes through libcurl.
 *
 * Keeps true: an exchange sends its request once, on one connection, and with
 * maybe_sent false it sent nothing; a connection is used again only after a reply
 * that ended where it said, and not once it has closed or spoken while idle
 * (sockets.c).  No call blocks.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE			/* asprintf */
#endif

#include "wallet/http_private.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define REPLY_FIRST		2048	/* first size of a reply buffer */

/* As for libcurl (http_options.c): many servers close idle ones at five seconds. */
#define IDLE_MAX_US		INT64_C(3000000)
#define SWEEP_US		INT64_C(1000000)

typedef struct IdleConnection
{
	int			fd;
	int64_t		since_us;
} IdleConnection;

struct Direct
{
	struct sockaddr_storage address;
	socklen_t	address_len;
	char	   *name;			/* host and port, for errors */
	char	   *base_path;		/* without a trailing slash */
	char	   *post_path;
	char	   *common;			/* headers of every request */
	HttpExchange **owner;		/* by descriptor */
	int			n_owner;
	IdleConnection *idle;		/* a stack: the last used is the warmest */
	int			n_idle;
	int64_t		swept_us;
	int			n_connecting;
};

/* ---- set-up ---- */

static bool
set_address(struct sockaddr_storage *address, socklen_t *len, char *host, int port)
{
	struct sockaddr_in in = {.sin_family = AF_INET,.sin_port = htons((uint16_t) port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,.sin6_port = htons((uint16_t) port)};
	size_t		n = strlen(host);

	if (inet_pton(AF_INET, host, &in.sin_addr) == 1)
	{
		memcpy(address, &in, sizeof in);
		*len = sizeof in;
		return true;
	}
	if (n < 3 || host[0] != '[')
		return false;
	host[n - 1] = '\0';
	if (inet_pton(AF_INET6, host + 1, &in6.sin6_addr) != 1)
		return false;
	host[n - 1] = ']';
	memcpy(address, &in6, sizeof in6);
	*len = sizeof in6;
	return true;
}

/* The numeric address of a plain URL; false when it has none. */
static bool
find_address(const char *url, struct sockaddr_storage *address, socklen_t *len)
{
	char	   *host = http_url_part(url, CURLUPART_HOST, 0);
	char	   *port = http_url_part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
	bool		found = http_url_is_plain(url) && host != NULL && port != NULL &&
		set_address(address, len, host, atoi(port));

	curl_free(host);
	curl_free(port);
	return found;
}

bool
direct_is_possible(const char *url)
{
	struct sockaddr_storage address;
	socklen_t	len;

	return find_address(url, &address, &len);
}

/* As in a Host header: the port only when it is not the usual one. */
static char *
host_and_port(const char *url)
{
	char	   *host = http_url_part(url, CURLUPART_HOST, 0);
	char	   *port = http_url_part(url, CURLUPART_PORT, CURLU_NO_DEFAULT_PORT);
	char	   *name = NULL;

	if (host != NULL && asprintf(&name, "%s%s%s", host, port ? ":" : "", port ? port : "") < 0)
		name = NULL;
	curl_free(host);
	curl_free(port);
	return name;
}

static char *
common_headers(const char *name, const char *authorization)
{
	bool		secret = is_set(authorization);
	char	   *text = NULL;

	if (name == NULL ||
		asprintf(&text, "Host: %s\r\nContent-Type: application/json\r\n"
				 "User-Agent: settlement\r\n%s%s%s", name,
				 secret ? "Authorization: " : "", secret ? authorization : "",
				 secret ? "\r\n" : "") < 0)
		return NULL;
	return text;
}

/* The path of a URL, without its trailing slashes; malloc'ed. */
static char *
path_of(const char *url)
{
	char	   *path = http_url_part(url, CURLUPART_PATH, 0);
	char	   *copy = path != NULL ? strdup(path) : NULL;
	size_t		len = copy != NULL ? strlen(copy) : 0;

	while (len > 0 && copy[len - 1] == '/')
		copy[--len] = '\0';
	curl_free(path);
	return copy;
}

Direct *
direct_create(const HttpConfig *config)
{
	Direct	   *d = calloc(1, sizeof *d);

	if (d == NULL)
		return NULL;
	if (find_address(config->url, &d->address, &d->address_len))
	{
		d->name = host_and_port(config->url);
		d->base_path = path_of(config->url);
		d->common = common_headers(d->name, config->authorization);
		d->idle = calloc((size_t) config->max_connections, sizeof *d->idle);
		if (d->base_path != NULL)
			d->post_path = http_join_url(d->base_path, config->post_path);
	}
	if (d->name != NULL && d->post_path != NULL && d->common != NULL && d->idle != NULL)
		return d;
	direct_destroy(d, NULL);
	return NULL;
}

void
direct_destroy(Direct *d, Sockets *sockets)
{
	if (d == NULL)
		return;
	for (int i = 0; i < d->n_idle; i++)
		sockets_close(sockets, d->idle[i].fd);
	if (d->common != NULL)
		memset(d->common, 0, strlen(d->common));
	free(d->common);
	free(d->name);
	free(d->base_path);
	free(d->post_path);
	free(d->owner);
	free(d->idle);
	free(d);
}

/* ---- the request ---- */

static char *
put(char *at, const char *text)
{
	size_t		len = strlen(text);

	memcpy(at, text, len);
	return at + len;
}

/* Room for everything but the texts whose length is the caller's. */
#define HEAD_FIXED	512

static bool
make_room(HttpExchange *x, size_t size)
{
	char	   *grown;

	if (size <= x->head_size)
		return true;
	grown = realloc(x->head, size);
	if (grown == NULL)
		return false;
	x->head = grown;
	x->head_size = size;
	return true;
}

bool
direct_prepare(HttpExchange *x, const HttpRequest *request)
{
	const Direct *d = x->http->direct;
	bool		post = request->method == HTTP_POST;
	const char *prefix = post ? d->post_path : d->base_path;
	const char *path = post ? "" : request->path;
	char	   *at;

	if (!make_room(x, strlen(prefix) + strlen(path) + strlen(d->common) + HEAD_FIXED))
		return false;
	at = put(put(put(put(x->head, post ? "POST " : "GET "), prefix), path), " HTTP/1.1\r\n");
	if (post)
		at = put(put(put(at, KEY_HEADER), request->key), "\r\n");
	if (x->http->lineage[0] != '\0')
		at = put(put(put(at, LINEAGE_HEADER), x->http->lineage), "\r\n");
	if (request->epoch != 0)
		at += sprintf(at, EPOCH_HEADER "%lld\r\n", (long long) request->epoch);
	if (http_is_traceparent(request->traceparent))
		at = put(put(put(at, TRACE_HEADER), request->traceparent), "\r\n");
	at = put(at, d->common);
	if (post)
		at += sprintf(at, "Content-Length: %zu\r\n", request->body_len);
	at = put(at, "\r\n");
	x->head_len = (size_t) (at - x->head);
	x->body = request->body;
	x->body_len = post ? request->body_len : 0;
	x->n_sent = 0;
	return true;
}

/* ---- connections ---- */

static bool
own(Direct *d, int fd, HttpExchange *x)
{
	if (fd >= d->n_owner)
	{
		int			n = fd < 64 ? 128 : fd * 2;
		HttpExchange **grown = realloc(d->owner, (size_t) n * sizeof *grown);

		if (grown == NULL)
			return false;
		memset(grown + d->n_owner, 0, (size_t) (n - d->n_owner) * sizeof *grown);
		d->owner = grown;
		d->n_owner = n;
	}
	d->owner[fd] = x;
	x->fd = fd;
	return true;
}

/* The exchange and its connection part. */
void
direct_leave(HttpExchange *x, bool keep)
{
	Direct	   *d = x->http->direct;
	int			fd = x->fd;

	if (fd < 0)
		return;
	if (x->connecting)
		d->n_connecting--;
	x->connecting = false;
	x->fd = -1;
	if (fd < d->n_owner)
		d->owner[fd] = NULL;
	if (keep && d->n_idle < x->http->config.max_connections)
		d->idle[d->n_idle++] = (IdleConnection) {fd, http_now_us()};
	else
		sockets_close(x->http->sockets, fd);
}

static void
fail(HttpExchange *x, Transport transport, const char *error)
{
	http_end(x, transport, error);
	direct_leave(x, false);
}

static void
fail_to_connect(HttpExchange *x, int why)
{
	char		text[CURL_ERROR_SIZE];

	snprintf(text, sizeof text, "Failed to connect to %s: %s",
			 x->http->direct->name, strerror(why));
	fail(x, TRANSPORT_CONNECT, text);
}

/* One that has neither closed nor spoken, nor idled for too long; or -1. */
static int
take_idle(Http *http, int64_t now)
{
	Direct	   *d = http->direct;

	while (d->n_idle > 0)
	{
		IdleConnection c = d->idle[--d->n_idle];

		if (!sockets_is_cut(http->sockets, c.fd) && now - c.since_us <= IDLE_MAX_US)
			return c.fd;
		sockets_close(http->sockets, c.fd);
	}
	return -1;
}

static void
close_stale(Http *http, int64_t now)
{
	Direct	   *d = http->direct;
	int			kept = 0;

	if (now - d->swept_us < SWEEP_US)
		return;
	d->swept_us = now;
	for (int i = 0; i < d->n_idle; i++)
		if (sockets_is_cut(http->sockets, d->idle[i].fd) ||
			now - d->idle[i].since_us > IDLE_MAX_US)
			sockets_close(http->sockets, d->idle[i].fd);
		else
			d->idle[kept++] = d->idle[i];
	d->n_idle = kept;
}

static void
set_options(int fd)
{
	int			on = 1;
	int			idle = 20;
	int			interval = 10;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
}

static void
connect_anew(HttpExchange *x, int64_t now)
{
	Http	   *http = x->http;
	Direct	   *d = http->direct;
	int			fd;

	if (http->config.loopback_only && !http_is_loopback(&d->address))
	{
		fail(x, TRANSPORT_CONNECT, "plain http is allowed to loopback addresses only");
		return;
	}
	fd = sockets_open(http->sockets, d->address.ss_family, SOCK_STREAM, 0);
	if (fd < 0)
	{
		fail_to_connect(x, errno);
		return;
	}
	if (!own(d, fd, x))
	{
		sockets_close(http->sockets, fd);
		fail_to_connect(x, ENOMEM);
		return;
	}
	set_options(fd);
	x->connecting = true;
	d->n_connecting++;
	x->connect_deadline_us = now + (int64_t) http->config.connect_timeout_ms * 1000;
	if (connect(fd, (struct sockaddr *) &d->address, d->address_len) < 0 &&
		errno != EINPROGRESS)
		fail_to_connect(x, errno);
	else if (!sockets_watch(http->sockets, fd, EPOLLOUT))
		fail_to_connect(x, ENOMEM);
}

/* ---- sending and receiving ---- */

static void
send_on(HttpExchange *x)
{
	struct iovec part[2];
	struct msghdr message = {.msg_iov = part};
	size_t		from_body = x->n_sent > x->head_len ? x->n_sent - x->head_len : 0;
	ssize_t		n;

	if (x->n_sent < x->head_len)
		part[message.msg_iovlen++] =
			(struct iovec) {x->head + x->n_sent, x->head_len - x->n_sent};
	if (x->body_len > from_body)
		part[message.msg_iovlen++] =
			(struct iovec) {(char *) x->body + from_body, x->body_len - from_body};
	x->reply.maybe_sent = true;
	n = sendmsg(x->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR)
	{
		fail(x, TRANSPORT_RESET, "connection closed by the wallet before it had the whole request");
		return;
	}
	x->n_sent += n > 0 ? (size_t) n : 0;
	if (!sockets_watch(x->http->sockets, x->fd,
					   x->n_sent < x->head_len + x->body_len ? EPOLLIN | EPOLLOUT : EPOLLIN))
		fail(x, TRANSPORT_OTHER, "out of memory");
}

static void
begin_sending(HttpExchange *x)
{
	if (x->connecting)
		x->http->direct->n_connecting--;
	x->connecting = false;
	x->received = 0;
	http1_begin(&x->reader, HEADERS_MAX, x->http->config.max_reply);
	send_on(x);
}

void
direct_start(HttpExchange *x, int64_t now)
{
	int			fd = take_idle(x->http, now);

	if (fd < 0)
		connect_anew(x, now);
	else if (own(x->http->direct, fd, x))
		begin_sending(x);
	else
	{
		sockets_close(x->http->sockets, fd);
		fail_to_connect(x, ENOMEM);
	}
}

/* Seconds, or a date; -1: none. */
static int64_t
retry_after_ms(const char *text)
{
	char	   *end;
	long long	seconds;

	if (*text == '\0')
		return -1;
	errno = 0;
	seconds = strtoll(text, &end, 10);
	if (*end != '\0' || end == text)
	{
		time_t		then = curl_getdate(text, NULL);

		seconds = then == (time_t) -1 ? 0 : (long long) then - (long long) time(NULL);
	}
	else if (errno == ERANGE)
		seconds = INT64_MAX / 1000;
	if (seconds <= 0)
		return -1;
	return seconds > INT64_MAX / 1000 ? INT64_MAX : (int64_t) seconds * 1000;
}

static void
end_of_reply(HttpExchange *x)
{
	Http1Reader *reader = &x->reader;

	x->reply.body = x->buffer + reader->body_start;
	x->reply.body_len = reader->body_len;
	if (reader->status != 200)
		x->reply.retry_after_ms = retry_after_ms(reader->retry_after);
	/* a reply before the whole request: the rest of it would be a request of its own */
	if (x->n_sent < x->head_len + x->body_len)
		reader->keep_alive = false;
	/* watched as one that is idle from here on */
	sockets_watch(x->http->sockets, x->fd, 0);
	http_end(x, TRANSPORT_OK, "");
}

static void
judge_reply(HttpExchange *x, bool eof)
{
	switch (http1_read(&x->reader, x->buffer, x->received, eof))
	{
		case HTTP1_MORE:
			break;
		case HTTP1_DONE:
			end_of_reply(x);
			break;
		case HTTP1_CLOSED:
			if (x->received == 0)
				fail(x, TRANSPORT_RESET, "connection closed by the wallet after the "
					 "request was sent, before it replied");
			else
				fail(x, TRANSPORT_PROTOCOL, "connection closed by the wallet before "
					 "the end of its reply");
			break;
		case HTTP1_BAD:
			fail(x, TRANSPORT_PROTOCOL, "reply is not valid HTTP");
			break;
		case HTTP1_TOO_LARGE:
			fail(x, TRANSPORT_TOO_LARGE, "reply exceeds the maximum size");
			break;
	}
}

static bool
grow_buffer(HttpExchange *x)
{
	size_t		size = x->buffer_size > 0 ? x->buffer_size * 2 : REPLY_FIRST;
	char	   *grown;

	if (x->received < x->buffer_size)
		return true;
	grown = realloc(x->buffer, size);
	if (grown == NULL)
		return false;
	x->buffer = grown;
	x->buffer_size = size;
	return true;
}

/* What has come, and once more only if that has filled the buffer. */
static void
receive(HttpExchange *x)
{
	bool		filled = true;

	while (filled && x->state == EXCHANGE_RUNNING)
	{
		ssize_t		n;

		if (!grow_buffer(x))
		{
			fail(x, TRANSPORT_OTHER, "out of memory");
			return;
		}
		n = recv(x->fd, x->buffer + x->received, x->buffer_size - x->received, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
		{
			fail(x, TRANSPORT_RESET, "connection reset by the wallet");
			return;
		}
		x->received += (size_t) n;
		filled = x->received == x->buffer_size;
		judge_reply(x, n == 0);
	}
}

static void
connected(HttpExchange *x)
{
	int			why = 0;
	socklen_t	len = sizeof why;

	if (getsockopt(x->fd, SOL_SOCKET, SO_ERROR, &why, &len) < 0)
		why = errno;
	if (why != 0)
		fail_to_connect(x, why);
	else
		begin_sending(x);
}

void
direct_event(Http *http, int fd, uint32_t events)
{
	Direct	   *d = http->direct;
	HttpExchange *x = fd < d->n_owner ? d->owner[fd] : NULL;

	if (x == NULL || x->state != EXCHANGE_RUNNING)
		return;
	if (x->connecting)
	{
		connected(x);
		return;
	}
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		receive(x);
	if ((events & EPOLLOUT) && x->state == EXCHANGE_RUNNING)
		send_on(x);
}

/* ---- the time to connect ---- */

static void
expire_connects(Http *http, int64_t now)
{
	HttpExchange *next;

	for (HttpExchange *x = http->running.first;
		 x != NULL && http->direct->n_connecting > 0; x = next)
	{
		next = x->next;
		if (x->connecting && x->connect_deadline_us <= now)
			fail(x, TRANSPORT_TIMEOUT, "request could not be sent: the connection timed out");
	}
}

void
direct_tidy(Http *http, int64_t now)
{
	expire_connects(http, now);
	close_stale(http, now);
}

void
direct_forgive(Http *http, int64_t pause_us)
{
	if (http->direct->n_connecting == 0)
		return;
	for (HttpExchange *x = http->running.first; x != NULL; x = x->next)
		if (x->connecting)
			x->connect_deadline_us += pause_us;
}

int64_t
direct_connect_deadline(const Http *http)
{
	if (http->direct->n_connecting == 0)
		return -1;
	/* the first is the oldest */
	for (const HttpExchange *x = http->running.first; x != NULL; x = x->next)
		if (x->connecting)
			return x->connect_deadline_us;
	return -1;
}
