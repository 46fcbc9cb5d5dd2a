/*
 * retry_test.c
 *	  Backoff: growth, cap, jitter, Retry-After, and hostile arguments.
 */
#include "unit.h"

#include <math.h>

#include "policy/retry.h"

static const RetryPolicy usual = {100, 2.0, 5000, 0.2};

static void
grows_by_the_multiplier(void **state)
{
	(void) state;
	assert_int_equal(retry_delay_ms(&usual, 1, 0.5, -1), 100);
	assert_int_equal(retry_delay_ms(&usual, 2, 0.5, -1), 200);
	assert_int_equal(retry_delay_ms(&usual, 3, 0.5, -1), 400);
}

static void
is_spread_by_the_jitter(void **state)
{
	(void) state;
	assert_int_equal(retry_delay_ms(&usual, 1, 0.0, -1), 80);
	assert_int_equal(retry_delay_ms(&usual, 1, 0.999999, -1), 120);
}

static void
never_exceeds_the_maximum_and_is_spread_there_too(void **state)
{
	int64_t		low = retry_delay_ms(&usual, 50, 0.0, -1);
	int64_t		high = retry_delay_ms(&usual, 50, 0.999999, -1);

	(void) state;
	assert_int_equal(high, 5000);
	assert_true(low >= 3300 && low <= 3400);
	for (int failures = 0; failures < 100; failures++)
		for (int r = 0; r < 100; r++)
			assert_true(retry_delay_ms(&usual, failures, r / 100.0, -1) <= 5000);
}

static void
retry_after_is_a_clamped_lower_bound(void **state)
{
	(void) state;
	assert_int_equal(retry_delay_ms(&usual, 1, 0.5, 50), 100);
	assert_int_equal(retry_delay_ms(&usual, 1, 0.5, 7000), 7000);
	assert_int_equal(retry_delay_ms(&usual, 1, 0.5, INT64_MAX), RETRY_AFTER_MAX_MS);
}

static void
survives_any_argument(void **state)
{
	const int64_t times[] = {INT64_MIN, -1, 0, 1, 100, INT64_MAX};
	const double factors[] = {-INFINITY, -1, 0, 0.5, 1, 2, 1e300, INFINITY, NAN};
	const int	counts[] = {INT32_MIN, -1, 0, 1, 2, 1000, INT32_MAX};

	(void) state;
	for (size_t a = 0; a < LENGTH(times); a++)
		for (size_t b = 0; b < LENGTH(times); b++)
			for (size_t c = 0; c < LENGTH(factors); c++)
				for (size_t d = 0; d < LENGTH(factors); d++)
					for (size_t e = 0; e < LENGTH(counts); e++)
						for (size_t f = 0; f < LENGTH(factors); f++)
						{
							RetryPolicy p = {times[a], factors[c], times[b], factors[d]};
							int64_t		delay = retry_delay_ms(&p, counts[e], factors[f], -1);

							assert_true(delay >= 0);
							assert_true(delay <= (times[b] > 0 ? times[b] : 0));
						}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(grows_by_the_multiplier),
		cmocka_unit_test(is_spread_by_the_jitter),
		cmocka_unit_test(never_exceeds_the_maximum_and_is_spread_there_too),
		cmocka_unit_test(retry_after_is_a_clamped_lower_bound),
		cmocka_unit_test(survives_any_argument),
	};

	return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
