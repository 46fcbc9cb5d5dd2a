/*
 * http.c
 *	  The HTTP library, and only here: connections, requests in, replies out.
 *
 * libmicrohttpd runs inside our loop (no thread of its own) and never blocks.
 * A request is dispatched when its body is complete; if the handler parks it,
 * the connection is suspended until http_finish.
 */
#include "http.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gnutls/gnutls.h>

#include "reply.h"
#include "routes.h"
#include "settle_batch.h"

#define CONNECTIONS_MAX		4096
#define ACCEPTS_PER_TURN	256
#define IDLE_TIMEOUT_S		300

static Request *
request_create(Server *server, struct MHD_Connection *connection,
			   const char *method, const char *url)
{
	Request    *request = calloc(1, sizeof(Request));

	if (request == NULL)
		return NULL;
	request->server = server;
	request->connection = connection;
	request->peer = MHD_get_connection_info(connection,
											MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
	request->peer->requests++;
	request->reply = (Reply) {.retry_after = -1};
	request->epoch = -1;
	strncpy(request->method, method, sizeof(request->method) - 1);
	strncpy(request->path, url, sizeof(request->path) - 1);
	request->path_too_long = strlen(url) >= sizeof(request->path);
	request->next = server->requests;
	if (request->next != NULL)
		request->next->previous = request;
	server->requests = request;
	routes_find(request);
	return request;
}

static void
request_free(Request *request)
{
	Server	   *server = request->server;

	timers_cancel(&server->timers, &request->timer);
	server->in_flight -= request->counted;
	if (request->previous != NULL)
		request->previous->next = request->next;
	else
		server->requests = request->next;
	if (request->next != NULL)
		request->next->previous = request->previous;
	settle_batch_free(request);
	if (request->has_trade)
		trade_free(&request->trade);
	fault_release(&request->fault);
	reply_free(&request->reply);
	free(request->body);
	free(request);
}

static bool
append_body(Request *request, const char *data, size_t size)
{
	if (request->length + size > routes_body_max(request))
	{
		request->body_too_large = true;
		return true;
	}
	if (request->length + size + 1 > request->capacity)
	{
		size_t		capacity = request->capacity == 0 ? 1024 : request->capacity;
		char	   *body;

		while (capacity < request->length + size + 1)
			capacity *= 2;
		body = realloc(request->body, capacity);
		if (body == NULL)
			return false;
		request->body = body;
		request->capacity = capacity;
	}
	memcpy(request->body + request->length, data, size);
	request->length += size;
	request->body[request->length] = '\0';
	return true;
}

static struct MHD_Response *
make_response(Request *request)
{
	Reply	   *reply = &request->reply;
	struct MHD_Response *response = reply->stream;
	char		number[24];

	if (response == NULL)
		response = MHD_create_response_from_buffer(reply->length, reply->body,
												   MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
		return NULL;
	reply->body = NULL;
	reply->stream = NULL;
	MHD_add_response_header(response, "Content-Type",
							reply->content_type == NULL ? "application/json"
							: reply->content_type);
	if (reply->location != NULL)
		MHD_add_response_header(response, "Location", reply->location);
	if (reply->retry_after >= 0)
	{
		snprintf(number, sizeof(number), "%lld", (long long) reply->retry_after);
		MHD_add_response_header(response, "Retry-After", number);
	}
	return response;
}

/* connect(AF_UNSPEC) makes the kernel send the reset, and no FIN before it. */
static void
reset_connection(const Request *request)
{
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct linger at_once = {.l_onoff = 1, .l_linger = 0};

	setsockopt(request->peer->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	connect(request->peer->fd, &none, sizeof(none));
}

/* What does not fit into the socket's buffer is not sent. */
static void
send_raw(Request *request, const char *from, size_t left)
{
	const union MHD_ConnectionInfo *session = request->peer->tls
		? MHD_get_connection_info(request->connection,
								  MHD_CONNECTION_INFO_GNUTLS_SESSION) : NULL;

	while (left > 0)
	{
		ssize_t		n = session != NULL
			? gnutls_record_send((gnutls_session_t) session->tls_session, from, left)
			: send(request->peer->fd, from, left, MSG_NOSIGNAL);

		if (n <= 0)
			return;
		from += n;
		left -= (size_t) n;
	}
}

static enum MHD_Result
answer(Request *request)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	log_request(&request->server->log, request);
	switch (request->ending)
	{
		case END_CLOSE:
			return MHD_NO;
		case END_RESET:
			reset_connection(request);
			return MHD_NO;
		case END_RAW:
			send_raw(request, request->reply.body, request->reply.length);
			return MHD_NO;
		case END_REPLY:
			break;
	}
	response = make_response(request);
	if (response == NULL)
		return MHD_NO;
	result = MHD_queue_response(request->connection,
								(unsigned int) request->reply.status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result
on_request(void *cls, struct MHD_Connection *connection, const char *url,
		   const char *method, const char *version, const char *upload,
		   size_t *upload_size, void **slot)
{
	Request    *request = *slot;

	(void) version;
	if (request == NULL)
	{
		*slot = request = request_create(cls, connection, method, url);
		return request == NULL ? MHD_NO : MHD_YES;
	}
	if (*upload_size > 0)
	{
		if (!append_body(request, upload, *upload_size))
			return MHD_NO;
		*upload_size = 0;
		return MHD_YES;
	}
	if (request->state == REQUEST_READING)
	{
		/* nothing may be parked any more once the parked are released */
		if (request->server->stopping)
			return MHD_NO;
		routes_dispatch(request);
	}
	if (request->state == REQUEST_PARKED)
	{
		request->suspended = true;
		MHD_suspend_connection(connection);
		return MHD_YES;
	}
	return answer(request);
}

static void
on_completed(void *cls, struct MHD_Connection *connection, void **slot,
			 enum MHD_RequestTerminationCode code)
{
	Request    *request = *slot;

	(void) cls;
	(void) connection;
	if (request == NULL)
		return;
	if (code == MHD_REQUEST_TERMINATED_COMPLETED_OK && request->reply.trailer != NULL)
		send_raw(request, request->reply.trailer, request->reply.trailer_length);
	request_free(request);
	*slot = NULL;
}

static void
on_connection(void *cls, struct MHD_Connection *connection, void **slot,
			  enum MHD_ConnectionNotificationCode code)
{
	Server	   *server = cls;
	Peer	   *peer = *slot;

	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		peer = calloc(1, sizeof(Peer));
		if (peer == NULL)
			abort();			/* the library gives no way to refuse here */
		peer->fd = MHD_get_connection_info(connection,
										   MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		peer->tls = server->tls.enabled;
		peer->next = server->peers;
		if (peer->next != NULL)
			peer->next->previous = peer;
		server->peers = peer;
		*slot = peer;
		server->stats.connections++;
		tls_demand_certificate(&server->tls, connection);
		return;
	}
	if (peer == NULL)
		return;
	if (peer->previous != NULL)
		peer->previous->next = peer->next;
	else
		server->peers = peer->next;
	if (peer->next != NULL)
		peer->next->previous = peer->previous;
	free(peer);
	*slot = NULL;
}

bool
http_start(Server *server)
{
	struct MHD_OptionItem tls[4] = {{MHD_OPTION_END, 0, NULL}};
	unsigned int flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET |
		MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO;
	const union MHD_DaemonInfo *info;
	int			n = 0;

	if (server->tls.enabled)
	{
		flags |= MHD_USE_TLS;
		tls[n++] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_CERT, 0, server->tls.cert};
		tls[n++] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_KEY, 0, server->tls.key};
		if (server->tls.client_ca != NULL)
			tls[n++] = (struct MHD_OptionItem) {MHD_OPTION_HTTPS_MEM_TRUST, 0,
				server->tls.client_ca};
		tls[n] = (struct MHD_OptionItem) {MHD_OPTION_END, 0, NULL};
	}
	server->daemon =
		MHD_start_daemon(flags, 0, NULL, NULL, on_request, server,
						 MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
						 MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
						 MHD_OPTION_CONNECTION_LIMIT, (unsigned int) CONNECTIONS_MAX,
						 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) IDLE_TIMEOUT_S,
						 MHD_OPTION_ARRAY, tls,
						 MHD_OPTION_END);
	if (server->daemon == NULL)
		return false;
	info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL)
		return false;
	server->daemon_fd = info->epoll_fd;
	return true;
}

