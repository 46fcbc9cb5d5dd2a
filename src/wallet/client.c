/*
 * client.c
 *	  The wallet client: an adapter's words over the HTTP of http.h.  Made here,
 *	  from its configuration; client_private.h says what the other files do.
 *
 * Keeps true: a trade that was taken by wallet_client_submit or wallet_batch_add
 * comes out of wallet_client_next exactly once; at most max_connections requests
 * are in flight; no secret is in a result.
 */
#include "wallet/client_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wallet/json.h"

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
	http.max_pause_ms = config->max_pause_ms;
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

void
wallet_client_set_lineage(WalletClient *client, const char *lineage)
{
	http_set_lineage(client->http, lineage);
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
	client_release_reported(client);
	http_run(client->http);
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
