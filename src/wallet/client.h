/*
 * client.h
 *	  The wallet as the worker sees it: submit requests, wait on one file
 *	  descriptor, collect results.  Everything about HTTP stays behind this.
 *
 * No PostgreSQL in here: memory is malloc'ed, nothing is thrown, no log is
 * written; errors are values.  Not thread safe: one client per process, created
 * after fork.
 */
#ifndef SETTLEMENT_WALLET_CLIENT_H
#define SETTLEMENT_WALLET_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/idempotency.h"
#include "policy/outcome.h"

typedef enum PlainHttp
{
	PLAIN_HTTP_NEVER = 0,
	PLAIN_HTTP_LOOPBACK,		/* 127.0.0.0/8, ::1, localhost, only */
	PLAIN_HTTP_ALWAYS
} PlainHttp;

/* Strings are copied by wallet_client_create; NULL or "" means not set. */
typedef struct WalletConfig
{
	const char *adapter;		/* "native" */
	const char *url;
	const char *authorization;	/* whole header value, a secret */
	const char *ca_file;
	const char *cert_file;
	const char *key_file;
	PlainHttp	plain_http;
	int			connect_timeout_ms;
	int			request_timeout_ms;
	int			max_pause_ms;	/* the caller may be away for this long between two
								 * calls, and what it has submitted is still its
								 * own: what was not sent by then gets that time
								 * back; 0: it never does */
	size_t		max_response_size;	/* per trade */
	int			max_connections;
	bool		inspect;		/* fill date_s and certificate_until_s of results */
} WalletConfig;

/*
 * What the wallet is asked to settle.  All texts are UTF-8, NUL terminated;
 * amounts are decimal strings without exponent or trailing zeros.
 */
typedef struct WalletTrade
{
	const char *trade_id;
	const char *buyer_id;
	const char *seller_id;
	const char *buyer_order_id;
	const char *seller_order_id;
	const char *base_currency;
	const char *quote_currency;
	const char *base_amount;
	const char *quote_amount;
	const char *price;
	const char *buyer_fee;
	const char *seller_fee;
} WalletTrade;

typedef enum WalletVerb
{
	WALLET_SETTLE = 0,
	WALLET_LOOKUP				/* what does the wallet know of this key */
} WalletVerb;

/* Bounds of what is kept of a reply; longer texts are cut at a character. */
#define WALLET_ID_MAX		128
#define WALLET_CODE_MAX		64
#define WALLET_MESSAGE_MAX	512

typedef struct WalletResult
{
	WalletVerb	verb;
	void	   *context;		/* as given to wallet_client_submit */
	AttemptFacts facts;
	AttemptPhase phase;
	Verdict		verdict;		/* for a look-up: what breaker and retry need */
	LookupOutcome lookup;		/* WALLET_LOOKUP only */
	int			trades;			/* in its request; 1: sent alone */
	int64_t		duration_us;	/* from submit to end, monotonic clock */
	int64_t		newer_epoch;	/* STALE_EPOCH: the one the wallet has seen; 0 if
								 * it does not tell */
	int64_t		date_s;			/* inspect: the wallet's clock, Unix time; 0: not told */
	int64_t		certificate_until_s;	/* inspect: when its certificate ends; 0: none */
	char		settlement_id[WALLET_ID_MAX + 1];
	char		code[WALLET_CODE_MAX + 1];
	char		message[WALLET_MESSAGE_MAX + 1];	/* never holds a secret */
} WalletResult;

typedef struct WalletClient WalletClient;

/*
 * Once per process, after fork, signals as they will be.  Returns NULL or why
 * the HTTP library cannot be used (static text).
 */
extern const char *wallet_global_init(void);

/*
 * Check a URL as a setting: NULL when it can be used, else a static text why
 * not (not http/https, user and password in it, query or fragment, no host).
 */
extern const char *wallet_check_url(const char *url);

/* NULL on error, with a text without secrets in err. */
extern WalletClient *wallet_client_create(const WalletConfig *config,
										  char *err, size_t errlen);

/* Drops what is in flight without reporting it. */
extern void wallet_client_destroy(WalletClient *client);

