/*
 * faults.c
 *	  Rules of misbehaviour: which request is treated badly.
 */
#include "faults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault_rule.h"

#define RULES_MAX		1000
#define SEEN_MAX		(1 << 22)	/* slots per rule: 64 MB at most */

void
faults_clear(Faults *faults)
{
	for (size_t i = 0; i < faults->count; i++)
		fault_rule_release(faults->rules[i]);
	free(faults->rules);
	faults->rules = NULL;
	faults->count = 0;
}

static bool
parse_all(Faults *faults, json_t *list, FaultRule **out, char *err, size_t errlen)
{
	size_t		i;
	json_t	   *source;

	json_array_foreach(list, i, source)
	{
		char		why[200];

		out[i] = fault_rule_parse(source, faults->loaded + i + 1, why, sizeof(why));
		if (out[i] == NULL)
		{
			snprintf(err, errlen, "rule %zu: %s", i + 1, why);
			while (i-- > 0)
				fault_rule_release(out[i]);
			return false;
		}
	}
	faults->loaded += json_array_size(list);
	return true;
}

bool
faults_load(Faults *faults, json_t *rules, bool replace, char *err, size_t errlen)
{
	json_t	   *list = json_is_array(rules) ? json_incref(rules) : json_pack("[O]", rules);
	size_t		added = json_array_size(list);
	size_t		kept = replace ? 0 : faults->count;
	FaultRule **all = calloc(kept + added + 1, sizeof(FaultRule *));
	bool		ok = false;

	if (replace)
		faults->loaded = 0;
	if (all == NULL || kept + added > RULES_MAX)
		snprintf(err, errlen, "more than %d rules", RULES_MAX);
	else
		ok = parse_all(faults, list, all + kept, err, errlen);
	json_decref(list);
	if (!ok)
	{
		free(all);
		return false;
	}
	if (replace)
		faults_clear(faults);
	else if (kept > 0)
		memcpy(all, faults->rules, kept * sizeof(FaultRule *));
	free(faults->rules);
	faults->rules = all;
	faults->count = kept + added;
	return true;
}

static bool
same_or_any(const char *wanted, const char *actual)
{
	return wanted == NULL || strcmp(wanted, actual) == 0;
}

static bool
matches(const FaultMatch *match, const FaultSubject *subject)
{
	char		symbol[80];

	if ((match->path & subject->path) == 0 ||
		!same_or_any(match->trade_id, subject->trade_id) ||
		!same_or_any(match->buyer_id, subject->buyer_id) ||
		!same_or_any(match->seller_id, subject->seller_id) ||
		!same_or_any(match->key, subject->key) ||
		(match->reused != -1 && match->reused != subject->reused) ||
		(match->above != -1 && subject->in_flight <= (uint64_t) match->above))
		return false;
	if (match->trade_id_prefix != NULL &&
		strncmp(match->trade_id_prefix, subject->trade_id,
				strlen(match->trade_id_prefix)) != 0)
		return false;
	if (match->currency != NULL &&
		strcmp(match->currency, subject->base_currency) != 0 &&
		strcmp(match->currency, subject->quote_currency) != 0)
		return false;
	if (match->symbol == NULL)
		return true;
	snprintf(symbol, sizeof(symbol), "%s/%s", subject->base_currency,
			 subject->quote_currency);
	return strcmp(match->symbol, symbol) == 0;
}

static bool
grow(SeenTrades *trades)
{
	SeenTrades	larger = {.size = trades->size == 0 ? 1024 : trades->size * 2,
	.used = trades->used};

	larger.slots = calloc(larger.size, sizeof(*larger.slots));
	if (larger.slots == NULL)
		return false;
	for (size_t i = 0; i < trades->size; i++)
	{
		size_t		at = trades->slots[i].hash & (larger.size - 1);

		if (trades->slots[i].hash == 0)
			continue;
		while (larger.slots[at].hash != 0)
			at = (at + 1) & (larger.size - 1);
		larger.slots[at] = trades->slots[i];
	}
	free(trades->slots);
	*trades = larger;
	return true;
}

/* How often this trade was seen before, and now once more. */
static uint64_t
count_trade(SeenTrades *trades, uint64_t hash)
{
	size_t		at;

	hash |= 1;					/* 0 marks a free slot */
	if (trades->used * 2 >= trades->size &&
		(trades->size >= SEEN_MAX || !grow(trades)))
	{
		/* full: forget all rather than grow without bound */
		if (trades->size == 0)
			return 0;
		memset(trades->slots, 0, trades->size * sizeof(*trades->slots));
		trades->used = 0;
	}
	at = hash & (trades->size - 1);
	while (trades->slots[at].hash != 0 && trades->slots[at].hash != hash)
		at = (at + 1) & (trades->size - 1);
	if (trades->slots[at].hash == 0)
	{
		trades->slots[at].hash = hash;
		trades->used++;
	}
	return trades->slots[at].count++;
}

/* splitmix64 */
static uint64_t
mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static double
unit(uint64_t random)
{
	return (double) (random >> 11) * 0x1.0p-53;
}

static bool
wants(FaultRule *rule, const FaultSubject *subject, uint64_t seed, uint64_t *random)
{
	const FaultMatch *match = &rule->match;
	uint64_t	trade;
	uint64_t	before = 0;

	if (!matches(match, subject))
		return false;
	rule->seen++;
	trade = mix(hash_text(subject->trade_id[0] != '\0' ? subject->trade_id : subject->key));
	if (match->times != -1 || match->p < 1.0)
		before = count_trade(&rule->trades, trade);
	*random = mix(mix(seed ^ rule->salt) ^ trade ^ mix(before));

	if (match->nth != 0 && rule->seen != (uint64_t) match->nth)
		return false;
	if (match->every != 0 && rule->seen % (uint64_t) match->every != 0)
		return false;
	if (match->times != -1 && before >= (uint64_t) match->times)
		return false;
	if (match->p < 1.0 && unit(*random) >= match->p)
		return false;
	return match->count == -1 || rule->played < (uint64_t) match->count;
}

Fault
faults_decide(Faults *faults, const FaultSubject *subject)
{
	Fault		fault = {.rule = NULL};

	for (size_t i = 0; i < faults->count; i++)
	{
		FaultRule  *rule = faults->rules[i];

		if (!wants(rule, subject, faults->seed, &fault.random))
			continue;
		rule->played++;
		rule->references++;
		fault.rule = rule;
		fault.plan = rule->plan;
		fault.random = mix(fault.random);
		if (fault.plan.jitter_ms > 0)
			fault.plan.delay_ms +=
				(int64_t) (fault.random % (uint64_t) (fault.plan.jitter_ms + 1));
		break;
	}
	return fault;
}

void
fault_release(Fault *fault)
{
	fault_rule_release(fault->rule);
	fault->rule = NULL;
}

json_t *
faults_describe(const Faults *faults)
{
	json_t	   *list = json_array();

	for (size_t i = 0; i < faults->count; i++)
	{
		const FaultRule *rule = faults->rules[i];

		json_array_append_new(list, json_pack("{s:s s:O s:I s:I}",
											  "name", rule->name,
											  "rule", rule->source,
											  "seen", (json_int_t) rule->seen,
											  "played", (json_int_t) rule->played));
	}
	return list;
}
