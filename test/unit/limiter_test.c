/*
 * limiter_test.c
 *	  Token bucket and hold.
 */
#include "unit.h"

#include <math.h>
#include <stdlib.h>

#include "policy/limiter.h"
#include "policy/retry.h"

static const int64_t start = 10 * SECOND;

static Limiter
fresh(void)
{
	Limiter		l;

	limiter_init(&l, start);
	return l;
}

static void
no_rate_no_limit(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_int_equal(limiter_take(&l, 0, 1000000, start), 1000000);
	assert_int_equal(limiter_take(&l, -1, 5, start), 5);
	assert_int_equal(limiter_take(&l, NAN, 5, start), 5);
	assert_int_equal(limiter_wait_ms(&l, 0, start), 0);
	assert_int_equal(limiter_take(&l, 0, -5, start), 0);
}

static void
burst_then_rate(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_int_equal(limiter_take(&l, 100, 1000, start), 10);
	assert_int_equal(limiter_take(&l, 100, 1000, start), 0);
	assert_int_equal(limiter_wait_ms(&l, 100, start), 10);
	assert_int_equal(limiter_take(&l, 100, 1000, start + 9 * MS), 0);
	assert_int_equal(limiter_take(&l, 100, 1000, start + 10 * MS), 1);
	assert_int_equal(limiter_take(&l, 100, 1000, start + 60 * SECOND), 10);
}

static void
slow_rates_work(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_int_equal(limiter_take(&l, 0.5, 10, start), 1);
	assert_int_equal(limiter_wait_ms(&l, 0.5, start), 2000);
	assert_int_equal(limiter_take(&l, 0.5, 10, start + 2 * SECOND), 1);
}

static void
unused_tokens_come_back(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_int_equal(limiter_take(&l, 100, 10, start), 10);
	limiter_return(&l, 4);
	assert_int_equal(limiter_take(&l, 100, 10, start), 4);
	limiter_return(&l, 1000);
	assert_int_equal(limiter_take(&l, 100, 1000, start), 10);
}

static void
what_is_owed_is_missed_later(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_int_equal(limiter_take(&l, 100, 8, start), 8);
	limiter_owe(&l, 100, 5, start);
	assert_int_equal(limiter_take(&l, 100, 1, start), 0);
	assert_int_equal(limiter_wait_ms(&l, 100, start), 40);
	assert_int_equal(limiter_take(&l, 100, 10, start + 39 * MS), 0);
	assert_int_equal(limiter_take(&l, 100, 10, start + 40 * MS), 1);
	limiter_owe(&l, 0, 1000, start + 40 * MS);
	assert_int_equal(limiter_take(&l, 100, 10, start + 50 * MS), 1);
}

/* Over t seconds at most burst + rate * t, and not much less when asked often. */
static void
long_run_keeps_the_rate(void **state)
{
	Limiter		l = fresh();
	int64_t		now = start;
	int64_t		taken = 0;

	(void) state;
	srandom(1);
	while (now < start + 100 * SECOND)
	{
		taken += limiter_take(&l, 777, 1 + (int) (random() % 64), now);
		now += random() % (20 * MS);
	}
	assert_true(taken <= 77.7 + 777 * 100.02);
	assert_true(taken >= 777 * 99);
}

static void
wait_is_enough(void **state)
{
	const double rates[] = {0.01, 0.3, 1, 7, 10, 33.3, 1000, 99999};

	(void) state;
	for (size_t i = 0; i < LENGTH(rates); i++)
	{
		Limiter		l = fresh();
		int64_t		now = start;

		for (int n = 0; n < 200; n++)
		{
			if (limiter_take(&l, rates[i], 1, now) == 1)
				continue;
			now += limiter_wait_ms(&l, rates[i], now) * MS;
			assert_int_equal(limiter_take(&l, rates[i], 1, now), 1);
		}
	}
}

static void
retry_after_holds_everything(void **state)
{
	Limiter		l = fresh();

	(void) state;
	limiter_slow_down(&l, 3000, start);
	assert_int_equal(limiter_wait_ms(&l, 0, start), 3000);
	assert_int_equal(limiter_take(&l, 0, 64, start + 3 * SECOND - 1), 0);
	assert_int_equal(limiter_take(&l, 0, 64, start + 3 * SECOND), 1);
}

static void
retry_after_is_clamped(void **state)
{
	Limiter		l = fresh();

	(void) state;
	limiter_slow_down(&l, INT64_MAX, start);
	assert_int_equal(limiter_wait_ms(&l, 0, start), RETRY_AFTER_MAX_MS);
}

static void
shorter_retry_after_does_not_shorten_a_hold(void **state)
{
	Limiter		l = fresh();

	(void) state;
	limiter_slow_down(&l, 3000, start);
	limiter_slow_down(&l, 1000, start);
	limiter_slow_down(&l, -1, start);
	assert_int_equal(limiter_wait_ms(&l, 0, start), 3000);
}