/*
 * Does the adapter promise that a key's rejection is final even if an earlier
 * attempt of the key may have executed?  True for native: its rejection is the
 * stored answer of that key.
 */
extern bool wallet_rejection_is_final(const WalletClient *client);

/* Version of the request format that wallet_request_body writes. */
extern int	wallet_request_format(const WalletClient *client);

/*
 * The exact bytes of a settle request; deterministic for a format.  Returns the
 * length (without the NUL that follows), or -1 when it does not fit, is not UTF-8
 * or the format is unknown.  (Shown as evidence and fingerprinted.)
 */
extern int	wallet_request_body(const WalletClient *client, int format,
								const WalletTrade *trade, char *out, size_t outlen);

/*
 * Start one request; the trade is read before the call returns.  epoch 0 sends
 * no Settlement-Epoch.  traceparent may be NULL.  A request that cannot start
 * is reported through wallet_client_next like any other failure, with
 * maybe_sent false (TRANSPORT_UNSENDABLE when its content or key is why).  False
 * only when max_connections requests are in flight.
 *
 * For a look-up trade may be NULL; where it is given, fields that the answer
 * repeats are compared with it.
 */
extern bool wallet_client_submit(WalletClient *client, WalletVerb verb,
								 const WalletTrade *trade,
								 const char key[IDEMPOTENCY_KEY_LEN + 1],
								 int format, int64_t epoch,
								 const char *traceparent, void *context);

/*
 * Several trades in one request.  begin; add each, as to submit; send.  begin is
 * false when the wallet takes no batches, or when max_connections requests are in
 * flight.  add is false when there is no room: send the batch, and submit that
 * trade alone; one that cannot be in this batch for another reason is submitted
 * alone by add.  Each trade comes out of wallet_client_next on its own, those of
 * one request together.  Between begin and send nothing else may be called.
 */
extern bool wallet_batch_begin(WalletClient *client);
extern bool wallet_batch_add(WalletClient *client, const WalletTrade *trade,
							 const char key[IDEMPOTENCY_KEY_LEN + 1],
							 int format, int64_t epoch,
							 const char *traceparent, void *context);
extern void wallet_batch_send(WalletClient *client, int64_t epoch);

/*
 * The database, together with its copies, within which epochs count: a UUID, sent
 * as Settlement-Lineage with the requests that are submitted from now on.
 */
extern void wallet_client_set_lineage(WalletClient *client, const char *lineage);

/* Trades. */
extern int	wallet_client_in_flight(const WalletClient *client);

/* Readable when wallet_client_run has work; stays the same for its life. */
extern int	wallet_client_fd(const WalletClient *client);

/* ms until wallet_client_run must be called at the latest; -1: no bound. */
extern int	wallet_client_timeout_ms(const WalletClient *client);

/*
 * Never blocks: handle what sockets have, then expire timers (in this order:
 * a reply that has arrived is not timed out because we were late).
 */
extern void wallet_client_run(WalletClient *client);

/* The next finished trade, or NULL.  Valid until the next call of any kind. */
extern const WalletResult *wallet_client_next(WalletClient *client);

/*
 * If a batch has ended, and what wallet_client_next reports next is of it: parse
 * its reply, whose bytes are of no trade in particular.
 */
extern void wallet_client_open(WalletClient *client);

/*
 * The context of the trade that wallet_client_next would report, or NULL: to
 * know whose reply it is before it is parsed.  After wallet_client_open.
 */
extern void *wallet_client_peek(const WalletClient *client);

/* How far a request in flight is; context names it. */
extern AttemptPhase wallet_client_phase(const WalletClient *client, void *context);

typedef struct WalletCounters
{
	uint64_t	connections_opened; /* since the client was created */
	uint64_t	connections_cut;	/* idle ones that closed or spoke out of turn */
	uint64_t	resends_blocked;	/* see TRANSPORT_RESEND_BLOCKED */
	int			connections_now;
} WalletCounters;

extern void wallet_client_counters(const WalletClient *client,
								   WalletCounters *counters);

#endif
