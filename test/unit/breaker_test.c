/*
 * breaker_test.c
 *	  The circuit breaker's states, and random walks over them.
 */
#include "unit.h"

#include <stdlib.h>

#include "policy/breaker.h"

static const BreakerPolicy policy = {3, 3, 100, 5000, 1000};
static const int64_t start = 10 * SECOND;

static Breaker
fresh(void)
{
	Breaker		b;

	breaker_init(&b, start);
	return b;
}

static void
report(Breaker *b, BreakerSignal signal, uint64_t trade, int64_t now)
{
	breaker_report(b, &policy, signal, trade, false, 0, now, now);
}

static Breaker
opened(void)
{
	Breaker		b = fresh();

	report(&b, SIGNAL_OPEN_NOW, 1, start);
	return b;
}

/* Opened, its open time over, and the probe taken at *now. */
static Breaker
probing(int64_t *now)
{
	Breaker		b = opened();
	bool		probe;

	*now = start + 100 * MS;
	assert_int_equal(breaker_allow(&b, &policy, 64, *now, &probe), 1);
	assert_true(probe);
	return b;
}

static void
closed_lets_all_through(void **state)
{
	Breaker		b = fresh();
	bool		probe = true;

	(void) state;
	assert_int_equal(breaker_allow(&b, &policy, 64, start, &probe), 64);
	assert_false(probe);
	assert_int_equal(breaker_allow(&b, &policy, 0, start, &probe), 0);
	assert_int_equal(breaker_wait_ms(&b, &policy, start), 0);
}

static void
opens_after_failures_in_a_row(void **state)
{
	Breaker		b = fresh();

	(void) state;
	report(&b, SIGNAL_FAILED, 1, start);
	report(&b, SIGNAL_FAILED, 1, start);
	assert_int_equal(b.state, BREAKER_CLOSED);
	report(&b, SIGNAL_FAILED, 1, start + 5);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_int_equal(b.times_opened, 1);
	assert_int_equal(b.changed_at_us, start + 5);
}

static void
an_answer_restarts_the_count(void **state)
{
	Breaker		b = fresh();

	(void) state;
	for (int i = 0; i < 100; i++)
		report(&b, i % 3 == 2 ? SIGNAL_ANSWERED : SIGNAL_FAILED, 1, start);
	assert_int_equal(b.state, BREAKER_CLOSED);
}

static void
one_suspicious_trade_does_not_open(void **state)
{
	Breaker		b = fresh();

	(void) state;
	for (int i = 0; i < 100; i++)
		report(&b, SIGNAL_SUSPECT, 1 + i % 2, start);
	assert_int_equal(b.state, BREAKER_CLOSED);
	report(&b, SIGNAL_SUSPECT, 3, start);
	assert_int_equal(b.state, BREAKER_OPEN);
}

static void
zero_thresholds_never_open(void **state)
{
	BreakerPolicy off = policy;
	Breaker		b = fresh();

	(void) state;
	off.failures = off.suspects = 0;
	for (int i = 0; i < 1000; i++)
	{
		breaker_report(&b, &off, SIGNAL_FAILED, i, false, 0, start, start);
		breaker_report(&b, &off, SIGNAL_SUSPECT, i, false, 0, start, start);
	}
	assert_int_equal(b.state, BREAKER_CLOSED);
}

static void
open_lets_nothing_through_until_its_time(void **state)
{
	Breaker		b = opened();
	bool		probe;

	(void) state;
	assert_int_equal(breaker_wait_ms(&b, &policy, start), 100);
	assert_int_equal(breaker_allow(&b, &policy, 64, start + 99 * MS, &probe), 0);
	assert_int_equal(b.state, BREAKER_OPEN);
	assert_int_equal(breaker_allow(&b, &policy, 64, start + 100 * MS, &probe), 1);
	assert_true(probe);
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
}