/* 64 answers of 429 at once are one word, not 64 doublings. */
static void
hold_doubles_once_per_hold(void **state)
{
	const int64_t expected[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
	Limiter		l = fresh();
	int64_t		now = start;

	(void) state;
	for (size_t i = 0; i < LENGTH(expected); i++)
	{
		for (int n = 0; n < 64; n++)
			limiter_slow_down(&l, n % 2 - 1, now);
		assert_int_equal(limiter_wait_ms(&l, 0, now), expected[i]);
		limiter_relax(&l, now);
		now += expected[i] * MS;
	}
	limiter_relax(&l, now);
	limiter_slow_down(&l, -1, now);
	assert_int_equal(limiter_wait_ms(&l, 0, now), 100);
}

/* After a hold or an outage the wallet is not met by everything that waits. */
static void
a_ramp_doubles_per_round_trip(void **state)
{
	Limiter		l = fresh();
	int64_t		now = start;
	int			expected = 1;

	(void) state;
	limiter_ramp(&l, now);
	for (int round = 0; round < 8; round++)
	{
		assert_int_equal(limiter_take(&l, 0, 1000, now), expected);
		assert_int_equal(limiter_take(&l, 0, 1000, now), 0);
		now += 10 * MS;
		for (int i = 0; i < expected; i++)
			limiter_relax(&l, now);
		expected *= 2;
	}
	assert_int_equal(limiter_take(&l, 0, 1000, now), 1000);
	assert_int_equal(limiter_wait_ms(&l, 0, now), 0);
}

/* Answers may never come: one more goes out from time to time. */
static void
a_ramp_does_not_end_for_want_of_answers(void **state)
{
	Limiter		l = fresh();
	int64_t		now = start;

	(void) state;
	limiter_ramp(&l, now);
	assert_int_equal(limiter_take(&l, 0, 64, now), 1);
	for (int i = 0; i < 10; i++)
	{
		int64_t		wait = limiter_wait_ms(&l, 0, now);

		assert_in_range(wait, 1, RAMP_STEP_MS);
		now += wait * MS;
		assert_int_equal(limiter_wait_ms(&l, 0, now), 0);
		assert_int_equal(limiter_take(&l, 0, 64, now), 1);
	}
	assert_in_range(limiter_wait_ms(&l, 0, start - 3600 * SECOND), 0, RAMP_STEP_MS);
}

static void
what_a_ramp_gave_comes_back_and_no_more(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_int_equal(limiter_take(&l, 0, 64, start), 64);
	limiter_ramp(&l, start);
	limiter_return(&l, 64);		/* taken before the ramp */
	assert_int_equal(limiter_take(&l, 0, 64, start), 1);
	limiter_return(&l, 1);
	assert_int_equal(limiter_take(&l, 0, 64, start), 1);
}

static void
another_slow_down_begins_the_ramp_anew(void **state)
{
	Limiter		l = fresh();
	int64_t		now = start;

	(void) state;
	limiter_ramp(&l, now);
	for (int i = 0; i < 50; i++)
		limiter_relax(&l, now);
	limiter_slow_down(&l, 1000, now);
	assert_int_equal(limiter_take(&l, 0, 64, now + SECOND), 1);
}

static void
clock_set_back_does_not_hang_it(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_int_equal(limiter_take(&l, 100, 1000, start), 10);
	limiter_slow_down(&l, 3000, start + 3600 * SECOND);
	assert_int_equal(limiter_take(&l, 0, 5, start), 1);
	l.ramp_left = 0;
	assert_int_equal(limiter_wait_ms(&l, 100, 0), 0);
	assert_int_equal(limiter_take(&l, 100, 1000, 0), 0);
	assert_true(limiter_wait_ms(&l, 100, 0) > 0);
	assert_int_equal(limiter_take(&l, 100, 1000, SECOND), 10);
}

static void
it_tells_whether_the_rate_is_what_keeps_it(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_false(limiter_is_empty(&l, 100, start));
	assert_int_equal(limiter_take(&l, 100, 1000, start), 10);
	assert_true(limiter_is_empty(&l, 100, start));
	assert_false(limiter_is_empty(&l, 0, start));
	assert_false(limiter_is_empty(&l, 100, start + SECOND));
	limiter_slow_down(&l, 3000, start + SECOND);
	assert_false(limiter_is_empty(&l, 100, start + SECOND));
}

static void
idle_without_rate_hold_and_ramp(void **state)
{
	Limiter		l = fresh();

	(void) state;
	assert_true(limiter_is_idle(&l, 0, start));
	assert_false(limiter_is_idle(&l, 100, start));
	limiter_slow_down(&l, 3000, start);
	assert_false(limiter_is_idle(&l, 0, start + SECOND));
	/* the hold is over, the ramp is not */
	assert_false(limiter_is_idle(&l, 0, start + 4 * SECOND));
	for (int i = 0; i < 1000; i++)
		limiter_relax(&l, start + 4 * SECOND);
	assert_true(limiter_is_idle(&l, 0, start + 4 * SECOND));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(idle_without_rate_hold_and_ramp),
		cmocka_unit_test(no_rate_no_limit),
		cmocka_unit_test(burst_then_rate),
		cmocka_unit_test(slow_rates_work),
		cmocka_unit_test(unused_tokens_come_back),
		cmocka_unit_test(what_is_owed_is_missed_later),
		cmocka_unit_test(long_run_keeps_the_rate),
		cmocka_unit_test(wait_is_enough),
		cmocka_unit_test(retry_after_holds_everything),
		cmocka_unit_test(retry_after_is_clamped),
		cmocka_unit_test(shorter_retry_after_does_not_shorten_a_hold),
		cmocka_unit_test(hold_doubles_once_per_hold),
		cmocka_unit_test(a_ramp_doubles_per_round_trip),
		cmocka_unit_test(a_ramp_does_not_end_for_want_of_answers),
		cmocka_unit_test(what_a_ramp_gave_comes_back_and_no_more),
		cmocka_unit_test(another_slow_down_begins_the_ramp_anew),
		cmocka_unit_test(clock_set_back_does_not_hang_it),
		cmocka_unit_test(it_tells_whether_the_rate_is_what_keeps_it),
	};

	return cmocka_run_group_tests_name("limiter", tests, NULL, NULL);
}
