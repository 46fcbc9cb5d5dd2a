/*
 * http.h
 *	  HTTP requests to one server, many at a time, without blocking.  All of
 *	  libcurl is behind this, in http*.c.
 *
 * Not thread safe.  Nothing is thrown or logged; no secret is in any text that
 * comes out.
 */
#ifndef SETTLEMENT_WALLET_HTTP_H
#define SETTLEMENT_WALLET_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/outcome.h"

typedef struct Http Http;
typedef struct HttpExchange HttpExchange;

/* Texts are copied where they are kept; NULL or "" means not set. */
typedef struct HttpConfig
{
	const char *url;			/* base, accepted by http_check_url */
	const char *post_path;		/* of HTTP_POST */
	const char *batch_path;		/* of HTTP_POST_BATCH; NULL: never used */
	const char *authorization;
	const char *ca_file;
	const char *cert_file;
	const char *key_file;
	bool		loopback_only;	/* connect to 127.0.0.0/8 and ::1 only */
	int			connect_timeout_ms;
	int			request_timeout_ms;
	int			max_pause_ms;	/* see WalletConfig */
	size_t		max_reply;
	int			max_connections;
	bool		inspect;		/* fill date_s and certificate_until_s of replies */
} HttpConfig;

typedef enum HttpMethod
{
	HTTP_POST = 0,
	HTTP_GET,
	HTTP_POST_BATCH				/* POST to another path, without a key */
} HttpMethod;

#define LINEAGE_LEN			36		/* a UUID */

typedef struct HttpRequest
{
	HttpMethod	method;
	const char *path;			/* of a GET */
	const char *body;			/* of a POST; must stay until the end */
	size_t		body_len;
	const char *key;			/* Idempotency-Key of HTTP_POST */
	size_t		max_reply;		/* of this one; 0: as configured */
	int64_t		epoch;			/* 0: none */
	const char *traceparent;	/* NULL: none; left out when malformed */
} HttpRequest;

/* How an exchange ended; valid until http_release or http_start. */
typedef struct HttpReply
{
	bool		maybe_sent;
	Transport	transport;
	AttemptPhase phase;
	int			status;
	int64_t		retry_after_ms; /* -1: none */
	int64_t		duration_us;
	const char *body;
	size_t		body_len;
	const char *error;			/* "" when transport is TRANSPORT_OK */
	int64_t		date_s;			/* inspect: the Date header, Unix time; 0: none */
	int64_t		certificate_until_s;	/* inspect: when the server's ends; 0: none */
} HttpReply;

/* What tests and metrics want to know. */
typedef struct HttpCounters
{
	uint64_t	connections_opened;
	uint64_t	connections_cut;	/* idle, and closed or spoke out of turn */
	uint64_t	resends_blocked;
	int			connections_now;
} HttpCounters;

extern const char *http_global_init(void);
extern const char *http_check_url(const char *url);

/* Of a URL that was accepted. */
extern bool http_url_is_plain(const char *url);
extern bool http_url_is_loopback(const char *url);

extern Http *http_create(const HttpConfig *config, char *err, size_t errlen);

/* With the exchanges that are left. */
extern void http_destroy(Http *http);

/* Settlement-Lineage of the requests that start from now on; "" = none. */
extern void http_set_lineage(Http *http, const char *lineage);

extern HttpExchange *http_exchange_create(Http *http, void *owner);
extern void http_exchange_destroy(HttpExchange *x);
extern void *http_exchange_owner(const HttpExchange *x);

/* Start; it ends, whatever happens, through http_next. */
extern void http_start(HttpExchange *x, const HttpRequest *request);
extern int	http_fd(const Http *http);
extern int	http_timeout_ms(const Http *http);
extern void http_run(Http *http);

/* The next exchange that ended, or NULL; give it back with http_release. */
extern HttpExchange *http_next(Http *http);

/* The same one, left where it is. */
extern const HttpExchange *http_peek(const Http *http);
extern const HttpReply *http_reply(const HttpExchange *x);
extern void http_release(HttpExchange *x);

/* The reply of this ended exchange is not its own: do not use its connection again. */
extern void http_distrust_connection(HttpExchange *x);

extern AttemptPhase http_phase(const HttpExchange *x);
extern void http_counters(const Http *http, HttpCounters *counters);

#endif
