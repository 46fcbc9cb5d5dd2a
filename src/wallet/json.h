/*
 * json.h
 *	  Writes flat JSON objects of texts into a bounded buffer, byte for byte the
 *	  same each time.  Reading is jansson's; writing is ours because the bytes
 *	  are evidence, and must not change with a library.
 */
#ifndef SETTLEMENT_WALLET_JSON_H
#define SETTLEMENT_WALLET_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct JsonWriter
{
	char	   *out;
	size_t		size;
	size_t		len;
	bool		failed;			/* out of room, or a text is not UTF-8 */
} JsonWriter;

extern void json_begin(JsonWriter *w, char *out, size_t size);

/* One member, name and value being texts; the name must need no escaping. */
extern void json_member(JsonWriter *w, const char *name, const char *value);

/* Closes the object and adds a NUL.  The length, or -1 when anything failed. */
extern int	json_end(JsonWriter *w);

/* Once per process, before json_read. */
extern void json_global_init(void);

/*
 * A JSON text as jansson reads it, to be given back with json_decref; NULL when
 * it is none, or when memory ran out.
 */
extern json_t *json_read(const char *text, size_t len);

/*
 * The length in bytes of the UTF-8 character at s (RFC 3629: no surrogates, no
 * overlong forms, at most U+10FFFF); 0 when there is none.  Reads no byte behind
 * the first that does not fit, so that a NUL always stops it.
 */
extern size_t utf8_length(const char *s);

/*
 * Copy a text into a buffer of the given size, cut at a character, with control
 * characters made spaces and bytes that are not UTF-8 made question marks.
 * True when nothing was cut.
 */
extern bool utf8_copy(char *out, size_t size, const char *text);

#endif
