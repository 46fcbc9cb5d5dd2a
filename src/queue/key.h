/*
 * key.h
 *	  The idempotency key of a flight and the fingerprint of what is sent.
 */
#ifndef SETTLEMENT_QUEUE_KEY_H
#define SETTLEMENT_QUEUE_KEY_H

#include "queue/flight.h"

/*
 * Fill the keys of freshly claimed flights, in the claim's transaction.  A
 * resend whose body has not the fingerprint of the first send, or a trade whose
 * table is not attached any more, gets a local_class and must not be sent.
 */
extern void key_prepare(TradeFlight **flights, int n, const WalletClient *client);

/*
 * The trace id of a trade: `mapped`, that of its row, or what is made from its
 * first key.  Empty when its table is not attached any more or trade_id is NULL.
 * In a transaction.
 */
extern void key_trace(int attached_id, const char *trade_id, const char *mapped,
					  char out[TRACE_ID_LEN + 1]);

/* Fill fingerprint and format of a flight that was sent, if they are not known. */
extern void key_fingerprint(TradeFlight *flight, const WalletClient *client);

#endif
