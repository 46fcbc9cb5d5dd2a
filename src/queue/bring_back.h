/*
 * bring_back.h
 *	  After the clock was set back: what waits for a time of the former clock.
 */
#ifndef SETTLEMENT_QUEUE_BRING_BACK_H
#define SETTLEMENT_QUEUE_BRING_BACK_H

/*
 * Up to max trades and up to max outcomes that would wait for such a time are due
 * now.  In a transaction; returns how many of the one or of the other, whichever
 * are more: as many as max means that there may be more.
 */
extern int	bring_back_waits(int max);

#endif