static void
one_probe_at_a_time(void **state)
{
	int64_t		now;
	Breaker		b = probing(&now);
	bool		probe;

	(void) state;
	assert_int_equal(breaker_allow(&b, &policy, 64, now + 1, &probe), 0);
	assert_false(probe);
	assert_int_equal(breaker_wait_ms(&b, &policy, now), 1000);
}

static void
lost_probe_is_given_up(void **state)
{
	int64_t		now;
	Breaker		b = probing(&now);
	bool		probe;

	(void) state;
	assert_int_equal(breaker_allow(&b, &policy, 64, now + SECOND - 1, &probe), 0);
	assert_int_equal(breaker_allow(&b, &policy, 64, now + SECOND, &probe), 1);
	assert_true(probe);
}

static void
abandoned_probe_frees_its_place(void **state)
{
	int64_t		now;
	Breaker		b = probing(&now);
	bool		probe;

	(void) state;
	breaker_abandon_probe(&b);
	assert_int_equal(breaker_allow(&b, &policy, 64, now, &probe), 1);
}

static void
answered_probe_closes(void **state)
{
	int64_t		now;
	Breaker		b = probing(&now);
	bool		probe;

	(void) state;
	breaker_report(&b, &policy, SIGNAL_ANSWERED, 1, true, 0, now, now);
	assert_int_equal(b.state, BREAKER_CLOSED);
	assert_int_equal(breaker_allow(&b, &policy, 64, now, &probe), 64);
}

static void
failed_probe_opens_longer_up_to_the_maximum(void **state)
{
	Breaker		b = opened();
	int64_t		now = start;
	int64_t		expected = 100;
	bool		probe;

	(void) state;
	for (int i = 0; i < 20; i++)
	{
		assert_int_equal(breaker_wait_ms(&b, &policy, now), expected);
		now += expected * MS;
		assert_int_equal(breaker_allow(&b, &policy, 1, now, &probe), 1);
		breaker_report(&b, &policy, SIGNAL_FAILED, 1, true, 0, now, now);
		assert_int_equal(b.state, BREAKER_OPEN);
		expected = expected * 2 > 5000 ? 5000 : expected * 2;
	}
	assert_int_equal(b.times_opened, 1);
}

static void
late_reports_do_not_move_an_open_breaker(void **state)
{
	int64_t		now;
	Breaker		b = opened();

	(void) state;
	report(&b, SIGNAL_ANSWERED, 1, start);
	assert_int_equal(b.state, BREAKER_OPEN);
	b = probing(&now);
	report(&b, SIGNAL_FAILED, 1, now);
	report(&b, SIGNAL_OPEN_NOW, 1, now);
	report(&b, SIGNAL_ANSWERED, 1, now);
	assert_int_equal(b.state, BREAKER_HALF_OPEN);
}

static void
open_time_is_spread_downwards(void **state)
{
	Breaker		a = fresh();
	Breaker		b = fresh();

	(void) state;
	breaker_report(&a, &policy, SIGNAL_OPEN_NOW, 1, false, 0, start, start);
	breaker_report(&b, &policy, SIGNAL_OPEN_NOW, 1, false, 0.99, start, start);
	assert_int_equal(breaker_wait_ms(&a, &policy, start), 100);
	assert_in_range(breaker_wait_ms(&b, &policy, start), 75, 76);
}

static void
by_hand_stays_until_closed_by_hand(void **state)
{
	Breaker		b = fresh();
	bool		probe;

	(void) state;
	breaker_force_open(&b, start);
	assert_int_equal(breaker_wait_ms(&b, &policy, start + 999 * SECOND), -1);
	assert_int_equal(breaker_allow(&b, &policy, 1, start + 999 * SECOND, &probe), 0);
	breaker_report(&b, &policy, SIGNAL_ANSWERED, 1, true, 0, start, start);
	assert_int_equal(b.state, BREAKER_OPEN);
	breaker_force_close(&b, start + SECOND);
	assert_int_equal(breaker_allow(&b, &policy, 7, start + SECOND, &probe), 7);
}

