/*
 * http_request.c
 *	  An exchange: an easy handle of libcurl that is set up once and used again,
 *	  and what is set for each request.
 *
 * Cost: libcurl's work per request is the dearest part of a settlement.  It
 * formats headers byte by byte, so there are few and short ones (no Accept, and
 * no Expect: libcurl adds that to bodies of 1 MB and more only); it parses a URL
 * for each request unless it is given a parsed one.
 */
#include "wallet/http_private.h"

#include <stdio.h>
#include <stdlib.h>

HttpExchange *
http_exchange_create(Http *http, void *owner)
{
	HttpExchange *x = calloc(1, sizeof *x);

	if (x == NULL)
		return NULL;
	x->http = http;
	x->owner = owner;
	x->easy = curl_easy_init();
	if (x->easy == NULL || !http_set_constant_options(x))
	{
		curl_easy_cleanup(x->easy);
		free(x);
		return NULL;
	}
	strcpy(x->key_text, KEY_HEADER);
	strcpy(x->epoch_text, EPOCH_HEADER);
	strcpy(x->lineage_text, LINEAGE_HEADER);
	strcpy(x->trace_text, TRACE_HEADER);
	x->key_node.data = x->key_text;
	x->epoch_node.data = x->epoch_text;
	x->lineage_node.data = x->lineage_text;
	x->trace_node.data = x->trace_text;
	x->sibling = http->all;
	http->all = x;
	return x;
}

ExchangeList *
http_list_of(HttpExchange *x)
{
	switch (x->state)
	{
		case EXCHANGE_QUEUED:
			return &x->http->queued;
		case EXCHANGE_RUNNING:
			return &x->http->running;
		default:
			return NULL;
	}
}

void
http_detach(HttpExchange *x)
{
	if (x->added)
		curl_multi_remove_handle(x->http->multi, x->easy);
	x->added = false;
}

void
http_exchange_destroy(HttpExchange *x)
{
	HttpExchange **link;
	ExchangeList *list;

	if (x == NULL)
		return;
	list = http_list_of(x);
	if (list != NULL)
		http_list_remove(list, x);
	for (HttpExchange *e = x->http->ended.first; e != NULL; e = e->next)
		if (e == x)
		{
			http_list_remove(&x->http->ended, x);
			break;
		}
	for (link = &x->http->all; *link != NULL; link = &(*link)->sibling)
		if (*link == x)
		{
			*link = x->sibling;
			break;
		}
	http_detach(x);
	curl_easy_cleanup(x->easy);
	free(x->buffer);
	free(x);
}

void *
http_exchange_owner(const HttpExchange *x)
{
	return x->owner;
}

/* W3C Trace Context: lower-case hex and dashes; anything else stays out. */
static bool
is_traceparent(const char *text)
{
	return text != NULL && text[0] != '\0' &&
		strlen(text) <= TRACEPARENT_MAX &&
		strspn(text, "0123456789abcdef-") == strlen(text);
}

/* Chain the header nodes that this request has; returns the first. */
static struct curl_slist *
link_headers(HttpExchange *x, const HttpRequest *request)
{
	struct curl_slist *first = x->http->common;

	if (is_traceparent(request->traceparent))
	{
		strcpy(x->trace_text + strlen(TRACE_HEADER), request->traceparent);
		x->trace_node.next = first;
		first = &x->trace_node;
	}
	if (request->epoch != 0)
	{
		if (request->epoch != x->epoch)
			snprintf(x->epoch_text, sizeof x->epoch_text, EPOCH_HEADER "%lld",
					 (long long) request->epoch);
		x->epoch = request->epoch;
		x->epoch_node.next = first;
		first = &x->epoch_node;
	}
	if (x->http->lineage[0] != '\0')
	{
		strcpy(x->lineage_text + strlen(LINEAGE_HEADER), x->http->lineage);
		x->lineage_node.next = first;
		first = &x->lineage_node;
	}
	if (request->method == HTTP_POST)
	{
		memcpy(x->key_text + strlen(KEY_HEADER), request->key, IDEMPOTENCY_KEY_LEN + 1);
		x->key_node.next = first;
		first = &x->key_node;
	}
	return first;
}

static void
set_max_reply(HttpExchange *x, size_t max_reply)
{
	if (x->max_reply != max_reply)
		curl_easy_setopt(x->easy, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t) max_reply);
	x->max_reply = max_reply;
}

bool
http_set_request_options(HttpExchange *x, const HttpRequest *request)
{
	CURL	   *easy = x->easy;
	struct curl_slist *headers = link_headers(x, request);
	bool		same = x->set_up && x->method == request->method;
	CURLcode	rc = CURLE_OK;

	x->set_up = false;
	x->method = request->method;
	if (request->method == HTTP_GET)
	{
		char	   *url = http_join_url(x->http->config.url, request->path);

		curl_easy_setopt(easy, CURLOPT_CURLU, NULL);
		rc = url != NULL ? curl_easy_setopt(easy, CURLOPT_URL, url) : CURLE_OUT_OF_MEMORY;
		free(url);
		curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
	}
	else
	{
		if (!same)
		{
			rc = curl_easy_setopt(easy, CURLOPT_CURLU, request->method == HTTP_POST ?
								  x->http->post_url : x->http->batch_url);
			curl_easy_setopt(easy, CURLOPT_POST, 1L);
		}
		/* without a key the first header is not always the same one */
		if (!same || request->key == NULL)
			curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
		if (!same || x->body != request->body)
			curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
		x->body = request->body;
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) request->body_len);
	}
	if (x->forgiven_ms != 0)
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
						 (long) x->http->config.connect_timeout_ms);
	x->forgiven_ms = 0;
	set_max_reply(x, request->max_reply > 0 ? request->max_reply : x->http->config.max_reply);
	x->set_up = rc == CURLE_OK;
	return rc == CURLE_OK;
}
