/*
 * client.c
 *	  The wallet client: an adapter's words over the HTTP of http.h.
 *
 * Keeps true: an attempt that was taken by wallet_client_submit comes out of
 * wallet_client_next exactly once; at most max_connections are in flight; no
 * secret is in a result; a settlement id that was already given to another key is
 * not believed.
 */
#include "wallet/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wallet/adapter.h"
#include "wallet/http.h"
#include "wallet/json.h"

#define BODY_FIRST		1024	/* first size of a request body's buffer */
#define BODY_MAX		65536
#define PATH_MAX_LEN	256

typedef struct Attempt
{
	HttpExchange *exchange;		/* made once, used again */
	bool		busy;
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
	Attempt    *reported;		/* whose result the caller is reading */
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
		free(client->attempts[i].body);
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
	a->busy = false;
	client->free_attempts[client->n_free++] = a;
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
	a->verb = verb;
	a->context = context;
	a->key[0] = '\0';
	if (is_key(key))
		memcpy(a->key, key, sizeof a->key);
	if (a->body != NULL)
		a->body[0] = '\0';
	a->unsendable = start(client, a, trade, format, epoch, traceparent);
	if (a->unsendable != NULL)
	{
		a->next_failed = NULL;
		*client->failed_end = a;
		client->failed_end = &a->next_failed;
	}
	client->in_flight++;
	return true;
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
	return client->failed != NULL ? 0 : http_timeout_ms(client->http);
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

/* A text where the wallet gave none. */
static void
explain(WalletResult *result, const HttpReply *reply)
{
	if (reply->transport != TRANSPORT_OK)
		utf8_copy(result->message, sizeof result->message, reply->error);
	else if (result->facts.echo_mismatch)
		snprintf(result->message, sizeof result->message,
				 "reply belongs to another request");
	else if (result->message[0] == '\0' && result->verdict.error_class != NULL)
		snprintf(result->message, sizeof result->message, "HTTP status %d%s",
				 reply->status, result->facts.parsed ? "" :
				 ", body is not a JSON object");
}

static void
clear_result(WalletClient *client, const Attempt *a)
{
	WalletResult *result = &client->result;

	result->verb = a->verb;
	result->context = a->context;
	memset(&result->facts, 0, sizeof result->facts);
	result->facts.success = -1;
	result->facts.retry_after_ms = -1;
	result->phase = PHASE_PREPARED;
	result->duration_us = 0;
	result->lookup = LOOKUP_FAILED;
	result->newer_epoch = 0;
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

static void
report_ended(WalletClient *client, Attempt *a)
{
	WalletResult *result = &client->result;
	const HttpReply *reply = http_reply(a->exchange);

	clear_result(client, a);
	result->facts.maybe_sent = reply->maybe_sent;
	result->facts.transport = reply->transport;
	result->facts.http_status = reply->status;
	result->facts.retry_after_ms = reply->retry_after_ms;
	result->phase = reply->phase;
	result->duration_us = reply->duration_us;
	if (reply->transport == TRANSPORT_OK)
		read_reply(client, a, reply);
	decide(client->adapter, result);
	explain(result, reply);
}

static void
report_unsendable(WalletClient *client, Attempt *a)
{
	WalletResult *result = &client->result;

	clear_result(client, a);
	result->facts.transport = a->why;
	snprintf(result->message, sizeof result->message, "%s", a->unsendable);
	decide(client->adapter, result);
}

const WalletResult *
wallet_client_next(WalletClient *client)
{
	Attempt    *a = client->failed;

	release_reported(client);
	if (a != NULL)
	{
		client->failed = a->next_failed;
		if (client->failed == NULL)
			client->failed_end = &client->failed;
		report_unsendable(client, a);
	}
	else
	{
		HttpExchange *x = http_next(client->http);

		if (x == NULL)
			return NULL;
		a = http_exchange_owner(x);
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

void *
wallet_client_peek(const WalletClient *client)
{
	const HttpExchange *x;

	if (client->failed != NULL)
		return client->failed->context;
	x = http_peek(client->http);
	return x != NULL ? ((const Attempt *) http_exchange_owner(x))->context : NULL;
}

AttemptPhase
wallet_client_phase(const WalletClient *client, void *context)
{
	for (int i = 0; i < client->max_attempts; i++)
	{
		const Attempt *a = &client->attempts[i];

		if (a->busy && a->context == context && a != client->reported)
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
