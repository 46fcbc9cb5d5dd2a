/*
 * json_items.c
 *	  Where in the text of a JSON array the parts of its objects are.
 *
 * A parser has accepted the text before, so nothing is checked here.
 */
#include "json_items.h"

#include <stdbool.h>
#include <string.h>

#define SPACE	" \t\r\n"

static const char *
skip_space(const char *at)
{
	return at + strspn(at, SPACE);
}

/* From the opening quote to behind the closing one. */
static const char *
skip_text(const char *at)
{
	for (at++; *at != '"'; at++)
		if (*at == '\\')
			at++;
	return at + 1;
}

/* From the first byte of a value to behind its last. */
static const char *
skip_value(const char *at)
{
	int			depth = 0;

	if (*at != '{' && *at != '[' && *at != '"')
		return at + strcspn(at, ",]}" SPACE);
	do
	{
		if (*at == '"')
		{
			at = skip_text(at);
			continue;
		}
		depth += *at == '{' || *at == '[';
		depth -= *at == '}' || *at == ']';
		at++;
	} while (depth > 0);
	return at;
}

/* The value of a member of the object that begins here. */
static TextSpan
find_member(const char *at, const char *name)
{
	TextSpan	found = {NULL, 0};
	size_t		length = strlen(name);

	for (at = skip_space(at + 1); *at == '"'; at = skip_space(at))
	{
		const char *value = skip_text(at);
		bool		same = (size_t) (value - at) == length + 2 &&
			memcmp(at + 1, name, length) == 0;

		value = skip_space(skip_space(value) + 1);	/* behind the colon */
		at = skip_value(value);
		if (same)
			found = (TextSpan) {value, (size_t) (at - value)};
		at = skip_space(at);
		if (*at == ',')
			at++;
	}
	return found;
}

void
json_items_find(const char *text, const char *name, TextSpan *out, size_t n)
{
	const char *at = skip_space(text) + 1;

	for (size_t i = 0; i < n; i++)
	{
		at = skip_space(at);
		out[i] = *at == '{' ? find_member(at, name) : (TextSpan) {NULL, 0};
		at = skip_space(skip_value(at)) + 1;	/* behind the comma */
	}
}
