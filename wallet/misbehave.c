/*
 * misbehave.c
 *	  What a rule of misbehaviour does to one request.
 *
 * Most of it only changes the reply.  A truncated and a dripping reply are
 * streams to the HTTP library: one that fails half-way, and one that suspends its
 * own connection between pieces.
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

/* The HTTP library sends one reply; the other goes straight to the socket. */
static void
send_twice(Request *request)
{
	Reply	   *reply = &request->reply;
	int			head;

	reply->trailer = malloc(reply->length + 512);
	if (reply->trailer == NULL)
		return;
	head = snprintf(reply->trailer, 512,
					"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
					"Content-Length: %zu\r\n\r\n",
					reply->status, status_reason(reply->status), reply->length);
	if (reply->length > 0)
		memcpy(reply->trailer + head, reply->body, reply->length);
	reply->trailer_length = (size_t) head + reply->length;
}

static void
send_wrong_key(Request *request)
{
	char		key[UUID_LEN + 1];

	uuid_make(key);
	replace_member(request, "idempotency_key", json_string(key));
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

/* A reply that is written piece by piece. */
typedef struct Stream
{
	Request    *request;
	char	   *body;
	size_t		length;			/* as promised by Content-Length */
	size_t		end;			/* fail after so many bytes; length: do not */
	size_t		piece;			/* bytes per interval; 0: as fast as can be */
	bool		may_send;
} Stream;

static void
stream_go_on(void *argument)
{
	Stream	   *stream = argument;

	stream->may_send = true;
	http_resume_writing(stream->request);
}

/* True: the connection sleeps, stream_go_on will wake it. */
static bool
sleep_before_piece(Stream *stream)
{
	Request    *request = stream->request;
	int64_t		due = time_monotonic_us() + request->fault.plan.interval_ms * 1000;

	if (stream->piece == 0 || stream->may_send ||
		!timers_set(&request->server->timers, &request->timer, due, stream_go_on, stream))
		return false;
	http_suspend_writing(request);
	return true;
}

static ssize_t
stream_read(void *cls, uint64_t position, char *out, size_t max)
{
	Stream	   *stream = cls;
	size_t		n = stream->end - (size_t) position;

	if (n == 0 || stream->request->ending == END_CLOSE) /* the program ends */
	{
		http_hang_up(stream->request);
		return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	if (sleep_before_piece(stream))
		return 0;
	stream->may_send = false;
	if (stream->piece != 0 && n > stream->piece)
		n = stream->piece;
	n = n > max ? max : n;
	memcpy(out, stream->body + position, n);
	return (ssize_t) n;
}

static void
stream_free(void *cls)
{
	Stream	   *stream = cls;

	free(stream->body);
	free(stream);
}

static void
send_stream(Request *request, size_t length, size_t end, size_t piece)
{
	Reply	   *reply = &request->reply;
	Stream	   *stream = malloc(sizeof(Stream));

	if (stream == NULL)
		return;
	*stream = (Stream) {.request = request, .body = reply->body, .length = length,
		.end = end, .piece = piece};
	reply->stream = MHD_create_response_from_callback(length, 16 * 1024, stream_read,
													  stream, stream_free);
	if (reply->stream == NULL)
		free(stream);
	else
		reply->body = NULL;
}

static void
send_truncated(Request *request)
{
	size_t		length = request->reply.length;
	int64_t		bytes = request->fault.plan.bytes;
	size_t		end = bytes == -1 ? length / 2 : (size_t) bytes;

	/* something must be missing, so promise a byte when there is none */
	if (length == 0)
		length = 1;
	send_stream(request, length, end < length ? end : length - 1, 0);
}

static void
send_dripping(Request *request)
{
	int64_t		bytes = request->fault.plan.bytes;

	send_stream(request, request->reply.length, request->reply.length,
				bytes < 1 ? 1 : (size_t) bytes);
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
		case ACTION_WRONG_KEY:
			send_wrong_key(request);
			break;
		default:
			break;				/* pass */
	}
}

/* A reply of the rule's own; false when it works on the true one, or on none. */
static bool
send_own(Request *request)
{
	switch (request->fault.plan.action)
	{
		case ACTION_STATUS:
			send_status(request);
			return true;
		case ACTION_GARBAGE:
			send_garbage(request);
			return true;
		case ACTION_HTML:
			send_html(request);
			return true;
		case ACTION_EMPTY:
			reply_set(request, request->fault.plan.status, NULL);
			return true;
		case ACTION_RAW:
			use_given_body(request);
			return true;
		default:
			return false;
	}
}

void
misbehave(Request *request)
{
	bool		own = send_own(request);

	switch (request->fault.plan.action)
	{
		case ACTION_RAW:
			request->ending = END_RAW;
			break;
		case ACTION_CLOSE:
		case ACTION_LEAVE_OUT:	/* nothing else is left of it */
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
			if (!own)
				distort(request);
			break;
	}
	use_given_head(request);
	http_finish(request);
}

bool
misbehave_item(Request *item)
{
	switch (item->fault.plan.action)
	{
		case ACTION_CLOSE:
		case ACTION_RESET:
		case ACTION_HANG:
		case ACTION_REFUSE:
		case ACTION_STALL:
		case ACTION_TRUNCATE:
		case ACTION_DRIP:
			return false;
		case ACTION_TWICE:
		case ACTION_LEAVE_OUT:
		case ACTION_WRONG_KEY:
			use_given_body(item);	/* the rest is done to the list */
			break;
		default:
			if (!send_own(item))
				distort(item);
	}
	use_given_head(item);
	return true;
}
