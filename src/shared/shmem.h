/*
 * shmem.h
 *	  What all processes of the cluster share.  Exists only when the library is
 *	  in shared_preload_libraries; settlement_shared is NULL otherwise.
 *
 * Locks, from the outside in (never the other way round):
 *	  1. settlement_shared->lock (LWLock): the tables of databases and worker
 *		 slots: which are in use, by whom, wanted counts, holds.
 *	  2. DbState.policy_lock (LWLock): breaker, limiter, recent numbers.
 *	  3. DbState.hint_mutex (spinlock): where to look for claimable rows.
 *	  4. WorkerSlot.mutex (spinlock): the trades that a worker has in flight.
 * No SQL, no I/O, no palloc under any of them.  Everything else is atomic.
 */
#ifndef SETTLEMENT_SHARED_SHMEM_H
#define SETTLEMENT_SHARED_SHMEM_H

#include "port/atomics.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/spin.h"
#include "utils/timestamp.h"

#include "policy/breaker.h"
#include "policy/histogram.h"
#include "policy/limiter.h"
#include "policy/recent.h"
#include "shared/handled.h"

#define MAX_DATABASES		64
#define MAX_CONCURRENCY		4096	/* trades in flight per worker */
#define MAX_LATE_RANGES		256
#define MAX_SCAN_MARKS		64
#define MAX_CRASHED			64
#define MAX_PROGRESS		32		/* long acts of all databases at a time */
#define PREPARED_UNKNOWN	(PG_UINT64_MAX / 2)	/* later than any transaction */
#define SETTLEMENT_VERSION	"0.1"	/* must equal the SQL objects' version */

/* A range of queue ids, both ends included. */
typedef struct IdRange
{
	int64		lo;
	int64		hi;
} IdRange;

/*
 * Ids in (previous mark's id_hi, id_hi] are decided (each committed or gone)
 * once a new snapshot's xmin has reached `xid`.  See queue/frontier.c.
 */
typedef struct ScanMark
{
	int64		id_hi;
	uint64		xid;			/* full transaction id */
	int64		claimed;		/* ids of the stretch that were handed out */
} ScanMark;

/* Why a database's workers send nothing, if they do not. */
typedef enum SendState
{
	SEND_OK = 0,
	SEND_STARTING,				/* no worker has looked yet */
	SEND_DISABLED,				/* settlement.enabled = off */
	SEND_NO_URL,
	SEND_BAD_CONFIG,			/* a setting of the wallet cannot be used */
	SEND_VERSION,				/* library and SQL objects differ */
	SEND_FENCED,				/* identity missing or of another place */
	SEND_STALE_EPOCH,			/* the wallet refused our epoch */
	SEND_STANDBY
} SendState;

/*
 * Counters of a database.  stats_file.c keeps them, and Durations, by number:
 * another order wants another MAGIC there.
 */
typedef enum Counter
{
	COUNT_SUBMITTED = 0,		/* committed enqueues */
	COUNT_PROCESSED,			/* trades that reached an end */
	COUNT_SETTLED,
	COUNT_FAILED,				/* dead-lettered by a worker */
	COUNT_REJECTED,				/* ... of them by the wallet's final no */
	COUNT_REQUESTS,				/* trades sent; a trade sent again counts again */
	COUNT_REQUEST_FAILURES,		/* ... that did not settle by it */
	COUNT_BATCHES,				/* requests that carried several of them */
	COUNT_RETRIES,				/* moves to deferred for another attempt */
	COUNT_LOOKUPS,
	COUNT_RECOVERED,			/* trades taken over from a worker that died */
	COUNT_LATE_SETTLED,			/* evidence of settlement for a lost claim */
	COUNT_TURNS,				/* transactions of workers */
	COUNT_TURN_ABORTS,
	COUNT_APPLY_FAILURES,
	COUNT_SWEEPS,				/* scans behind the frontier */
	COUNT_DUPLICATES,			/* queue rows dropped as enqueued twice */
	N_COUNTERS
} Counter;

typedef enum Duration
{
	DURATION_QUEUE_WAIT = 0,	/* enqueue to claim */
	DURATION_REQUEST,			/* submit to reply */
	DURATION_SETTLE,			/* enqueue to settled */
	DURATION_TURN,				/* begin to end of commit */
	N_DURATIONS
} Duration;

/* The last request that failed because of the wallet, for people. */
typedef struct LastFailure
{
	TimestampTz at;				/* 0: none since the server start */
	int			http_status;	/* 0: none */
	char		class[32];
	char		message[160];	/* UTF-8 */
} LastFailure;

