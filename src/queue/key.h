/*
 * key.h
 *	  The idempotency key of a flight and the fingerprint of what is sent.
 */
#ifndef SETTLEMENT_QUEUE_KEY_H
#define SETTLEMENT_QUEUE_KEY_H

#include "queue/flight.h"

/*
 * Fill flight->key, and format and fingerprint at the first send.  On a resend
 * the body must have the fingerprint of the first: if not (the request format
 * changed in a way that it must not), or if the trade is not attached any more,
 * local_class says why it must not be sent.  In a transaction.
 */
extern void key_prepare(TradeFlight *flight, const WalletClient *client);

#endif
