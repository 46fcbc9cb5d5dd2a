/*
 * http1_test.c
 *	  Replies as they come off the wire: what is read, when it ends, what is
 *	  refused.  Each is read in one piece and byte by byte, with the same result.
 */
#include "unit.h"

#include <stdlib.h>

#include "wallet/http1.h"

#define MAX_HEAD	1000
#define MAX_BODY	100

typedef struct Reading
{
	Http1Progress progress;
	Http1Reader reader;
	char		body[MAX_BODY + 1];
} Reading;

static Reading
read_in_steps(const char *text, size_t len, size_t step, bool eof)
{
	char	   *buffer = malloc(len + 1);
	Reading		r = {.progress = HTTP1_MORE};
	size_t		got = 0;

	http1_begin(&r.reader, MAX_HEAD, MAX_BODY);
	while (r.progress == HTTP1_MORE && got < len)
	{
		size_t		n = len - got < step ? len - got : step;

		memcpy(buffer + got, text + got, n);
		got += n;
		r.progress = http1_read(&r.reader, buffer, got, false);
	}
	if (r.progress == HTTP1_MORE && eof)
		r.progress = http1_read(&r.reader, buffer, got, true);
	if (r.progress == HTTP1_DONE)
		memcpy(r.body, buffer + r.reader.body_start, r.reader.body_len);
	free(buffer);
	return r;
}

static Reading
read_all(const char *text, bool eof)
{
	size_t		len = strlen(text);
	Reading		whole = read_in_steps(text, len, len, eof);
	Reading		bytes = read_in_steps(text, len, 1, eof);

	if (whole.progress != bytes.progress)
		fail_msg("%d in one piece, %d byte by byte: %s", whole.progress, bytes.progress, text);
	assert_string_equal(whole.body, bytes.body);
	assert_int_equal(whole.reader.status, bytes.reader.status);
	return whole;
}

static void
expect_body(const char *text, int status, bool keep_alive, const char *body)
{
	Reading		r = read_all(text, false);

	if (r.progress != HTTP1_DONE)
		fail_msg("%d: %s", r.progress, text);
	assert_int_equal(r.reader.status, status);
	assert_int_equal(r.reader.keep_alive, keep_alive);
	assert_string_equal(r.body, body);
}

static void
expect(const char *text, bool eof, Http1Progress progress)
{
	Reading		r = read_all(text, eof);

	if (r.progress != progress)
		fail_msg("%d: %s", r.progress, text);
}

static void
bodies_of_known_length(void **state)
{
	(void) state;
	expect_body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, true, "{}");
	expect_body("HTTP/1.1 200\r\ncontent-length:2\r\nX: y\r\n\r\n{}", 200, true, "{}");
	expect_body("HTTP/1.1 503 Not now\ncontent-length: \t 2 \nContent-Length: 2\n\n{}", 503, true, "{}");
	expect_body("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, true, "");
	expect_body("HTTP/1.1 204 No Content\r\n\r\n", 204, true, "");
	expect_body("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, false, "{}");
	expect_body("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\n{}", 200, false, "{}");
	expect_body("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 \r\nLink: x\r\n\r\n"
				"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 200, true, "{}");
}

static void
chunks_are_joined(void **state)
{
	(void) state;
	expect_body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
				"1\r\n{\r\n0003;x=y\r\n\"a\"\r\nA \r\n:012345678\r\n1\n}\n0\r\n\r\n",
				200, true, "{\"a\":012345678}");
	expect_body("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n", 200, true, "");
}

static void
bodies_until_the_connection_closes(void **state)
{
	Reading		r;

	(void) state;
	expect("HTTP/1.1 200 OK\r\n\r\n{}", false, HTTP1_MORE);
	r = read_all("HTTP/1.1 200 OK\r\n\r\n{}", true);
	assert_int_equal(r.progress, HTTP1_DONE);
	assert_string_equal(r.body, "{}");
	assert_false(r.reader.keep_alive);
}

static void
what_comes_behind_the_end_spoils_the_connection(void **state)
{
	const char *text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n";
	Reading		r = read_in_steps(text, strlen(text), strlen(text), false);

	(void) state;
	assert_int_equal(r.progress, HTTP1_DONE);
	assert_string_equal(r.body, "{}");
	assert_false(r.reader.keep_alive);
}

static void
a_close_before_the_end_is_seen(void **state)
{
	static const char *const parts[] = {
		"", "HTT", "HTTP/1.1 200 OK\r\nContent-", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n",
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(parts); i++)
		expect(parts[i], true, HTTP1_CLOSED);
}

static void
what_can_be_read_in_two_ways_is_refused(void **state)
{
	static const char *const texts[] = {
		"garbage", "\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n",
		"HTTP/1.1 101 Switching\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
		"HTTP/1.1 200 OK\r\n: b\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n000000002\r\n{}\r\n",
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(texts); i++)
		expect(texts[i], false, HTTP1_BAD);
}

static void
bounds_are_kept(void **state)
{
	char		text[4096];
	int			n;

	(void) state;
	snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%0*d", MAX_BODY, MAX_BODY, 0);
	assert_int_equal(read_all(text, false).progress, HTTP1_DONE);
	expect("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", false, HTTP1_TOO_LARGE);
	expect("HTTP/1.1 200 OK\r\nContent-Length: 999999999999999\r\n\r\n", false, HTTP1_TOO_LARGE);
	expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", false, HTTP1_TOO_LARGE);
	expect("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", false, HTTP1_TOO_LARGE);
	snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\n\r\n%0*d", MAX_BODY + 1, 0);
	expect(text, false, HTTP1_TOO_LARGE);
	snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nX: %0*d", MAX_HEAD, 0);
	expect(text, false, HTTP1_TOO_LARGE);
	n = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 200; i++)
		n += snprintf(text + n, sizeof text - (size_t) n, "0;%d\r\nX: y\r\n", i);
	expect(text, false, HTTP1_TOO_LARGE);
}

static void
retry_after_is_kept(void **state)
{
	Reading		r = read_all("HTTP/1.1 429 Slow\r\nRetry-After:  17 \r\nContent-Length: 0\r\n\r\n", false);

	(void) state;
	assert_string_equal(r.reader.retry_after, "17");
	r = read_all("HTTP/1.1 429 Slow\r\nRetry-After: 0123456789012345678901234567890123456789"
				 "012345678901234567890123456789\r\nContent-Length: 0\r\n\r\n", false);
	assert_string_equal(r.reader.retry_after, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bodies_of_known_length),
		cmocka_unit_test(chunks_are_joined),
		cmocka_unit_test(bodies_until_the_connection_closes),
		cmocka_unit_test(what_comes_behind_the_end_spoils_the_connection),
		cmocka_unit_test(a_close_before_the_end_is_seen),
		cmocka_unit_test(what_can_be_read_in_two_ways_is_refused),
		cmocka_unit_test(bounds_are_kept),
		cmocka_unit_test(retry_after_is_kept),
	};

	return cmocka_run_group_tests_name("http1", tests, NULL, NULL);
}
