/*
 * recent_test.c
 *	  What happened within the last minute.
 */
#include "unit.h"

#include "policy/recent.h"


static Histogram histograms[RECENT_HISTOGRAMS];
static uint64_t counted;

static RecentNow
present(void)
{
	RecentNow	now = {{counted, 2 * counted}, {&histograms[0], &histograms[1]}};

	return now;
}

static RecentDelta
since(const Recent *r, int64_t now_us)
{
	static RecentDelta delta;
	RecentNow	now = present();

	recent_since(r, &now, now_us, &delta);
	return delta;
}

static void
tick(Recent *r, int64_t now_us)
{
	RecentNow	now = present();

	if (recent_due(r, now_us))
		recent_take(r, &now, now_us);
}

static int
start(void **state)
{
	static Recent r;

	memset(&r, 0, sizeof r);
	memset(histograms, 0, sizeof histograms);
	counted = 1000;
	*state = &r;
	return 0;
}

static void
an_empty_ring_has_no_window(void **state)
{
	assert_int_equal(since(*state, SECOND).window_us, 0);
}

static void
a_short_life_is_compared_with_its_beginning(void **state)
{
	tick(*state, SECOND);
	counted += 30;
	assert_int_equal(since(*state, 4 * SECOND).window_us, 3 * SECOND);
	assert_int_equal(since(*state, 4 * SECOND).counter[0], 30);
	assert_int_equal(since(*state, 4 * SECOND).counter[1], 60);
}

static void
what_is_older_than_a_minute_is_forgotten(void **state)
{
	int64_t		now = SECOND;

	for (int i = 0; i < 600; i++, now += SECOND)
	{
		tick(*state, now);
		counted += i < 300 ? 1000 : 1;
		histogram_add(&histograms[0], i < 300 ? 5000000 : 1000);
	}
	assert_in_range(since(*state, now).window_us, 60 * SECOND, 66 * SECOND);
	assert_in_range(since(*state, now).counter[0], 60, 66);
	assert_in_range(since(*state, now).histogram[0].count, 60, 66);
	assert_in_range(histogram_quantile(&since(*state, now).histogram[0], 0.99), 1000, 1200);
	assert_int_equal(since(*state, now).histogram[1].count, 0);
}

static void
a_gap_makes_the_window_longer(void **state)
{
	tick(*state, SECOND);
	counted += 10;
	assert_int_equal(since(*state, 601 * SECOND).window_us, 600 * SECOND);
	assert_int_equal(since(*state, 601 * SECOND).counter[0], 10);
}

static void
numbers_set_back_count_as_nothing(void **state)
{
	histogram_add(&histograms[0], 1000);
	tick(*state, SECOND);
	counted = 5;
	memset(histograms, 0, sizeof histograms);
	assert_int_equal(since(*state, 2 * SECOND).counter[0], 0);
	assert_int_equal(since(*state, 2 * SECOND).histogram[0].count, 0);
}

static void
a_clock_set_back_empties_the_ring(void **state)
{
	tick(*state, 100 * SECOND);
	assert_int_equal(since(*state, 50 * SECOND).window_us, 0);
	tick(*state, 50 * SECOND);
	assert_int_equal(((Recent *) *state)->n, 1);
	assert_int_equal(since(*state, 52 * SECOND).window_us, 2 * SECOND);
}

/* Processes read the clock, do something else, and then come here. */
static void
a_caller_who_is_late_empties_nothing(void **state)
{
	Recent	   *r = *state;

	tick(r, 100 * SECOND);
	assert_int_equal(since(r, 99 * SECOND).window_us, 0);
	tick(r, 105 * SECOND);
	counted += 7;
	tick(r, 104 * SECOND);
	assert_int_equal(r->n, 2);
	assert_int_equal(since(r, 104 * SECOND).window_us, 4 * SECOND);
	assert_int_equal(since(r, 110 * SECOND).counter[0], 7);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(an_empty_ring_has_no_window, start),
		cmocka_unit_test_setup(a_short_life_is_compared_with_its_beginning, start),
		cmocka_unit_test_setup(what_is_older_than_a_minute_is_forgotten, start),
		cmocka_unit_test_setup(a_gap_makes_the_window_longer, start),
		cmocka_unit_test_setup(numbers_set_back_count_as_nothing, start),
		cmocka_unit_test_setup(a_clock_set_back_empties_the_ring, start),
		cmocka_unit_test_setup(a_caller_who_is_late_empties_nothing, start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
