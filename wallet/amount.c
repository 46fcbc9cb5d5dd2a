/*
 * amount.c
 *	  Exact decimal amounts: text to GMP integer and back.
 */
#include "amount.h"

#include <stddef.h>
#include <string.h>

#define DIGITS "0123456789"

static bool
parse_magnitude(mpz_t out, const char *text, size_t max_whole)
{
	char		digits[AMOUNT_STORED_DIGITS + AMOUNT_SCALE + 1];
	size_t		whole = strspn(text, DIGITS);
	size_t		fraction = 0;
	const char *end = text + whole;

	if (whole == 0 || whole > max_whole || (whole > 1 && text[0] == '0'))
		return false;
	if (*end == '.')
	{
		fraction = strspn(end + 1, DIGITS);
		if (fraction == 0 || fraction > AMOUNT_SCALE)
			return false;
		memcpy(digits + whole, end + 1, fraction);
		end += 1 + fraction;
	}
	if (*end != '\0')
		return false;

	memcpy(digits, text, whole);
	memset(digits + whole + fraction, '0', AMOUNT_SCALE - fraction);
	digits[whole + AMOUNT_SCALE] = '\0';
	return mpz_set_str(out, digits, 10) == 0;
}

bool
amount_parse(mpz_t out, const char *text)
{
	return parse_magnitude(out, text, AMOUNT_INTEGER_DIGITS);
}

bool
amount_parse_stored(mpz_t out, const char *text)
{
	bool		negative = text[0] == '-';

	if (!parse_magnitude(out, text + negative, AMOUNT_STORED_DIGITS))
		return false;
	if (negative)
		mpz_neg(out, out);
	return true;
}

bool
amount_format(char out[AMOUNT_TEXT_MAX], const mpz_t amount)
{
	char		digits[AMOUNT_STORED_DIGITS + AMOUNT_SCALE + 3];
	const char *first = digits;
	size_t		length;
	size_t		whole;
	size_t		fraction = AMOUNT_SCALE;
	char	   *at = out;

	if (mpz_sizeinbase(amount, 10) > AMOUNT_STORED_DIGITS + AMOUNT_SCALE)
		return false;
	mpz_get_str(digits, 10, amount);
	if (*first == '-')
		*at++ = *first++;
	length = strlen(first);
	whole = length > AMOUNT_SCALE ? length - AMOUNT_SCALE : 0;

	if (whole == 0)
		*at++ = '0';
	memcpy(at, first, whole);
	at += whole;

	while (fraction > 0 && (AMOUNT_SCALE - fraction) < length - whole &&
		   first[length - 1 - (AMOUNT_SCALE - fraction)] == '0')
		fraction--;
	if (length == 1 && first[0] == '0')
		fraction = 0;
	if (fraction > 0)
	{
		size_t		padding = AMOUNT_SCALE - (length - whole);

		*at++ = '.';
		memset(at, '0', padding);
		memcpy(at + padding, first + whole, fraction - padding);
		at += fraction;
	}
	*at = '\0';
	return true;
}