/* Which of the attempts sent at these times would be handed back: a string of y and n. */
static const char *
handed_back(const Breaker *b, int n, const int64_t *sent)
{
	static char answer[9];
	int64_t		from;
	int64_t		until;

	breaker_outage(b, &from, &until);
	for (int i = 0; i < n; i++)
		answer[i] = sent[i] >= from && sent[i] <= until ? 'y' : 'n';
	answer[n] = '\0';
	return answer;
}

/* Three failures open it, a probe fails, the next closes it; *now goes on. */
static void
outage(Breaker *b, int64_t *now)
{
	bool		probe;

	for (int i = 0; i < 3; i++)
		breaker_report(b, &policy, SIGNAL_FAILED, 1, false, 0, *now - 50 * MS + i, *now);
	assert_int_equal(b->state, BREAKER_OPEN);
	*now += 100 * MS;
	assert_int_equal(breaker_allow(b, &policy, 1, *now, &probe), 1);
	breaker_report(b, &policy, SIGNAL_FAILED, 2, true, 0, *now, *now + 1);
	*now += 200 * MS + 1;
	assert_int_equal(breaker_allow(b, &policy, 1, *now, &probe), 1);
	breaker_report(b, &policy, SIGNAL_ANSWERED, 3, true, 0, *now, *now + 1);
	assert_int_equal(b->state, BREAKER_CLOSED);
	*now += 2;
}

static void
attempts_of_an_outage_are_handed_back(void **state)
{
	Breaker		b = fresh();
	int64_t		now = start;
	int64_t		sent[] = {start - 51 * MS, start - 50 * MS, start, start + 100 * MS, start + SECOND};

	(void) state;
	assert_string_equal(handed_back(&b, 5, sent), "nnnnn");
	outage(&b, &now);
	assert_string_equal(handed_back(&b, 5, sent), "nyyyn");
	/* later failures of what was sent in it, and answers, change nothing */
	breaker_report(&b, &policy, SIGNAL_FAILED, 1, false, 0, start + 10, now);
	breaker_report(&b, &policy, SIGNAL_ANSWERED, 1, false, 0, now, now);
	assert_string_equal(handed_back(&b, 5, sent), "nyyyn");
}

static void
while_it_lasts_all_since_its_beginning_are(void **state)
{
	Breaker		b = fresh();
	int64_t		sent[] = {start - 50 * MS, start - 20 * MS, start + 3600 * SECOND};

	(void) state;
	for (int i = 0; i < 3; i++)
		breaker_report(&b, &policy, SIGNAL_FAILED, 1, false, 0, start - 20 * MS, start);
	assert_string_equal(handed_back(&b, 3, sent), "nyy");
	/* one that was in flight already when it began, and fails now */
	breaker_report(&b, &policy, SIGNAL_FAILED, 4, false, 0, start - 50 * MS, start + 1);
	assert_string_equal(handed_back(&b, 3, sent), "yyy");
}

/* The probe was answered: those that opened it are to blame. */
static void
without_a_failed_probe_it_was_no_outage(void **state)
{
	int64_t		now;
	int64_t		sent[] = {start};
	Breaker		b = probing(&now);

	(void) state;
	breaker_report(&b, &policy, SIGNAL_ANSWERED, 1, true, 0, now, now);
	assert_string_equal(handed_back(&b, 1, sent), "n");
}

/* Poisonous trades would else open it again and again, and never be charged. */
static void
soon_after_it_closed_it_is_no_outage(void **state)
{
	Breaker		b = fresh();
	int64_t		now = start;
	int64_t		second;

	(void) state;
	outage(&b, &now);
	second = now += SECOND;
	outage(&b, &now);
	assert_string_equal(handed_back(&b, 1, &second), "n");
	for (int i = 0; i < BREAKER_ANSWERS; i++)
		breaker_report(&b, &policy, SIGNAL_ANSWERED, 1, false, 0, now, now);
	second = now += SECOND;
	outage(&b, &now);
	assert_string_equal(handed_back(&b, 1, &second), "y");
}

