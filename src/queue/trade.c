/*
 * trade.c
 *	  Reads and validates a trade.
 *
 * The rules are the Go service's (ids present, quantity and price above zero, a
 * symbol of base and quote), and beyond them: amounts are finite and of bounded
 * length, a fee is not negative and not above the quote amount, which is what
 * the seller is credited with and what the buyer's side is worth.  Buyer and
 * seller may be the same.  Absent and NULL fees are zero.
 *
 * On the path of each INSERT, inside the user's transaction: it must not raise
 * an error for user data and must not look at any catalog.
 */
#include "postgres.h"

#include <ctype.h>

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "pgver.h"
#include "policy/tracecontext.h"
#include "queue/trade.h"
#include "queue/valuetext.h"

/* A numeric within the digit bounds takes less than this. */
#define MAX_AMOUNT_BYTES	128

typedef enum AmountCheck
{
	AMOUNT_GOOD,
	AMOUNT_WRONG,				/* may be kept for a person to see */
	AMOUNT_TOO_LONG
} AmountCheck;

/* The first problem found is the one that is reported. */
static void
problem(Trade *trade, const char *fmt,...) pg_attribute_printf(2, 3);

static void
problem(Trade *trade, const char *fmt,...)
{
	va_list		args;
	char		buf[256];

	if (trade->problem != NULL)
		return;
	va_start(args, fmt);
	vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	trade->problem = pstrdup(buf);
}

/*
 * A column that was dropped, renamed or altered after attach() is a problem of
 * each trade: a fee must not become zero that way.
 */
static bool
check_column(const Attachment *a, TradeColumn column, bool type_fits, Trade *trade)
{
	if (a->attno[column] != InvalidAttrNumber && type_fits)
		return true;
	if (a->mapped[column])
		problem(trade, "the column of %s was dropped, renamed or altered after attach",
				trade_column_name(column));
	return false;
}

/* The value of a role's column; false when there is none, or it is NULL. */
static bool
get_column(const Attachment *a, TupleTableSlot *slot, TradeColumn column,
		   bool type_fits, Trade *trade, Datum *value)
{
	bool		isnull;

	if (!check_column(a, column, type_fits, trade))
		return false;
	*value = slot_getattr(slot, a->attno[column], &isnull);
	return !isnull;
}

static void
read_text(const Attachment *a, TupleTableSlot *slot, TradeColumn column,
		  bool required, Trade *trade)
{
	Oid			type = a->type[column];
	const char *name = trade_column_name(column);
	Datum		value;

	if (!get_column(a, slot, column, is_id_type(type), trade, &value))
	{
		if (required)
			problem(trade, "%s is missing", name);
		return;
	}
	value = value_as_text(type, value, MAX_ID_BYTES);
	if (value == (Datum) 0)
	{
		if (required)
			problem(trade, "%s is longer than %d bytes or not valid UTF-8",
					name, MAX_ID_BYTES);
		return;
	}
	if (VARSIZE_ANY_EXHDR(DatumGetPointer(value)) == 0)
	{
		if (required)
			problem(trade, "%s is empty", name);
		return;
	}
	trade->value[column] = value;
	trade->present[column] = true;
}

/*
 * Whatever the column holds, and whether it is still there: nothing of it makes
 * a trade invalid.  What is no trace id is left out.
 */
static void
read_trace_id(const Attachment *a, TupleTableSlot *slot, Trade *trade)
{
	Oid			type = a->type[COLUMN_TRACE_ID];
	char		trace[TRACE_ID_LEN + 1];
	bool		isnull;
	Datum		value;

	if (a->attno[COLUMN_TRACE_ID] == InvalidAttrNumber || !is_id_type(type))
		return;
	value = slot_getattr(slot, a->attno[COLUMN_TRACE_ID], &isnull);
	if (isnull)
		return;
	value = value_as_text(type, value, MAX_ID_BYTES);
	if (value == (Datum) 0 ||
		!trace_id_read(VARDATA_ANY(DatumGetPointer(value)),
					   VARSIZE_ANY_EXHDR(DatumGetPointer(value)), trace))
		return;
	trade->value[COLUMN_TRACE_ID] = CStringGetTextDatum(trace);
	trade->present[COLUMN_TRACE_ID] = true;
}

