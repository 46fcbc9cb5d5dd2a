/*
 * server.c
 *	  A thread that accepts, and one per connection that reads requests and plays
 *	  the script.  All counters are under one lock.
 */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct Server
{
	pthread_mutex_t lock;
	pthread_t	acceptor;
	int			listen_fd;
	int			port;
	Script		script;
	SSL_CTX    *tls;
	bool		stopping;
	int			requests;
	int			connections;
	int			open;
	int			peak;
	int		   *fds;			/* of open connections, to cut them at the end */
	int			n_fds;
	Request		last;
};

typedef struct Connection
{
	Server	   *server;
	int			fd;
} Connection;

void
sleep_ms(int ms)
{
	struct timespec ts = {ms / 1000, (long) (ms % 1000) * 1000000};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		continue;
}

static ssize_t
read_some(Request *r, char *out, size_t size)
{
	if (r->ssl != NULL)
		return SSL_read(r->ssl, out, (int) size);
	return recv(r->fd, out, size, 0);
}

void
send_bytes(Request *r, const char *bytes, size_t len)
{
	while (len > 0)
	{
		ssize_t		n = r->ssl != NULL ? SSL_write(r->ssl, bytes, (int) len) :
			send(r->fd, bytes, len, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		bytes += n;
		len -= (size_t) n;
	}
}

void
send_text(Request *r, const char *text)
{
	send_bytes(r, text, strlen(text));
}

void
send_reply(Request *r, const char *status, const char *body)
{
	char		reply[16384];

	snprintf(reply, sizeof reply,
			 "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
			 "Content-Length: %zu\r\n\r\n%s", status, strlen(body), body);
	send_text(r, reply);
}

void
send_success(Request *r)
{
	char		body[256];

	snprintf(body, sizeof body, "{\"success\":true,\"settlement_id\":\"s-%s\"}", r->key);
	send_reply(r, "200 OK", body);
}

int
batch_keys(const Request *r, char keys[BATCH_KEYS_MAX][64])
{
	static const char member[] = "{\"idempotency_key\":\"";
	const char *at = r->body;
	int			n = 0;

	while (n < BATCH_KEYS_MAX && (at = strstr(at, member)) != NULL)
	{
		at += strlen(member);
		snprintf(keys[n++], 64, "%.*s", (int) strcspn(at, "\""), at);
	}
	return n;
}

void
send_batch_success(Request *r)
{
	char		keys[BATCH_KEYS_MAX][64];
	char		body[8192] = "";
	int			n = batch_keys(r, keys);

	for (int i = 0; i < n; i++)
		snprintf(body + strlen(body), sizeof body - strlen(body),
				 "%c{\"idempotency_key\":\"%s\",\"status\":200,"
				 "\"body\":{\"success\":true,\"settlement_id\":\"s-%s\"}}",
				 i == 0 ? '[' : ',', keys[i], keys[i]);
	strcat(body, "]");
	send_reply(r, "200 OK", body);
}

void
reset_on_close(Request *r)
{
	struct linger linger = {1, 0};

	setsockopt(r->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* The value of a header in head, cut to size; "" when there is none. */
static void
find_header(const char *head, const char *name, char *out, size_t size)
{
	const char *line = strcasestr(head, name);
	size_t		len;

	out[0] = '\0';
	if (line == NULL)
		return;
	line += strlen(name);
	len = strcspn(line, "\r\n");
	if (len >= size)
		len = size - 1;
	memcpy(out, line, len);
	out[len] = '\0';
}

/* Byte by byte: slow, and never a byte of the next request. */
static bool
read_request(Request *r)
{
	size_t		len = 0;
	char		length[32];
	size_t		body_len;

	while (len < sizeof r->head - 1)
	{
		if (read_some(r, r->head + len, 1) != 1)
			return false;
		r->head[++len] = '\0';
		if (len >= 4 && strcmp(r->head + len - 4, "\r\n\r\n") == 0)
			break;
	}
	find_header(r->head, "\r\nContent-Length: ", length, sizeof length);
	find_header(r->head, "\r\nIdempotency-Key: ", r->key, sizeof r->key);
	body_len = (size_t) atol(length);
	if (body_len >= sizeof r->body)
		return false;
	for (len = 0; len < body_len; len++)
		if (read_some(r, r->body + len, 1) != 1)
			return false;
	r->body[len] = '\0';
	return true;
}

static void
count_connection(Server *s, int fd, bool opened)
{
	pthread_mutex_lock(&s->lock);
	if (opened)
	{
		s->fds = realloc(s->fds, (size_t) (s->n_fds + 1) * sizeof(int));
		s->fds[s->n_fds++] = fd;
		s->connections++;
		if (++s->open > s->peak)
			s->peak = s->open;
	}
	else
	{
		for (int i = 0; i < s->n_fds; i++)
			if (s->fds[i] == fd)
			{
				s->fds[i] = s->fds[--s->n_fds];
				break;
			}
		s->open--;
	}
	pthread_mutex_unlock(&s->lock);
}

static void *
serve(void *arg)
{
	Connection *c = arg;
	Server	   *s = c->server;
	Request    *r = calloc(1, sizeof *r);
	sigset_t	pipe;

	/* OpenSSL writes without MSG_NOSIGNAL.  The client under test gets no such
	 * help: it must not raise the signal at all. */
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, NULL);
	r->server = s;
	r->fd = c->fd;
	if (s->tls != NULL)
	{
		r->ssl = SSL_new(s->tls);
		SSL_set_fd(r->ssl, r->fd);
		if (SSL_accept(r->ssl) != 1)
			goto done;
	}
	while (read_request(r))
	{
		pthread_mutex_lock(&s->lock);
		r->n = ++s->requests;
		r->n_here++;
		s->last = *r;
		pthread_mutex_unlock(&s->lock);
		if (!s->script(r))
			break;
	}
done:
	count_connection(s, c->fd, false);
	if (r->ssl != NULL)
		SSL_free(r->ssl);
	close(c->fd);
	free(r);
	free(c);
	return NULL;
}

static void *
accept_all(void *arg)
{
	Server	   *s = arg;
	pthread_attr_t attr;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	for (;;)
	{
		int			fd = accept(s->listen_fd, NULL, NULL);
		int			one = 1;
		pthread_t	thread;
		Connection *c;

		if (fd < 0)
			break;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		c = malloc(sizeof *c);
		c->server = s;
		c->fd = fd;
		count_connection(s, fd, true);
		if (pthread_create(&thread, &attr, serve, c) != 0)
			abort();
	}
	pthread_attr_destroy(&attr);
	return NULL;
}

Server *
server_start(Script script, const char *cert, const char *key)
{
	return server_start_mutual(script, cert, key, NULL);
}

Server *
server_start_mutual(Script script, const char *cert, const char *key,
					const char *client_ca)
{
	Server	   *s = calloc(1, sizeof *s);
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t	len = sizeof address;

	pthread_mutex_init(&s->lock, NULL);
	s->script = script;
	if (cert != NULL)
	{
		s->tls = SSL_CTX_new(TLS_server_method());
		if (SSL_CTX_use_certificate_chain_file(s->tls, cert) != 1 ||
			SSL_CTX_use_PrivateKey_file(s->tls, key, SSL_FILETYPE_PEM) != 1)
			abort();
		if (client_ca != NULL)
		{
			if (SSL_CTX_load_verify_locations(s->tls, client_ca, NULL) != 1)
				abort();
			SSL_CTX_set_verify(s->tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
		}
	}
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	s->listen_fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(s->listen_fd, (struct sockaddr *) &address, sizeof address) < 0 ||
		listen(s->listen_fd, 2048) < 0 ||
		getsockname(s->listen_fd, (struct sockaddr *) &address, &len) < 0)
		abort();
	s->port = ntohs(address.sin_port);
	if (pthread_create(&s->acceptor, NULL, accept_all, s) != 0)
		abort();
	return s;
}

void
server_stop_listening(Server *s)
{
	pthread_mutex_lock(&s->lock);
	if (!s->stopping)
	{
		s->stopping = true;
		shutdown(s->listen_fd, SHUT_RDWR);
	}
	pthread_mutex_unlock(&s->lock);
}

/* Scripts that sleep are waited for. */
void
server_stop(Server *s)
{
	server_stop_listening(s);
	pthread_join(s->acceptor, NULL);
	close(s->listen_fd);
	for (;;)
	{
		int			open;

		pthread_mutex_lock(&s->lock);
		open = s->open;
		for (int i = 0; i < s->n_fds; i++)
			shutdown(s->fds[i], SHUT_RDWR);
		pthread_mutex_unlock(&s->lock);
		if (open == 0)
			break;
		sleep_ms(2);
	}
	sleep_ms(5);				/* the last thread is past its lock */
	SSL_CTX_free(s->tls);
	free(s->fds);
	free(s);
}

int
server_port(const Server *s)
{
	return s->port;
}

static int
read_locked(Server *s, const int *value)
{
	int			copy;

	pthread_mutex_lock(&s->lock);
	copy = *value;
	pthread_mutex_unlock(&s->lock);
	return copy;
}

int
server_requests(Server *s)
{
	return read_locked(s, &s->requests);
}

int
server_connections(Server *s)
{
	return read_locked(s, &s->connections);
}

int
server_peak(Server *s)
{
	return read_locked(s, &s->peak);
}

const Request *
server_last_request(Server *s)
{
	return &s->last;
}

bool
server_wait_requests(Server *s, int n)
{
	for (int i = 0; i < 5000; i++)
	{
		if (server_requests(s) >= n)
			return true;
		sleep_ms(1);
	}
	return false;
}
