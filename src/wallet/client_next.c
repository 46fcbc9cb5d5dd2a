/*
 * client_next.c
 *	  Which trade is reported next, and a look at it beforehand: those that could
 *	  not start come first, and those of a batch one after the other.
 */
#include "wallet/client_private.h"

/* What the caller was reading is his no more. */
void
client_release_reported(WalletClient *client)
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

	client_release_reported(client);
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
		client_report_item(client, a, client->open_next++);
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
			client_report_unsendable(client, a, a->context);
		else
			client_report_ended(client, a);
	}
	client->reported = a;
	client->in_flight--;
	return &client->result;
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
