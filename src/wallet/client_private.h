/*
 * client_private.h
 *	  What the files of the wallet client, src/wallet/client*.c, share; theirs alone.
 *
 *	  client.c         a client: its configuration, its making and its counters
 *	  client_submit.c  from a trade, or several, to a request in flight
 *	  client_next.c    which trade is reported next
 *	  client_result.c  what is said of it
 */
#ifndef SETTLEMENT_WALLET_CLIENT_PRIVATE_H
#define SETTLEMENT_WALLET_CLIENT_PRIVATE_H

#include "wallet/adapter.h"
#include "wallet/batch.h"
#include "wallet/client.h"
#include "wallet/http.h"

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

/* client_next.c: what the caller was reading is his no more. */
extern void client_release_reported(WalletClient *client);

/* client_result.c: fill client->result. */
extern void client_report_ended(WalletClient *client, Attempt *a);
extern void client_report_unsendable(WalletClient *client, Attempt *a, void *context);

/* ... with one trade of the batch that is open. */
extern void client_report_item(WalletClient *client, Attempt *a, int i);

#endif
