/*
 * concurrency_test.c
 *	  Adaptive concurrency, alone and against simulated wallets.
 */
#include "unit.h"

#include <stdlib.h>

#include "policy/concurrency.h"

#define MAX			64
#define MAX_WORKERS	4

static const int64_t start = 10 * SECOND;

static Concurrency
fresh(void)
{
	Concurrency c;

	concurrency_init(&c, start);
	return c;
}

/* Answers with that latency, all in flight allowed being in flight. */
static int64_t
answers(Concurrency *c, int n, int64_t latency, int64_t now)
{
	for (int i = 0; i < n; i++)
	{
		now += latency + 1;
		concurrency_report(c, LOAD_ANSWERED, now - latency, latency, MAX, MAX, now);
	}
	return now;
}

/* One request that took 5 ms. */
static void
report(Concurrency *c, LoadSignal signal, int in_flight, int64_t now)
{
	concurrency_report(c, signal, now - 5 * MS, 5 * MS, in_flight, MAX, now);
}

/* A wallet: so many requests are served at a time, each for `service`. */
typedef struct Wallet
{
	int			servers;
	int			refuse_above;	/* in the wallet; 0: it queues them */
	int64_t		service;
} Wallet;

typedef struct Sent
{
	int			worker;
	int64_t		at;
	int64_t		done;
	bool		refused;
} Sent;

typedef struct Run
{
	Concurrency c[MAX_WORKERS];
	int			workers;
	int			in_flight[MAX_WORKERS];
	Sent		sent[MAX_WORKERS * MAX];
	int			n;
	int			served;			/* of them, not refused */
	int64_t		now;
	int64_t		answered;		/* since reset */
	int64_t		refused;
	int64_t		slowest;
	double		limits;			/* sum over workers and reports */
	int64_t		reports;
	int			lowest;			/* limit of all workers together */
} Run;

static void
run_reset(Run *run)
{
	run->answered = run->refused = run->slowest = run->reports = 0;
	run->limits = 0;
	run->lowest = MAX_WORKERS * MAX;
}

static void
run_init(Run *run, int workers)
{
	memset(run, 0, sizeof *run);
	run->workers = workers;
	run->now = start;
	for (int w = 0; w < workers; w++)
		concurrency_init(&run->c[w], start);
	run_reset(run);
}

/* When the wallet, which serves in the order of arrival, would be done. */
static int64_t
done_at(const Run *run, const Wallet *wallet, int64_t service)
{
	int64_t		busy[MAX_WORKERS * MAX];
	int			n = 0;

	for (int i = 0; i < run->n; i++)
		if (!run->sent[i].refused)
			busy[n++] = run->sent[i].done;
	if (n < wallet->servers)
		return run->now + service;
	/* the servers-th from the end frees the place */
	for (int i = 0; i < n; i++)
		for (int j = i + 1; j < n; j++)
			if (busy[j] < busy[i])
			{
				int64_t		swap = busy[i];

				busy[i] = busy[j];
				busy[j] = swap;
			}
	return busy[n - wallet->servers] + service;
}

static void
send_all(Run *run, const Wallet *wallet)
{
	for (int w = 0; w < run->workers; w++)
		while (run->in_flight[w] < concurrency_limit(&run->c[w], MAX))
		{
			Sent	   *sent = &run->sent[run->n];
			/* one service in twenty takes five times as long */
			int64_t		service = wallet->service * (random() % 20 == 0 ? 5 : 1);

			sent->worker = w;
			sent->at = run->now;
			sent->refused = wallet->refuse_above > 0 && run->served >= wallet->refuse_above;
			sent->done = sent->refused ? run->now + 1 * MS : done_at(run, wallet, service);
			run->n++;
			run->served += !sent->refused;
			run->in_flight[w]++;
		}
}

