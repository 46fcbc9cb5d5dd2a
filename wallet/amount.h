/*
 * amount.h
 *	  Exact decimal amounts: whole numbers of 10^-36, held by GMP.
 *
 * Nothing is ever rounded: a text that does not fit is refused.  36 decimals
 * hold the product of two 18-decimal numbers, which is what a quote amount is.
 */
#ifndef WALLET_AMOUNT_H
#define WALLET_AMOUNT_H

#include <stdbool.h>

#include <gmp.h>

#define AMOUNT_SCALE			36
#define AMOUNT_INTEGER_DIGITS	40	/* of what a client may send */
#define AMOUNT_STORED_DIGITS	80	/* of what sums may grow to */
#define AMOUNT_TEXT_MAX			(1 + AMOUNT_STORED_DIGITS + 1 + AMOUNT_SCALE + 1)

/*
 * A client's amount: digits, optionally a point and more digits; no sign, no
 * exponent, no leading zeros.  False when it is not that or does not fit.
 */
extern bool amount_parse(mpz_t out, const char *text);

/* The same with an optional minus sign, for what the ledger itself wrote. */
extern bool amount_parse_stored(mpz_t out, const char *text);

/* Shortest exact text: no exponent, no trailing zeros.  False: too large. */
extern bool amount_format(char out[AMOUNT_TEXT_MAX], const mpz_t amount);

#endif
