/*
 * histogram_test.c
 *	  Buckets, quantiles, cumulative counts, and concurrent writers.
 */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>

#include "policy/histogram.h"

static Histogram h;

static int
clear(void **state)
{
	(void) state;
	memset(&h, 0, sizeof h);
	return 0;
}

static void
bounds_and_buckets_agree(void **state)
{
	int64_t		previous = -1;

	(void) state;
	for (int b = 0; b < HISTOGRAM_BUCKETS; b++)
	{
		int64_t		upper = histogram_upper_bound(b);

		assert_true(upper > previous);
		assert_int_equal(histogram_bucket_of(upper), b);
		assert_int_equal(histogram_bucket_of(previous + 1), b);
		previous = upper;
	}
	assert_true(previous >= INT64_C(1) << 40);
}

static void
error_is_at_most_an_eighth(void **state)
{
	(void) state;
	for (int64_t us = 1; us < INT64_C(1) << 40; us += 1 + us / 37)
	{
		int64_t		upper = histogram_upper_bound(histogram_bucket_of(us));

		assert_true(upper >= us);
		assert_true((double) upper <= (double) us * 1.125);
	}
}

static void
extremes_have_a_bucket(void **state)
{
	(void) state;
	assert_int_equal(histogram_bucket_of(INT64_MIN), 0);
	assert_int_equal(histogram_bucket_of(-1), 0);
	assert_int_equal(histogram_bucket_of(INT64_MAX), HISTOGRAM_BUCKETS - 1);
	histogram_add(&h, -5);
	histogram_add(&h, INT64_MAX);
	assert_int_equal(h.count, 2);
	assert_int_equal(h.bucket[0], 1);
	assert_int_equal(h.bucket[HISTOGRAM_BUCKETS - 1], 1);
	assert_true(histogram_upper_bound(-3) == 0);
	assert_true(histogram_upper_bound(1 << 20) == histogram_upper_bound(HISTOGRAM_BUCKETS - 1));
}

static void
quantiles_of_a_uniform_spread(void **state)
{
	(void) state;
	assert_int_equal(histogram_quantile(&h, 0.5), -1);
	for (int us = 1; us <= 1000; us++)
		histogram_add(&h, us);
	assert_int_equal(histogram_quantile(&h, 0), 1);
	assert_in_range(histogram_quantile(&h, 0.5), 500, 563);
	assert_in_range(histogram_quantile(&h, 0.99), 990, 1114);
	assert_in_range(histogram_quantile(&h, 1), 1000, 1125);
	assert_in_range(histogram_quantile(&h, 7), 1000, 1125);
	assert_int_equal(h.sum_us, 500500);
}

static void
counts_are_exact_at_bounds(void **state)
{
	(void) state;
	for (int us = 0; us < 5000; us++)
		histogram_add(&h, us);
	for (int b = 0; histogram_upper_bound(b) < 5000; b++)
		assert_int_equal(histogram_count_le(&h, histogram_upper_bound(b)),
						 histogram_upper_bound(b) + 1);
	assert_int_equal(histogram_count_le(&h, INT64_MAX), 5000);
	assert_int_equal(histogram_count_le(&h, -1), 0);
}

static void *
add_many(void *arg)
{
	(void) arg;
	for (int i = 0; i < 100000; i++)
		histogram_add(&h, i % 5000);
	return NULL;
}

static void
concurrent_writers_lose_nothing(void **state)
{
	pthread_t	threads[4];

	(void) state;
	for (size_t i = 0; i < LENGTH(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, NULL), 0);
	for (size_t i = 0; i < LENGTH(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(h.count, 400000);
	assert_int_equal(histogram_count_le(&h, INT64_MAX), 400000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(bounds_and_buckets_agree, clear),
		cmocka_unit_test_setup(error_is_at_most_an_eighth, clear),
		cmocka_unit_test_setup(extremes_have_a_bucket, clear),
		cmocka_unit_test_setup(quantiles_of_a_uniform_spread, clear),
		cmocka_unit_test_setup(counts_are_exact_at_bounds, clear),
		cmocka_unit_test_setup(concurrent_writers_lose_nothing, clear),
	};

	return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
