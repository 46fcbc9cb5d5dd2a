/*
 * handled.h
 *	  Which trade's bytes a worker has in its hands, kept where a crash of the
 *	  whole server cannot lose it: a small mapped file in the data directory.
 *	  A trade that crashes its worker is told apart from those beside it, and so
 *	  is a redrive.
 */
#ifndef SETTLEMENT_SHARED_HANDLED_H
#define SETTLEMENT_SHARED_HANDLED_H

/* Crashes after which a trade is dead. */
#define MAX_CRASHES	3

/* Ids from here on: the policies, and behind that the redrives, by their ids. */
#define HANDLED_REDRIVES	(INT64CONST(1) << 62)

/* What a worker was handling when the server crashed. */
typedef struct HandledTrade
{
	Oid			database;
	int64		id;				/* of queue; negative: of unapplied; 0: nothing;
								 * from HANDLED_REDRIVES on: see there */
} HandledTrade;

/*
 * From the startup of shared memory: read what the last run left behind into
 * out[0..max), and begin a new file for `slots` workers.  Returns how many.
 * A file that cannot be used costs only the count; it is logged.
 */
extern int	handled_start(HandledTrade *out, int max, int slots);

/* Map the file; once per worker.  Without it the calls below do nothing. */
extern void handled_open(int slot, Oid database);

/*
 * This worker handles bytes of that trade (its queue id, or minus its id in
 * unapplied), or a step of a redrive, or nothing.  Cheap, never fails.
 */
extern void handled_begin(int64 id);
extern void handled_end(void);

#endif
