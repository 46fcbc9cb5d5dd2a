/*
 * plain_reply.h
 *	  The answer that nearly every request gets, read without a JSON parser.
 */
#ifndef SETTLEMENT_WALLET_PLAIN_REPLY_H
#define SETTLEMENT_WALLET_PLAIN_REPLY_H

#include "wallet/client.h"

typedef struct PlainReply
{
	char		settlement_id[WALLET_ID_MAX + 1];	/* never empty */
	char		message[WALLET_MESSAGE_MAX + 1];	/* "": none */
} PlainReply;

/*
 * True when the text is a success in the contract's plainest form: an object of
 * success (true), settlement_id, and if it likes of message and the two flags of
 * reservations, each once, all texts short, in printable ASCII and without
 * escapes.  What it says is then in *reply.  False says nothing: any other text
 * is for the JSON parser.
 */
extern bool plain_reply_read(const char *text, size_t len, PlainReply *reply);

#endif
