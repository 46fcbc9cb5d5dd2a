/*
 * trade.c
 *	  The body of a settle request, read and checked for shape.
 */
#include "trade.h"

#include <string.h>

#include "amount.h"

static void
problem(Trade *trade, const char *text)
{
	if (trade->problem == NULL)
		trade->problem = text;
}

static const char *
read_text(Trade *trade, const char *name, size_t max, const char *complaint)
{
	const char *text = json_string_value(json_object_get(trade->document, name));

	if (text == NULL || text[0] == '\0' || strlen(text) > max)
		problem(trade, complaint);
	return text == NULL ? "" : text;
}

/* Absent and null are the same: not every market has order ids. */
static const char *
read_optional_text(Trade *trade, const char *name, const char *complaint)
{
	json_t	   *value = json_object_get(trade->document, name);

	if (value == NULL || json_is_null(value))
		return "";
	return read_text(trade, name, TRADE_ID_MAX, complaint);
}

static void
read_amount(Trade *trade, const char *name, mpz_t out, const char *complaint)
{
	const char *text = json_string_value(json_object_get(trade->document, name));

	if (text == NULL || !amount_parse(out, text))
		problem(trade, complaint);
}

static void
check_amounts(Trade *trade)
{
	if (trade->problem != NULL)
		return;
	if (mpz_sgn(trade->base_amount) == 0)
		problem(trade, "base_amount must be greater than zero");
	if (mpz_sgn(trade->quote_amount) == 0)
		problem(trade, "quote_amount must be greater than zero");
	if (mpz_cmp(trade->seller_fee, trade->quote_amount) > 0)
		problem(trade, "seller_fee must not exceed quote_amount");
	if (strcmp(trade->base_currency, trade->quote_currency) == 0)
		problem(trade, "base_currency and quote_currency must differ");
}

void
trade_parse(Trade *trade, const char *body, size_t length)
{
	*trade = (Trade) {
		.trade_id = "", .buyer_id = "", .seller_id = "",
		.buyer_order_id = "", .seller_order_id = "",
		.base_currency = "", .quote_currency = "",
	};
	mpz_inits(trade->base_amount, trade->quote_amount, trade->price,
			  trade->buyer_fee, trade->seller_fee, NULL);

	trade->document = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(trade->document))
	{
		problem(trade, "the body must be a JSON object");
		return;
	}
	trade->trade_id = read_text(trade, "trade_id", TRADE_ID_MAX,
								"trade_id must be a text of 1 to 256 bytes");
	trade->buyer_id = read_text(trade, "buyer_id", TRADE_ID_MAX,
								"buyer_id must be a text of 1 to 256 bytes");
	trade->seller_id = read_text(trade, "seller_id", TRADE_ID_MAX,
								 "seller_id must be a text of 1 to 256 bytes");
	trade->buyer_order_id =
		read_optional_text(trade, "buyer_order_id",
						   "buyer_order_id must be a text of 1 to 256 bytes");
	trade->seller_order_id =
		read_optional_text(trade, "seller_order_id",
						   "seller_order_id must be a text of 1 to 256 bytes");
	trade->base_currency = read_text(trade, "base_currency", TRADE_CURRENCY_MAX,
									 "base_currency must be a text of 1 to 32 bytes");
	trade->quote_currency = read_text(trade, "quote_currency", TRADE_CURRENCY_MAX,
									  "quote_currency must be a text of 1 to 32 bytes");
	read_amount(trade, "base_amount", trade->base_amount,
				"base_amount must be a decimal string that fits");
	read_amount(trade, "quote_amount", trade->quote_amount,
				"quote_amount must be a decimal string that fits");
	read_amount(trade, "buyer_fee", trade->buyer_fee,
				"buyer_fee must be a decimal string that fits");
	read_amount(trade, "seller_fee", trade->seller_fee,
				"seller_fee must be a decimal string that fits");
	if (json_object_get(trade->document, "price") != NULL)
		read_amount(trade, "price", trade->price,
					"price must be a decimal string that fits");
	check_amounts(trade);
}

void
trade_free(Trade *trade)
{
	json_decref(trade->document);
	mpz_clears(trade->base_amount, trade->quote_amount, trade->price,
			   trade->buyer_fee, trade->seller_fee, NULL);
	*trade = (Trade) {0};
}
