/*
 * batch.c
 *	  A request of several trades: its body in the making, and its reply taken
 *	  apart.
 *
 * Keeps true: an answer is given to the trade whose key it names, and to no other
 * one; a reply that names a key twice, or one that was not sent, is not believed
 * in anything, since what it says of the others may be as wrong; a trade that it
 * does not name has no answer.  No I/O.
 */
#include "wallet/batch.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ROOM		16		/* items */
#define FIRST_SIZE		8192	/* bytes */
#define ITEM_MAX		65536	/* longest item */
#define TRACEPARENT_MAX	64

Batch *
batch_create(const WalletAdapter *adapter)
{
	Batch	   *b = calloc(1, sizeof *b);

	if (b != NULL)
		b->adapter = adapter;
	return b;
}

static void
close_reply(Batch *b)
{
	if (b->reply != NULL)
		b->adapter->close_batch(b->reply);
	b->reply = NULL;
}

void
batch_destroy(Batch *b)
{
	if (b == NULL)
		return;
	close_reply(b);
	free(b->bytes);
	free(b->items);
	free(b->by_key);
	free(b);
}

void
batch_clear(Batch *b)
{
	close_reply(b);
	b->len = 0;
	b->n = 0;
	if (b->by_key != NULL)
		memset(b->by_key, 0, 2 * (size_t) b->room * sizeof *b->by_key);
}

/* ---- keys ---- */

/* A UUID in lower case; false when the text is longer or shorter. */
static bool
lower_key(char *out, const char *key)
{
	int			n;

	for (n = 0; n < IDEMPOTENCY_KEY_LEN && key[n] != '\0'; n++)
		out[n] = (char) tolower((unsigned char) key[n]);
	out[n] = '\0';
	return n == IDEMPOTENCY_KEY_LEN && key[n] == '\0';
}

/* FNV-1a */
static unsigned
hash_key(const char *key)
{
	uint64_t	hash = UINT64_C(14695981039346656037);

	for (; *key != '\0'; key++)
		hash = (hash ^ (unsigned char) *key) * UINT64_C(1099511628211);
	return (unsigned) (hash ^ hash >> 32);
}

/* The place of a key in lower case, or the free place where it belongs. */
static int *
place_of(Batch *b, const char *key)
{
	unsigned	mask = 2 * (unsigned) b->room - 1;
	unsigned	at = hash_key(key) & mask;

	while (b->by_key[at] != 0 && strcmp(b->items[b->by_key[at] - 1].key, key) != 0)
		at = (at + 1) & mask;
	return &b->by_key[at];
}

/* NULL when no item has it. */
static BatchItem *
find_item(Batch *b, const char *key)
{
	char		lower[IDEMPOTENCY_KEY_LEN + 1];
	int			found;

	if (b->n == 0 || !lower_key(lower, key))
		return NULL;
	found = *place_of(b, lower);
	return found > 0 ? &b->items[found - 1] : NULL;
}

/* ---- the body ---- */

static bool
grow_items(Batch *b)
{
	int			room = b->room > 0 ? b->room * 2 : FIRST_ROOM;
	BatchItem  *items = realloc(b->items, (size_t) room * sizeof *items);
	int		   *by_key;

	if (items == NULL)
		return false;
	b->items = items;
	by_key = calloc(2 * (size_t) room, sizeof *by_key);
	if (by_key == NULL)
		return false;
	free(b->by_key);
	b->by_key = by_key;
	b->room = room;
	for (int i = 0; i < b->n; i++)
		*place_of(b, b->items[i].key) = i + 1;
	return true;
}

static bool
grow_bytes(Batch *b)
{
	size_t		size = b->size > 0 ? b->size * 2 : FIRST_SIZE;
	char	   *bytes = realloc(b->bytes, size);

	if (bytes == NULL)
		return false;
	b->bytes = bytes;
	b->size = size;
	return true;
}

/* W3C Trace Context: lower-case hex and dashes; anything else stays out. */
static const char *
usable_trace(const char *text)
{
	return text != NULL && text[0] != '\0' && strlen(text) <= TRACEPARENT_MAX &&
		strspn(text, "0123456789abcdef-") == strlen(text) ? text : NULL;
}

/*
 * The item behind what there is, in a buffer that grows as needed; its length, or
 * -1 when it cannot be written into ITEM_MAX bytes, or -2 when memory is short.
 */
static int
write_item(Batch *b, BatchItem *item, int format, const WalletTrade *trade,
		   const char *traceparent)
{
	for (;;)
	{
		int			len = -1;

		if (b->size > b->len)
			len = b->adapter->batch_item(b->n == 0, item->key, traceparent, format,
										 trade, b->bytes + b->len, b->size - b->len,
										 &item->body, &item->body_len);
		if (len >= 0 || b->size - b->len > ITEM_MAX)
			return len;
		if (!grow_bytes(b))
			return -2;
	}
}

BatchAdd
batch_add(Batch *b, int format, const WalletTrade *trade, const char *key,
		  const char *traceparent, void *context)
{
	BatchAdd	no_room = b->n > 0 ? BATCH_FULL : BATCH_UNWRITABLE;
	BatchItem  *item;
	int		   *place;
	int			len;

	if (b->len >= BATCH_BODY_MAX || (b->n == b->room && !grow_items(b)))
		return no_room;
	item = &b->items[b->n];
	memset(item, 0, sizeof *item);
	if (!lower_key(item->key, key))
		return BATCH_UNWRITABLE;
	place = place_of(b, item->key);
	if (*place != 0)
		return BATCH_TWICE;
	len = write_item(b, item, format, trade, usable_trace(traceparent));
	if (len < 0)
		return len == -1 ? BATCH_UNWRITABLE : no_room;
	item->context = context;
	item->body += b->len;
	b->len += (size_t) len;
	*place = ++b->n;
	return BATCH_ADDED;
}

bool
batch_finish(Batch *b)
{
	size_t		len = strlen(b->adapter->batch_end);

	while (b->size - b->len <= len)
		if (!grow_bytes(b))
			return false;
	strcpy(b->bytes + b->len, b->adapter->batch_end);
	b->len += len;
	return true;
}

/* ---- the reply ---- */

static bool
match_answers(Batch *b, size_t n)
{
	/* one that answers more than it was asked must name a key twice, or another */
	if (n == 0 || n > (size_t) b->n)
		return false;
	for (size_t i = 0; i < n; i++)
	{
		ItemAnswer	answer;
		BatchItem  *item;

		if (!b->adapter->open_item(b->reply, i, &answer))
			return false;
		item = find_item(b, answer.key);
		if (item == NULL || item->named)
			return false;
		item->named = true;
		item->answer = answer;
	}
	return true;
}

bool
batch_open(Batch *b, const char *reply, size_t reply_len)
{
	size_t		n = 0;

	b->reply = b->adapter->open_batch(reply, reply_len, &n);
	if (b->reply == NULL)
		return false;
	if (match_answers(b, n))
		return true;
	close_reply(b);
	return false;
}

/* The byte behind it belongs to a body that has been sent. */
const char *
batch_request(Batch *b, int i)
{
	b->bytes[b->items[i].body + b->items[i].body_len] = '\0';
	return b->bytes + b->items[i].body;
}
