/*
 * housekeeping.h
 *	  Questions about our tables as a whole, and what is deleted by age.
 */
#ifndef SETTLEMENT_QUEUE_HOUSEKEEPING_H
#define SETTLEMENT_QUEUE_HOUSEKEEPING_H

#include "utils/timestamp.h"

/* Are the SQL objects of the library's version?  In a transaction. */
extern bool versions_agree(void);

/* Delete up to `max` attempts from before a time; in a transaction.  How many. */
extern int	forget_attempts(TimestampTz before, int max);

#endif
