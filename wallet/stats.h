/*
 * stats.h
 *	  Counters since the start or the last reset.  In memory only.
 */
#ifndef WALLET_STATS_H
#define WALLET_STATS_H

#include <stdint.h>

#include <jansson.h>

#include "faults.h"

typedef struct Stats
{
	uint64_t	connections;
	uint64_t	most_in_flight; /* settle and look-up requests at a time */
	uint64_t	settle_requests;	/* trades, alone or in a batch */
	uint64_t	batch_requests;
	uint64_t	lookup_requests;
	uint64_t	admin_requests;
	uint64_t	other_requests;
	uint64_t	unauthorized;
	uint64_t	effects;		/* settlements that moved money */
	uint64_t	replays;		/* stored answers given again */
	uint64_t	insufficient_balance;
	uint64_t	user_not_found;
	uint64_t	reservation_not_found;
	uint64_t	invalid_request;
	uint64_t	key_conflict;
	uint64_t	stale_epoch;
	uint64_t	ledger_failures;
	uint64_t	lookups_found;
	uint64_t	lookups_unknown;
	uint64_t	batches;		/* transactions of settle requests */
	uint64_t	largest_batch;
	uint64_t	faults[ACTION_COUNT];
} Stats;

extern json_t *stats_describe(const Stats *stats);

#endif
