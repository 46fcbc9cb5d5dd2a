/*
 * json_test.c
 *	  The JSON writer: bytes, escapes, bounds, and jansson reads what it wrote.
 */
#include "unit.h"

#include <jansson.h>
#include <stdlib.h>

#include "wallet/json.h"

static int
write_one(char *out, size_t size, const char *value)
{
	JsonWriter	w;

	json_begin(&w, out, size);
	json_member(&w, "a", value);
	return json_end(&w);
}

static void
expect(const char *value, const char *json)
{
	char		out[256];
	int			len = write_one(out, sizeof out, value);

	if (json == NULL)
		assert_int_equal(len, -1);
	else
	{
		assert_int_equal(len, strlen(json));
		assert_string_equal(out, json);
	}
}

static void
escapes_what_must_be(void **state)
{
	(void) state;
	expect("", "{\"a\":\"\"}");
	expect("plain", "{\"a\":\"plain\"}");
	expect("q\" b\\ s/", "{\"a\":\"q\\\" b\\\\ s/\"}");
	expect("\b\f\n\r\t", "{\"a\":\"\\b\\f\\n\\r\\t\"}");
	expect("\x01\x1f\x7f", "{\"a\":\"\\u0001\\u001f\x7f\"}");
	expect("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "{\"a\":\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"}");
}

static void
members_are_separated(void **state)
{
	char		out[64];
	JsonWriter	w;

	(void) state;
	json_begin(&w, out, sizeof out);
	assert_int_equal(json_end(&w), 2);
	assert_string_equal(out, "{}");
	json_begin(&w, out, sizeof out);
	json_member(&w, "a", "1");
	json_member(&w, "b", "2");
	assert_int_equal(json_end(&w), 17);
	assert_string_equal(out, "{\"a\":\"1\",\"b\":\"2\"}");
}

static void
refuses_what_is_no_utf8(void **state)
{
	const char *bad[] = {
		"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80",
		"\xe2\x82", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xff", "ok\xfe", "\xf0\x9f\x98",
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(bad); i++)
		expect(bad[i], NULL);
	expect(NULL, NULL);
}

static void
every_bound_is_kept(void **state)
{
	const char *value = "x\"\x01\xe2\x82\xac";
	int			need;
	char		whole[64];

	(void) state;
	need = write_one(whole, sizeof whole, value);
	assert_true(need > 0);
	for (int size = 0; size <= need + 2; size++)
	{
		char	   *out = malloc((size_t) size + 1);	/* exact, for the sanitizer */
		int			len;

		out[size] = 'Z';
		len = write_one(out, (size_t) size, value);
		assert_int_equal(len, size > need ? need : -1);
		assert_int_equal(out[size], 'Z');
		free(out);
	}
}

/* All code points that are characters come back as they went. */
static void
jansson_reads_it_back(void **state)
{
	char		out[64];

	(void) state;
	for (unsigned c = 1; c <= 0x10FFFF; c += (c < 0x3000 ? 1 : 17))
	{
		char		text[5] = {0};
		json_t	   *read;

		if (c >= 0xD800 && c <= 0xDFFF)
			continue;
		if (c < 0x80)
			text[0] = (char) c;
		else if (c < 0x800)
		{
			text[0] = (char) (0xC0 | c >> 6);
			text[1] = (char) (0x80 | (c & 0x3F));
		}
		else if (c < 0x10000)
		{
			text[0] = (char) (0xE0 | c >> 12);
			text[1] = (char) (0x80 | (c >> 6 & 0x3F));
			text[2] = (char) (0x80 | (c & 0x3F));
		}
		else
		{
			text[0] = (char) (0xF0 | c >> 18);
			text[1] = (char) (0x80 | (c >> 12 & 0x3F));
			text[2] = (char) (0x80 | (c >> 6 & 0x3F));
			text[3] = (char) (0x80 | (c & 0x3F));
		}
		assert_int_equal(utf8_length(text), strlen(text));
		assert_true(write_one(out, sizeof out, text) > 0);
		read = json_loads(out, JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(read);
		assert_string_equal(json_string_value(json_object_get(read, "a")), text);
		json_decref(read);
	}
}

static void
copy_cuts_at_a_character(void **state)
{
	char		out[8];

	(void) state;
	assert_true(utf8_copy(out, sizeof out, "1234567"));
	assert_string_equal(out, "1234567");
	assert_false(utf8_copy(out, sizeof out, "12345678"));
	assert_string_equal(out, "1234567");
	assert_false(utf8_copy(out, sizeof out, "12345\xe2\x82\xac"));
	assert_string_equal(out, "12345");
	assert_true(utf8_copy(out, sizeof out, "1234\xe2\x82\xac"));
	assert_true(utf8_copy(out, sizeof out, "a\nb\x7f\xff" "c"));
	assert_string_equal(out, "a b ?c");
	assert_false(utf8_copy(out, 1, "x"));
	assert_string_equal(out, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escapes_what_must_be),
		cmocka_unit_test(members_are_separated),
		cmocka_unit_test(refuses_what_is_no_utf8),
		cmocka_unit_test(every_bound_is_kept),
		cmocka_unit_test(jansson_reads_it_back),
		cmocka_unit_test(copy_cuts_at_a_character),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
