/*
 * idempotency_test.c
 *	  Keys never change between versions, and names never run together.
 */
#include "unit.h"

#include <stdlib.h>

#include "policy/idempotency.h"

static void
key_is_the_same_for_ever(void **state)
{
	char		key[IDEMPOTENCY_KEY_LEN + 1];

	(void) state;
	/* Python: uuid.uuid5(uuid.UUID("9f1c6a52-7d0e-4b1f-8a63-52c4e0d7b9a1"),
	 * "public.trades\0" "42\0" "0") */
	assert_true(idempotency_key("public.trades", "42", 0, key));
	assert_string_equal(key, "f88676bf-8057-5f11-8521-cc63ed333de1");
	assert_true(idempotency_key("public.trades", "42", 1, key));
	assert_string_equal(key, "0afc3892-6a55-5960-849b-68e9c0fd35d1");
	assert_true(idempotency_key("", "", -7, key));
	assert_string_equal(key, "69bc4178-cddb-57d0-a589-798554bfc254");
}

static void
names_do_not_run_together(void **state)
{
	const char *names[][2] = {{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}};
	char		keys[LENGTH(names)][IDEMPOTENCY_KEY_LEN + 1];

	(void) state;
	for (size_t i = 0; i < LENGTH(names); i++)
	{
		assert_true(idempotency_key(names[i][0], names[i][1], 0, keys[i]));
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(keys[i], keys[j]);
	}
}

static void
too_long_a_name_is_refused(void **state)
{
	char	   *text = malloc(IDEMPOTENCY_NAME_MAX + 100);
	char		key[IDEMPOTENCY_KEY_LEN + 1];

	(void) state;
	memset(text, 'x', IDEMPOTENCY_NAME_MAX + 100);
	text[IDEMPOTENCY_NAME_MAX - 4] = '\0';
	assert_true(idempotency_key("ab", text, 2147483647, key));
	assert_true(idempotency_key(text, "ab", -2147483647 - 1, key));
	assert_false(idempotency_key("abc", text, 0, key));
	assert_string_equal(key, "");
	text[IDEMPOTENCY_NAME_MAX - 4] = 'x';
	text[IDEMPOTENCY_NAME_MAX + 99] = '\0';
	assert_false(idempotency_key("", text, 0, key));
	assert_false(idempotency_key(text, "", 0, key));
	free(text);
}

static void
hash_is_fnv_1a(void **state)
{
	(void) state;
	assert_true(trade_hash("") == UINT64_C(0xcbf29ce484222325));
	assert_true(trade_hash("a") == UINT64_C(0xaf63dc4c8601ec8c));
	assert_true(trade_hash("foobar") == UINT64_C(0x85944171f73967e8));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(key_is_the_same_for_ever),
		cmocka_unit_test(names_do_not_run_together),
		cmocka_unit_test(too_long_a_name_is_refused),
		cmocka_unit_test(hash_is_fnv_1a),
	};

	return cmocka_run_group_tests_name("idempotency", tests, NULL, NULL);
}