static void
finish_first(Run *run)
{
	int			first = 0;
	int			all = 0;
	Sent		sent;

	for (int i = 1; i < run->n; i++)
		if (run->sent[i].done < run->sent[first].done)
			first = i;
	sent = run->sent[first];
	run->sent[first] = run->sent[--run->n];
	if (sent.done > run->now)
		run->now = sent.done;
	concurrency_report(&run->c[sent.worker], sent.refused ? LOAD_OVERLOAD : LOAD_ANSWERED,
					   sent.at, run->now - sent.at, run->in_flight[sent.worker], MAX, run->now);
	run->in_flight[sent.worker]--;
	run->served -= !sent.refused;
	run->answered += !sent.refused;
	run->refused += sent.refused;
	if (run->now - sent.at > run->slowest)
		run->slowest = run->now - sent.at;
	for (int w = 0; w < run->workers; w++)
		all += concurrency_limit(&run->c[w], MAX);
	run->limits += all;
	run->reports++;
	if (all < run->lowest)
		run->lowest = all;
}

static void
run_for(Run *run, const Wallet *wallet, int64_t duration)
{
	int64_t		end = run->now + duration;

	while (run->now < end)
	{
		send_all(run, wallet);
		finish_first(run);
	}
}

/* Requests per second, of what the wallet can do. */
static double
share_of_capacity(const Run *run, const Wallet *wallet, int64_t duration)
{
	double		mean = (double) wallet->service * 1.2;	/* with the slow ones */

	return (double) run->answered * mean / ((double) duration * wallet->servers);
}

static double
mean_limit(const Run *run)
{
	return run->limits / (double) run->reports;
}

/* ------------------------------------------------------------- the steps */

static void
begins_low_and_doubles(void **state)
{
	Concurrency c = fresh();
	int64_t		now = start;

	(void) state;
	assert_int_equal(concurrency_limit(&c, MAX), 4);
	assert_int_equal(concurrency_limit(&c, 2), 2);
	now = answers(&c, 4, 5 * MS, now);
	assert_int_equal(concurrency_limit(&c, MAX), 8);
	now = answers(&c, 8, 5 * MS, now);
	assert_int_equal(concurrency_limit(&c, MAX), 16);
	answers(&c, 1000, 5 * MS, now);
	assert_int_equal(concurrency_limit(&c, MAX), MAX);
}

static void
overload_decreases_by_a_part_and_then_one_is_added_per_round(void **state)
{
	Concurrency c = fresh();
	int64_t		now = answers(&c, 12, 5 * MS, start);

	(void) state;
	assert_int_equal(concurrency_limit(&c, MAX), 16);
	now += 6 * MS;
	report(&c, LOAD_OVERLOAD, 16, now);
	assert_int_equal(concurrency_limit(&c, MAX), 12);
	now = answers(&c, 12, 5 * MS, now);
	assert_int_equal(concurrency_limit(&c, MAX), 13);
	answers(&c, 13, 5 * MS, now);
	assert_int_equal(concurrency_limit(&c, MAX), 14);
}

static void
a_burst_of_refusals_is_one_decrease(void **state)
{
	Concurrency c = fresh();
	int64_t		now = answers(&c, 100, 5 * MS, start) + 6 * MS;

	(void) state;
	assert_int_equal(concurrency_limit(&c, MAX), 64);
	for (int i = 0; i < 64; i++)
		concurrency_report(&c, LOAD_OVERLOAD, now - 5 * MS, 5 * MS, 64 - i, MAX, now + i);
	assert_int_equal(concurrency_limit(&c, MAX), 48);
}

static void
slow_answers_decrease(void **state)
{
	Concurrency c = fresh();
	int64_t		now = answers(&c, 28, 20 * MS, start);

	(void) state;
	assert_int_equal(concurrency_limit(&c, MAX), 32);
	answers(&c, 32, 51 * MS, now);
	assert_int_equal(concurrency_limit(&c, MAX), 24);
}

static void
a_few_slow_answers_do_not(void **state)
{
	Concurrency c = fresh();
	int64_t		now = answers(&c, 28, 20 * MS, start);

	(void) state;
	now = answers(&c, 16, 400 * MS, now);
	answers(&c, 16, 20 * MS, now);
	assert_true(concurrency_limit(&c, MAX) >= 32);
}

