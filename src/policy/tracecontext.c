/*
 * tracecontext.c
 *	  W3C Trace Context: read a trace id, write a traceparent.
 *
 * Pure.  What is read comes from a column that anybody may have filled: of any
 * length, with any bytes.
 */
#include "policy/tracecontext.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SPAN_ID_LEN		16

/* The digit in lower case; 0 when it is none.  Not by locale. */
static char
hex_digit(char c)
{
	if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))
		return c;
	if (c >= 'A' && c <= 'F')
		return (char) (c - 'A' + 'a');
	return 0;
}

/* n hex digits, not all of them zero. */
static bool
read_hex(const char *text, int n, char *out)
{
	bool		zero = true;

	for (int i = 0; i < n; i++)
	{
		out[i] = hex_digit(text[i]);
		if (out[i] == 0)
			return false;
		zero = zero && out[i] == '0';
	}
	out[n] = '\0';
	return !zero;
}

static bool
read_uuid(const char *text, char *out)
{
	char		digits[TRACE_ID_LEN];
	int			n = 0;

	for (int i = 0; i < IDEMPOTENCY_KEY_LEN; i++)
	{
		if (i == 8 || i == 13 || i == 18 || i == 23)
		{
			if (text[i] != '-')
				return false;
		}
		else
			digits[n++] = text[i];
	}
	return read_hex(digits, TRACE_ID_LEN, out);
}

/* version "-" trace id "-" parent id "-" flags; more may follow from version 01 on. */
static bool
read_traceparent(const char *text, size_t len, char *out)
{
	char		version[2] = {hex_digit(text[0]), hex_digit(text[1])};
	char		span[SPAN_ID_LEN + 1];

	if (version[0] == 0 || version[1] == 0 || (version[0] == 'f' && version[1] == 'f') ||
		text[2] != '-' || text[35] != '-' || text[52] != '-' ||
		hex_digit(text[53]) == 0 || hex_digit(text[54]) == 0)
		return false;
	if (len > TRACEPARENT_LEN &&
		((version[0] == '0' && version[1] == '0') || text[TRACEPARENT_LEN] != '-'))
		return false;
	return read_hex(text + 36, SPAN_ID_LEN, span) && read_hex(text + 3, TRACE_ID_LEN, out);
}

bool
trace_id_read(const char *text, size_t len, char out[TRACE_ID_LEN + 1])
{
	bool		found = false;

	if (len == TRACE_ID_LEN)
		found = read_hex(text, TRACE_ID_LEN, out);
	else if (len == IDEMPOTENCY_KEY_LEN)
		found = read_uuid(text, out);
	else if (len >= TRACEPARENT_LEN)
		found = read_traceparent(text, len, out);
	if (!found)
		out[0] = '\0';
	return found;
}

void
trace_id_of_key(const char key[IDEMPOTENCY_KEY_LEN + 1], char out[TRACE_ID_LEN + 1])
{
	(void) trace_id_read(key, strlen(key), out);
}

void
traceparent_write(char out[TRACEPARENT_LEN + 1], const char *trace_id,
				  uint64_t span_id, bool sampled)
{
	snprintf(out, TRACEPARENT_LEN + 1, "00-%.32s-%016" PRIx64 "-%02x", trace_id,
			 span_id == 0 ? UINT64_C(1) : span_id, sampled ? 1u : 0u);
}
