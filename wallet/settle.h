/*
 * settle.h
 *	  The wallet contract: one settle request, one look-up.
 */
#ifndef WALLET_SETTLE_H
#define WALLET_SETTLE_H

#include <stdbool.h>

#include "request.h"

/* POST /api/wallets/settle: parks the request for the next batch. */
extern void settle_handle(Request *request);

/*
 * The request's effect and its reply, inside the batch's transaction.  False:
 * the database failed, and the whole batch is to be rolled back.
 */
extern bool settle_in_transaction(Request *request);

/* The batch is over: the reply that stands in the request may leave. */
extern void settle_done(Request *request);

/* GET /api/wallets/settlements/{key} */
extern void lookup_handle(Request *request);

#endif