void
http_stop(Server *server)
{
	if (server->daemon == NULL)
		return;
	for (Request *request = server->requests; request != NULL; request = request->next)
	{
		timers_cancel(&server->timers, &request->timer);
		request->ending = END_CLOSE;
		if (request->suspended)
			http_finish(request);
	}
	MHD_run(server->daemon);
	MHD_stop_daemon(server->daemon);
	server->daemon = NULL;
}

void
http_accept(Server *server, int listen_fd)
{
	for (int i = 0; i < ACCEPTS_PER_TURN; i++)
	{
		struct sockaddr_storage address;
		socklen_t	length = sizeof(address);
		int			fd = accept4(listen_fd, (struct sockaddr *) &address, &length,
								 SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd == -1)
			return;
		MHD_add_connection(server->daemon, fd, (struct sockaddr *) &address, length);
	}
}

void
http_run(Server *server)
{
	MHD_run(server->daemon);
}

int
http_wait_ms(Server *server)
{
	MHD_UNSIGNED_LONG_LONG wait;

	if (MHD_get_timeout(server->daemon, &wait) != MHD_YES)
		return -1;
	return wait > 60000 ? 60000 : (int) wait;
}

void
http_finish(Request *request)
{
	request->state = REQUEST_READY;
	if (request->suspended)
	{
		request->suspended = false;
		MHD_resume_connection(request->connection);
	}
}

void
http_suspend_writing(Request *request)
{
	request->suspended = true;
	MHD_suspend_connection(request->connection);
}

void
http_resume_writing(Request *request)
{
	request->suspended = false;
	MHD_resume_connection(request->connection);
}

bool
http_client_left(const Request *request)
{
	struct pollfd probe = {.fd = request->peer->fd, .events = POLLRDHUP};

	return poll(&probe, 1, 0) == 1 &&
		(probe.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/*
 * The HTTP library notices the failure of a stream's first piece only with the
 * next event on the socket (0.9.75): this is one.
 */
void
http_hang_up(const Request *request)
{
	shutdown(request->peer->fd, SHUT_RDWR);
}

void
http_drop_connections(Server *server, const Request *except)
{
	for (Peer *peer = server->peers; peer != NULL; peer = peer->next)
		if (except == NULL || peer != except->peer)
			shutdown(peer->fd, SHUT_RDWR);
}

const char *
http_header(const Request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

const char *
http_query(const Request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}