static void
clock_set_back_does_not_hang_it(void **state)
{
	Breaker		b = opened();
	int64_t		now;
	bool		probe;

	(void) state;
	assert_int_equal(breaker_wait_ms(&b, &policy, start - 86400 * SECOND), 0);
	assert_int_equal(breaker_allow(&b, &policy, 1, start - 86400 * SECOND, &probe), 1);
	assert_true(probe);
	b = opened();
	assert_true(breaker_wait_ms(&b, &policy, start - SECOND / 2) > 0);
	b = probing(&now);
	assert_int_equal(breaker_allow(&b, &policy, 1, 1 * SECOND, &probe), 1);
}

/* Random walks: whatever happens, the invariants of the banner hold. */
static void
invariants_hold_on_random_walks(void **state)
{
	(void) state;
	srandom(42);
	for (int walk = 0; walk < 200; walk++)
	{
		Breaker		b = fresh();
		int64_t		now = start;
		bool		probe = false;

		for (int step = 0; step < 500; step++)
		{
			int64_t		wait;
			int			n;

			now += random() % (300 * MS);
			n = breaker_allow(&b, &policy, 8, now, &probe);
			assert_true(n == 0 || n == 8 || (n == 1 && probe));
			assert_true(!probe || b.state == BREAKER_HALF_OPEN);
			breaker_report(&b, &policy, (BreakerSignal) (random() % 5),
						   (uint64_t) random() % 6, random() % 2,
						   (double) (random() % 1000) / 1000, now, now);
			if (random() % 50 == 0)
				breaker_force_open(&b, now);
			if (b.manual && random() % 10 == 0)
				breaker_force_close(&b, now);
			wait = breaker_wait_ms(&b, &policy, now);
			assert_true(wait == -1 ? b.manual : wait >= 0 && wait <= 5000);
			assert_true(b.open_ms <= 5000);
			assert_true(!b.manual || b.state == BREAKER_OPEN);
			assert_true(b.suspects_in_row >= 0 && b.suspects_in_row <= 3);
		}
	}
}

static void
states_have_names(void **state)
{
	(void) state;
	assert_string_equal(breaker_state_name(BREAKER_CLOSED), "closed");
	assert_string_equal(breaker_state_name(BREAKER_OPEN), "open");
	assert_string_equal(breaker_state_name(BREAKER_HALF_OPEN), "half_open");
	assert_string_equal(breaker_state_name((BreakerState) 9), "invalid");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(closed_lets_all_through),
		cmocka_unit_test(opens_after_failures_in_a_row),
		cmocka_unit_test(an_answer_restarts_the_count),
		cmocka_unit_test(one_suspicious_trade_does_not_open),
		cmocka_unit_test(zero_thresholds_never_open),
		cmocka_unit_test(open_lets_nothing_through_until_its_time),
		cmocka_unit_test(one_probe_at_a_time),
		cmocka_unit_test(lost_probe_is_given_up),
		cmocka_unit_test(abandoned_probe_frees_its_place),
		cmocka_unit_test(answered_probe_closes),
		cmocka_unit_test(failed_probe_opens_longer_up_to_the_maximum),
		cmocka_unit_test(late_reports_do_not_move_an_open_breaker),
		cmocka_unit_test(open_time_is_spread_downwards),
		cmocka_unit_test(by_hand_stays_until_closed_by_hand),
		cmocka_unit_test(attempts_of_an_outage_are_handed_back),
		cmocka_unit_test(while_it_lasts_all_since_its_beginning_are),
		cmocka_unit_test(without_a_failed_probe_it_was_no_outage),
		cmocka_unit_test(soon_after_it_closed_it_is_no_outage),
		cmocka_unit_test(clock_set_back_does_not_hang_it),
		cmocka_unit_test(invariants_hold_on_random_walks),
		cmocka_unit_test(states_have_names),
	};

	return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
