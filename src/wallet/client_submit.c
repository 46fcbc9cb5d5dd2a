/*
 * client_submit.c
 *	  From a trade, or several, to a request in flight.  What cannot start is put
 *	  with those that ended, and reported as they are.
 */
#include "wallet/client_private.h"

#include <stdlib.h>
#include <string.h>

#define BODY_FIRST		1024	/* first size of a request body's buffer */
#define BODY_MAX		65536
#define PATH_MAX_LEN	256

/* Bound of the reply to a batch, which has max_response_size for each trade. */
#define BATCH_REPLY_MAX	((size_t) 64 << 20)

/* The body into the attempt's buffer, which grows as needed; -1 when it cannot. */
static int
write_body(const WalletClient *client, Attempt *a, int format,
		   const WalletTrade *trade)
{
	size_t		size = a->body_size > 0 ? a->body_size : BODY_FIRST;

	for (;;)
	{
		int			len;

		if (size > a->body_size)
		{
			char	   *grown = realloc(a->body, size);

			if (grown == NULL)
				return -1;
			a->body = grown;
			a->body_size = size;
		}
		len = client->adapter->request_body(format, trade, a->body, a->body_size);
		if (len >= 0 || size >= BODY_MAX)
			return len;
		size *= 2;
	}
}

static bool
is_key(const char *key)
{
	return strlen(key) == IDEMPOTENCY_KEY_LEN &&
		strspn(key, "0123456789abcdefABCDEF-") == IDEMPOTENCY_KEY_LEN;
}

/* Start it, or say why it cannot be. */
static const char *
start(WalletClient *client, Attempt *a, const WalletTrade *trade, int format,
	  int64_t epoch, const char *traceparent)
{
	HttpRequest request = {.epoch = epoch,.traceparent = traceparent};
	char		path[PATH_MAX_LEN];
	int			len = 0;

	a->why = TRANSPORT_OTHER;
	if (a->exchange == NULL)
		a->exchange = http_exchange_create(client->http, a);
	if (a->exchange == NULL)
		return "out of memory";
	a->why = TRANSPORT_UNSENDABLE;
	if (a->key[0] == '\0')
		return "the idempotency key is not a UUID";
	if (trade != NULL)
		len = write_body(client, a, format, trade);
	if (len < 0 || (trade == NULL && a->verb == WALLET_SETTLE))
		return "the request is too long, not UTF-8 or of an unknown format";
	if (a->verb == WALLET_SETTLE)
	{
		request.method = HTTP_POST;
		request.body = a->body;
		request.body_len = (size_t) len;
		request.key = a->key;
	}
	else
	{
		if (client->adapter->lookup_path(a->key, path, sizeof path) < 0)
			return "the look-up's path is too long";
		request.method = HTTP_GET;
		request.path = path;
	}
	http_start(a->exchange, &request);
	return NULL;
}

/* It could not start: reported like any other end. */
static void
fail(WalletClient *client, Attempt *a)
{
	a->next_failed = NULL;
	*client->failed_end = a;
	client->failed_end = &a->next_failed;
}

bool
wallet_client_submit(WalletClient *client, WalletVerb verb,
					 const WalletTrade *trade,
					 const char key[IDEMPOTENCY_KEY_LEN + 1],
					 int format, int64_t epoch,
					 const char *traceparent, void *context)
{
	Attempt    *a;

	client_release_reported(client);
	if (client->n_free == 0)
		return false;
	a = client->free_attempts[--client->n_free];
	a->busy = true;
	a->is_batch = false;
	a->verb = verb;
	a->context = context;
	a->key[0] = '\0';
	if (is_key(key))
		memcpy(a->key, key, sizeof a->key);
	if (a->body != NULL)
		a->body[0] = '\0';
	a->unsendable = start(client, a, trade, format, epoch, traceparent);
	if (a->unsendable != NULL)
		fail(client, a);
	client->in_flight++;
	return true;
}

/* ---- several trades in one request ---- */

bool
wallet_batch_begin(WalletClient *client)
{
	Attempt    *a;

	client_release_reported(client);
	if (client->n_free == 0 || client->adapter->batch_path == NULL)
		return false;
	a = client->free_attempts[client->n_free - 1];
	if (a->exchange == NULL)
		a->exchange = http_exchange_create(client->http, a);
	if (a->batch == NULL)
		a->batch = batch_create(client->adapter);
	if (a->exchange == NULL || a->batch == NULL)
		return false;
	client->n_free--;
	batch_clear(a->batch);
	a->busy = a->is_batch = true;
	a->verb = WALLET_SETTLE;
	a->unsendable = NULL;
	client->building = a;
	return true;
}

bool
wallet_batch_add(WalletClient *client, const WalletTrade *trade,
				 const char key[IDEMPOTENCY_KEY_LEN + 1], int format, int64_t epoch,
				 const char *traceparent, void *context)
{
	BatchAdd	added = BATCH_UNWRITABLE;

	if (is_key(key))
		added = batch_add(client->building->batch, format, trade, key, traceparent, context);
	if (added == BATCH_ADDED)
		client->in_flight++;
	if (added == BATCH_ADDED || added == BATCH_FULL)
		return added == BATCH_ADDED;
	return wallet_client_submit(client, WALLET_SETTLE, trade, key, format, epoch,
								traceparent, context);
}

void
wallet_batch_send(WalletClient *client, int64_t epoch)
{
	Attempt    *a = client->building;
	HttpRequest request = {.method = HTTP_POST_BATCH,.epoch = epoch};
	size_t		n = (size_t) a->batch->n;

	client->building = NULL;
	if (n == 0)
	{
		a->busy = false;
		client->free_attempts[client->n_free++] = a;
		return;
	}
	if (!batch_finish(a->batch))
	{
		a->unsendable = "out of memory";
		a->why = TRANSPORT_OTHER;
		fail(client, a);
		return;
	}
	request.body = a->batch->bytes;
	request.body_len = a->batch->len;
	request.max_reply = client->max_reply > BATCH_REPLY_MAX / n ?
		BATCH_REPLY_MAX : client->max_reply * n;
	if (request.max_reply < client->max_reply)
		request.max_reply = client->max_reply;
	http_start(a->exchange, &request);
}