/* A worker with little to do learns nothing about more. */
static void
an_unused_limit_does_not_grow(void **state)
{
	Concurrency c = fresh();
	int64_t		now = start;

	(void) state;
	for (int i = 0; i < 500; i++)
		report(&c, LOAD_ANSWERED, 2, now += 6 * MS);
	assert_int_equal(concurrency_limit(&c, MAX), 4);
}

static void
other_failures_say_nothing(void **state)
{
	Concurrency c = fresh();
	int64_t		now = start;

	(void) state;
	for (int i = 0; i < 500; i++)
		report(&c, LOAD_NONE, MAX, now += 6 * MS);
	assert_int_equal(concurrency_limit(&c, MAX), 4);
}

static void
never_below_one_and_back_from_there(void **state)
{
	Concurrency c = fresh();
	int64_t		now = start;

	(void) state;
	for (int i = 0; i < 100; i++)
		report(&c, LOAD_OVERLOAD, 1, now += 6 * MS);
	assert_int_equal(concurrency_limit(&c, MAX), 1);
	for (int i = 0; i < 3000; i++)
		report(&c, LOAD_ANSWERED, MAX, now += 6 * MS);
	assert_in_range(concurrency_limit(&c, MAX), 16, MAX);
}

static void
a_lower_maximum_is_kept_at_once(void **state)
{
	Concurrency c = fresh();

	(void) state;
	answers(&c, 1000, 5 * MS, start);
	assert_int_equal(concurrency_limit(&c, 10), 10);
	assert_int_equal(concurrency_limit(&c, 1), 1);
}

static void
clock_set_back_does_not_hang_it(void **state)
{
	Concurrency c = fresh();
	int64_t		now = answers(&c, 12, 5 * MS, start);

	(void) state;
	report(&c, LOAD_OVERLOAD, 16, now + 6 * MS);
	now = answers(&c, 2000, 5 * MS, SECOND);
	assert_in_range(concurrency_limit(&c, MAX), 14, MAX);
}

/* -------------------------------------------------- against a wallet */

static void
finds_a_wallet_that_refuses(void **state)
{
	Wallet		wallet = {20, 20, 20 * MS};
	Run			run;

	(void) state;
	run_init(&run, 1);
	run_for(&run, &wallet, 5 * SECOND);
	run_reset(&run);
	run_for(&run, &wallet, 60 * SECOND);
	assert_true(share_of_capacity(&run, &wallet, 60 * SECOND) > 0.75);
	assert_true(run.refused * 100 < run.answered);
	assert_in_range(run.lowest, 2, 20);	/* measuring, at a quarter */
}

static void
finds_a_wallet_that_queues(void **state)
{
	Wallet		wallet = {10, 0, 30 * MS};
	Run			run;

	(void) state;
	run_init(&run, 1);
	run_for(&run, &wallet, 5 * SECOND);
	run_reset(&run);
	run_for(&run, &wallet, 120 * SECOND);
	assert_true(share_of_capacity(&run, &wallet, 120 * SECOND) > 0.9);
	assert_true(mean_limit(&run) > 10 && mean_limit(&run) < 30);
}

/* The base must not drift up behind our own queue. */
static void
the_queue_stays_short_for_an_hour(void **state)
{
	Wallet		wallet = {4, 0, 20 * MS};
	Run			run;

	(void) state;
	run_init(&run, 1);
	run_for(&run, &wallet, 3500 * SECOND);
	run_reset(&run);
	run_for(&run, &wallet, 100 * SECOND);
	assert_true(mean_limit(&run) < 16);
}

static void
a_fast_wallet_gets_all(void **state)
{
	Wallet		wallet = {8, 0, 200};
	Run			run;

	(void) state;
	run_init(&run, 1);
	run_for(&run, &wallet, SECOND);
	assert_int_equal(concurrency_limit(&run.c[0], MAX), MAX);
}

