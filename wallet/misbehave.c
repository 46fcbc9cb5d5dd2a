/*
 * misbehave.c
 *	  What a rule of misbehaviour does to one request.
 *
 * Most of it only changes the reply.  Lies about lengths are told through the
 * HTTP library's leave to set Content-Length by hand; a drip is a reply that
 * suspends its own connection between pieces.
 */
#include "misbehave.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "reply.h"

#define HANG_PROBE_US	500000

/* The JSON of the true reply, to be changed; NULL when it has none. */
static json_t *
true_reply(const Request *request)
{
	if (request->reply.body == NULL)
		return NULL;
	return json_loadb(request->reply.body, request->reply.length, 0, NULL);
}

static void
replace_member(Request *request, const char *name, json_t *value)
{
	json_t	   *document = true_reply(request);

	if (value == NULL)
		json_object_del(document, name);
	else
		json_object_set_new(document, name, value);
	if (document != NULL)
		reply_json(request, request->reply.status, document);
}

/* The rule's own body, when it has one, takes the place of the true reply. */
static void
use_given_body(Request *request)
{
	const FaultPlan *plan = &request->fault.plan;
	int			status = request->reply.status != 0 ? request->reply.status : 200;

	if (plan->body != NULL)
	{
		char	   *copy = malloc(plan->body_length + 1);

		if (copy != NULL)
			memcpy(copy, plan->body, plan->body_length + 1);
		reply_set(request, status, copy);
		request->reply.length = copy == NULL ? 0 : plan->body_length;
	}
}

/* Last of all, because making a body forgets the headers. */
static void
use_given_head(Request *request)
{
	const FaultPlan *plan = &request->fault.plan;

	if (plan->status != 0)
		request->reply.status = plan->status;
	if (plan->content_type != NULL)
		request->reply.content_type = plan->content_type;
	else if (plan->action == ACTION_HTML)
		request->reply.content_type = "text/html";
	request->reply.location = plan->location;
	request->reply.retry_after = plan->retry_after;
}

static void
send_status(Request *request)
{
	if (request->fault.plan.body == NULL)
		reply_json(request, request->fault.plan.status,
				   json_pack("{s:s s:s}",
							 "error", status_reason(request->fault.plan.status),
							 "message", "scripted misbehaviour"));
	use_given_body(request);
}

static void
send_garbage(Request *request)
{
	int64_t		size = request->fault.plan.bytes == -1 ? 64 : request->fault.plan.bytes;
	char	   *bytes = malloc((size_t) size + 1);
	uint64_t	state = request->fault.random | 1;

	if (bytes != NULL)
	{
		for (int64_t i = 0; i < size; i++)
		{
			state ^= state << 13;
			state ^= state >> 7;
			state ^= state << 17;
			bytes[i] = (char) (state | 0x80);	/* never JSON, never UTF-8 */
		}
		bytes[size] = '\0';
	}
	reply_set(request, request->fault.plan.status, bytes);
	request->reply.length = bytes == NULL ? 0 : (size_t) size;
	use_given_body(request);
}

static void
send_html(Request *request)
{
	char	   *page;
	int			status = request->fault.plan.status;

	if (asprintf(&page, "<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n"
				 "<center><h1>%d %s</h1></center>\r\n<hr><center>proxy</center>\r\n"
				 "</body>\r\n</html>\r\n",
				 status, status_reason(status), status, status_reason(status)) < 0)
		page = NULL;
	reply_set(request, status, page);
	use_given_body(request);
}

static void
send_truncated(Request *request)
{
	int64_t		length = (int64_t) request->reply.length;
	int64_t		sent = request->fault.plan.bytes == -1 ? length / 2
		: request->fault.plan.bytes;

	if (sent >= length)
		sent = length == 0 ? 0 : length - 1;
	request->reply.promised = length == 0 ? 1 : length;
	request->reply.length = (size_t) sent;
}

/* The second reply is body as far as the HTTP library knows. */
static void
send_twice(Request *request)
{
	Reply	   *reply = &request->reply;
	size_t		length = reply->length;
	char	   *both;
	int			head = -1;

	both = malloc(length * 2 + 512);
	if (both != NULL)
	{
		memcpy(both, reply->body, length);
		head = snprintf(both + length, 512,
						"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
						"Content-Length: %zu\r\n\r\n",
						reply->status, status_reason(reply->status), length);
	}
	if (head < 0 || head >= 512)
	{
		free(both);
		return;
	}
	memcpy(both + length + head, reply->body, length);
	free(reply->body);
	reply->body = both;
	reply->length = length * 2 + (size_t) head;
	reply->promised = (int64_t) length;
}

static void
send_oversize(Request *request)
{
	int64_t		size = request->fault.plan.bytes == -1 ? 1 << 20
		: request->fault.plan.bytes;
	char	   *padding = malloc((size_t) size + 1);

	if (padding == NULL)
		return;
	memset(padding, 'x', (size_t) size);
	padding[size] = '\0';
	replace_member(request, "padding", json_string(padding));
	free(padding);
}

