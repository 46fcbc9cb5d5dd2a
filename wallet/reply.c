/*
 * reply.c
 *	  Making replies: JSON and errors.
 */
#include "reply.h"

#include <stdlib.h>
#include <string.h>

void
reply_free(Reply *reply)
{
	free(reply->body);
	free(reply->trailer);
	if (reply->stream != NULL)
		MHD_destroy_response(reply->stream);
	*reply = (Reply) {.retry_after = -1};
}

void
reply_set(Request *request, int status, char *body)
{
	reply_free(&request->reply);
	request->reply.status = status;
	request->reply.body = body;
	request->reply.length = body == NULL ? 0 : strlen(body);
}

void
reply_json(Request *request, int status, json_t *document)
{
	char	   *text = json_dumps(document, JSON_COMPACT);

	json_decref(document);
	if (text == NULL)
		status = 500;
	reply_set(request, status, text);
}

static json_t *
error_document(const Request *request, int status, const char *code, const char *message)
{
	const char *trade_id = request->has_trade && request->trade.trade_id[0] != '\0'
		? request->trade.trade_id : NULL;

	return json_pack("{s:s s:s s:s* s:s*}",
					 "error", status_reason(status),
					 "message", message,
					 "code", code,
					 "trade_id", trade_id);
}

void
reply_error(Request *request, int status, const char *code, const char *message)
{
	reply_json(request, status, error_document(request, status, code, message));
}

void
reply_stale_epoch(Request *request, int64_t seen)
{
	json_t	   *document = error_document(request, 412, "STALE_EPOCH",
										  "a higher epoch has been seen");

	if (document != NULL && json_object_set_new(document, "epoch", json_integer(seen)) != 0)
	{
		json_decref(document);
		document = NULL;
	}
	reply_json(request, 412, document);
}

const char *
status_reason(int status)
{
	const char *text = MHD_get_reason_phrase_for((unsigned int) status);

	return text == NULL ? "Error" : text;
}
