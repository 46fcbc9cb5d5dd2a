/*
 * http_private.h
 *	  What the files of the HTTP client, src/wallet/http*.c, share; theirs alone.
 *
 *	  http.c          a client and its exchanges, driven without blocking
 *	  http_options.c  libcurl's options that never change, and its callbacks
 *	  http_request.c  an exchange, and what is set for each request
 *	  http_reply.c    how an exchange ended
 *	  http_inspect.c  the server's clock and certificate
 *	  http_url.c      URLs
 */
#ifndef SETTLEMENT_WALLET_HTTP_PRIVATE_H
#define SETTLEMENT_WALLET_HTTP_PRIVATE_H

#include <curl/curl.h>
#include <netinet/in.h>
#include <string.h>

#include "policy/idempotency.h"
#include "wallet/http.h"
#include "wallet/sockets.h"

#define EPOCH_HEADER		"Settlement-Epoch: "
#define LINEAGE_HEADER		"Settlement-Lineage: "
#define KEY_HEADER			"Idempotency-Key: "
#define TRACE_HEADER		"traceparent: "
#define TRACEPARENT_MAX		64

typedef enum ExchangeState
{
	EXCHANGE_IDLE = 0,
	EXCHANGE_QUEUED,			/* http_start to start_queued */
	EXCHANGE_RUNNING,			/* start_queued to http_finish */
	EXCHANGE_ENDED				/* http_finish to http_release */
} ExchangeState;

typedef struct ExchangeList
{
	HttpExchange *first;
	HttpExchange *last;
} ExchangeList;

struct HttpExchange
{
	Http	   *http;
	void	   *owner;
	CURL	   *easy;
	ExchangeState state;
	bool		added;			/* to the multi handle */
	HttpExchange *prev;
	HttpExchange *next;
	HttpExchange *sibling;		/* in http->all */

	/* Of this request. */
	HttpMethod	method;			/* what the easy handle is set up for */
	bool		set_up;
	bool		resend_blocked;
	bool		refused_address;
	bool		too_large;
	int64_t		started_us;
	int64_t		deadline_us;
	int64_t		forgiven_ms;	/* time taken off while connecting */
	const char *body;			/* what the easy handle points at */
	HttpReply	reply;
	char	   *buffer;			/* the reply's body */
	size_t		buffer_size;
	size_t		max_reply;		/* what the easy handle is set up for */
	size_t		header_bytes;

	/* Header nodes of our own, written in place. */
	struct curl_slist key_node;
	struct curl_slist epoch_node;
	struct curl_slist lineage_node;
	struct curl_slist trace_node;
	char		key_text[sizeof KEY_HEADER + IDEMPOTENCY_KEY_LEN];
	char		epoch_text[sizeof EPOCH_HEADER + 24];
	char		lineage_text[sizeof LINEAGE_HEADER + LINEAGE_LEN];
	char		trace_text[sizeof TRACE_HEADER + TRACEPARENT_MAX];
	int64_t		epoch;			/* in epoch_text */
	char		error[CURL_ERROR_SIZE];
};

struct Http
{
	CURLM	   *multi;
	Sockets    *sockets;
	HttpConfig	config;			/* its texts are ours */
	CURLU	   *post_url;		/* parsed once */
	CURLU	   *batch_url;		/* or NULL */
	struct curl_slist *common;	/* headers of every request */
	char		lineage[LINEAGE_LEN + 1];	/* "": none */
	HttpExchange *all;
	ExchangeList queued;
	ExchangeList running;		/* in the order of their deadlines */
	ExchangeList ended;
	int64_t		timer_us;		/* when libcurl wants to be called; -1 never */
	int64_t		last_run_us;
	int64_t		promised_us;	/* latest next run we asked for; -1 none */
	uint64_t	resends_blocked;
};

static inline bool
is_set(const char *text)
{
	return text != NULL && text[0] != '\0';
}

/* http.c: the monotonic clock, and the lists of a client. */
extern int64_t http_now_us(void);
extern void http_list_append(ExchangeList *list, HttpExchange *x);
extern void http_list_remove(ExchangeList *list, HttpExchange *x);

/* http_options.c.  False when libcurl refuses one. */
extern bool http_set_constant_options(HttpExchange *x);
extern void http_set_multi_options(Http *http);

/* http_request.c: the list that it is in, or NULL; take it from libcurl. */
extern ExchangeList *http_list_of(HttpExchange *x);
extern void http_detach(HttpExchange *x);

/* Only what differs from the last request of this handle is set again. */
extern bool http_set_request_options(HttpExchange *x, const HttpRequest *request);

/* http_reply.c: from running or queued to ended. */
extern void http_finish(HttpExchange *x, CURLcode rc);

/* http_inspect.c: fill what HttpConfig.inspect asks for. */
extern void http_inspect_header(HttpExchange *x, const char *bytes, size_t len);
extern void http_inspect_certificate(HttpExchange *x);

/* http_url.c: base without its trailing slashes, and the path; malloc'ed. */
extern char *http_join_url(const char *base, const char *path);
extern CURLU *http_parse_url(const char *base, const char *path);
extern bool http_is_loopback4(const struct in_addr *address);

#endif
