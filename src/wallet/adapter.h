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
} WalletAdapter;

extern const WalletAdapter native_adapter;

/* NULL when there is none of that name. */
extern const WalletAdapter *wallet_adapter_by_name(const char *name);

#endif
