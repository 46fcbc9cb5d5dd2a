/*
 * concurrency.h
 *	  How many requests a worker may have in flight when the wallet is to decide:
 *	  additive increase, multiplicative decrease on latency, 5xx and 429.  A plain
 *	  struct, private to its worker; the time is an argument.
 */
#ifndef SETTLEMENT_POLICY_CONCURRENCY_H
#define SETTLEMENT_POLICY_CONCURRENCY_H

#include <stdbool.h>
#include <stdint.h>

/* What one finished request says of the wallet's load. */
typedef enum LoadSignal
{
	LOAD_ANSWERED = 0,			/* its latency counts */
	LOAD_OVERLOAD,				/* 429, 5xx, timeout, refused: too much */
	LOAD_NONE					/* says nothing: 4xx of a proxy, not sent, ... */
} LoadSignal;

typedef struct Concurrency
{
	double		limit;			/* >= 1 */
	bool		slow_start;		/* doubling per round, until the first decrease */
	int64_t		since_us;		/* a request sent before says nothing of the
								 * present limit */
	int			answers;		/* of this round */
	int			slow;			/* ... of them slower than tolerated */
	bool		used;			/* the limit was reached in this round */
	int64_t		fastest_us;		/* of this round; 0: none yet */
	int64_t		base_us;		/* latency of a wallet without a queue; 0: unknown */
	int64_t		base_at_us;
	bool		measuring;		/* a round with few in flight, to know base_us */
} Concurrency;

extern void concurrency_init(Concurrency *c, int64_t now_us);

/* Requests that may be in flight now, from 1 to max (>= 1). */
extern int	concurrency_limit(const Concurrency *c, int max);

/*
 * Report one finished request that was sent at sent_us and took latency_us, when
 * in_flight requests (this one included) were under way.
 */
extern void concurrency_report(Concurrency *c, LoadSignal signal, int64_t sent_us,
							   int64_t latency_us, int in_flight, int max, int64_t now_us);

#endif
