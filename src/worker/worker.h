/*
 * worker.h
 *	  One worker: what it holds, and the parts of its loop.
 *
 *	  worker.c   process: start, loop, waiting, leaving
 *	  turn.c     one transaction: record, move due rows, claim
 *	  sender.c   requests: submit, collect, tell breaker and limiter
 *	  batching.c which trades share a request
 *	  held.c     claimed trades that wait for a standby, or for their turn to be sent
 *	  upkeep.c   between turns: recovery, identity, unapplied rows, redrives,
 *	             retention
 *	  stopping.c SIGTERM
 *	  session.c  settings of the session that must not be what the user set
 */
#ifndef SETTLEMENT_WORKER_WORKER_H
#define SETTLEMENT_WORKER_WORKER_H

#include "postgres.h"

#include "storage/latch.h"

#include "policy/concurrency.h"
#include "queue/claim.h"
#include "queue/due.h"
#include "queue/finish.h"
#include "queue/flight.h"
#include "shared/clock.h"
#include "shared/shmem.h"
#include "wallet/client.h"

/* Beyond request_timeout, how long a worker may be silent before others take
 * its claims over. */
#define TAKEOVER_GRACE_MS	10000

/* A worker that was silent for no longer than this has its claims for sure. */
#define SURE_OF_CLAIMS_MS	(settlement_request_timeout + TAKEOVER_GRACE_MS / 2)

/* While a database may not send, how often a worker looks whether it may now. */
#define STATE_CHECK_MS		1000

/* The transaction under way; survives an error, so that it can be undone. */
typedef struct Turn
{
	bool		active;
	bool		committed;		/* ... and not all of it is done in memory */
	Finish		finish;
	Claim		claim;
	Due			due;
	bool		claimed;		/* claim_trades was called */
	int			allowed;		/* by breaker and limiter */
	bool		probe;			/* ... as the half-open probe */
	bool		withdraws;		/* held_withdraw was called */
} Turn;

typedef struct Worker
{
	int			slot_index;
	WorkerSlot *slot;
	DbState    *db;
	WalletClient *client;		/* NULL: cannot send now */
	bool		reconfigure;	/* settings changed: a new client when drained */
	bool		stopping;
	TimestampTz stop_deadline;
	FlightPool *pool;
	Concurrency adaptive;		/* settlement.adaptive_concurrency */
	MemoryContext turn_context;
	WaitEventSet *wait_set;		/* NULL: not with the present client's descriptor */

	int			n_answered;
	TradeFlight *answered[MAX_CONCURRENCY];

	int			n_held;			/* oldest first; see held.c */
	TradeFlight *held[MAX_CONCURRENCY];
	bool		held_doubtful;	/* may be taken over, or paused, by now */

	uint64		announced_seen; /* db->announced at the last scan */
	bool		more;			/* the last scan did not see the end */
	int			ahead;			/* trades to claim beyond those that may leave now */
	bool		evidence_only;	/* the last turn aborted */
	int			aborts_in_row;
	TimestampTz retry_turn_at;	/* after aborts */
	TimestampTz retry_claim_at; /* another worker was scanning */
	bool		in_upkeep;		/* survives an error, as turn.active does */
	int			upkeep_aborts;	/* in a row */
	TimestampTz retry_upkeep_at;	/* after aborts */
	ClockWatch	clock;
	bool		bring_back;		/* rows may wait for times of another clock */
	TimestampTz beat_at;
	bool		woke_late;		/* a beat since replies were last collected came
								 * long after the one before */
	bool		in_client;		/* the wallet client is at work */
	bool		submitting;		/* flights are on their way to it, in no list */
	TimestampTz chores_at;
	TimestampTz state_checked_at;
	TimestampTz next_unapplied; /* not before, for the sake of others */
	TimestampTz folded_at;		/* the tally of the dead letters */
	Turn		turn;
} Worker;

/* worker.c */
/* Say that we live, and look whether that was so all the time. */
extern void worker_beat(Worker *w);

/* turn.c */
extern bool turn_could_claim(Worker *w, TimestampTz now);
extern bool turn_needed(Worker *w, TimestampTz now);
extern void turn_run(Worker *w);
extern void turn_aborted(Worker *w);

/* sender.c */
extern SendState sender_configure(Worker *w);
extern void sender_submit(Worker *w, TradeFlight **flights, int n);
extern void sender_collect(Worker *w);
extern void sender_show_answered(Worker *w);
/* Trades that this worker may have in flight now. */
extern int	sender_concurrency(const Worker *w);
extern int	sender_allow(Worker *w, int want, bool *probe);
extern void sender_return(Worker *w, int unused, bool probe_unused);
extern long sender_wait_ms(Worker *w, TimestampTz now);
extern bool sender_breaker_closed(Worker *w);
/* The wallet wants to be left alone: 429, Retry-After. */
extern bool sender_on_hold(Worker *w);
/* Neither breaker nor limiter is in the way of anything. */
extern bool sender_unhindered(Worker *w);
/* Requests of this worker that are under way. */
extern int	sender_in_flight(const Worker *w);

/* batching.c */
/* Most trades in a request now; 1: each alone. */
extern int	batching_size(Worker *w);
extern bool batching_goes_alone(const TradeFlight *flight);
/* Of each answered trade. */
extern void batching_note(Worker *w, const TradeFlight *flight);
/* It may be another wallet. */
extern void batching_forget(Worker *w);

/* held.c */
extern bool claim_may_leave(const OpenClaim *claim);
extern int	held_ahead(Worker *w);
extern void held_add(Worker *w, TradeFlight **flights, int n);
extern void held_release(Worker *w);
extern bool held_too_long(const Worker *w);
extern bool held_must_go(Worker *w);
extern void held_withdraw(Worker *w);
extern void held_withdrawn(Worker *w);
extern void held_kept(Worker *w);
extern long held_wait_ms(const Worker *w);

/* upkeep.c */
extern void upkeep(Worker *w, TimestampTz now);
/* When outcomes that wait to be applied are due; DT_NOEND: not by this one. */
extern TimestampTz upkeep_apply_at(Worker *w);
extern bool upkeep_takes_time(Worker *w, TimestampTz now);
/* When the next step of a redrive is due. */
extern TimestampTz upkeep_redrives_at(Worker *w);
/* When attempts past their retention are looked for again. */
extern TimestampTz upkeep_retention_at(Worker *w);
extern void upkeep_aborted(Worker *w);
extern void upkeep_clock_set(Worker *w, TimestampTz now, int64 step_us);

/* session.c */
extern void session_start(void);
extern void session_begin(void);
extern void session_commit(void);

extern PGDLLEXPORT void settlement_worker_main(Datum main_arg);

#endif
