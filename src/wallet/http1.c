/*
 * http1.c
 *	  Reads the reply to an HTTP/1.1 request (RFC 9112) from bytes as they come.
 *
 * Keeps true: nothing outside buffer[0 .. len) is touched; a reply is complete
 * only at the end that it has announced, and one that announces no end or two
 * different ones leaves a connection that is not used again.
 */
#include "wallet/http1.h"

#include <string.h>
#include <strings.h>

#define LENGTH_DIGITS	15		/* of a Content-Length */
#define CHUNK_DIGITS	8		/* of the size of a chunk */
#define CHUNK_LINE_MAX	256		/* with its extensions */

void
http1_begin(Http1Reader *r, size_t max_head, size_t max_body)
{
	memset(r, 0, sizeof *r);
	r->max_head = max_head;
	r->max_body = max_body;
	r->phase = HTTP1_HEAD;
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int
hex_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* RFC 9110, 5.6.2: what a header's name is made of. */
static bool
is_token_char(char c)
{
	return c > 0x20 && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
}

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* ---- lines ---- */

typedef struct Line
{
	const char *text;
	size_t		len;			/* without its end */
} Line;

/* The line that begins at r->at; false when its end has not come yet. */
static bool
next_line(Http1Reader *r, const char *buffer, size_t len, Line *line)
{
	const char *start = buffer + r->at;
	const char *end = r->at < len ? memchr(start, '\n', len - r->at) : NULL;

	if (end == NULL)
		return false;
	line->text = start;
	line->len = (size_t) (end - start);
	if (line->len > 0 && end[-1] == '\r')
		line->len--;
	r->at += (size_t) (end - start) + 1;
	return true;
}

/* No controls but tabs: a NUL or a lone CR is somebody's trick. */
static bool
is_clean(const Line *line)
{
	for (size_t i = 0; i < line->len; i++)
		if (((unsigned char) line->text[i] < 0x20 && line->text[i] != '\t') ||
			line->text[i] == 0x7f)
			return false;
	return true;
}

static void
trim(Line *value)
{
	while (value->len > 0 && is_blank(value->text[0]))
	{
		value->text++;
		value->len--;
	}
	while (value->len > 0 && is_blank(value->text[value->len - 1]))
		value->len--;
}

static bool
equals(const Line *line, const char *word)
{
	return line->len == strlen(word) && strncasecmp(line->text, word, line->len) == 0;
}

/* Is word in the comma separated list? */
static bool
lists(Line list, const char *word)
{
	while (list.len > 0)
	{
		const char *comma = memchr(list.text, ',', list.len);
		Line		item = {list.text, comma ? (size_t) (comma - list.text) : list.len};
		size_t		step = comma ? item.len + 1 : item.len;

		list.text += step;
		list.len -= step;
		trim(&item);
		if (equals(&item, word))
			return true;
	}
	return false;
}

/* ---- the head ---- */

/* "HTTP/1.1 200 OK"; the reason may be missing. */
static bool
read_status_line(Http1Reader *r, const Line *line)
{
	const char *s = line->text;

	if (line->len < 12 || memcmp(s, "HTTP/1.", 7) != 0 || (s[7] != '0' && s[7] != '1') ||
		s[8] != ' ' || s[9] < '1' || s[9] > '9' || !is_digit(s[10]) || !is_digit(s[11]) ||
		(line->len > 12 && s[12] != ' '))
		return false;
	r->status = (s[9] - '0') * 100 + (s[10] - '0') * 10 + (s[11] - '0');
	r->keep_alive = s[7] == '1';
	r->has_length = r->chunked = false;
	r->left = 0;
	r->retry_after[0] = '\0';
	return true;
}

/* Twice is all right if it is the same. */
static bool
read_length(Http1Reader *r, const Line *value)
{
	size_t		length = 0;

	if (value->len == 0 || value->len > LENGTH_DIGITS)
		return false;
	for (size_t i = 0; i < value->len; i++)
	{
		if (!is_digit(value->text[i]))
			return false;
		length = length * 10 + (size_t) (value->text[i] - '0');
	}
	if (r->has_length && r->left != length)
		return false;
	r->has_length = true;
	r->left = length;
	return true;
}

static bool
read_header(Http1Reader *r, const Line *line)
{
	const char *colon = memchr(line->text, ':', line->len);
	Line		name = {line->text, colon ? (size_t) (colon - line->text) : 0};
	Line		value;

	if (name.len == 0)
		return false;
	for (size_t i = 0; i < name.len; i++)
		if (!is_token_char(name.text[i]))
			return false;
	value.text = colon + 1;
	value.len = line->len - name.len - 1;
	trim(&value);
	if (equals(&name, "Content-Length"))
		return read_length(r, &value);
	if (equals(&name, "Transfer-Encoding"))
	{
		if (r->chunked || !equals(&value, "chunked"))
			return false;
		r->chunked = true;
	}
	else if (equals(&name, "Connection") && lists(value, "close"))
		r->keep_alive = false;
	else if (equals(&name, "Retry-After") && value.len <= HTTP1_RETRY_AFTER_MAX)
	{
		memcpy(r->retry_after, value.text, value.len);
		r->retry_after[value.len] = '\0';
	}
	return true;
}

/* What comes behind a head that is complete; false when that is not clear. */
static bool
choose_body(Http1Reader *r)
{
	if (r->chunked && r->has_length)
		return false;
	if (r->status < 200)
	{
		/* 100 Continue and the like: the reply is still to come */
		r->phase = HTTP1_HEAD;
		if (r->status == 101)
			return false;
		r->status = 0;
		return true;
	}
	r->body_start = r->at;
	r->phase = HTTP1_BODY;
	if (r->status == 204 || r->status == 304)
		r->left = 0;
	else if (r->chunked)
		r->phase = HTTP1_CHUNK_SIZE;
	else if (!r->has_length)
	{
		r->phase = HTTP1_UNTIL_CLOSE;
		r->keep_alive = false;
	}
	return true;
}

/* Has the empty line come that ends it?  No byte is looked at twice for this. */
static bool
head_has_ended(Http1Reader *r, const char *buffer, size_t len)
{
	for (size_t i = r->searched > r->at ? r->searched : r->at; i < len; i++)
	{
		if (buffer[i] != '\n')
			continue;
		if (i - r->line_start <= 1 && (i == r->line_start || buffer[i - 1] == '\r') &&
			r->line_start > r->at)
			return true;
		r->line_start = i + 1;
	}
	r->searched = len;
	return false;
}

/* Of what has come of a head that has not ended: can it still be one? */
static Http1Progress
judge_part_of_head(const Http1Reader *r, const char *buffer, size_t len)
{
	static const char start[] = "HTTP/1.";
	size_t		n = len - r->at < strlen(start) ? len - r->at : strlen(start);

	if (memcmp(buffer + r->at, start, n) != 0)
		return HTTP1_BAD;
	return r->head_len + (len - r->at) > r->max_head ? HTTP1_TOO_LARGE : HTTP1_MORE;
}

static Http1Progress
read_head(Http1Reader *r, const char *buffer, size_t len)
{
	size_t		start = r->at;
	bool		first = true;
	Line		line;

	if (!head_has_ended(r, buffer, len))
		return judge_part_of_head(r, buffer, len);
	while (next_line(r, buffer, len, &line) && (line.len > 0 || first))
	{
		if (!is_clean(&line) ||
			!(first ? read_status_line(r, &line) : read_header(r, &line)))
			return HTTP1_BAD;
		first = false;
	}
	r->line_start = r->searched = r->at;
	r->head_len += r->at - start;
	if (r->head_len > r->max_head)
		return HTTP1_TOO_LARGE;
	return choose_body(r) ? HTTP1_DONE : HTTP1_BAD;
}

/* ---- the body ---- */

/* Take what has come of the body or chunk. */
static bool
take_body(Http1Reader *r, char *buffer, size_t len)
{
	size_t		n = len - r->at < r->left ? len - r->at : r->left;

	if (r->body_start + r->body_len != r->at)
		memmove(buffer + r->body_start + r->body_len, buffer + r->at, n);
	r->body_len += n;
	r->at += n;
	r->left -= n;
	return r->left == 0;
}

static Http1Progress
read_chunk_size(Http1Reader *r, const char *buffer, size_t len)
{
	size_t		start = r->at;
	size_t		size = 0;
	size_t		i = 0;
	Line		line;

	if (!next_line(r, buffer, len, &line))
		return len - start > CHUNK_LINE_MAX ? HTTP1_BAD : HTTP1_MORE;
	while (i < line.len && i <= CHUNK_DIGITS && hex_value(line.text[i]) >= 0)
		size = size * 16 + (size_t) hex_value(line.text[i++]);
	if (i == 0 || i > CHUNK_DIGITS || line.len > CHUNK_LINE_MAX || !is_clean(&line) ||
		(i < line.len && line.text[i] != ';' && !is_blank(line.text[i])))
		return HTTP1_BAD;
	if (size > r->max_body - r->body_len)
		return HTTP1_TOO_LARGE;
	r->head_len += r->at - start;
	if (r->head_len > r->max_head)
		return HTTP1_TOO_LARGE;
	r->left = size;
	r->phase = size > 0 ? HTTP1_CHUNK : HTTP1_TRAILER;
	return HTTP1_DONE;
}

static Http1Progress
read_chunk_end(Http1Reader *r, const char *buffer, size_t len)
{
	Line		line;

	if (!next_line(r, buffer, len, &line))
		return len - r->at > 1 ? HTTP1_BAD : HTTP1_MORE;
	r->phase = HTTP1_CHUNK_SIZE;
	return line.len == 0 ? HTTP1_DONE : HTTP1_BAD;
}

/* Trailers are skipped; an empty line ends them. */
static Http1Progress
read_trailer(Http1Reader *r, const char *buffer, size_t len, bool *ended)
{
	size_t		start = r->at;
	Line		line;

	if (!next_line(r, buffer, len, &line))
		return r->head_len + (len - start) > r->max_head ? HTTP1_TOO_LARGE : HTTP1_MORE;
	r->head_len += r->at - start;
	if (r->head_len > r->max_head)
		return HTTP1_TOO_LARGE;
	*ended = line.len == 0;
	return is_clean(&line) ? HTTP1_DONE : HTTP1_BAD;
}

static Http1Progress
read_until_close(Http1Reader *r, char *buffer, size_t len, bool eof)
{
	r->left = len - r->at;
	if (r->left > r->max_body - r->body_len)
		return HTTP1_TOO_LARGE;
	take_body(r, buffer, len);
	return eof ? HTTP1_DONE : HTTP1_MORE;
}

/* One step; HTTP1_DONE with *ended unset: go on with the next. */
static Http1Progress
read_part(Http1Reader *r, char *buffer, size_t len, bool eof, bool *ended)
{
	switch (r->phase)
	{
		case HTTP1_HEAD:
			return read_head(r, buffer, len);
		case HTTP1_BODY:
			if (r->left > r->max_body - r->body_len)
				return HTTP1_TOO_LARGE;
			*ended = take_body(r, buffer, len);
			return *ended ? HTTP1_DONE : HTTP1_MORE;
		case HTTP1_CHUNK_SIZE:
			return read_chunk_size(r, buffer, len);
		case HTTP1_CHUNK:
			if (!take_body(r, buffer, len))
				return HTTP1_MORE;
			r->phase = HTTP1_CHUNK_END;
			return HTTP1_DONE;
		case HTTP1_CHUNK_END:
			return read_chunk_end(r, buffer, len);
		case HTTP1_TRAILER:
			return read_trailer(r, buffer, len, ended);
		case HTTP1_UNTIL_CLOSE:
			*ended = eof;
			return read_until_close(r, buffer, len, eof);
	}
	return HTTP1_BAD;
}

Http1Progress
http1_read(Http1Reader *r, char *buffer, size_t len, bool eof)
{
	bool		ended = false;
	Http1Progress progress = HTTP1_DONE;

	while (progress == HTTP1_DONE && !ended)
		progress = read_part(r, buffer, len, eof, &ended);
	if (progress == HTTP1_MORE && eof)
		progress = HTTP1_CLOSED;
	/* what comes behind the end belongs to nobody */
	if (progress != HTTP1_MORE && (progress != HTTP1_DONE || r->at != len || eof))
		r->keep_alive = false;
	return progress;
}
