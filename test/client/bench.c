/*
 * bench.c
 *	  What one request costs this process: CPU time per request and requests per
 *	  second against a server that always gives the same answer.
 *
 *	  bench URL [requests [in-flight [authorization]]]
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "wallet/client.h"

static double
seconds(struct timeval t)
{
	return (double) t.tv_sec + (double) t.tv_usec / 1e6;
}

static double
wall(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

static void
submit(WalletClient *client, long n)
{
	static const WalletTrade trade = {
		"8b1a9953-c461-4a3b-8f0e-000000000001", "buyer-17", "seller-4711",
		"order-100001", "order-100002", "BTC", "USDT", "0.5", "25000",
		"50000", "25", "12.5"
	};
	char		key[IDEMPOTENCY_KEY_LEN + 1];

	snprintf(key, sizeof key, "00000000-0000-5000-8000-%012lx", n);
	wallet_client_submit(client, WALLET_SETTLE, &trade, key, 1, 7,
						 "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
						 NULL);
}

int
main(int argc, char **argv)
{
	WalletConfig config = {
		.adapter = "native",.plain_http = PLAIN_HTTP_ALWAYS,
		.connect_timeout_ms = 1000,.request_timeout_ms = 5000,
		.max_response_size = 65536,
	};
	long		total = argc > 2 ? atol(argv[2]) : 200000;
	long		submitted = 0;
	long		done = 0;
	long		runs = 0;
	long		outcomes[OUTCOME_FENCED + 1] = {0};
	char		err[256];
	WalletClient *client;
	const WalletResult *result;
	struct rusage usage;
	double		start;
	double		elapsed;

	if (argc < 2)
		return 2;
	config.url = argv[1];
	config.max_connections = argc > 3 ? atoi(argv[3]) : 64;
	config.authorization = argc > 4 ? argv[4] : NULL;
	if (wallet_global_init() != NULL)
		return 1;
	client = wallet_client_create(&config, err, sizeof err);
	if (client == NULL)
	{
		fprintf(stderr, "%s\n", err);
		return 1;
	}
	start = wall();
	while (done < total)
	{
		struct pollfd p = {wallet_client_fd(client), POLLIN, 0};

		while (submitted < total &&
			   wallet_client_in_flight(client) < config.max_connections)
			submit(client, submitted++);
		wallet_client_run(client);
		runs++;
		while ((result = wallet_client_next(client)) != NULL)
		{
			outcomes[result->verdict.outcome]++;
			done++;
		}
		if (done == total)
			break;
		if (submitted == total || wallet_client_in_flight(client) == config.max_connections)
			poll(&p, 1, wallet_client_timeout_ms(client));
	}
	elapsed = wall() - start;
	getrusage(RUSAGE_SELF, &usage);
	printf("%.0f requests/s, %.2f us CPU each (%.2f user, %.2f system), "
		   "%.1f per run, max %ld kB\n",
		   (double) total / elapsed,
		   (seconds(usage.ru_utime) + seconds(usage.ru_stime)) * 1e6 / (double) total,
		   seconds(usage.ru_utime) * 1e6 / (double) total,
		   seconds(usage.ru_stime) * 1e6 / (double) total,
		   (double) total / (double) runs, usage.ru_maxrss);
	for (int i = 0; i <= OUTCOME_FENCED; i++)
		if (outcomes[i] > 0)
			printf("%s: %ld\n", outcome_name((Outcome) i), outcomes[i]);
	wallet_client_destroy(client);
	return 0;
}