/* Both a base and a quote, separated by the first '/', '-' or '_'. */
static void
check_symbol(Trade *trade)
{
	text	   *symbol;
	const char *s;
	int			len;
	int			i = 0;

	if (!trade->present[COLUMN_SYMBOL])
		return;
	symbol = DatumGetTextPP(trade->value[COLUMN_SYMBOL]);
	s = VARDATA_ANY(symbol);
	len = VARSIZE_ANY_EXHDR(symbol);
	while (i < len && s[i] != '/' && s[i] != '-' && s[i] != '_')
		i++;
	if (i == 0 || i >= len - 1)
		problem(trade, "symbol has no base and quote separated by \"/\", \"-\" or \"_\"");
}

/* Finite, of bounded length, and on the right side of zero? */
static AmountCheck
check_digits(const char *name, Numeric number, bool positive, Trade *trade)
{
	const char *s = numeric_normalize(number);
	const char *digits = s[0] == '-' ? s + 1 : s;
	const char *point = strchr(digits, '.');
	size_t		whole = point ? point - digits : strlen(digits);

	if (isdigit((unsigned char) digits[0]) && whole > MAX_WHOLE_DIGITS)
	{
		problem(trade, "%s has more than %d digits before the decimal point",
				name, MAX_WHOLE_DIGITS);
		return AMOUNT_TOO_LONG;
	}
	if (point != NULL && strlen(point + 1) > MAX_FRACTION_DIGITS)
	{
		problem(trade, "%s has more than %d digits after the decimal point",
				name, MAX_FRACTION_DIGITS);
		return AMOUNT_TOO_LONG;
	}

	if (!isdigit((unsigned char) digits[0]))
		problem(trade, "%s is %s", name, s);
	else if (positive && (s[0] == '-' || strcmp(s, "0") == 0))
		problem(trade, "%s is not greater than zero", name);
	else if (s[0] == '-')
		problem(trade, "%s is negative", name);
	else
		return AMOUNT_GOOD;
	return AMOUNT_WRONG;
}

static Datum
zero_amount(void)
{
	return NumericGetDatum(int64_to_numeric(0));
}

/* Returns true when the amount may be calculated with. */
static bool
read_amount(const Attachment *a, TupleTableSlot *slot, TradeColumn column,
			bool is_fee, Trade *trade)
{
	Oid			type = a->type[column];
	const char *name = trade_column_name(column);
	Datum		value;
	AmountCheck check;

	if (!get_column(a, slot, column, is_amount_type(type), trade, &value))
	{
		if (!is_fee)
		{
			problem(trade, "%s is missing", name);
			return false;
		}
		value = zero_amount();
	}
	else if (type == INT8OID)
		value = NumericGetDatum(int64_to_numeric(DatumGetInt64(value)));
	else if (type == INT4OID)
		value = NumericGetDatum(int64_to_numeric(DatumGetInt32(value)));
	else if (type == INT2OID)
		value = NumericGetDatum(int64_to_numeric(DatumGetInt16(value)));
	else if (toast_raw_datum_size(value) > MAX_AMOUNT_BYTES)
	{
		problem(trade, "%s has more than %d digits before or %d after the decimal point",
				name, MAX_WHOLE_DIGITS, MAX_FRACTION_DIGITS);
		return false;
	}
	else
		value = NumericGetDatum(DatumGetNumeric(value));

	check = check_digits(name, DatumGetNumeric(value), !is_fee, trade);
	trade->value[column] = value;
	trade->present[column] = check != AMOUNT_TOO_LONG;
	return check == AMOUNT_GOOD;
}

