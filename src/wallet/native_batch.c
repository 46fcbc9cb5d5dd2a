/*
 * native_batch.c
 *	  The native contract's form of a batch:
 *
 *	  [{"idempotency_key":"...","traceparent":"...","trade":{...}}, ...]
 *	  [{"idempotency_key":"...","status":200,"retry_after":1,"body":{...}}, ...]
 *
 * Keeps true: a trade has the bytes that it has when it is sent alone, so that
 * the wallet can tell that both are the same request; an answer is taken by its
 * key and never by its place.  The reply is untrusted.  Allocates only inside
 * jansson; no I/O.
 *
 * What native.c says of json_object() holds here too.
 */
#include "wallet/native_batch.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "wallet/json.h"

int
native_batch_item(bool first, const char *key, const char *traceparent, int format,
				  const WalletTrade *trade, char *out, size_t outlen,
				  size_t *body, size_t *body_len)
{
	bool		traced = traceparent != NULL;
	int			head;
	int			len;

	head = snprintf(out, outlen, "%c{\"idempotency_key\":\"%s\"%s%s%s,\"trade\":",
					first ? '[' : ',', key, traced ? ",\"traceparent\":\"" : "",
					traced ? traceparent : "", traced ? "\"" : "");
	if (head < 0 || (size_t) head >= outlen)
		return -1;
	len = native_adapter.request_body(format, trade, out + head, outlen - (size_t) head);
	if (len < 0 || (size_t) head + (size_t) len + 2 > outlen)
		return -1;
	*body = (size_t) head;
	*body_len = (size_t) len;
	strcpy(out + head + len, "}");
	return head + len + 1;
}

void *
native_open_batch(const char *reply, size_t reply_len, size_t *n)
{
	json_t	   *list = json_read(reply, reply_len);

	if (!json_is_array(list))
	{
		json_decref(list);
		return NULL;
	}
	*n = json_array_size(list);
	return list;
}

/*
 * A status that speaks of one trade.  401, 403 and 3xx speak of the request as a
 * whole, which got another one.
 */
static bool
is_item_status(json_int_t status)
{
	return (status >= 200 && status <= 299) ||
		(status >= 400 && status <= 599 && status != 401 && status != 403);
}

static int64_t
retry_after_ms(const json_t *item)
{
	const json_t *seconds = json_object_get(item, "retry_after");
	json_int_t	value = json_integer_value(seconds);

	if (!json_is_integer(seconds) || value < 0)
		return -1;
	return value > INT64_MAX / 1000 ? INT64_MAX : (int64_t) value * 1000;
}

bool
native_open_item(const void *batch, size_t i, ItemAnswer *answer)
{
	const json_t *item = json_array_get(batch, i);
	json_int_t	status = json_integer_value(json_object_get(item, "status"));

	answer->key = json_string_value(json_object_get(item, "idempotency_key"));
	answer->status = is_item_status(status) ? (int) status : 0;
	answer->retry_after_ms = retry_after_ms(item);
	answer->body = json_object_get(item, "body");
	return answer->key != NULL;
}

void
native_close_batch(void *batch)
{
	json_decref(batch);
}