typedef struct DbState
{
	/* settlement_shared->lock */
	Oid			database;		/* InvalidOid: free */
	bool		has_extension;	/* the last probe found it */
	int			wanted;			/* workers it should have */
	int			holds;			/* DDL under way that needs it without workers */
	TimestampTz probed_at;
	bool		probe_requested;
	TimestampTz stats_reset;	/* counters and histograms began */
	uint64		config_hash;	/* of the wallet_url that the last probe saw */
	int			workers_missing;	/* wanted, but max_workers has no place */
	int			early_deaths;	/* rounds in a row in which workers died young */
	TimestampTz died_at;		/* last death of a worker that was not asked */
	TimestampTz restart_after;	/* no new worker before */

	/* policy_lock */
	LWLock	   *policy_lock;
	Breaker		breaker;
	Limiter		limiter;
	Recent		recent;			/* see pace.h */
	LastFailure last_failure;

	/* hint_mutex */
	slock_t		hint_mutex;
	int			claimer;		/* slot that scans now; -1 none */
	uint64		claimer_ticket; /* counts hand-overs of that right */
	int64		frontier;		/* rows up to here were looked at once */
	int			n_late;
	IdRange		late[MAX_LATE_RANGES];	/* committed behind the frontier, or
										 * returned */
	bool		sweep_all;		/* late[] overflowed, or rescan() */
	bool		sweep_undecided;	/* a prepared transaction has committed */
	int64		sweep_next;		/* a sweep is under way when <= sweep_end */
	int64		sweep_end;
	IdRange		passed;			/* has all rows that scans left for later; empty
								 * when lo > hi */
	uint64		scans;
	int64		safe;			/* ids up to here are decided and looked at */
	int			n_marks;
	ScanMark	marks[MAX_SCAN_MARKS];
	int64		open_claimed;	/* ids handed out behind the last mark */
	TimestampTz marked_at;

	/* atomics */
	pg_atomic_uint64 scan_bound;	/* ids up to here must be announced one by
									 * one; PG_INT64_MAX during a scan */
	pg_atomic_uint64 announced; /* commits that enqueued */
	pg_atomic_uint64 depth_change;	/* rows in queue more or less (int64) since
									 * the start of the server */
	pg_atomic_uint64 depth_base;	/* what that is added to (int64), once known */
	pg_atomic_uint32 depth_known;
	pg_atomic_uint32 depth_stale;	/* not 0: to be counted anew when there is
									 * time; raised each time that becomes so */
	pg_atomic_uint64 work_prepared; /* up to this full transaction id a prepared
									 * one may have work for us; 0: none;
									 * PREPARED_UNKNOWN: any may */
	pg_atomic_uint64 pauses_prepared;	/* ... may change pauses */
	pg_atomic_uint32 recovered; /* claims of earlier boots are turned */
	pg_atomic_uint32 recoverer; /* slot + 1 that takes over orphans now; 0 none */
	pg_atomic_uint32 send_state;	/* SendState */
	pg_atomic_uint32 pause_all; /* a pause of everything is in force */
	pg_atomic_uint64 pauses_version;	/* raised at commit of each change */
	pg_atomic_uint64 last_definite_at;	/* TimestampTz of the last definite
										 * answer for any key */
	pg_atomic_uint64 batch_refused_at;	/* TimestampTz: the wallet refused a whole
										 * batch; 0 once it answers one */
	pg_atomic_uint32 batch_refused_status;	/* ... with this HTTP status */
	pg_atomic_uint64 no_batch_until;	/* TimestampTz: it takes none, and is tried
										 * again after this */
	pg_atomic_uint64 epoch;
	pg_atomic_uint64 refused_epoch; /* the wallet had seen a higher one */
	pg_atomic_uint64 next_due;	/* TimestampTz of the earliest deferred row; 0
								 * = unknown, look */
	pg_atomic_uint64 next_apply;	/* the same for unapplied */
	pg_atomic_uint64 next_redrive;	/* the same for redrives and policies */
	pg_atomic_uint64 next_retention;	/* when old attempts are looked for */
	pg_atomic_uint32 dlq_changed;	/* its tally may want folding */
	pg_atomic_uint64 counter[N_COUNTERS];
	Histogram	duration[N_DURATIONS];
	Histogram	claim_size;		/* trades per claim, less one */
} DbState;

typedef enum SlotState
{
	SLOT_FREE = 0,
	SLOT_STARTING,				/* registered by the launcher, not attached yet */
	SLOT_RUNNING,
	SLOT_ORPHANED				/* its process is gone; its claims are not */
} SlotState;

typedef struct Flight
{
	int64		queue_id;
	TimestampTz since;			/* claimed */
	uint8		phase;			/* AttemptPhase; PHASE_REPLIED = not recorded yet */
} Flight;

