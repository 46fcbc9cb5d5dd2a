/*
 * ending.h
 *	  One finished trade on its way through a turn; private to finish.c,
 *	  evidence.c and attempts.c.
 */
#ifndef SETTLEMENT_QUEUE_ENDING_H
#define SETTLEMENT_QUEUE_ENDING_H

#include "queue/decision.h"
#include "queue/finish.h"

struct Ending
{
	TradeFlight *flight;
	Decision	decision;
	bool		mine;			/* claim stands and the row left the queue */
	char	   *error;			/* for the trade row and the log; NULL: none */
};

/* An empty text is an absent one. */
static inline const char *
or_null(const char *text)
{
	return text[0] == '\0' ? NULL : text;
}

/*
 * Lock or delete the claims rows of these endings and take the trades out of the
 * queue, to where their decisions send them; sets `mine` of those that were still
 * ours.  SPI is connected.
 */
extern void evidence_record(Finish *finish, Ending *endings);

/* Write settlement.attempts, as settlement.attempt_history says. */
extern void attempts_record(int slot, Ending *endings, int n);

#endif
