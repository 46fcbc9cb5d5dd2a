/*
 * breaker.h
 *	  The circuit breaker: a plain struct that lives in shared memory (the
 *	  caller holds the lock), and functions that take the time as an argument.
 *
 *	  closed --failures in a row, or OPEN_NOW--> open
 *	  open   --open time over--> half open (one probe at a time)
 *	  half open --ANSWERED--> closed        half open --else--> open, longer
 */
#ifndef SETTLEMENT_POLICY_BREAKER_H
#define SETTLEMENT_POLICY_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "policy/outcome.h"

typedef enum BreakerState
{
	BREAKER_CLOSED = 0,
	BREAKER_OPEN,
	BREAKER_HALF_OPEN
} BreakerState;

/* How many different trades with SIGNAL_SUSPECT are told apart. */
#define BREAKER_SUSPECTS_MAX	8

/* Answers after which the next opening counts as an outage of its own. */
#define BREAKER_ANSWERS		20

typedef struct BreakerPolicy
{
	int			failures;		/* SIGNAL_FAILED in a row that open it; 0: never */
	int			suspects;		/* SIGNAL_SUSPECT of different trades in a row;
								 * 0: never; at most BREAKER_SUSPECTS_MAX */
	int64_t		initial_open_ms;
	int64_t		max_open_ms;	/* open time doubles up to this */
	int64_t		probe_timeout_ms;	/* a probe that never reports is given up */
} BreakerPolicy;

typedef struct Breaker
{
	BreakerState state;
	bool		manual;			/* opened by an operator: stays until closed */
	int			failures_in_row;
	int			suspects_in_row;
	uint64_t	suspect[BREAKER_SUSPECTS_MAX];	/* hashes of those trades */
	int64_t		open_ms;		/* present open time */
	int64_t		open_until_us;
	int64_t		probe_since_us; /* 0: no probe under way */
	uint64_t	times_opened;
	int64_t		changed_at_us;	/* last change of state */
	int64_t		failing_since_us;	/* earliest send among the failures in a row, or
									 * of those that opened it; 0: none */
	int			answers;		/* since it closed, up to BREAKER_ANSWERS */
	bool		sudden;			/* opened after that many answers */
	bool		probe_failed;	/* since it opened: it is an outage */
	int64_t		outage_from_us; /* the last outage: a request that was sent */
	int64_t		outage_until_us;	/* ... between these belonged to it; 0: none */
} Breaker;

extern void breaker_init(Breaker *b, int64_t now_us);

/*
 * How many of `want` requests may be claimed now: `want` when closed, 0 when
 * open, 1 (and *probe true) when a probe is due; the caller must then send it
 * and report with is_probe, or call breaker_abandon_probe.  The open time is
 * spread by `random` in [0,1) so that databases do not probe in step.
 */
extern int	breaker_allow(Breaker *b, const BreakerPolicy *p, int want,
						  int64_t now_us, bool *probe);
extern void breaker_abandon_probe(Breaker *b);

/*
 * Report one finished attempt, sent at sent_us.  trade_hash tells different
 * trades apart.
 */
extern void breaker_report(Breaker *b, const BreakerPolicy *p,
						   BreakerSignal signal, uint64_t trade_hash, bool is_probe,
						   double random, int64_t sent_us, int64_t now_us);

/*
 * The outage whose attempts are to be handed back: those sent from *from_us to
 * *until_us.  While it is not closed the present one (*until_us INT64_MAX), else the
 * last one that a failed probe confirmed.  False, and 0 to 0, when there was none.
 */
extern bool breaker_outage(const Breaker *b, int64_t *from_us, int64_t *until_us);

/* By hand. */
extern void breaker_force_open(Breaker *b, int64_t now_us);
extern void breaker_force_close(Breaker *b, int64_t now_us);

/* ms until breaker_allow may say yes; 0 now; -1 only by hand. */
extern int64_t breaker_wait_ms(const Breaker *b, const BreakerPolicy *p, int64_t now_us);

extern const char *breaker_state_name(BreakerState state);

#endif
