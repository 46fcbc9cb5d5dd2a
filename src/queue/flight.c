/*
 * flight.c
 *	  Queue row to C values.
 *
 * Everything that the wallet is sent is formed here from the queue row alone,
 * so that a resend is the same bytes whatever happened to the trade row.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "pgver.h"
#include "policy/idempotency.h"
#include "queue/apply.h"
#include "queue/facts.h"
#include "queue/flight.h"

/* A text that waits to be copied into the arena. */
typedef struct PendingText
{
	const char **target;
	const char *text;			/* not NUL terminated */
	size_t		len;
} PendingText;

#define MAX_TEXTS	(16 + MAX_KEY_COLUMNS)

typedef struct TextList
{
	PendingText item[MAX_TEXTS];
	int			n;
	size_t		bytes;
} TextList;

static void
add_bytes(TextList *list, const char **target, const char *text, size_t len)
{
	PendingText *item;

	Assert(list->n < MAX_TEXTS);
	item = &list->item[list->n++];
	item->target = target;
	item->text = text;
	item->len = len;
	list->bytes += len + 1;
}

static Datum
column(TupleTableSlot *row, int attno, bool *isnull)
{
	return slot_getattr(row, attno, isnull);
}

static void
add_text(TextList *list, const char **target, TupleTableSlot *row, int attno)
{
	bool		isnull;
	Datum		value = column(row, attno, &isnull);
	text	   *t;

	if (isnull)
	{
		*target = NULL;
		return;
	}
	t = DatumGetTextPP(value);
	add_bytes(list, target, VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/* A decimal string without exponent and trailing zeros. */
static void
add_amount(TextList *list, const char **target, TupleTableSlot *row, int attno)
{
	bool		isnull;
	Datum		value = column(row, attno, &isnull);
	char	   *text;

	Assert(!isnull);
	text = numeric_normalize(DatumGetNumeric(value));
	add_bytes(list, target, text, strlen(text));
}

/* BTC/USDT, BTC-USDT or BTC_USDT: the trigger has checked that both are there. */
static void
add_currencies(TextList *list, TradeFlight *flight, TupleTableSlot *row)
{
	bool		isnull;
	text	   *t = DatumGetTextPP(column(row, Anum_queue_symbol, &isnull));
	const char *symbol = VARDATA_ANY(t);
	size_t		len = VARSIZE_ANY_EXHDR(t);
	size_t		base = 0;

	while (base < len && strchr("/-_", symbol[base]) == NULL)
		base++;
	add_bytes(list, &flight->wire.base_currency, symbol, base);
	add_bytes(list, &flight->wire.quote_currency,
			  symbol + Min(base + 1, len), len - Min(base + 1, len));
}

static void
add_row_key(TextList *list, TradeFlight *flight, TupleTableSlot *row)
{
	bool		isnull;
	Datum		value = column(row, Anum_queue_row_key, &isnull);
	Datum	   *elems;
	bool	   *nulls;
	int			n;

	flight->n_keys = 0;
	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false,
					  TYPALIGN_INT, &elems, &nulls, &n);
	for (int i = 0; i < n && i < MAX_KEY_COLUMNS; i++)
	{
		text	   *t;

		if (nulls[i])
			continue;
		t = DatumGetTextPP(elems[i]);
		add_bytes(list, &flight->row_key[flight->n_keys++], VARDATA_ANY(t),
				  VARSIZE_ANY_EXHDR(t));
	}
}

static void
fill_arena(TradeFlight *flight, const TextList *list, MemoryContext context)
{
	char	   *at;

	if (flight->arena_size < list->bytes)
	{
		if (flight->arena != NULL)
			pfree(flight->arena);
		flight->arena = NULL;
		flight->arena_size = 0; /* stays so if there is no memory */
		flight->arena = MemoryContextAlloc(context, Max(list->bytes, 256));
		flight->arena_size = Max(list->bytes, 256);
	}
	at = flight->arena;
	for (int i = 0; i < list->n; i++)
	{
		const PendingText *item = &list->item[i];

		memcpy(at, item->text, item->len);
		at[item->len] = '\0';
		*item->target = at;
		at += item->len + 1;
	}
}

static int64
int_or(TupleTableSlot *row, int attno, int64 if_null)
{
	bool		isnull;
	Datum		value = column(row, attno, &isnull);

	return isnull ? if_null : DatumGetInt64(value);
}

static void
read_scalars(TradeFlight *flight, TupleTableSlot *row)
{
	bool		isnull;
	Datum		tid;
	Datum		print;

	flight->queue_id = DatumGetInt64(column(row, Anum_queue_id, &isnull));
	flight->enqueued_at = DatumGetTimestampTz(column(row, Anum_queue_enqueued_at, &isnull));
	flight->attached_id = DatumGetInt32(column(row, Anum_queue_attached_id, &isnull));
	flight->leaf = DatumGetObjectId(column(row, Anum_queue_leaf, &isnull));
	flight->attempts = DatumGetInt32(column(row, Anum_queue_attempts, &isnull));
	flight->generation = DatumGetInt16(column(row, Anum_queue_generation, &isnull));
	flight->charged = DatumGetInt16(column(row, Anum_queue_charged, &isnull));
	flight->crashes = DatumGetInt16(column(row, Anum_queue_crashes, &isnull));
	flight->format = DatumGetInt16(column(row, Anum_queue_format, &isnull));
	flight->maybe_executed = DatumGetBool(column(row, Anum_queue_maybe_executed, &isnull));
	flight->lookup_first = DatumGetBool(column(row, Anum_queue_lookup_first, &isnull));
	flight->first_sent_at = int_or(row, Anum_queue_first_sent_at, 0);
	flight->pending_ms = int_or(row, Anum_queue_pending_ms, 0);

	tid = column(row, Anum_queue_trade_tid, &isnull);
	if (isnull)
		ItemPointerSetInvalid(&flight->trade_tid);
	else
		ItemPointerCopy((ItemPointer) DatumGetPointer(tid), &flight->trade_tid);

	print = column(row, Anum_queue_fingerprint, &isnull);
	flight->has_fingerprint = false;
	if (!isnull)
	{
		bytea	   *b = DatumGetByteaPP(print);

		if (VARSIZE_ANY_EXHDR(b) == FINGERPRINT_LEN)
		{
			memcpy(flight->fingerprint, VARDATA_ANY(b), FINGERPRINT_LEN);
			flight->has_fingerprint = true;
		}
	}
}

void
flight_read(TradeFlight *flight, TupleTableSlot *row, MemoryContext context)
{
	TextList	list;
	WalletTrade *wire = &flight->wire;

	list.n = 0;
	list.bytes = 0;
	slot_getallattrs(row);
	ItemPointerCopy(&row->tts_tid, &flight->queue_tid);
	read_scalars(flight, row);
	add_text(&list, &wire->trade_id, row, Anum_queue_trade_id);
	add_text(&list, &flight->symbol, row, Anum_queue_symbol);
	add_text(&list, &wire->buyer_id, row, Anum_queue_buyer_id);
	add_text(&list, &wire->seller_id, row, Anum_queue_seller_id);
	add_text(&list, &wire->buyer_order_id, row, Anum_queue_buyer_order_id);
	add_text(&list, &wire->seller_order_id, row, Anum_queue_seller_order_id);
	add_text(&list, &flight->trace_id, row, Anum_queue_trace_id);
	add_currencies(&list, flight, row);
	add_amount(&list, &wire->base_amount, row, Anum_queue_quantity);
	add_amount(&list, &wire->quote_amount, row, Anum_queue_quote_amount);
	add_amount(&list, &wire->price, row, Anum_queue_price);
	add_amount(&list, &wire->buyer_fee, row, Anum_queue_buyer_fee);
	add_amount(&list, &wire->seller_fee, row, Anum_queue_seller_fee);
	add_row_key(&list, flight, row);
	fill_arena(flight, &list, context);

	flight->hash = trade_hash(wire->trade_id);
	flight->probe = false;
	flight->local_class = NULL;
	flight->span_id = 0;
	flight->sent_at = 0;
	flight->answered_at = 0;
	flight->verb = flight->lookup_first ? WALLET_LOOKUP : WALLET_SETTLE;
}

const char *const *
flight_content(const TradeFlight *flight)
{
	const WalletTrade *wire = &flight->wire;
	const char **content = palloc(sizeof(char *) * N_CONTENT);

	content[COLUMN_SYMBOL - COLUMN_SYMBOL] = flight->symbol;
	content[COLUMN_BUYER_ID - COLUMN_SYMBOL] = wire->buyer_id;
	content[COLUMN_SELLER_ID - COLUMN_SYMBOL] = wire->seller_id;
	content[COLUMN_BUYER_ORDER_ID - COLUMN_SYMBOL] = wire->buyer_order_id;
	content[COLUMN_SELLER_ORDER_ID - COLUMN_SYMBOL] = wire->seller_order_id;
	content[COLUMN_PRICE - COLUMN_SYMBOL] = wire->price;
	content[COLUMN_QUANTITY - COLUMN_SYMBOL] = wire->base_amount;
	content[COLUMN_BUYER_FEE - COLUMN_SYMBOL] = wire->buyer_fee;
	content[COLUMN_SELLER_FEE - COLUMN_SYMBOL] = wire->seller_fee;
	return content;
}

FlightPool *
flight_pool_create(MemoryContext context)
{
	FlightPool *pool = MemoryContextAllocZero(context, sizeof(FlightPool));

	pool->context = context;
	/* a set would round their size up to a power of two */
	pool->flights = SlabContextCreate(context, "settlement flight",
									  SLAB_DEFAULT_BLOCK_SIZE, sizeof(TradeFlight));
	return pool;
}

TradeFlight *
flight_take(FlightPool *pool)
{
	TradeFlight *flight;

	if (pool->n_free > 0)
		flight = pool->free[--pool->n_free];
	else
	{
		flight = MemoryContextAllocZero(pool->flights, sizeof(TradeFlight));
		pool->n_allocated++;
	}
	pool->n_used++;
	flight->state = FLIGHT_CLAIMED;
	return flight;
}

void
flight_release(FlightPool *pool, TradeFlight *flight)
{
	Assert(flight->state != FLIGHT_FREE);
	flight->state = FLIGHT_FREE;
	flight->claim = NULL;
	pool->n_used--;
	if (pool->n_free < MAX_CONCURRENCY)
		pool->free[pool->n_free++] = flight;
}
