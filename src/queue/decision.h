/*
 * decision.h
 *	  From what the wallet answered to what becomes of the trade.  No SQL here.
 */
#ifndef SETTLEMENT_QUEUE_DECISION_H
#define SETTLEMENT_QUEUE_DECISION_H

#include "queue/flight.h"

typedef enum Fate
{
	FATE_SETTLED = 0,
	FATE_DEAD,
	FATE_DEFERRED
} Fate;

typedef struct Decision
{
	Fate		fate;
	const char *status;			/* of the trade row; dead: FAILED or UNKNOWN */
	const char *class;			/* static; NULL when settled */
	const char *reason;			/* of the deferred row */
	TimestampTz retry_at;
	bool		chargeable;
	bool		final_rejection;
	bool		maybe_executed;
	bool		lookup_first;
	int			attempts;
	int			format;
	TimestampTz first_sent_at;	/* 0: never */
} Decision;

/* `random` in [0, 1) spreads the retries. */
extern Decision decide(const TradeFlight *flight, bool rejection_is_final,
					   double random);

/* Is the trade past the time for which the wallet remembers its key?  Asks the clock. */
extern bool past_idempotency_window(TimestampTz first_sent_at);

/*
 * Must a trade with these facts not be sent, since the wallet may have forgotten
 * its key?  One that is looked up first is not sent before that.
 */
extern bool may_be_forgotten(bool maybe_executed, bool lookup_first,
							 TimestampTz first_sent_at);

#endif
