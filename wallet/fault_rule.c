/*
 * fault_rule.c
 *	  One rule of misbehaviour: from JSON, strictly, because a misspelt rule
 *	  that is silently ignored makes a test that tests nothing.
 */
#include "fault_rule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct
{
	const char *name;
	bool		apply;			/* unless the rule says otherwise */
	bool		distorts;		/* works on a reply: the true one or a given body */
	int			status;			/* unless the rule says otherwise */
}			actions[ACTION_COUNT] =
{
	[ACTION_PASS] = {"pass", true, true, 0},
	[ACTION_STATUS] = {"status", false, false, 0},
	[ACTION_CLOSE] = {"close", false, false, 0},
	[ACTION_RESET] = {"reset", false, false, 0},
	[ACTION_HANG] = {"hang", false, false, 0},
	[ACTION_REFUSE] = {"refuse", false, false, 0},
	[ACTION_STALL] = {"stall", false, false, 0},
	[ACTION_GARBAGE] = {"garbage", false, false, 200},
	[ACTION_EMPTY] = {"empty", false, false, 200},
	[ACTION_HTML] = {"html", false, false, 502},
	[ACTION_TRUNCATE] = {"truncate", true, true, 0},
	[ACTION_DRIP] = {"drip", true, true, 0},
	[ACTION_TWICE] = {"twice", true, true, 0},
	[ACTION_WRONG_TRADE_ID] = {"wrong_trade_id", true, true, 0},
	[ACTION_SUCCESS_STRING] = {"success_string", true, true, 0},
	[ACTION_NO_SETTLEMENT_ID] = {"no_settlement_id", true, true, 0},
	[ACTION_OVERSIZE] = {"oversize", true, true, 0},
	[ACTION_RAW] = {"raw", false, false, 0},
	[ACTION_LEAVE_OUT] = {"leave_out", true, false, 0},
	[ACTION_WRONG_KEY] = {"wrong_key", true, true, 0},
};

#define MS_MAX		(24 * 60 * 60 * 1000)
#define BYTES_MAX	(64 * 1024 * 1024)

const char *
fault_action_name(FaultAction action)
{
	return actions[action].name;
}

/* FNV-1a */
uint64_t
hash_text(const char *text)
{
	uint64_t	hash = UINT64_C(14695981039346656037);

	for (; *text != '\0'; text++)
		hash = (hash ^ (unsigned char) *text) * UINT64_C(1099511628211);
	return hash;
}

/* What JSON gives before it is checked. */
typedef struct Raw
{
	const char *name;
	const char *path;
	const char *action;
	json_t	   *body;
	int			apply;
	int			forget;
	int			status;
	json_int_t	above, nth, every, times, count;
	json_int_t	delay_ms, jitter_ms, reply_delay_ms, retry_after;
	json_int_t	bytes, interval_ms, ms;
} Raw;

static bool
unpack(FaultRule *rule, Raw *raw, char *err, size_t errlen)
{
	FaultMatch *match = &rule->match;
	FaultPlan  *plan = &rule->plan;
	json_error_t error;

	*match = (FaultMatch) {.reused = -1, .p = 1.0};
	*plan = (FaultPlan) {0};
	*raw = (Raw) {.path = "settle", .apply = -1, .above = -1, .times = -1, .count = -1,
		.retry_after = -1, .bytes = -1, .interval_ms = 100, .ms = -1};
	if (json_unpack_ex(rule->source, &error, JSON_STRICT,
					   "{s?s s?{s?s s?s s?s s?s s?s s?s s?s s?s s?b s?I s?I s?I s?I s?I s?F}"
					   " s:s s?b s?b s?I s?I s?I s?i s?I s?s s?s s?o s?I s?I s?I}",
					   "name", &raw->name,
					   "match",
					   "path", &raw->path,
					   "trade_id", &match->trade_id,
					   "trade_id_prefix", &match->trade_id_prefix,
					   "buyer_id", &match->buyer_id,
					   "seller_id", &match->seller_id,
					   "symbol", &match->symbol,
					   "currency", &match->currency,
					   "key", &match->key,
					   "reused", &match->reused,
					   "above", &raw->above,
					   "nth", &raw->nth,
					   "every", &raw->every,
					   "times", &raw->times,
					   "count", &raw->count,
					   "p", &match->p,
					   "action", &raw->action,
					   "apply", &raw->apply,
					   "forget", &raw->forget,
					   "delay_ms", &raw->delay_ms,
					   "jitter_ms", &raw->jitter_ms,
					   "reply_delay_ms", &raw->reply_delay_ms,
					   "status", &raw->status,
					   "retry_after", &raw->retry_after,
					   "location", &plan->location,
					   "content_type", &plan->content_type,
					   "body", &raw->body,
					   "bytes", &raw->bytes,
					   "interval_ms", &raw->interval_ms,
					   "ms", &raw->ms) == 0)
		return true;
	snprintf(err, errlen, "%s", error.text);
	return false;
}

static bool
in_range(json_int_t value, json_int_t min, json_int_t max, const char *name,
		 char *err, size_t errlen)
{
	if (value >= min && value <= max)
		return true;
	snprintf(err, errlen, "%s must be from %lld to %lld", name,
			 (long long) min, (long long) max);
	return false;
}

