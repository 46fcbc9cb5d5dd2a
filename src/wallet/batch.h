/*
 * batch.h
 *	  A request of several trades: its body in the making, and its reply taken
 *	  apart.  Knows keys and bytes; what the bytes are is the adapter's business.
 */
#ifndef SETTLEMENT_WALLET_BATCH_H
#define SETTLEMENT_WALLET_BATCH_H

#include "wallet/adapter.h"

/*
 * Most bytes of a body, so that a single trade still fits behind it: from 1 MiB
 * on libcurl asks first whether it may send (Expect: 100-continue).
 */
#define BATCH_BODY_MAX	(768 * 1024)

typedef struct BatchItem
{
	char		key[IDEMPOTENCY_KEY_LEN + 1];	/* in lower case */
	void	   *context;
	size_t		body;			/* where its trade is in the bytes */
	size_t		body_len;
	bool		named;			/* the reply has an answer to it */
	ItemAnswer	answer;			/* ... this one */
} BatchItem;

typedef struct Batch
{
	const WalletAdapter *adapter;
	char	   *bytes;			/* the body */
	size_t		size;
	size_t		len;
	BatchItem  *items;
	int			n;
	int			room;			/* of items; a power of two */
	int		   *by_key;			/* hash of 2 * room places: item + 1, 0 free */
	void	   *reply;			/* the adapter's, while it is open */
} Batch;

typedef enum BatchAdd
{
	BATCH_ADDED = 0,
	BATCH_FULL,					/* send it, and begin another */
	BATCH_TWICE,				/* a trade of the same key is in it already */
	BATCH_UNWRITABLE			/* it cannot be written, now or ever */
} BatchAdd;

/* NULL out of memory. */
extern Batch *batch_create(const WalletAdapter *adapter);
extern void batch_destroy(Batch *b);

/* Empty it, and forget the reply. */
extern void batch_clear(Batch *b);

/*
 * Append a trade; key must be a UUID.  A batch that is not empty is full when
 * there is no room or no memory for another one.
 */
extern BatchAdd batch_add(Batch *b, int format, const WalletTrade *trade,
						  const char *key, const char *traceparent, void *context);

/* Complete the body; false when memory is short. */
extern bool batch_finish(Batch *b);

/*
 * Find each item's answer in the reply, by its key.  False when the reply answers
 * not by item, or names a key twice or one that was not sent: then it is not
 * believed in anything.  What items say of their answers lives until batch_clear.
 */
extern bool batch_open(Batch *b, const char *reply, size_t reply_len);

/* The item's request as it would have been sent alone; only after its reply. */
extern const char *batch_request(Batch *b, int i);

#endif
