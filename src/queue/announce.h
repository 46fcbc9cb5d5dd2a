/*
 * announce.h
 *	  Ids of new queue rows, and telling the workers of them at commit.
 */
#ifndef SETTLEMENT_QUEUE_ANNOUNCE_H
#define SETTLEMENT_QUEUE_ANNOUNCE_H

#include "shared/shmem.h"

/*
 * Draw the id of a new queue row.  Assigns the top transaction its xid first
 * (the claim's safe mark relies on that order), notes the id so that the
 * commit callback can announce it, and counts it in this transaction's share of
 * the queue depth.  queue_id_seq is the sequence's OID; submitted says that it
 * is for a new trade, and not for one that comes back.
 */
extern int64 announce_next_id(Oid queue_id_seq, bool submitted);

/* This transaction wrote unapplied or deferred rows: workers should look. */
extern void announce_other_work(void);

/* This transaction changed pauses: raise pauses_version at commit. */
extern void announce_pauses(void);

/* What the prepared transactions of this database may have for the workers. */
typedef struct PreparedWork
{
	bool		unknown;		/* nobody has noted what they have */
	bool		rows;
	bool		pauses;
} PreparedWork;

/* Before COMMIT PREPARED or ROLLBACK PREPARED. */
extern PreparedWork announce_prepared_work(void);

/*
 * A COMMIT PREPARED succeeded in this backend.  Which rows that transaction wrote
 * was forgotten at PREPARE: have the workers look, and the depth counted anew.
 */
extern void announce_prepared_commit(PreparedWork *work);

/* The same for ROLLBACK PREPARED: what it had enqueued does not count any more. */
extern void announce_prepared_rollback(PreparedWork *work);

/*
 * Now and then, in a transaction: once no transaction is left that was prepared
 * with work for us, those of others cost nothing.
 */
extern void announce_forget_prepared(DbState *db);

/*
 * Rows in queue as this transaction sees them: committed and prepared ones plus its
 * own.  Counts the table once after a server start.  -1 when not preloaded.
 */
extern int64 announce_queue_depth(Oid queue);

/* Count the table now. */
extern void announce_count_queue(DbState *db, Oid queue);

#endif
