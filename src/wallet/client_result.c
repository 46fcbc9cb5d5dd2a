/*
 * client_result.c
 *	  What is said of one trade whose request ended: the facts, what the adapter
 *	  reads in the reply, and what they mean (policy/outcome.h).
 */
#include "wallet/client_private.h"

#include <stdio.h>
#include <string.h>

#include "wallet/json.h"

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

/* What is said to several trades at once settles none and rejects none. */
static void
read_refusal(WalletClient *client, const HttpReply *reply)
{
	WalletResult *result = &client->result;
	AttemptFacts *facts = &result->facts;
	ReplyContext context = {
		.verb = WALLET_SETTLE,
		.key = "",
		.request = "",
		.secret = client->secret,
		.reply = reply->body,
		.reply_len = reply->body_len,
	};

	client->adapter->read_reply(&context, result);
	facts->success = -1;
	facts->has_settlement_id = facts->echo_mismatch = false;
	result->settlement_id[0] = '\0';
	if (facts->code != CODE_STALE_EPOCH)
		facts->code = facts->code != CODE_NONE ? CODE_UNRECOGNISED : CODE_NONE;
}

/* What the wallet has answered to this trade of a batch. */
static void
read_item(WalletClient *client, Attempt *a, int i)
{
	WalletResult *result = &client->result;
	const BatchItem *item = &a->batch->items[i];
	ReplyContext context = {
		.verb = WALLET_SETTLE,
		.key = item->key,
		.request = batch_request(a->batch, i),
		.secret = client->secret,
	};

	result->facts.retry_after_ms = -1;
	result->facts.left_out = !item->named;
	if (!item->named)
		return;
	if (item->answer.status == 0)
	{
		snprintf(result->message, sizeof result->message,
				 "its answer in the reply to a batch has no usable status");
		return;
	}
	result->facts.http_status = item->answer.status;
	result->facts.retry_after_ms = item->answer.retry_after_ms;
	client->adapter->read_item(&context, item->answer.body, result);
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
	else if (result->facts.left_out)
		snprintf(result->message, sizeof result->message,
				 "the reply to its batch of %d leaves it out", result->trades);
	else if (result->facts.whole_batch && result->message[0] == '\0')
		snprintf(result->message, sizeof result->message,
				 "HTTP status %d to a batch of %d, without an answer to each",
				 reply->status, result->trades);
	else if (result->message[0] == '\0' && result->verdict.error_class != NULL)
		snprintf(result->message, sizeof result->message, "HTTP status %d%s",
				 reply->status, result->facts.parsed ? "" :
				 ", body is not a JSON object");
}

static void
clear_result(WalletClient *client, const Attempt *a, void *context)
{
	WalletResult *result = &client->result;

	result->verb = a->verb;
	result->context = context;
	result->trades = a->is_batch ? a->batch->n : 1;
	memset(&result->facts, 0, sizeof result->facts);
	result->facts.success = -1;
	result->facts.retry_after_ms = -1;
	result->phase = PHASE_PREPARED;
	result->duration_us = 0;
	result->lookup = LOOKUP_FAILED;
	result->newer_epoch = 0;
	result->date_s = 0;
	result->certificate_until_s = 0;
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

/* How the exchange went, whatever the reply says. */
static void
take_facts(WalletClient *client, const HttpReply *reply)
{
	WalletResult *result = &client->result;

	result->date_s = reply->date_s;
	result->certificate_until_s = reply->certificate_until_s;
	result->facts.maybe_sent = reply->maybe_sent;
	result->facts.transport = reply->transport;
	result->facts.http_status = reply->status;
	result->facts.retry_after_ms = reply->retry_after_ms;
	result->phase = reply->phase;
	result->duration_us = reply->duration_us;
}

void
client_report_ended(WalletClient *client, Attempt *a)
{
	const HttpReply *reply = http_reply(a->exchange);

	clear_result(client, a, a->context);
	take_facts(client, reply);
	if (reply->transport == TRANSPORT_OK)
		read_reply(client, a, reply);
	decide(client->adapter, &client->result);
	explain(&client->result, reply);
}

void
client_report_unsendable(WalletClient *client, Attempt *a, void *context)
{
	WalletResult *result = &client->result;

	clear_result(client, a, context);
	result->facts.transport = a->why;
	snprintf(result->message, sizeof result->message, "%s", a->unsendable);
	decide(client->adapter, result);
}

/*
 * One trade of a batch.  What became of the whole request is one sign of the
 * wallet's health, which the first of its trades bears.
 */
void
client_report_item(WalletClient *client, Attempt *a, int i)
{
	WalletResult *result = &client->result;
	const HttpReply *reply = a->unsendable == NULL ? http_reply(a->exchange) : NULL;

	if (reply == NULL)
		client_report_unsendable(client, a, a->batch->items[i].context);
	else
	{
		clear_result(client, a, a->batch->items[i].context);
		take_facts(client, reply);
		if (client->open_by_item)
			read_item(client, a, i);
		else
		{
			result->facts.whole_batch = true;
			if (reply->transport == TRANSPORT_OK)
				read_refusal(client, reply);
		}
		decide(client->adapter, result);
		explain(result, reply);
	}
	if (!client->open_by_item && i > 0)
	{
		result->verdict.signal = SIGNAL_NONE;
		result->verdict.slow_down = false;
	}
}
