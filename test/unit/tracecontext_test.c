/*
 * tracecontext_test.c
 *	  Which texts hold a trace id, and what a traceparent looks like.
 */
#include "unit.h"

#include <stdlib.h>

#include "policy/tracecontext.h"

#define TRACE "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

/* From memory of exactly that length, so that a byte too many shows. */
static const char *
read_text(const char *text)
{
	static char out[TRACE_ID_LEN + 1];
	size_t		len = strlen(text);
	char	   *copy = malloc(len + 1);
	bool		found;

	memcpy(copy, text, len);
	copy[len] = 'a';
	found = trace_id_read(copy, len, out);
	free(copy);
	assert_int_equal(found, out[0] != '\0');
	return out;
}

static void
reads_what_is_one(void **state)
{
	(void) state;
	assert_string_equal(read_text(TRACE), TRACE);
	assert_string_equal(read_text("4BF92F3577B34DA6A3CE929D0E0E4736"), TRACE);
	assert_string_equal(read_text("4bf92f35-77b3-4da6-a3ce-929d0e0e4736"), TRACE);
	assert_string_equal(read_text("00-" TRACE "-" SPAN "-00"), TRACE);
	assert_string_equal(read_text("00000000000000000000000000000001"),
						"00000000000000000000000000000001");
	/* a later version may have more to say */
	assert_string_equal(read_text("01-" TRACE "-" SPAN "-01-more"), TRACE);
	assert_string_equal(read_text("01-" TRACE "-" SPAN "-01"), TRACE);
}

static void
leaves_out_what_is_none(void **state)
{
	const char *const none[] = {
		"", "x", "42", "4bf92f3577b34da6a3ce929d0e0e473",
		TRACE "0", "4bf92f3577b34da6a3ce929d0e0e473g",
		"00000000000000000000000000000000",
		"00000000-0000-0000-0000-000000000000",
		"4bf92f35-77b3-4da6-a3ce_929d0e0e4736",
		"4bf92f3577b3-4da6-a3ce-929d0e0e4736-",
		"ff-" TRACE "-" SPAN "-01",
		"0g-" TRACE "-" SPAN "-01",
		"00-" TRACE "-" SPAN "-0",
		"00-" TRACE "-" SPAN "-0g",
		"00-" TRACE "-" SPAN "-01-more",
		"01-" TRACE "-" SPAN "-01.more",
		"00_" TRACE "-" SPAN "-01",
		"00-" TRACE "_" SPAN "-01",
		"00-" TRACE "-" SPAN "_01",
		"00-" TRACE "-0000000000000000-01",
		"00-00000000000000000000000000000000-" SPAN "-01",
		" " TRACE, TRACE "\n", "\xc3\xb6" "f92f3577b34da6a3ce929d0e0e4736"
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(none); i++)
		assert_string_equal(read_text(none[i]), "");
}

static void
makes_one_of_a_key(void **state)
{
	const char	none[IDEMPOTENCY_KEY_LEN + 1] = "";
	char		trace[TRACE_ID_LEN + 1];

	(void) state;
	trace_id_of_key("f88676bf-8057-5f11-8521-cc63ed333de1", trace);
	assert_string_equal(trace, "f88676bf80575f118521cc63ed333de1");
	trace_id_of_key(none, trace);
	assert_string_equal(trace, "");
}

static void
writes_a_header(void **state)
{
	char		header[TRACEPARENT_LEN + 1];

	(void) state;
	traceparent_write(header, TRACE, UINT64_C(0x00f067aa0ba902b7), true);
	assert_string_equal(header, "00-" TRACE "-" SPAN "-01");
	assert_int_equal(strlen(header), TRACEPARENT_LEN);
	traceparent_write(header, TRACE, UINT64_MAX, false);
	assert_string_equal(header, "00-" TRACE "-ffffffffffffffff-00");
	/* a span id of zero would not be valid */
	traceparent_write(header, TRACE, 0, true);
	assert_string_equal(header, "00-" TRACE "-0000000000000001-01");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_is_one),
		cmocka_unit_test(leaves_out_what_is_none),
		cmocka_unit_test(makes_one_of_a_key),
		cmocka_unit_test(writes_a_header),
	};

	return cmocka_run_group_tests_name("tracecontext", tests, NULL, NULL);
}
