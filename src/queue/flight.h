/*
 * flight.h
 *	  A trade that this worker has claimed: its facts as C values, from the claim
 *	  until the outcome is committed.  Private to the worker's process; the ids
 *	  are also in WorkerSlot.flights for the others to see.
 */
#ifndef SETTLEMENT_QUEUE_FLIGHT_H
#define SETTLEMENT_QUEUE_FLIGHT_H

#include "access/xlogdefs.h"
#include "executor/tuptable.h"
#include "storage/itemptr.h"
#include "utils/timestamp.h"

#include "policy/tracecontext.h"
#include "queue/attachment.h"
#include "shared/shmem.h"
#include "wallet/client.h"

#define FINGERPRINT_LEN		32

typedef enum FlightState
{
	FLIGHT_FREE = 0,
	FLIGHT_CLAIMED,				/* the claim's transaction is still open */
	FLIGHT_READY,				/* claim committed, not submitted yet */
	FLIGHT_SENT,				/* the wallet client has it */
	FLIGHT_ANSWERED				/* result is here, not recorded yet */
} FlightState;

/* A row of settlement.claims that still has trades in flight. */
typedef struct OpenClaim
{
	int64		token;
	int			remaining;		/* of its trades */
	int			finishing;		/* ... in the transaction under way */
	int			withdrawn;		/* ... given back in it, unsent */
	bool		lost;			/* another worker took it over */
	XLogRecPtr	committed_at;	/* the WAL up to here holds the claim */
} OpenClaim;

typedef struct TradeFlight
{
	FlightState state;
	int64		queue_id;
	ItemPointerData queue_tid;	/* where the queue row is */
	OpenClaim  *claim;
	TimestampTz claimed_at;
	bool		probe;			/* half-open breaker: the one request */

	/* facts (sql/tables.sql) */
	TimestampTz enqueued_at;
	TimestampTz first_sent_at;	/* 0: never */
	int64		pending_ms;
	int			attached_id;
	Oid			leaf;
	ItemPointerData trade_tid;
	int			attempts;
	int			generation;
	int			charged;
	int			crashes;
	int			format;			/* 0: never sent */
	bool		maybe_executed;
	bool		lookup_first;
	bool		has_fingerprint;
	uint8		fingerprint[FINGERPRINT_LEN];
	int			n_keys;
	const char *row_key[MAX_KEY_COLUMNS];
	const char *symbol;
	const char *trace_id;		/* of the trade row; NULL: none */
	WalletTrade wire;

	/* identity */
	char		key[IDEMPOTENCY_KEY_LEN + 1];
	uint64		hash;			/* of the trade id, for the breaker */
	char		trace[TRACE_ID_LEN + 1];	/* trace_id, or made from the key */

	/* the texts above point in here; kept and grown from use to use */
	char	   *arena;
	size_t		arena_size;

	WalletVerb	verb;			/* of the request under way */
	uint64		span_id;		/* ... in the trace; 0: none sent yet */
	TimestampTz sent_at;
	TimestampTz answered_at;
	WalletResult result;		/* state FLIGHT_ANSWERED */
	const char *local_class;	/* refused before sending: class, or NULL */
} TradeFlight;

/*
 * Read a queue row into a flight; its texts are copied into the flight's arena,
 * which lives in `context`.  Transient memory comes from the current context.
 */
extern void flight_read(TradeFlight *flight, TupleTableSlot *row,
						MemoryContext context);

/* What was sent, as ApplyRow.content wants it; palloc'ed. */
extern const char *const *flight_content(const TradeFlight *flight);

/* Flights of a worker: as many as it may have in flight, re-used. */
typedef struct FlightPool
{
	MemoryContext context;		/* texts */
	MemoryContext flights;
	int			n_used;
	int			n_free;
	int			n_allocated;
	TradeFlight *free[MAX_CONCURRENCY];
} FlightPool;

extern FlightPool *flight_pool_create(MemoryContext context);
extern TradeFlight *flight_take(FlightPool *pool);
extern void flight_release(FlightPool *pool, TradeFlight *flight);

#endif
