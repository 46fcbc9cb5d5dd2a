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

/*
 * The batch is over: the reply that stands in the request may leave, or one that
 * says that nothing was done.
 */
extern void settle_done(Request *request, bool committed);

/* GET /api/wallets/settlements/{key} */
extern void lookup_handle(Request *request);

/* The steps that a batch has in common with the above. */

/* Which rule, if any, takes this request. */
extern void settle_choose_fault(Request *request, FaultPath path);

/* Now, or after so many milliseconds. */
extern void settle_go_on(Request *request, int64_t delay_ms, void (*step) (void *argument));

/* False: refused, the reply says so. */
extern bool settle_check_epoch(Request *request, bool *database_ok);

#endif
