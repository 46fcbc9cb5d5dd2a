/*
 * adapter.h
 *	  What differs between wallets: paths, the bytes of a request, the meaning
 *	  of a reply.  Another wallet is one more struct of these functions in
 *	  adapter.c; nothing else needs to know.
 *
 * Pure functions over bytes: no I/O, no clock, no settings.
 */
#ifndef SETTLEMENT_WALLET_ADAPTER_H
#define SETTLEMENT_WALLET_ADAPTER_H

#include "wallet/client.h"

/* What a reply is read against. */
typedef struct ReplyContext
{
	WalletVerb	verb;
	const char *key;			/* idempotency key of the request */
	const char *request;		/* body that was sent; "" when there was none */
	const char *secret;			/* must never appear in a result; may be NULL */
	const char *reply;
	size_t		reply_len;
} ReplyContext;

/* What the reply to a batch says of one of its trades. */
typedef struct ItemAnswer
{
	const char *key;			/* as the reply has it */
	int			status;			/* of a reply to this trade alone; 0: none usable */
	int64_t		retry_after_ms; /* -1: none */
	const void *body;			/* for read_item; NULL: none */
} ItemAnswer;

typedef struct WalletAdapter
{
	const char *name;

	/* Newest format that request_body writes; all older ones stay written. */
	int			format;

	/* See wallet_rejection_is_final. */
	bool		rejection_is_final;

	/* Path of a settle request, joined to the configured URL. */
	const char *settle_path;

	/* The body of a settle request; the length, or -1 (see wallet_request_body). */
	int			(*request_body) (int format, const WalletTrade *trade,
								 char *out, size_t outlen);

	/* Path of a look-up of a key; the length, or -1 when it does not fit. */
	int			(*lookup_path) (const char *key, char *out, size_t outlen);

	/* What a value of the reply's `code` member means. */
	ReplyCode	(*reply_code) (WalletVerb verb, const char *code);

	/*
	 * The class that operators see of a rejection with this code: static, lower
	 * case, "rejected" when there is no better one.
	 */
	const char *(*rejection_class) (const char *code);

	/*
	 * Read the body of a complete reply.  Fills facts.{parsed, success,
	 * has_settlement_id, echo_mismatch, code} and the texts of the result; any
	 * bytes whatever may come.
	 */
	void		(*read_reply) (const ReplyContext *context, WalletResult *result);

	/*
	 * Several trades in one request.  NULL: the wallet takes one at a time, and
	 * what follows is not used.
	 */
	const char *batch_path;

	/*
	 * The next item of a batch's body, the first one with what comes before it.
	 * The length, or -1 as request_body does; *body and *body_len say where in it
	 * the trade is, in the bytes of request_body.
	 */
	int			(*batch_item) (bool first, const char *key, const char *traceparent,
							   int format, const WalletTrade *trade, char *out,
							   size_t outlen, size_t *body, size_t *body_len);

	/* What comes after the last item. */
	const char *batch_end;

	/*
	 * Take the reply to a batch apart: a handle and the number of its items, or
	 * NULL when it is no such reply.  open_item gives the i-th; false when that
	 * names no key.  close_batch ends the life of all that was given.
	 */
	void	   *(*open_batch) (const char *reply, size_t reply_len, size_t *n);
	bool		(*open_item) (const void *batch, size_t i, ItemAnswer *answer);
	void		(*close_batch) (void *batch);

	/* As read_reply, of an item's body; the reply in the context is not used. */
	void		(*read_item) (const ReplyContext *context, const void *body,
							  WalletResult *result);
} WalletAdapter;

extern const WalletAdapter native_adapter;

/* NULL when there is none of that name. */
extern const WalletAdapter *wallet_adapter_by_name(const char *name);

#endif
