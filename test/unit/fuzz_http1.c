/*
 * fuzz_http1.c
 *	  Any bytes as an HTTP reply: nothing is touched outside the buffer, the bounds
 *	  hold, and how the bytes are cut into pieces makes no difference.
 *
 * With -DLIBFUZZER it is a libFuzzer target (`make fuzz`); without, a program that
 * runs seeded mutations of a few replies, and prints TAP.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wallet/http1.h"

#define MAX_HEAD	512
#define MAX_BODY	64
#define MUTATIONS	200000

static void
require(int condition, const char *what)
{
	if (!condition)
	{
		printf("Bail out! %s\n", what);
		fflush(stdout);
		abort();
	}
}

/* Into a buffer of exactly what has come, so that a sanitizer sees one byte too many. */
static Http1Progress
read_pieces(Http1Reader *r, char **buffer, const char *data, size_t size, size_t step)
{
	Http1Progress progress = HTTP1_MORE;
	size_t		got = 0;

	http1_begin(r, MAX_HEAD, MAX_BODY);
	*buffer = malloc(1);
	while (progress == HTTP1_MORE && got < size)
	{
		size_t		n = size - got < step ? size - got : step;

		*buffer = realloc(*buffer, got + n);
		memcpy(*buffer + got, data + got, n);
		got += n;
		progress = http1_read(r, *buffer, got, false);
		require(r->body_len <= MAX_BODY && r->at <= got, "bounds");
	}
	if (progress == HTTP1_MORE)
		progress = http1_read(r, *buffer, got, true);
	return progress;
}

static void
run_one(const char *data, size_t size)
{
	Http1Reader whole;
	Http1Reader bytes;
	char	   *a;
	char	   *b;
	Http1Progress progress = read_pieces(&whole, &a, data, size, size);

	require(progress != HTTP1_MORE, "an end without an end");
	/* too large and not HTTP at all: which is seen first depends on the pieces */
	if (read_pieces(&bytes, &b, data, size, 1) == HTTP1_DONE || progress == HTTP1_DONE)
	{
		require(progress == HTTP1_DONE && bytes.status == whole.status &&
				bytes.body_len == whole.body_len &&
				memcmp(a + whole.body_start, b + bytes.body_start, whole.body_len) == 0,
				"pieces make a difference");
		require(whole.status >= 200 && whole.status <= 999, "status");
	}
	free(a);
	free(b);
}

#ifdef LIBFUZZER

int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 0)
		run_one((const char *) data, size);
	return 0;
}

#else

static const char *const seeds[] = {
	"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"success\":true}",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"a\":\r\n2;x\r\n1}\r\n0\r\nT: x\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\nRetry-After: 7\nConnection: close, x\n\n{}",
	"HTTP/1.1 204 No Content\r\n\r\n",
};

int
main(void)
{
	int			n = (int) (sizeof seeds / sizeof seeds[0]);

	srandom(21);
	for (int i = 0; i < MUTATIONS; i++)
	{
		char		copy[512];
		size_t		size = strlen(seeds[i % n]);

		memcpy(copy, seeds[i % n], size);
		for (long m = random() % 4; m > 0; m--)
			switch (random() % 3)
			{
				case 0:
					copy[(size_t) random() % size] = "\r\n :;,0159afAF\t"[random() % 15];
					break;
				case 1:
					copy[(size_t) random() % size] ^= (char) (1 << random() % 8);
					break;
				default:
					{
						size_t		at = (size_t) random() % size;
						size_t		from = (size_t) random() % size;
						size_t		len = (size_t) random() % (size - (at > from ? at : from));

						memmove(copy + at, copy + from, len);
					}
			}
		run_one(copy, random() % 8 == 0 ? 1 + (size_t) random() % size : size);
	}
	printf("ok 1 - %d mutations\n1..1\n", MUTATIONS);
	return 0;
}

#endif
