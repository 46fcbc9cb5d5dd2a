/*
 * redrives.h
 *	  What the workers do of redrives at a pace and of policies.
 */
#ifndef SETTLEMENT_QUEUE_REDRIVES_H
#define SETTLEMENT_QUEUE_REDRIVES_H

/*
 * One bounded step, in a transaction of the caller.  It takes no longer than
 * settlement.apply_timeout: what does is stopped and says so in its row.  Returns
 * the ms until there is more to do; an hour when nothing is known to come.
 */
extern int	redrives_step(void);

/*
 * Redrives, by their ids in a bigint[], and 0 for the policies, whose step was
 * under way when the server crashed: later each time, and stopped after three in a
 * row.  In a transaction of the caller, connected to SPI.
 */
extern void redrives_crashed(Datum ids);

#endif
