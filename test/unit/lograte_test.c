/*
 * lograte_test.c
 *	  An outage writes a bounded number of lines, and each failure is counted.
 */
#include "unit.h"

#include "policy/lograte.h"

#define MINUTE (60 * SECOND)

static void
so_many_and_no_more(void **state)
{
	LogRate		rate = {0};
	int			written = 0;

	(void) state;
	for (int i = 0; i < 1000; i++)
		written += lograte_admit(&rate, 10, MINUTE, 5 * MINUTE + i);
	assert_int_equal(written, 10);
	assert_int_equal(lograte_summary(&rate, MINUTE, 5 * MINUTE + 1000, false), 0);
	assert_int_equal(lograte_summary(&rate, MINUTE, 6 * MINUTE, false), 990);
	assert_int_equal(lograte_summary(&rate, MINUTE, 6 * MINUTE, true), 0);
	assert_true(lograte_admit(&rate, 10, MINUTE, 6 * MINUTE));
}

/* Lines and what the summaries stand for are together what happened. */
static void
nothing_is_uncounted(void **state)
{
	LogRate		rate = {0};
	int64_t		lines = 0;
	int64_t		held_back = 0;
	int64_t		now = 0;

	(void) state;
	for (int i = 0; i < 100000; i++)
	{
		now += i % 97 * MS;
		held_back += lograte_summary(&rate, MINUTE, now, false);
		lines += lograte_admit(&rate, 3, MINUTE, now);
	}
	held_back += lograte_summary(&rate, MINUTE, now, true);
	assert_int_equal(lines + held_back, 100000);
	assert_true(lines <= 3 * (now / MINUTE + 1));
	assert_true(lines >= 3 * (now / MINUTE - 1));
}

static void
none_at_all(void **state)
{
	LogRate		rate = {0};

	(void) state;
	assert_false(lograte_admit(&rate, 0, MINUTE, MINUTE));
	assert_int_equal(lograte_summary(&rate, MINUTE, MINUTE, true), 1);
}

static void
a_clock_that_was_set_back_begins_anew(void **state)
{
	LogRate		rate = {0};

	(void) state;
	assert_true(lograte_admit(&rate, 1, MINUTE, 100 * MINUTE));
	assert_false(lograte_admit(&rate, 1, MINUTE, 100 * MINUTE));
	assert_int_equal(lograte_summary(&rate, MINUTE, 5 * MINUTE, false), 1);
	assert_true(lograte_admit(&rate, 1, MINUTE, 5 * MINUTE));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(so_many_and_no_more),
		cmocka_unit_test(nothing_is_uncounted),
		cmocka_unit_test(none_at_all),
		cmocka_unit_test(a_clock_that_was_set_back_begins_anew),
	};

	return cmocka_run_group_tests_name("lograte", tests, NULL, NULL);
}
