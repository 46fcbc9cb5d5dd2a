/*
 * durability.h
 *	  What the commit of a worker waits for.
 */
#ifndef SETTLEMENT_QUEUE_DURABILITY_H
#define SETTLEMENT_QUEUE_DURABILITY_H

/* For the rest of this transaction, whatever ALTER DATABASE says. */
extern void durability_set(void);

#endif
