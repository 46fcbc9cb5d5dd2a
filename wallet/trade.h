/*
 * trade.h
 *	  The body of a settle request, read and checked for shape.
 *
 * Whether the users exist and can pay is the ledger's business.
 */
#ifndef WALLET_TRADE_H
#define WALLET_TRADE_H

#include <stdbool.h>
#include <stddef.h>

#include <gmp.h>
#include <jansson.h>

#define TRADE_ID_MAX		256
#define TRADE_CURRENCY_MAX	32

typedef struct Trade
{
	json_t	   *document;		/* owns the texts below */
	const char *trade_id;		/* texts are "" when absent */
	const char *buyer_id;
	const char *seller_id;
	const char *buyer_order_id;
	const char *seller_order_id;
	const char *base_currency;
	const char *quote_currency;
	mpz_t		base_amount;
	mpz_t		quote_amount;
	mpz_t		price;
	mpz_t		buyer_fee;
	mpz_t		seller_fee;
	const char *problem;		/* static; NULL: the trade can be settled */
} Trade;

/*
 * Always leaves a trade that trade_free takes, with what could be read in it:
 * the misbehaviour rules may match on a trade that is wrong elsewhere.
 */
extern void trade_parse(Trade *trade, const char *body, size_t length);
extern void trade_free(Trade *trade);

#endif
