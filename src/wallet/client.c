/*
 * client.c
 *	  The wallet client: an adapter's words over the HTTP of http.h.
 *
 * Keeps true: a trade that was taken by wallet_client_submit or wallet_batch_add
 * comes out of wallet_client_next exactly once; at most max_connections requests
 * are in flight; no secret is in a result.
 */
#include "wallet/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wallet/adapter.h"
#include "wallet/batch.h"
#include "wallet/http.h"
#include "wallet/json.h"

#define BODY_FIRST		1024	/* first size of a request body's buffer */
#define BODY_MAX		65536
#define PATH_MAX_LEN	256

/* Bound of the reply to a batch, which has max_response_size for each trade. */
#define BATCH_REPLY_MAX	((size_t) 64 << 20)

/* One request. */
typedef struct Attempt
{
	HttpExchange *exchange;		/* made once, used again */
	bool		busy;
	Batch	   *batch;			/* made once, used again */
	bool		is_batch;		/* what follows on key and body is not of it */
	WalletVerb	verb;
	void	   *context;
	char		key[IDEMPOTENCY_KEY_LEN + 1];
	char	   *body;
	size_t		body_size;
	const char *unsendable;		/* why it could not start */
	Transport	why;			/* the same for the outcome */
	struct Attempt *next_failed;
} Attempt;

struct WalletClient
{
	const WalletAdapter *adapter;
	Http	   *http;
	char	   *secret;			/* the authorization, or NULL */
	int			max_attempts;
	int			in_flight;
	Attempt    *attempts;
	Attempt   **free_attempts;	/* a stack: the last used is the warmest */
	int			n_free;
	Attempt    *failed;			/* could not start; first in, first out */
	Attempt   **failed_end;
	Attempt    *building;		/* a batch between begin and send */
	Attempt    *open;			/* an ended batch that is being reported */
	int			open_next;		/* ... its item that comes next */
	bool		open_by_item;	/* ... its reply answers each by its key */
	Attempt    *reported;		/* whose result the caller is reading */
	size_t		max_reply;
	WalletResult result;
};

const char *
wallet_global_init(void)
{
	json_global_init();
	return http_global_init();
}

const char *
wallet_check_url(const char *url)
{
	return http_check_url(url);
}

