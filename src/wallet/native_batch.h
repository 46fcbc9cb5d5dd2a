/*
 * native_batch.h
 *	  The native contract's form of a batch (docs: the wallet contract).
 */
#ifndef SETTLEMENT_WALLET_NATIVE_BATCH_H
#define SETTLEMENT_WALLET_NATIVE_BATCH_H

#include "wallet/adapter.h"

/* As the adapter's members of these names (adapter.h). */
extern int	native_batch_item(bool first, const char *key, const char *traceparent,
							  int format, const WalletTrade *trade, char *out,
							  size_t outlen, size_t *body, size_t *body_len);
extern void *native_open_batch(const char *reply, size_t reply_len, size_t *n);
extern bool native_open_item(const void *batch, size_t i, ItemAnswer *answer);
extern void native_close_batch(void *batch);

#endif
