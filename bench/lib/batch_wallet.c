/*
 * batch_wallet.c
 *	  A wallet for the benchmark of batches: it parses each request, checks that
 *	  each trade has what a wallet needs, and says that it is settled.  No ledger.
 *
 *	  batch_wallet PORT		one thread, one loop; prints nothing
 *
 * The same parser and the same checks for a trade alone and for one of a batch,
 * so that a comparison of the two is one of requests.
 */
#include <jansson.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODY_MAX	(8 * 1024 * 1024)
#define ANSWER_MAX	512

typedef struct Request
{
	char	   *body;
	size_t		length;
	size_t		size;
} Request;

static const char *
text_of(const json_t *object, const char *name)
{
	return json_string_value(json_object_get(object, name));
}

/* Has it all that a wallet books by? */
static int
is_trade(const json_t *trade)
{
	static const char *const needed[] = {
		"trade_id", "buyer_id", "seller_id", "base_currency", "quote_currency",
		"base_amount", "quote_amount", "buyer_fee", "seller_fee"
	};

	for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++)
		if (text_of(trade, needed[i]) == NULL)
			return 0;
	return 1;
}

/* The reply to one trade; its status.  The settlement id is the key. */
static int
answer(const json_t *trade, const char *key, char *out)
{
	if (key == NULL || strlen(key) != 36 || !is_trade(trade))
	{
		strcpy(out, "{\"error\":\"Bad Request\",\"message\":\"no trade\",\"code\":\"INVALID_REQUEST\"}");
		return 400;
	}
	snprintf(out, ANSWER_MAX,
			 "{\"success\":true,\"settlement_id\":\"%s\",\"trade_id\":\"%.64s\","
			 "\"buyer_reservation_released\":true,\"seller_reservation_released\":true,"
			 "\"message\":\"settled\"}", key, text_of(trade, "trade_id"));
	return 200;
}

static char *
answer_batch(const json_t *list)
{
	size_t		n = json_array_size(list);
	char	   *text = malloc(n * (ANSWER_MAX + 128) + 3);
	char	   *at = text;

	*at++ = '[';
	for (size_t i = 0; i < n; i++)
	{
		const json_t *item = json_array_get(list, i);
		const char *key = text_of(item, "idempotency_key");
		char		body[ANSWER_MAX];
		int			status = answer(json_object_get(item, "trade"), key, body);

		at += sprintf(at, "%s{\"idempotency_key\":\"%.36s\",\"status\":%d,\"body\":%s}",
					  i > 0 ? "," : "", key != NULL ? key : "", status, body);
	}
	strcpy(at, "]");
	return text;
}

static enum MHD_Result
reply(struct MHD_Connection *connection, int status, char *text)
{
	struct MHD_Response *response =
		MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result result;

	MHD_add_response_header(response, "Content-Type", "application/json");
	result = MHD_queue_response(connection, (unsigned) status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result
handle(struct MHD_Connection *connection, const char *url, const Request *request)
{
	json_t	   *body = json_loadb(request->body, request->length, JSON_REJECT_DUPLICATES, NULL);
	char	   *text;
	int			status = 200;

	if (strcmp(url, "/api/wallets/settle-batch") == 0 && json_is_array(body))
		text = answer_batch(body);
	else if (strcmp(url, "/api/wallets/settle") == 0)
	{
		text = malloc(ANSWER_MAX);
		status = answer(body, MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
														  "Idempotency-Key"), text);
	}
	else
	{
		text = strdup("{}");
		status = 404;
	}
	json_decref(body);
	return reply(connection, status, text);
}

static enum MHD_Result
on_request(void *unused, struct MHD_Connection *connection, const char *url,
		   const char *method, const char *version, const char *upload,
		   size_t *upload_size, void **slot)
{
	Request    *request = *slot;

	(void) unused, (void) method, (void) version;
	if (request == NULL)
	{
		*slot = calloc(1, sizeof *request);
		return MHD_YES;
	}
	if (*upload_size == 0)
		return handle(connection, url, request);
	if (request->length + *upload_size > BODY_MAX)
		return MHD_NO;
	while (request->length + *upload_size > request->size)
	{
		request->size = request->size > 0 ? request->size * 2 : 1024;
		request->body = realloc(request->body, request->size);
	}
	memcpy(request->body + request->length, upload, *upload_size);
	request->length += *upload_size;
	*upload_size = 0;
	return MHD_YES;
}

static void
on_completed(void *unused, struct MHD_Connection *connection, void **slot,
			 enum MHD_RequestTerminationCode code)
{
	Request    *request = *slot;

	(void) unused, (void) connection, (void) code;
	if (request != NULL)
		free(request->body);
	free(request);
	*slot = NULL;
}

/*
 * The library's own thread (0.9.75) now and then loses an event when more than
 * 128 come at a time; a loop around it does not.
 */
static void
run(struct MHD_Daemon *daemon)
{
	struct pollfd wait = {
		.fd = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd,
		.events = POLLIN
	};

	for (;;)
	{
		MHD_UNSIGNED_LONG_LONG ms;
		int			timeout = MHD_get_timeout(daemon, &ms) == MHD_YES ? (int) ms : -1;

		if (poll(&wait, 1, timeout) < 0 || MHD_run(daemon) != MHD_YES)
			return;
	}
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct MHD_Daemon *daemon;

	if (argc != 2)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	address.sin_port = htons((uint16_t) atoi(argv[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_TURBO, 0, NULL, NULL,
							  on_request, NULL,
							  MHD_OPTION_SOCK_ADDR, (struct sockaddr *) &address,
							  MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
							  MHD_OPTION_CONNECTION_LIMIT, 4096u,
							  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) 64 * 1024,
							  MHD_OPTION_END);
	if (daemon == NULL)
		return 1;
	run(daemon);
	return 1;
}