static void
follows_a_wallet_that_changes(void **state)
{
	Wallet		large = {60, 60, 10 * MS};
	Wallet		small = {6, 6, 10 * MS};
	Wallet		slower = {60, 60, 100 * MS};
	Run			run;

	(void) state;
	run_init(&run, 1);
	run_for(&run, &large, 10 * SECOND);
	assert_true(concurrency_limit(&run.c[0], MAX) > 30 || run.c[0].measuring);
	run_for(&run, &small, 5 * SECOND);
	assert_true(concurrency_limit(&run.c[0], MAX) <= 7);
	run_for(&run, &large, 10 * SECOND);
	run_reset(&run);
	run_for(&run, &large, 10 * SECOND);
	assert_true(share_of_capacity(&run, &large, 10 * SECOND) > 0.6);
	/* further away, not overloaded: a new base is measured */
	run_for(&run, &slower, 60 * SECOND);
	run_reset(&run);
	run_for(&run, &slower, 30 * SECOND);
	assert_true(share_of_capacity(&run, &slower, 30 * SECOND) > 0.6);
}

/* Each worker adapts by itself; together they share. */
static void
workers_share_a_wallet(void **state)
{
	Wallet		wallet = {24, 24, 20 * MS};
	Run			run;
	double		sum[MAX_WORKERS] = {0};

	(void) state;
	run_init(&run, MAX_WORKERS);
	run_for(&run, &wallet, 20 * SECOND);
	run_reset(&run);
	for (int i = 0; i < 600; i++)
	{
		run_for(&run, &wallet, 100 * MS);
		for (int w = 0; w < MAX_WORKERS; w++)
			sum[w] += run.c[w].limit;
	}
	assert_true(share_of_capacity(&run, &wallet, 60 * SECOND) > 0.7);
	assert_true(run.refused * 15 < run.answered);
	for (int w = 1; w < MAX_WORKERS; w++)
		assert_true(sum[w] < 2 * sum[0] && sum[0] < 2 * sum[w]);
}

static void
stays_in_range_on_random_walks(void **state)
{
	(void) state;
	for (int walk = 0; walk < 200; walk++)
	{
		Concurrency c = fresh();
		int64_t		now = start;

		for (int step = 0; step < 1000; step++)
		{
			int			max = 1 + (int) (random() % 100);

			now += random() % (300 * MS) - (random() % 50 == 0 ? SECOND : 0);
			concurrency_report(&c, (LoadSignal) (random() % 3),
							   now - random() % SECOND, random() % SECOND - 10, (int) (random() % 100), max, now);
			assert_in_range(concurrency_limit(&c, max), 1, max);
			assert_true(c.limit >= 1 && c.limit <= 100);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(begins_low_and_doubles),
		cmocka_unit_test(overload_decreases_by_a_part_and_then_one_is_added_per_round),
		cmocka_unit_test(a_burst_of_refusals_is_one_decrease),
		cmocka_unit_test(slow_answers_decrease),
		cmocka_unit_test(a_few_slow_answers_do_not),
		cmocka_unit_test(an_unused_limit_does_not_grow),
		cmocka_unit_test(other_failures_say_nothing),
		cmocka_unit_test(never_below_one_and_back_from_there),
		cmocka_unit_test(a_lower_maximum_is_kept_at_once),
		cmocka_unit_test(clock_set_back_does_not_hang_it),
		cmocka_unit_test(finds_a_wallet_that_refuses),
		cmocka_unit_test(finds_a_wallet_that_queues),
		cmocka_unit_test(the_queue_stays_short_for_an_hour),
		cmocka_unit_test(a_fast_wallet_gets_all),
		cmocka_unit_test(follows_a_wallet_that_changes),
		cmocka_unit_test(workers_share_a_wallet),
		cmocka_unit_test(stays_in_range_on_random_walks),
	};

	srandom(42);
	return cmocka_run_group_tests_name("concurrency", tests, NULL, NULL);
}