typedef struct WorkerSlot
{
	/* settlement_shared->lock */
	SlotState	state;
	uint32		generation;		/* raised each time the slot changes hands */
	int			db;				/* index into databases; -1 none */
	pid_t		pid;
	PGPROC	   *proc;
	TimestampTz started_at;
	bool		stop_requested; /* the launcher wants it to leave; the worker
								 * itself may read it without the lock */
	uint64		config_hash;	/* its database's when it was started */

	/* atomics */
	pg_atomic_uint32 idle;		/* waiting, with free slots: may be woken */
	pg_atomic_uint64 heartbeat; /* TimestampTz */
	pg_atomic_uint64 pauses_seen;	/* pauses_version acted upon */
	pg_atomic_uint64 held_since;	/* clock_latest() of its oldest claim that waits
									 * for a standby; 0 none */
	pg_atomic_uint64 settled;
	pg_atomic_uint64 failed;
	pg_atomic_uint32 concurrency_limit; /* requests it lets itself have in flight */

	/* mutex */
	slock_t		mutex;
	int			n_flights;
	Flight		flights[MAX_CONCURRENCY];
} WorkerSlot;

/* A long act of a session, as settlement.progress shows it; see progress.h. */
typedef struct ProgressEntry
{
	pid_t		pid;			/* 0: free */
	Oid			database;
	TimestampTz started_at;
	int64		done;
	int64		total;			/* -1: not known */
	int64		failed;
	char		act[32];
	char		phase[32];
	char		target[128];
} ProgressEntry;

typedef struct SettlementShared
{
	LWLock	   *lock;
	uint64		boot;			/* random, of this start of shared memory */
	bool		was_standby;	/* when it last recovered from elsewhere */
	TimestampTz workers_after;	/* none is started before: the server crashes
								 * time and again */
	pid_t		launcher_pid;	/* lock, as the next five */
	PGPROC	   *launcher_proc;
	Oid			probe_database; /* a probe is at work in it */
	bool		databases_full; /* a database found no entry */
	int			register_failures;	/* times in a row that no background worker
									 * process was free; 0 = none is missing */
	pg_atomic_uint64 next_token;	/* claims */
	pg_atomic_uint64 clock_ahead;	/* most that the wall clock was ahead of the
									 * monotonic one, us; see clock_latest() */
	pg_atomic_uint32 launcher_work; /* something for the launcher to look at */
	DbState		databases[MAX_DATABASES];
	ProgressEntry progress[MAX_PROGRESS];	/* lock */

	/*
	 * Twice settlement.max_workers: as many run, and each may have left an
	 * orphan whose claims its successor has not taken over yet.
	 */
	int			n_crashed;		/* what workers handled when the last run
								 * crashed; set at startup, zeroed by recovery
								 * of the database */
	HandledTrade crashed[MAX_CRASHED];
	int			n_slots;
	WorkerSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} SettlementShared;

extern SettlementShared *settlement_shared;

/* Install the request and startup hooks; from _PG_init under preload only. */
extern void shmem_install_hooks(void);

/*
 * The state of a database, or NULL when it has none (not preloaded, table
 * full).  With create, a free entry is taken.  Takes settlement_shared->lock.
 */
extern DbState *shmem_database(Oid database, bool create);

/*
 * The extension was dropped in this database: what is known about its queue is
 * void, and its numbers begin anew.  Takes settlement_shared->lock, policy_lock
 * and hint_mutex in turn.
 */
extern void shmem_forget_extension(DbState *db);

/* The state of MyDatabaseId, remembered per backend; NULL when not preloaded. */
extern DbState *shmem_my_database(void);

static inline int
shmem_db_index(const DbState *db)
{
	return (int) (db - settlement_shared->databases);
}

/* Rows in queue, ready and in flight; right only when depth_known. */
static inline int64
shmem_queue_depth(DbState *db)
{
	int64		depth = (int64) pg_atomic_read_u64(&db->depth_base) +
		(int64) pg_atomic_read_u64(&db->depth_change);

	return Max(depth, 0);
}

static inline void
shmem_count(DbState *db, Counter which, int64 n)
{
	if (db != NULL)
		pg_atomic_fetch_add_u64(&db->counter[which], n);
}

/* A claim took n > 0 trades.  Counted from 0, so that n = 2^k ends a bucket. */
static inline void
shmem_count_claim(DbState *db, int n)
{
	histogram_add(&db->claim_size, n - 1);
}

/*
 * Wake one idle worker of a database (all: every worker).  Only atomics and
 * SetLatch: safe in a commit callback, where an error would be a PANIC.
 */
extern void shmem_wake_worker(DbState *db);
extern void shmem_wake_all_workers(DbState *db);

/* Wake the launcher; as safe as the above. */
extern void shmem_wake_launcher(void);

extern const char *send_state_name(SendState state);

#endif
