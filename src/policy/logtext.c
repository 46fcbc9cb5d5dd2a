/*
 * logtext.c
 *	  Texts of others on a log line.
 *
 * Pure.  A wallet's message and a trade's ids may hold anything; whoever reads
 * the log, or parses it, must not take a part of them for ours.
 */
#include "policy/logtext.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* So far, to see whether there is more, and the whole of the last character. */
#define LOOK_MAX		(LOG_TEXT_MAX + 4)

typedef struct Out
{
	char	   *text;
	size_t		len;
} Out;

static void
put(Out *out, const char *bytes, size_t n)
{
	memcpy(out->text + out->len, bytes, n);
	out->len += n;
}

static void
put_escape(Out *out, unsigned int code)
{
	static const char short_forms[] = "\bb\tt\nn\ff\rr\"\"\\\\";
	char		text[8];

	for (const char *p = short_forms; *p != '\0'; p += 2)
		if (code == (unsigned char) *p)
		{
			snprintf(text, sizeof text, "\\%c", p[1]);
			put(out, text, 2);
			return;
		}
	snprintf(text, sizeof text, "\\u%04x", code & 0xffff);
	put(out, text, 6);
}

/*
 * Length of the UTF-8 character at p, of which `left` bytes are there, and its
 * code point; 0 when there is none.  Over-long forms, surrogates and what lies
 * beyond U+10FFFF are none.
 */
static size_t
utf8_character(const unsigned char *p, size_t left, uint32_t *code)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t		n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 :
		(p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;

	if (n == 0 || n > left)
		return 0;
	*code = n == 1 ? p[0] : p[0] & (0x7f >> n);
	for (size_t i = 1; i < n; i++)
	{
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (p[i] & 0x3f);
	}
	if (*code < least[n] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
		return 0;
	return n;
}

/* May this character stand on a line as it is? */
static bool
is_harmless(uint32_t code)
{
	if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '"' || code == '\\')
		return false;
	/* line and paragraph separators; marks, embeddings and isolates of direction */
	return !(code >= 0x2028 && code <= 0x202e) && !(code >= 0x2066 && code <= 0x2069) &&
		code != 0x200e && code != 0x200f && code != 0x061c;
}

/* All of a text that is looked at; whole characters only. */
static void
escape(Out *out, const char *text, size_t len, bool utf8)
{
	size_t		end = len > LOG_TEXT_MAX ? LOG_TEXT_MAX : len;
	size_t		at = 0;

	while (at < end)
	{
		const unsigned char *p = (const unsigned char *) text + at;
		uint32_t	code = *p;
		size_t		n = utf8 ? utf8_character(p, len - at, &code) : *p < 0x80;

		if (n > end - at)
			break;
		if (n == 0)
			put_escape(out, utf8 ? 0xfffd : *p);
		else if (is_harmless(code))
			put(out, text + at, n);
		else
			put_escape(out, code);
		at += n == 0 ? 1 : n;
	}
	if (len > LOG_TEXT_MAX)
		put(out, "...", 3);
}

size_t
log_text_escape(const char *text, bool utf8, char out[LOG_TEXT_SIZE])
{
	Out			o = {out, 0};

	escape(&o, text, strnlen(text, LOOK_MAX), utf8);
	out[o.len] = '\0';
	return o.len;
}

static bool
needs_quotes(const char *text)
{
	for (const char *p = text; *p != '\0'; p++)
		if (*p <= ' ' || *p > '~' || *p == '"' || *p == '\\' || *p == '=')
			return true;
	return *text == '\0';
}

size_t
log_text_value(const char *text, bool utf8, char out[LOG_TEXT_SIZE])
{
	Out			o = {out, 0};
	bool		quotes = needs_quotes(text);

	if (quotes)
		put(&o, "\"", 1);
	escape(&o, text, strnlen(text, LOOK_MAX), utf8);
	if (quotes)
		put(&o, "\"", 1);
	out[o.len] = '\0';
	return o.len;
}
