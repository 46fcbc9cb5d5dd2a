/*
 * lograte.h
 *	  How many lines of one kind may go to the log.
 */
#ifndef SETTLEMENT_POLICY_LOGRATE_H
#define SETTLEMENT_POLICY_LOGRATE_H

#include <stdbool.h>
#include <stdint.h>

/* One kind of line.  All zero: none so far. */
typedef struct LogRate
{
	int64_t		since_us;		/* begin of the interval under way */
	int64_t		written;		/* in it */
	int64_t		held_back;		/* since the last summary */
} LogRate;

/*
 * May a line be written now?  At most `limit` are per interval; the others are
 * counted.  A clock that was set back begins a new interval.
 */
extern bool lograte_admit(LogRate *rate, int limit, int64_t interval_us, int64_t now_us);

/*
 * How many lines a summary has to stand for: those held back, once their interval
 * is over or when `at_once`; else 0.  They are forgotten.
 */
extern int64_t lograte_summary(LogRate *rate, int64_t interval_us, int64_t now_us,
							   bool at_once);

#endif
