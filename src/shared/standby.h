/*
 * standby.h
 *	  Was this data directory a standby when it last recovered from elsewhere?
 */
#ifndef SETTLEMENT_STANDBY_H
#define SETTLEMENT_STANDBY_H

/*
 * In the postmaster, when it makes shared memory: whether this server is a
 * standby, or came out of being one, in this start or an earlier one.  False for
 * a recovery to a point in time.
 */
extern bool standby_at_start(void);

#endif
