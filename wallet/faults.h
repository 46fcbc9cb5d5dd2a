/*
 * faults.h
 *	  Rules of misbehaviour: which request is treated badly, and how.
 *
 * The rules decide, misbehave.c does.  A draw depends on the seed, the rule, the
 * trade and how often the rule has seen that trade, and on nothing else: not on
 * the clock and not on the order in which concurrent requests arrive.
 */
#ifndef WALLET_FAULTS_H
#define WALLET_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

typedef enum FaultPath
{
	FAULT_SETTLE = 1,
	FAULT_LOOKUP = 2,
	FAULT_BATCH = 4,			/* as a whole; its items are FAULT_SETTLE */
	FAULT_ANY = 7
} FaultPath;

typedef enum FaultAction
{
	ACTION_PASS = 0,			/* the true answer; for delay and forget */
	ACTION_STATUS,				/* any status, with or without a body */
	ACTION_CLOSE,				/* close without a byte */
	ACTION_RESET,				/* the same by a TCP reset */
	ACTION_HANG,				/* no answer, the connection stays open */
	ACTION_REFUSE,				/* close everything, refuse connections for ms */
	ACTION_STALL,				/* as close, and accept no connection for ms */
	ACTION_GARBAGE,				/* bytes that are not JSON */
	ACTION_EMPTY,				/* a status and no body */
	ACTION_HTML,				/* a proxy's error page */
	ACTION_TRUNCATE,			/* less body than Content-Length promises */
	ACTION_DRIP,				/* some bytes per interval */
	ACTION_TWICE,				/* the reply's bytes two times */
	ACTION_WRONG_TRADE_ID,		/* the reply speaks of another trade */
	ACTION_SUCCESS_STRING,		/* "success":"true" */
	ACTION_NO_SETTLEMENT_ID,
	ACTION_OVERSIZE,			/* valid JSON, much too long */
	ACTION_RAW,					/* the given bytes, then close */
	ACTION_LEAVE_OUT,			/* of a batch's reply */
	ACTION_WRONG_KEY,			/* the reply names another key */
	ACTION_COUNT
} FaultAction;

typedef struct FaultRule FaultRule;

/* What a rule says to do; texts belong to the rule. */
typedef struct FaultPlan
{
	FaultAction action;
	bool		apply;			/* let the ledger do what was asked first */
	bool		forget;			/* apply, but remember no answer for the key */
	int64_t		delay_ms;		/* before anything is done */
	int64_t		jitter_ms;		/* at most this much more, by the seed */
	int64_t		reply_delay_ms; /* after the ledger, before the reply */
	int			status;
	int64_t		retry_after;	/* seconds; -1: no header */
	const char *location;
	const char *content_type;
	const char *body;			/* NULL: the action's own */
	size_t		body_length;
	int64_t		bytes;			/* -1: the action's own */
	int64_t		interval_ms;
	int64_t		ms;				/* of hang, refuse, stall */
} FaultPlan;

/* One decision: a plan, held by its rule until fault_release. */
typedef struct Fault
{
	FaultRule  *rule;			/* NULL: behave */
	FaultPlan	plan;
	uint64_t	random;			/* for what the action draws */
} Fault;

/* What is known of a request; texts may be "" but not NULL. */
typedef struct FaultSubject
{
	FaultPath	path;
	const char *trade_id;
	const char *buyer_id;
	const char *seller_id;
	const char *base_currency;
	const char *quote_currency;
	const char *key;
	bool		reused;			/* not the first request of its connection */
	uint64_t	in_flight;		/* settle and look-up requests, with this one */
} FaultSubject;

typedef struct Faults
{
	FaultRule **rules;
	size_t		count;
	uint64_t	seed;
	uint64_t	loaded;			/* rules ever loaded; names the nameless */
} Faults;

extern void faults_clear(Faults *faults);

/*
 * Adds one rule or an array of them, all or none; replace drops the old ones
 * first.  False with a message for the user.
 */
extern bool faults_load(Faults *faults, json_t *rules, bool replace,
						char *err, size_t errlen);

/* The first rule that wants this request, or rule NULL.  Counts as played. */
extern Fault faults_decide(Faults *faults, const FaultSubject *subject);
extern void fault_release(Fault *fault);

/* The rules with their counters, as an array. */
extern json_t *faults_describe(const Faults *faults);

extern const char *fault_action_name(FaultAction action);

#endif
