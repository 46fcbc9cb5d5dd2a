/*
 * json_items.h
 *	  Where in the text of a JSON array the parts of its objects are.  The bytes
 *	  themselves matter, and a parser does not keep them.
 */
#ifndef WALLET_JSON_ITEMS_H
#define WALLET_JSON_ITEMS_H

#include <stddef.h>

typedef struct TextSpan
{
	const char *text;			/* NULL: the object has no such member */
	size_t		length;
} TextSpan;

/*
 * The value of the member `name` in each of the first n elements of the array.
 * The text is valid JSON, NUL terminated, an array of at least n elements.
 */
extern void json_items_find(const char *text, const char *name, TextSpan *out, size_t n);

#endif
