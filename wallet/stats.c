/*
 * stats.c
 *	  Counters since the start or the last reset.
 */
#include "stats.h"

#include <stddef.h>

#define COUNTER(group, name, member) {group, name, offsetof(Stats, member)}

static const struct
{
	const char *group;
	const char *name;
	size_t		offset;
}			counters[] =
{
	COUNTER("requests", "most_in_flight", most_in_flight),
	COUNTER("requests", "settle", settle_requests),
	COUNTER("requests", "batch", batch_requests),
	COUNTER("requests", "lookup", lookup_requests),
	COUNTER("requests", "admin", admin_requests),
	COUNTER("requests", "other", other_requests),
	COUNTER("requests", "unauthorized", unauthorized),
	COUNTER("settle", "effects", effects),
	COUNTER("settle", "replays", replays),
	COUNTER("settle", "INSUFFICIENT_BALANCE", insufficient_balance),
	COUNTER("settle", "USER_NOT_FOUND", user_not_found),
	COUNTER("settle", "RESERVATION_NOT_FOUND", reservation_not_found),
	COUNTER("settle", "INVALID_REQUEST", invalid_request),
	COUNTER("settle", "KEY_CONFLICT", key_conflict),
	COUNTER("settle", "STALE_EPOCH", stale_epoch),
	COUNTER("settle", "ledger_failures", ledger_failures),
	COUNTER("lookup", "found", lookups_found),
	COUNTER("lookup", "UNKNOWN_KEY", lookups_unknown),
	COUNTER("batches", "count", batches),
	COUNTER("batches", "largest", largest_batch),
};

json_t *
stats_describe(const Stats *stats)
{
	json_t	   *all = json_pack("{s:I s:{} s:{} s:{} s:{} s:{}}",
								"connections", (json_int_t) stats->connections,
								"requests", "settle", "lookup", "batches", "faults");
	json_t	   *faults = json_object_get(all, "faults");

	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
	{
		uint64_t	value = *(const uint64_t *)
			((const char *) stats + counters[i].offset);

		json_object_set_new(json_object_get(all, counters[i].group),
							counters[i].name, json_integer((json_int_t) value));
	}
	for (int i = 0; i < ACTION_COUNT; i++)
		json_object_set_new(faults, fault_action_name((FaultAction) i),
							json_integer((json_int_t) stats->faults[i]));
	return all;
}
