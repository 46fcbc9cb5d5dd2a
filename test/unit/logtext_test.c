/*
 * logtext_test.c
 *	  Nothing that others wrote can end a log line or begin a field.
 */
#include "unit.h"

#include "policy/logtext.h"

static char out[LOG_TEXT_SIZE];

static const char *
value(const char *text)
{
	size_t		n = log_text_value(text, true, out);

	assert_int_equal(n, strlen(out));
	return out;
}

static void
plain_values_stay(void **state)
{
	(void) state;
	assert_string_equal(value("BTC/USDT"), "BTC/USDT");
	assert_string_equal(value("0.5"), "0.5");
	assert_string_equal(value("4711-a_b.c:d"), "4711-a_b.c:d");
}

static void
values_that_need_it_are_quoted(void **state)
{
	(void) state;
	assert_string_equal(value(""), "\"\"");
	assert_string_equal(value("not enough"), "\"not enough\"");
	assert_string_equal(value("a=b"), "\"a=b\"");
	assert_string_equal(value("say \"no\""), "\"say \\\"no\\\"\"");
	assert_string_equal(value("back\\slash"), "\"back\\\\slash\"");
	assert_string_equal(value("M\xc3\xbcller \xe2\x82\xac \xf0\x9f\x92\xb0"), "\"M\xc3\xbcller \xe2\x82\xac \xf0\x9f\x92\xb0\"");
}

static void
no_line_ends_and_no_terminal_is_steered(void **state)
{
	(void) state;
	assert_string_equal(value("x\n2026-01-01 LOG:  forged"), "\"x\\n2026-01-01 LOG:  forged\"");
	assert_string_equal(value("\r\t\b\f"), "\"\\r\\t\\b\\f\"");
	assert_string_equal(value("\x1b[2J\x7f"), "\"\\u001b[2J\\u007f\"");
	assert_string_equal(value("\xc2\x9b" "31m"), "\"\\u009b31m\"");		/* CSI in one character */
	assert_string_equal(value("\xc2\x85"), "\"\\u0085\"");				/* next line */
	assert_string_equal(value("\xe2\x80\xa8\xe2\x80\xa9"), "\"\\u2028\\u2029\"");
	assert_string_equal(value("\xe2\x80\xae\xe2\x81\xa6\xe2\x80\x8f\xd8\x9c"), "\"\\u202e\\u2066\\u200f\\u061c\"");
}

static void
what_is_no_character_is_replaced(void **state)
{
	(void) state;
	assert_string_equal(value("a\xff" "b"), "\"a\\ufffdb\"");
	assert_string_equal(value("\xc0\x8a"), "\"\\ufffd\\ufffd\"");		/* over-long newline */
	assert_string_equal(value("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\"");	/* surrogate */
	assert_string_equal(value("\xf4\x90\x80\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
	assert_string_equal(value("end\xe2\x82"), "\"end\\ufffd\\ufffd\"");
}

static void
other_encodings_become_ascii(void **state)
{
	(void) state;
	log_text_value("M\xfcller\x85", false, out);
	assert_string_equal(out, "\"M\\u00fcller\\u0085\"");
}

static void
long_texts_are_cut_at_a_character(void **state)
{
	char		text[2000];

	(void) state;
	memset(text, 'x', sizeof text);
	text[LOG_TEXT_MAX] = '\0';
	assert_int_equal(strlen(value(text)), LOG_TEXT_MAX);
	text[LOG_TEXT_MAX] = 'x';
	text[sizeof text - 1] = '\0';
	assert_int_equal(strlen(value(text)), LOG_TEXT_MAX + 3);
	assert_string_equal(out + LOG_TEXT_MAX, "...");
	/* the euro sign does not fit as a whole */
	memcpy(text + LOG_TEXT_MAX - 1, "\xe2\x82\xac", 3);
	assert_string_equal(value(text) + 1 + LOG_TEXT_MAX - 1, "...\"");
	/* the longest that there is */
	memset(text, 1, sizeof text - 1);
	assert_int_equal(strlen(value(text)), LOG_TEXT_SIZE - 1);
}

static void
messages_have_no_quotes_of_their_own(void **state)
{
	(void) state;
	assert_int_equal(log_text_escape("a b\n\"c\"", true, out), strlen("a b\\n\\\"c\\\""));
	assert_string_equal(out, "a b\\n\\\"c\\\"");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_values_stay),
		cmocka_unit_test(values_that_need_it_are_quoted),
		cmocka_unit_test(no_line_ends_and_no_terminal_is_steered),
		cmocka_unit_test(what_is_no_character_is_replaced),
		cmocka_unit_test(other_encodings_become_ascii),
		cmocka_unit_test(long_texts_are_cut_at_a_character),
		cmocka_unit_test(messages_have_no_quotes_of_their_own),
	};

	return cmocka_run_group_tests_name("logtext", tests, NULL, NULL);
}
