/*
 * inspect.h
 *	  Endpoints that show what the wallet holds.
 */
#ifndef WALLET_INSPECT_H
#define WALLET_INSPECT_H

#include "request.h"

extern void inspect_health(Request *request);
extern void inspect_stats(Request *request);
extern void inspect_balances(Request *request);

/* Every posting, as a stream of JSON lines. */
extern void inspect_ledger(Request *request);

#endif