static void
read_quote(Trade *trade)
{
	bool		failed = false;
	Numeric		quote;

	quote = numeric_mul_opt_error(DatumGetNumeric(trade->value[COLUMN_PRICE]),
								  DatumGetNumeric(trade->value[COLUMN_QUANTITY]),
								  &failed);
	if (failed)
	{
		problem(trade, "price x quantity is out of range");
		return;
	}
	trade->quote = NumericGetDatum(quote);
	trade->has_quote = check_digits("price x quantity", quote, true, trade) == AMOUNT_GOOD;
}

static void
check_fee(TradeColumn column, Trade *trade)
{
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, trade->value[column],
										  trade->quote)) > 0)
		problem(trade, "%s is above price x quantity", trade_column_name(column));
}

static void
read_amounts(const Attachment *a, TupleTableSlot *slot, Trade *trade)
{
	bool		price = read_amount(a, slot, COLUMN_PRICE, false, trade);
	bool		quantity = read_amount(a, slot, COLUMN_QUANTITY, false, trade);
	bool		buyer_fee = read_amount(a, slot, COLUMN_BUYER_FEE, true, trade);
	bool		seller_fee = read_amount(a, slot, COLUMN_SELLER_FEE, true, trade);

	if (!price || !quantity)
		return;
	read_quote(trade);
	if (trade->has_quote && buyer_fee)
		check_fee(COLUMN_BUYER_FEE, trade);
	if (trade->has_quote && seller_fee)
		check_fee(COLUMN_SELLER_FEE, trade);
}

/*
 * The primary key in key order, unless it is the trade id alone and usable as
 * that.  Left out when a part cannot be had: tid and trade id have to do then.
 */
static void
read_row_key(const Attachment *a, TupleTableSlot *slot, Trade *trade)
{
	Datum		part[MAX_KEY_COLUMNS];

	if (a->key_is_trade_id && trade->present[COLUMN_TRADE_ID])
		return;
	for (int i = 0; i < a->n_keys; i++)
	{
		bool		isnull;

		if (a->key_attno[i] == InvalidAttrNumber || !is_key_type(a->key_type[i]))
			return;
		part[i] = slot_getattr(slot, a->key_attno[i], &isnull);
		if (isnull)
			return;
		part[i] = value_as_text(a->key_type[i], part[i], MAX_KEY_BYTES);
		if (part[i] == (Datum) 0)
			return;
	}
	if (a->n_keys > 0)
		trade->row_key = PointerGetDatum(construct_array(part, a->n_keys, TEXTOID,
														 -1, false, TYPALIGN_INT));
}

static bool
has_status(const Attachment *a)
{
	return a->attno[COLUMN_STATUS] != InvalidAttrNumber &&
		is_text_type(a->type[COLUMN_STATUS]);
}

bool
trade_is_pending(const Attachment *a, TupleTableSlot *slot)
{
	const char *bytes;
	int			len;
	bool		isnull;
	Datum		value;

	/* Without a status nobody can say that it is not; see trade_read. */
	if (!has_status(a))
		return true;
	value = slot_getattr(slot, a->attno[COLUMN_STATUS], &isnull);
	return !isnull &&
		text_bytes(a->type[COLUMN_STATUS], value, MAX_ID_BYTES, &bytes, &len) &&
		len == strlen("PENDING") && memcmp(bytes, "PENDING", len) == 0;
}

void
trade_read(const Attachment *a, TupleTableSlot *slot, Trade *trade)
{
	memset(trade, 0, sizeof(Trade));
	trade->attached_id = a->attached_id;
	trade->leaf = a->relid;
	trade->tid = slot->tts_tid;

	for (TradeColumn column = COLUMN_TRADE_ID; column <= COLUMN_SELLER_ORDER_ID; column++)
		read_text(a, slot, column, true, trade);
	read_trace_id(a, slot, trade);
	check_symbol(trade);
	read_amounts(a, slot, trade);
	(void) check_column(a, COLUMN_STATUS, has_status(a), trade);
	read_row_key(a, slot, trade);
}
