/*
 * requests.h
 *	  What a transaction asks of the launcher and of the workers.  It takes
 *	  effect when the transaction ends; callable in any backend, without effect
 *	  when there is no shared memory.
 */
#ifndef SETTLEMENT_WORKER_REQUESTS_H
#define SETTLEMENT_WORKER_REQUESTS_H

/*
 * From now until the end of this transaction a database has no workers.  Waits
 * until they have finished what is in flight and left, for at most
 * settlement.shutdown_timeout and a grace time; warns and returns false when
 * some are still there.
 */
extern bool request_hold(Oid database);

/* At commit: look whether this database has the extension, and what it wants. */
extern void request_probe(Oid database);

/* At commit: replace the workers of this database by new ones. */
extern void request_new_workers(void);

/* At commit: its workers look again whether they may send. */
extern void request_identity_check(void);

/*
 * This transaction drops the extension, unless the drop itself is rolled back
 * to a savepoint: at commit, forget what is known about its queue.
 */
extern void request_forget_extension(Oid extension);

#endif
