/*
 * json.c
 *	  The JSON writer and the UTF-8 it stands on, and a guarded way into the
 *	  reader.
 *
 * Keeps true: the result is valid JSON in valid UTF-8 or there is none; the
 * same input gives the same bytes.  The writer never writes outside the buffer,
 * and never allocates.
 *
 * jansson (2.14) goes on when a string that it reads cannot grow: the string
 * then lacks a byte, and nobody is told.  So its allocations are watched.
 */
#include "wallet/json.h"

#include <limits.h>
#include <string.h>

static json_malloc_t allocate;	/* what jansson would use */
static bool ran_out;

static void *
watched_malloc(size_t size)
{
	void	   *memory = allocate(size);

	if (memory == NULL)
		ran_out = true;
	return memory;
}

void
json_global_init(void)
{
	json_free_t release;

	if (allocate != NULL)
		return;
	json_get_alloc_funcs(&allocate, &release);
	json_set_alloc_funcs(watched_malloc, release);
}

json_t *
json_read(const char *text, size_t len)
{
	json_t	   *value;

	ran_out = false;
	value = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	if (!ran_out)
		return value;
	json_decref(value);
	return NULL;
}

static bool
is_tail(unsigned char c)
{
	return (c & 0xC0) == 0x80;
}

size_t
utf8_length(const char *text)
{
	const unsigned char *s = (const unsigned char *) text;

	if (s[0] == 0)
		return 0;
	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		return is_tail(s[1]) ? 2 : 0;
	if (s[0] >= 0xE0 && s[0] <= 0xEF)
	{
		if (!is_tail(s[1]) ||
			(s[0] == 0xE0 && s[1] < 0xA0) ||	/* overlong */
			(s[0] == 0xED && s[1] > 0x9F))	/* surrogate */
			return 0;
		return is_tail(s[2]) ? 3 : 0;
	}
	if (s[0] >= 0xF0 && s[0] <= 0xF4)
	{
		if (!is_tail(s[1]) ||
			(s[0] == 0xF0 && s[1] < 0x90) ||	/* overlong */
			(s[0] == 0xF4 && s[1] > 0x8F))	/* above U+10FFFF */
			return 0;
		return is_tail(s[2]) && is_tail(s[3]) ? 4 : 0;
	}
	return 0;
}

bool
utf8_copy(char *out, size_t size, const char *text)
{
	size_t		len = 0;

	while (*text != '\0')
	{
		size_t		n = utf8_length(text);
		size_t		step = n > 0 ? n : 1;

		if (len + step >= size)
			break;
		if (n == 0)
			out[len] = '?';
		else if (n == 1 && ((unsigned char) *text < 0x20 || *text == 0x7f))
			out[len] = ' ';
		else
			memcpy(out + len, text, n);
		len += step;
		text += step;
	}
	out[len] = '\0';
	return *text == '\0';
}

static void
put(JsonWriter *w, const char *bytes, size_t n)
{
	if (w->failed || n >= w->size - w->len)	/* one byte stays for the NUL */
	{
		w->failed = true;
		return;
	}
	memcpy(w->out + w->len, bytes, n);
	w->len += n;
}

/* The short escapes of RFC 8259 where there is one, else \u00XX. */
static void
put_escaped(JsonWriter *w, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";
	char		escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
	const char *shorts = "\"\\\b\f\n\r\t";
	const char *letters = "\"\\bfnrt";
	const char *found = memchr(shorts, c, 7);

	if (found != NULL)
	{
		escape[1] = letters[found - shorts];
		put(w, escape, 2);
	}
	else
		put(w, escape, sizeof escape);
}

static void
put_text(JsonWriter *w, const char *text)
{
	put(w, "\"", 1);
	while (*text != '\0' && !w->failed)
	{
		const char *plain = text;
		size_t		n = 1;

		while ((unsigned char) *text >= 0x20 && *text != '"' && *text != '\\' &&
			   (n = utf8_length(text)) > 0)
			text += n;
		if (n == 0)
			w->failed = true;
		if (text > plain)
			put(w, plain, (size_t) (text - plain));
		else
			put_escaped(w, (unsigned char) *text++);
	}
	put(w, "\"", 1);
}

void
json_begin(JsonWriter *w, char *out, size_t size)
{
	w->out = out;
	w->size = size;
	w->len = 0;
	w->failed = size == 0;
	put(w, "{", 1);
}

void
json_member(JsonWriter *w, const char *name, const char *value)
{
	if (w->len > 1)
		put(w, ",", 1);
	put(w, "\"", 1);
	put(w, name, strlen(name));
	put(w, "\":", 2);
	if (value == NULL)
		w->failed = true;
	else
		put_text(w, value);
}

int
json_end(JsonWriter *w)
{
	put(w, "}", 1);
	if (w->failed || w->len > INT_MAX)
		return -1;
	w->out[w->len] = '\0';
	return (int) w->len;
}
