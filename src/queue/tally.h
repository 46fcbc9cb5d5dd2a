/*
 * tally.h
 *	  Sums over the dead letters (settlement.dlq_tally), so that asking how many
 *	  there are costs the same for ten and for ten million.
 */
#ifndef SETTLEMENT_QUEUE_TALLY_H
#define SETTLEMENT_QUEUE_TALLY_H

/*
 * Make one row of those that say the same, if there are many.  In a transaction;
 * does nothing while another one folds or settlement.rescan() counts anew.
 */
extern void tally_fold(void);

#endif
