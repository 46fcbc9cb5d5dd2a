/*
 * fault_rule.h
 *	  One rule of misbehaviour as written in JSON.  Private to faults.c.
 */
#ifndef WALLET_FAULT_RULE_H
#define WALLET_FAULT_RULE_H

#include "faults.h"

typedef struct FaultMatch
{
	FaultPath	path;
	const char *trade_id;		/* NULL: any */
	const char *trade_id_prefix;
	const char *buyer_id;
	const char *seller_id;
	const char *symbol;			/* BASE/QUOTE */
	const char *currency;		/* either of them */
	const char *key;
	int			reused;			/* -1: any */
	int64_t		above;			/* -1: any, else only when more are in flight */
	int64_t		nth;			/* 0: any, else only this one of the matching */
	int64_t		every;			/* 0: each, else each so many-th */
	int64_t		times;			/* -1: always, else the first of each trade */
	int64_t		count;			/* -1: no limit, else so many in all */
	double		p;				/* probability */
} FaultMatch;

/* How often a rule saw each trade: 64-bit hash to count, open addressing. */
typedef struct SeenTrades
{
	struct SeenTrade
	{
		uint64_t	hash;		/* 0: free */
		uint64_t	count;
	}		   *slots;
	size_t		size;			/* a power of two, or 0 */
	size_t		used;
} SeenTrades;

struct FaultRule
{
	int			references;
	json_t	   *source;			/* owns the texts of match and plan */
	char	   *dumped_body;	/* a body that was given as JSON */
	char		name[64];
	uint64_t	salt;
	FaultMatch	match;
	FaultPlan	plan;
	uint64_t	seen;			/* requests that the fixed part matched */
	uint64_t	played;
	SeenTrades	trades;
};

/* NULL with a message.  ordinal names a rule without a name. */
extern FaultRule *fault_rule_parse(json_t *source, uint64_t ordinal,
								   char *err, size_t errlen);
extern void fault_rule_release(FaultRule *rule);

extern uint64_t hash_text(const char *text);

#endif