static bool
check_match(FaultRule *rule, const Raw *raw, char *err, size_t errlen)
{
	FaultMatch *match = &rule->match;

	if (strcmp(raw->path, "settle") == 0)
		match->path = FAULT_SETTLE;
	else if (strcmp(raw->path, "lookup") == 0)
		match->path = FAULT_LOOKUP;
	else if (strcmp(raw->path, "batch") == 0)
		match->path = FAULT_BATCH;
	else if (strcmp(raw->path, "any") == 0)
		match->path = FAULT_ANY;
	else
	{
		snprintf(err, errlen, "path must be settle, lookup, batch or any");
		return false;
	}
	match->above = raw->above;
	match->nth = raw->nth;
	match->every = raw->every;
	match->times = raw->times;
	match->count = raw->count;
	if (!(match->p >= 0.0 && match->p <= 1.0))
	{
		snprintf(err, errlen, "p must be from 0 to 1");
		return false;
	}
	return in_range(raw->above, -1, INT64_MAX, "above", err, errlen) &&
		in_range(raw->nth, 0, INT64_MAX, "nth", err, errlen) &&
		in_range(raw->every, 0, INT64_MAX, "every", err, errlen) &&
		in_range(raw->times, -1, INT64_MAX, "times", err, errlen) &&
		in_range(raw->count, -1, INT64_MAX, "count", err, errlen);
}

static bool
find_action(FaultPlan *plan, const char *name, char *err, size_t errlen)
{
	for (int i = 0; i < ACTION_COUNT; i++)
		if (strcmp(name, actions[i].name) == 0)
		{
			plan->action = (FaultAction) i;
			plan->apply = actions[i].apply;
			plan->status = actions[i].status;
			return true;
		}
	snprintf(err, errlen, "unknown action \"%s\"", name);
	return false;
}

/* A body is a text that is sent as it is, or any JSON. */
static bool
read_body(FaultRule *rule, json_t *body, char *err, size_t errlen)
{
	if (body == NULL)
		return true;
	if (json_is_string(body))
	{
		rule->plan.body = json_string_value(body);
		rule->plan.body_length = json_string_length(body);
		return true;
	}
	rule->dumped_body = json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY);
	rule->plan.body = rule->dumped_body;
	if (rule->dumped_body == NULL)
	{
		snprintf(err, errlen, "body cannot be written");
		return false;
	}
	rule->plan.body_length = strlen(rule->dumped_body);
	return true;
}

static bool
check_plan(FaultRule *rule, const Raw *raw, char *err, size_t errlen)
{
	FaultPlan  *plan = &rule->plan;

	if (!find_action(plan, raw->action, err, errlen) ||
		!read_body(rule, raw->body, err, errlen))
		return false;
	if (raw->apply != -1)
		plan->apply = raw->apply;
	plan->forget = raw->forget;
	if (raw->status != 0)
		plan->status = raw->status;
	plan->delay_ms = raw->delay_ms;
	plan->jitter_ms = raw->jitter_ms;
	plan->reply_delay_ms = raw->reply_delay_ms;
	plan->retry_after = raw->retry_after;
	plan->bytes = raw->bytes;
	plan->interval_ms = raw->interval_ms;
	plan->ms = raw->ms != -1 ? raw->ms : plan->action == ACTION_HANG ? 3600000 : 1000;

	if (plan->action == ACTION_STATUS && raw->status == 0)
	{
		snprintf(err, errlen, "action status needs a status");
		return false;
	}
	if (plan->action == ACTION_RAW && plan->body == NULL)
	{
		snprintf(err, errlen, "action raw needs a body");
		return false;
	}
	if (actions[plan->action].distorts && !plan->apply && plan->body == NULL)
	{
		snprintf(err, errlen, "action %s needs apply or a body", raw->action);
		return false;
	}
	if (plan->forget && !plan->apply)
	{
		snprintf(err, errlen, "forget needs apply");
		return false;
	}
	if (plan->status != 0 &&
		!in_range(plan->status, 200, 599, "status", err, errlen))
		return false;
	return in_range(plan->delay_ms, 0, MS_MAX, "delay_ms", err, errlen) &&
		in_range(plan->jitter_ms, 0, MS_MAX, "jitter_ms", err, errlen) &&
		in_range(plan->reply_delay_ms, 0, MS_MAX, "reply_delay_ms", err, errlen) &&
		in_range(plan->retry_after, -1, MS_MAX, "retry_after", err, errlen) &&
		in_range(plan->bytes, -1, BYTES_MAX, "bytes", err, errlen) &&
		in_range(plan->interval_ms, 1, MS_MAX, "interval_ms", err, errlen) &&
		in_range(plan->ms, 0, MS_MAX, "ms", err, errlen);
}

FaultRule *
fault_rule_parse(json_t *source, uint64_t ordinal, char *err, size_t errlen)
{
	FaultRule  *rule = calloc(1, sizeof(FaultRule));
	Raw			raw;

	if (rule == NULL)
	{
		snprintf(err, errlen, "out of memory");
		return NULL;
	}
	rule->references = 1;
	rule->source = json_incref(source);
	if (!unpack(rule, &raw, err, errlen) ||
		!check_match(rule, &raw, err, errlen) ||
		!check_plan(rule, &raw, err, errlen))
	{
		fault_rule_release(rule);
		return NULL;
	}
	if (raw.name != NULL)
		snprintf(rule->name, sizeof(rule->name), "%s", raw.name);
	else
		snprintf(rule->name, sizeof(rule->name), "rule-%llu",
				 (unsigned long long) ordinal);
	rule->salt = hash_text(rule->name);
	return rule;
}

void
fault_rule_release(FaultRule *rule)
{
	if (rule == NULL || --rule->references > 0)
		return;
	json_decref(rule->source);
	free(rule->dumped_body);
	free(rule->trades.slots);
	free(rule);
}
