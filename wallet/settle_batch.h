/*
 * settle_batch.h
 *	  The wallet contract: several trades in one request.
 */
#ifndef WALLET_SETTLE_BATCH_H
#define WALLET_SETTLE_BATCH_H

#include <stdbool.h>

#include "request.h"

/* POST /api/wallets/settle-batch: parks the request for the next group commit. */
extern void settle_batch_handle(Request *request);

/* The effects of its items; as settle_in_transaction. */
extern bool settle_batch_in_transaction(Request *request);

/* Their answers become the request's, unless it has one as a whole. */
extern void settle_batch_done(Request *request);

extern void settle_batch_free(Request *request);

#endif
