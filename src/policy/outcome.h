/*
 * outcome.h
 *	  What one attempt at the wallet means: the outcome table as a function.
 *
 * Pure: no PostgreSQL, no libcurl, no clock, no settings.  The facts of an
 * attempt go in, a verdict comes out.  Whether money may have moved is decided
 * here and nowhere else.
 */
#ifndef SETTLEMENT_POLICY_OUTCOME_H
#define SETTLEMENT_POLICY_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

/* How the exchange of bytes ended. */
typedef enum Transport
{
	TRANSPORT_OK = 0,			/* a complete HTTP reply was read */
	TRANSPORT_TIMEOUT,
	TRANSPORT_CONNECT,			/* refused, unreachable */
	TRANSPORT_DNS,
	TRANSPORT_TLS,
	TRANSPORT_RESET,			/* closed or reset after the connection stood */
	TRANSPORT_RESEND_BLOCKED,	/* the library wanted to send a second time */
	TRANSPORT_TOO_LARGE,		/* the reply exceeded max_response_size */
	TRANSPORT_PROTOCOL,			/* not HTTP, truncated */
	TRANSPORT_OTHER,
	TRANSPORT_UNSENDABLE		/* the request could not be written: no network
								 * was involved, and trying again changes nothing */
} Transport;

/* How far the attempt came, for the record. */
typedef enum AttemptPhase
{
	PHASE_PREPARED = 0,			/* nothing left this process */
	PHASE_CONNECTING,
	PHASE_SENT,					/* bytes of the request may have left */
	PHASE_REPLYING,				/* a status line was read */
	PHASE_REPLIED				/* the reply was read to its end */
} AttemptPhase;

/* What the `code` member of a reply means to the adapter. */
typedef enum ReplyCode
{
	CODE_NONE = 0,				/* no code in the reply */
	CODE_UNRECOGNISED,			/* a code that the adapter does not know */
	CODE_REJECTION,				/* a final "no": insufficient balance, ... */
	CODE_KEY_CONFLICT,			/* same key, other body */
	CODE_STALE_EPOCH,			/* the wallet refuses this database */
	CODE_UNKNOWN_KEY			/* look-up only: the wallet never saw the key */
} ReplyCode;

/* The facts of one attempt. */
typedef struct AttemptFacts
{
	bool		maybe_sent;		/* set when the library was about to send */
	Transport	transport;
	int			http_status;	/* 0 when no status line was read */
	bool		parsed;			/* the body is JSON of the reply's shape */
	int			success;		/* 1 true, 0 false, -1 absent or no boolean */
	bool		has_settlement_id;
	bool		echo_mismatch;	/* an echoed field names another trade */
	ReplyCode	code;
	int64_t		retry_after_ms; /* -1 when the reply has none */
	bool		whole_batch;	/* one request carried several trades, and what
								 * ended it speaks of none of them alone */
	bool		left_out;		/* the reply to a batch names others, not this one */
} AttemptFacts;

typedef enum Outcome
{
	OUTCOME_SETTLED = 0,
	OUTCOME_REJECTED,			/* final; the wallet did not move money */
	OUTCOME_CONFLICT,			/* same key, other body: dead, UNKNOWN */
	OUTCOME_UNKNOWN,			/* may have executed: same key again */
	OUTCOME_PENDING,			/* 202, 409: same key again, later */
	OUTCOME_NOT_EXECUTED,		/* certainly not executed: again */
	OUTCOME_FENCED				/* stale epoch: this database must stop */
} Outcome;

/* What the attempt tells the circuit breaker. */
typedef enum BreakerSignal
{
	SIGNAL_NONE = 0,
	SIGNAL_ANSWERED,			/* the wallet works */
	SIGNAL_FAILED,				/* one failure of the wallet */
	SIGNAL_SUSPECT,				/* 404 and the like: counts only over different trades */
	SIGNAL_OPEN_NOW				/* 401, 403, 3xx: open at once */
} BreakerSignal;

typedef struct Verdict
{
	Outcome		outcome;
	bool		definite;		/* this key got a definite answer */
	bool		chargeable;		/* may be charged to the trade, if the wallet
								 * is otherwise alive */
	bool		slow_down;		/* 425, 429, 503 with Retry-After: slow the wallet
								 * as a whole */
	bool		no_batches;		/* the wallet does not take batches, or none of
								 * this size */
	BreakerSignal signal;
	int64_t		retry_after_ms; /* -1: none */
	const char *error_class;	/* static; NULL for OUTCOME_SETTLED */
} Verdict;

/*
 * The verdict on one POST of a settlement.  Rules match from the top; a code
 * that the adapter knows beats the status.  Never fails.
 *
 * error_class is one of: rejected (the adapter may refine it), key_conflict,
 * stale_epoch, wallet_reply, wallet_pending, in_progress, rate_limited,
 * network, network_timeout, wallet_auth, wallet_path, wallet_batch,
 * wallet_redirect, wallet_error, invalid_trade.  outcome.c has the table.
 */
extern Verdict outcome_of_settle(const AttemptFacts *facts);

/* What a look-up of a key said. */
typedef enum LookupOutcome
{
	LOOKUP_SETTLED = 0,
	LOOKUP_REJECTED,
	LOOKUP_PENDING,				/* known, not finished */
	LOOKUP_UNKNOWN_KEY,			/* the wallet answered that it never saw it */
	LOOKUP_FAILED				/* no usable answer */
} LookupOutcome;

/*
 * The verdict on one GET of a key.  verdict (may be NULL) receives what the
 * breaker and the retry need to know.  Only an answer with CODE_UNKNOWN_KEY is
 * LOOKUP_UNKNOWN_KEY; a bare 404 (a proxy, a wrong path) is LOOKUP_FAILED.
 * A look-up is never chargeable; its verdict has the outcome UNKNOWN when it
 * failed, and the error class unknown_key (outcome NOT_EXECUTED) when the wallet
 * never saw the key.
 */
extern LookupOutcome outcome_of_lookup(const AttemptFacts *facts, Verdict *verdict);

/* Names for the record: lower case, stable, static. */
extern const char *outcome_name(Outcome outcome);
extern const char *transport_name(Transport transport);
extern const char *phase_name(AttemptPhase phase);

#endif