/* A reply in small pieces. */
typedef struct Drip
{
	Request    *request;
	char	   *body;
	size_t		length;
	size_t		piece;
	bool		may_send;
} Drip;

static void
drip_go_on(void *argument)
{
	Drip	   *drip = argument;

	drip->may_send = true;
	http_resume_writing(drip->request);
}

static ssize_t
drip_read(void *cls, uint64_t position, char *out, size_t max)
{
	Drip	   *drip = cls;
	Request    *request = drip->request;
	size_t		left = drip->length - (size_t) position;
	size_t		n = drip->piece;

	if (request->ending == END_CLOSE)
		return MHD_CONTENT_READER_END_WITH_ERROR;	/* the program ends */
	if (!drip->may_send)
	{
		int64_t		due = time_monotonic_us() + request->fault.plan.interval_ms * 1000;

		if (timers_set(&request->server->timers, &request->timer, due, drip_go_on, drip))
		{
			http_suspend_writing(request);
			return 0;
		}
	}
	drip->may_send = false;
	n = n > left ? left : n;
	n = n > max ? max : n;
	memcpy(out, drip->body + position, n);
	return (ssize_t) n;
}

static void
drip_free(void *cls)
{
	Drip	   *drip = cls;

	free(drip->body);
	free(drip);
}

static void
send_dripping(Request *request)
{
	Reply	   *reply = &request->reply;
	int64_t		bytes = request->fault.plan.bytes;
	Drip	   *drip = malloc(sizeof(Drip));

	if (drip == NULL)
		return;
	*drip = (Drip) {.request = request, .body = reply->body, .length = reply->length,
		.piece = bytes < 1 ? 1 : (size_t) bytes};
	reply->stream = MHD_create_response_from_callback(reply->length, 1024, drip_read,
													  drip, drip_free);
	if (reply->stream == NULL)
		free(drip);
	else
		reply->body = NULL;
}

/* Until ms are over, or the client has had enough. */
static void
hang(void *argument)
{
	Request    *request = argument;
	int64_t		now = time_monotonic_us();
	FaultPlan  *plan = &request->fault.plan;
	int64_t		next = plan->ms * 1000 < HANG_PROBE_US ? plan->ms * 1000 : HANG_PROBE_US;

	plan->ms -= next / 1000;
	if (plan->ms < 0 || next <= 0 || http_client_left(request) ||
		!timers_set(&request->server->timers, &request->timer, now + next, hang, request))
	{
		request->ending = END_CLOSE;
		http_finish(request);
	}
}

static void
refuse_connections(Request *request)
{
	Server	   *server = request->server;

	listener_refuse(&server->listener,
					time_monotonic_us() + request->fault.plan.ms * 1000);
	http_drop_connections(server, request);
	request->ending = END_CLOSE;
}

static void
distort(Request *request)
{
	use_given_body(request);
	use_given_head(request);
	switch (request->fault.plan.action)
	{
		case ACTION_TRUNCATE:
			send_truncated(request);
			break;
		case ACTION_DRIP:
			send_dripping(request);
			break;
		case ACTION_TWICE:
			send_twice(request);
			break;
		case ACTION_WRONG_TRADE_ID:
			replace_member(request, "trade_id", json_string("another-trade"));
			break;
		case ACTION_SUCCESS_STRING:
			replace_member(request, "success", json_string("true"));
			break;
		case ACTION_NO_SETTLEMENT_ID:
			replace_member(request, "settlement_id", NULL);
			break;
		case ACTION_OVERSIZE:
			send_oversize(request);
			break;
		default:
			break;				/* pass */
	}
}

void
misbehave(Request *request)
{
	switch (request->fault.plan.action)
	{
		case ACTION_STATUS:
			send_status(request);
			break;
		case ACTION_GARBAGE:
			send_garbage(request);
			break;
		case ACTION_HTML:
			send_html(request);
			break;
		case ACTION_EMPTY:
			reply_set(request, request->fault.plan.status, NULL);
			break;
		case ACTION_RAW:
			use_given_body(request);
			request->ending = END_RAW;
			break;
		case ACTION_CLOSE:
			request->ending = END_CLOSE;
			break;
		case ACTION_RESET:
			request->ending = END_RESET;
			break;
		case ACTION_REFUSE:
			refuse_connections(request);
			break;
		case ACTION_STALL:
			listener_stall(&request->server->listener,
						   time_monotonic_us() + request->fault.plan.ms * 1000);
			request->ending = END_CLOSE;
			break;
		case ACTION_HANG:
			hang(request);
			return;
		default:
			distort(request);
			break;
	}
	use_given_head(request);
	http_finish(request);
}