static bool
is_set(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* A header value: printable, so that it cannot make a header of its own. */
static bool
is_header_value(const char *text)
{
	for (; *text != '\0'; text++)
		if (((unsigned char) *text < 0x20 && *text != '\t') || *text == 0x7f)
			return false;
	return true;
}

/* NULL when the configuration can be used. */
static const char *
check_config(const WalletConfig *config)
{
	const char *problem;

	if (!is_set(config->adapter) || wallet_adapter_by_name(config->adapter) == NULL)
		return "there is no wallet adapter of this name";
	if (!is_set(config->url))
		return "no wallet URL is set";
	problem = wallet_check_url(config->url);
	if (problem != NULL)
		return problem;
	if (http_url_is_plain(config->url))
	{
		if (config->plain_http == PLAIN_HTTP_NEVER)
			return "plain http is not allowed";
		if (config->plain_http == PLAIN_HTTP_LOOPBACK &&
			!http_url_is_loopback(config->url))
			return "plain http is allowed to loopback addresses only";
	}
	if (is_set(config->authorization) && !is_header_value(config->authorization))
		return "the authorization holds a control character";
	if (config->max_connections < 1)
		return "at least one connection is needed";
	if (config->request_timeout_ms < 1 || config->connect_timeout_ms < 1)
		return "timeouts must be at least 1 ms";
	if (config->max_response_size < 1)
		return "the maximum size of a reply must be at least 1 byte";
	return NULL;
}

static bool
client_fill(WalletClient *client, const WalletConfig *config)
{
	size_t		n = (size_t) config->max_connections;

	client->max_attempts = config->max_connections;
	client->max_reply = config->max_response_size;
	client->failed_end = &client->failed;
	client->attempts = calloc(n, sizeof *client->attempts);
	client->free_attempts = calloc(n, sizeof(Attempt *));
	if (is_set(config->authorization))
	{
		client->secret = strdup(config->authorization);
		if (client->secret == NULL)
			return false;
	}
	if (client->attempts == NULL || client->free_attempts == NULL)
		return false;
	for (size_t i = n; i > 0; i--)
		client->free_attempts[client->n_free++] = &client->attempts[i - 1];
	return true;
}

WalletClient *
wallet_client_create(const WalletConfig *config, char *err, size_t errlen)
{
	const char *problem = check_config(config);
	WalletClient *client;
	HttpConfig	http = {0};

	if (problem != NULL)
	{
		snprintf(err, errlen, "%s", problem);
		return NULL;
	}
	client = calloc(1, sizeof *client);
	if (client == NULL || !client_fill(client, config))
	{
		snprintf(err, errlen, "out of memory");
		wallet_client_destroy(client);
		return NULL;
	}
	client->adapter = wallet_adapter_by_name(config->adapter);
	http.url = config->url;
	http.post_path = client->adapter->settle_path;
	http.batch_path = client->adapter->batch_path;
	http.authorization = config->authorization;
	http.ca_file = config->ca_file;
	http.cert_file = config->cert_file;
	http.key_file = config->key_file;
	http.loopback_only = config->plain_http == PLAIN_HTTP_LOOPBACK &&
		http_url_is_plain(config->url);
	http.connect_timeout_ms = config->connect_timeout_ms;
	http.request_timeout_ms = config->request_timeout_ms;
	http.max_reply = config->max_response_size;
	http.max_connections = config->max_connections;
	http.inspect = config->inspect;
	client->http = http_create(&http, err, errlen);
	if (client->http == NULL)
	{
		wallet_client_destroy(client);
		return NULL;
	}
	return client;
}

void
wallet_client_destroy(WalletClient *client)
{
	if (client == NULL)
		return;
	http_destroy(client->http);
	for (int i = 0; client->attempts != NULL && i < client->max_attempts; i++)
	{
		free(client->attempts[i].body);
		batch_destroy(client->attempts[i].batch);
	}
	if (client->secret != NULL)
		memset(client->secret, 0, strlen(client->secret));
	free(client->secret);
	free(client->attempts);
	free(client->free_attempts);
	free(client);
}

bool
wallet_rejection_is_final(const WalletClient *client)
{
	return client->adapter->rejection_is_final;
}

int
wallet_request_format(const WalletClient *client)
{
	return client->adapter->format;
}

int
wallet_request_body(const WalletClient *client, int format,
					const WalletTrade *trade, char *out, size_t outlen)
{
	return client->adapter->request_body(format, trade, out, outlen);
}

/* ---- submitting ---- */

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

/* What the caller was reading is his no more. */
static void
release_reported(WalletClient *client)
{
	Attempt    *a = client->reported;

	if (a == NULL)
		return;
	client->reported = NULL;
	if (a->unsendable == NULL)
		http_release(a->exchange);
	if (a->is_batch)
		batch_clear(a->batch);
	a->busy = false;
	client->free_attempts[client->n_free++] = a;
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

	release_reported(client);
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

	release_reported(client);
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

int
wallet_client_in_flight(const WalletClient *client)
{
	return client->in_flight;
}

int
wallet_client_fd(const WalletClient *client)
{
	return http_fd(client->http);
}

int
wallet_client_timeout_ms(const WalletClient *client)
{
	return client->failed != NULL || client->open != NULL ? 0 :
		http_timeout_ms(client->http);
}

void
wallet_client_run(WalletClient *client)
{
	release_reported(client);
	http_run(client->http);
}

/* ---- results ---- */

static void
read_reply(WalletClient *client, Attempt *a, const HttpReply *reply)
{
	WalletResult *result = &client->result;
	ReplyContext context = {
		.verb = a->verb,
		.key = a->key,
		.request = a->body != NULL ? a->body : "",
		.secret = client->secret,
		.reply = reply->body,
		.reply_len = reply->body_len,
	};

	client->adapter->read_reply(&context, result);
	if (result->facts.echo_mismatch)
		http_distrust_connection(a->exchange);
}

/* What is said to several trades at once settles none and rejects none. */
static void
read_refusal(WalletClient *client, const HttpReply *reply)
{
	WalletResult *result = &client->result;
	AttemptFacts *facts = &result->facts;
	ReplyContext context = {
		.verb = WALLET_SETTLE,
		.key = "",
		.request = "",
		.secret = client->secret,
		.reply = reply->body,
		.reply_len = reply->body_len,
	};

	client->adapter->read_reply(&context, result);
	facts->success = -1;
	facts->has_settlement_id = facts->echo_mismatch = false;
	result->settlement_id[0] = '\0';
	if (facts->code != CODE_STALE_EPOCH)
		facts->code = facts->code != CODE_NONE ? CODE_UNRECOGNISED : CODE_NONE;
}

/* What the wallet has answered to this trade of a batch. */
static void
read_item(WalletClient *client, Attempt *a, int i)
{
	WalletResult *result = &client->result;
	const BatchItem *item = &a->batch->items[i];
	ReplyContext context = {
		.verb = WALLET_SETTLE,
		.key = item->key,
		.request = batch_request(a->batch, i),
		.secret = client->secret,
	};

	result->facts.retry_after_ms = -1;
	result->facts.left_out = !item->named;
	if (!item->named)
		return;
	if (item->answer.status == 0)
	{
		snprintf(result->message, sizeof result->message,
				 "its answer in the reply to a batch has no usable status");
		return;
	}
	result->facts.http_status = item->answer.status;
	result->facts.retry_after_ms = item->answer.retry_after_ms;
	client->adapter->read_item(&context, item->answer.body, result);
	if (result->facts.echo_mismatch)
		http_distrust_connection(a->exchange);
}

/* A text where the wallet gave none. */
static void
explain(WalletResult *result, const HttpReply *reply)
{
	if (reply->transport != TRANSPORT_OK)
		utf8_copy(result->message, sizeof result->message, reply->error);
	else if (result->facts.echo_mismatch)
		snprintf(result->message, sizeof result->message,
				 "reply belongs to another request");
	else if (result->facts.left_out)
		snprintf(result->message, sizeof result->message,
				 "the reply to its batch of %d leaves it out", result->trades);
	else if (result->facts.whole_batch && result->message[0] == '\0')
		snprintf(result->message, sizeof result->message,
				 "HTTP status %d to a batch of %d, without an answer to each",
				 reply->status, result->trades);
	else if (result->message[0] == '\0' && result->verdict.error_class != NULL)
		snprintf(result->message, sizeof result->message, "HTTP status %d%s",
				 reply->status, result->facts.parsed ? "" :
				 ", body is not a JSON object");
}

static void
clear_result(WalletClient *client, const Attempt *a, void *context)
{
	WalletResult *result = &client->result;

	result->verb = a->verb;
	result->context = context;
	result->trades = a->is_batch ? a->batch->n : 1;
	memset(&result->facts, 0, sizeof result->facts);
	result->facts.success = -1;
	result->facts.retry_after_ms = -1;
	result->phase = PHASE_PREPARED;
	result->duration_us = 0;
	result->lookup = LOOKUP_FAILED;
	result->newer_epoch = 0;
	result->date_s = 0;
	result->certificate_until_s = 0;
	result->settlement_id[0] = '\0';
	result->code[0] = '\0';
	result->message[0] = '\0';
}

static void
decide(const WalletAdapter *adapter, WalletResult *result)
{
	bool		rejected;

	if (result->verb == WALLET_LOOKUP)
	{
		result->lookup = outcome_of_lookup(&result->facts, &result->verdict);
		rejected = result->lookup == LOOKUP_REJECTED;
	}
	else
	{
		result->verdict = outcome_of_settle(&result->facts);
		rejected = result->verdict.outcome == OUTCOME_REJECTED;
	}
	if (rejected)
		result->verdict.error_class = adapter->rejection_class(result->code);
}

/* How the exchange went, whatever the reply says. */
static void
take_facts(WalletClient *client, const HttpReply *reply)
{
	WalletResult *result = &client->result;

	result->date_s = reply->date_s;
	result->certificate_until_s = reply->certificate_until_s;
	result->facts.maybe_sent = reply->maybe_sent;
	result->facts.transport = reply->transport;
	result->facts.http_status = reply->status;
	result->facts.retry_after_ms = reply->retry_after_ms;
	result->phase = reply->phase;
	result->duration_us = reply->duration_us;
}

static void
report_ended(WalletClient *client, Attempt *a)
{
	const HttpReply *reply = http_reply(a->exchange);

	clear_result(client, a, a->context);
	take_facts(client, reply);
	if (reply->transport == TRANSPORT_OK)
		read_reply(client, a, reply);
	decide(client->adapter, &client->result);
	explain(&client->result, reply);
}

static void
report_unsendable(WalletClient *client, Attempt *a, void *context)
{
	WalletResult *result = &client->result;

	clear_result(client, a, context);
	result->facts.transport = a->why;
	snprintf(result->message, sizeof result->message, "%s", a->unsendable);
	decide(client->adapter, result);
}

/*
 * One trade of a batch.  What became of the whole request is one sign of the
 * wallet's health, which the first of its trades bears.
 */
static void
report_item(WalletClient *client, Attempt *a, int i)
{
	WalletResult *result = &client->result;
	const HttpReply *reply = a->unsendable == NULL ? http_reply(a->exchange) : NULL;

	if (reply == NULL)
		report_unsendable(client, a, a->batch->items[i].context);
	else
	{
		clear_result(client, a, a->batch->items[i].context);
		take_facts(client, reply);
		if (client->open_by_item)
			read_item(client, a, i);
		else
		{
			result->facts.whole_batch = true;
			if (reply->transport == TRANSPORT_OK)
				read_refusal(client, reply);
		}
		decide(client->adapter, result);
		explain(result, reply);
	}
	if (!client->open_by_item && i > 0)
	{
		result->verdict.signal = SIGNAL_NONE;
		result->verdict.slow_down = false;
	}
}

static Attempt *
next_ended(const WalletClient *client)
{
	const HttpExchange *x = http_peek(client->http);

	return x != NULL ? http_exchange_owner(x) : NULL;
}

/* Take the attempt that comes next off its list; NULL when there is none. */
static Attempt *
take_next(WalletClient *client)
{
	Attempt    *a = client->failed;
	HttpExchange *x;

	if (a != NULL)
	{
		client->failed = a->next_failed;
		if (client->failed == NULL)
			client->failed_end = &client->failed;
		return a;
	}
	x = http_next(client->http);
	return x != NULL ? http_exchange_owner(x) : NULL;
}

/* Does the reply answer each trade, rather than all of them at once? */
static bool
answers_by_item(Attempt *a)
{
	const HttpReply *reply;

	if (a->unsendable != NULL)
		return false;
	reply = http_reply(a->exchange);
	return reply->transport == TRANSPORT_OK &&
		(reply->status == 200 || reply->status == 207) &&
		batch_open(a->batch, reply->body, reply->body_len);
}

void
wallet_client_open(WalletClient *client)
{
	Attempt    *a = client->failed;

	release_reported(client);
	if (client->open != NULL)
		return;
	if (a == NULL)
		a = next_ended(client);
	if (a == NULL || !a->is_batch)
		return;
	client->open = take_next(client);
	client->open_next = 0;
	client->open_by_item = answers_by_item(a);
}

const WalletResult *
wallet_client_next(WalletClient *client)
{
	Attempt    *a;

	wallet_client_open(client);
	a = client->open;
	if (a != NULL)
	{
		report_item(client, a, client->open_next++);
		if (client->open_next < a->batch->n)
			a = NULL;
		else
			client->open = NULL;
	}
	else
	{
		a = take_next(client);
		if (a == NULL)
			return NULL;
		if (a->unsendable != NULL)
			report_unsendable(client, a, a->context);
		else
			report_ended(client, a);
	}
	client->reported = a;
	client->in_flight--;
	return &client->result;
}

void
wallet_client_set_lineage(WalletClient *client, const char *lineage)
{
	http_set_lineage(client->http, lineage);
}

/* The trade of an attempt that comes first. */
static void *
first_context(const Attempt *a)
{
	return a->is_batch ? a->batch->items[0].context : a->context;
}

void *
wallet_client_peek(const WalletClient *client)
{
	const Attempt *a = client->open;

	if (a != NULL)
		return a->batch->items[client->open_next].context;
	a = client->failed;
	if (a == NULL)
		a = next_ended(client);
	return a != NULL ? first_context(a) : NULL;
}

static bool
carries(const Attempt *a, const void *context)
{
	if (!a->is_batch)
		return a->context == context;
	for (int i = 0; i < a->batch->n; i++)
		if (a->batch->items[i].context == context)
			return true;
	return false;
}

AttemptPhase
wallet_client_phase(const WalletClient *client, void *context)
{
	for (int i = 0; i < client->max_attempts; i++)
	{
		const Attempt *a = &client->attempts[i];

		if (a->busy && a != client->reported && carries(a, context))
			return a->unsendable != NULL ? PHASE_PREPARED : http_phase(a->exchange);
	}
	return PHASE_PREPARED;
}

void
wallet_client_counters(const WalletClient *client, WalletCounters *counters)
{
	HttpCounters http;

	http_counters(client->http, &http);
	counters->connections_opened = http.connections_opened;
	counters->connections_cut = http.connections_cut;
	counters->connections_now = http.connections_now;
	counters->resends_blocked = http.resends_blocked;
}
