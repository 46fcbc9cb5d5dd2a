/*
 * tradelog.h
 *	  Lines about single trades in the server log, and how many of them.
 */
#ifndef SETTLEMENT_QUEUE_TRADELOG_H
#define SETTLEMENT_QUEUE_TRADELOG_H

#include "queue/due.h"
#include "queue/ending.h"

/*
 * After the commit that made it so: what became of a trade, as
 * settlement.log_settlements says.  A state that lasts always has its line;
 * attempts that are repeated have at most settlement.log_attempts per class,
 * worker and minute.
 */
extern void tradelog_ending(const Ending *ending);

/* The same for a trade that died of its attempts, when it fell due again. */
extern void tradelog_death(const Death *death);

/*
 * May a line of this kind, of which there can be many, be written now?  The name
 * is static.  What is held back is counted for tradelog_summarize.
 */
extern bool tradelog_admit(const char *kind);

/* Write how many lines were held back, each minute, or at once when the worker ends. */
extern void tradelog_summarize(TimestampTz now, bool at_once);

#endif
