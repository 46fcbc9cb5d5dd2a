/*
 * http1.h
 *	  Reads the reply to an HTTP/1.1 request (RFC 9112) from bytes as they come.
 *
 * Pure: no I/O, no allocation.  Strict: what could be read in two ways is an
 * error.
 */
#ifndef SETTLEMENT_WALLET_HTTP1_H
#define SETTLEMENT_WALLET_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP1_RETRY_AFTER_MAX	63

typedef enum Http1Progress
{
	HTTP1_MORE,					/* the reply is not complete yet */
	HTTP1_DONE,
	HTTP1_CLOSED,				/* the peer closed before its end */
	HTTP1_BAD,					/* not HTTP, or ambiguous */
	HTTP1_TOO_LARGE
} Http1Progress;

typedef enum Http1Phase
{
	HTTP1_HEAD,
	HTTP1_BODY,					/* of a known length */
	HTTP1_CHUNK_SIZE,
	HTTP1_CHUNK,
	HTTP1_CHUNK_END,
	HTTP1_TRAILER,
	HTTP1_UNTIL_CLOSE
} Http1Phase;

typedef struct Http1Reader
{
	size_t		max_head;		/* bounds in bytes */
	size_t		max_body;

	int			status;			/* 0: not known yet */
	bool		keep_alive;		/* after HTTP1_DONE: the connection can be used again */
	char		retry_after[HTTP1_RETRY_AFTER_MAX + 1];	/* "": none */
	size_t		body_start;		/* where the body is, once complete */
	size_t		body_len;

	/* private */
	Http1Phase	phase;
	size_t		at;				/* read up to here */
	size_t		searched;		/* for the end of a head, up to here */
	size_t		line_start;		/* ... in the line that begins here */
	size_t		head_len;		/* of all that is not body so far */
	size_t		left;			/* of the body or chunk */
	bool		has_length;
	bool		chunked;
} Http1Reader;

extern void http1_begin(Http1Reader *r, size_t max_head, size_t max_body);

/*
 * Read on.  buffer[0 .. len) is all that has come since http1_begin; chunks are
 * joined in place.  eof: nothing more will come.
 */
extern Http1Progress http1_read(Http1Reader *r, char *buffer, size_t len, bool eof);

#endif
