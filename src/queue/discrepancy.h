/*
 * discrepancy.h
 *	  Facts that contradict each other and need a person.
 */
#ifndef SETTLEMENT_QUEUE_DISCREPANCY_H
#define SETTLEMENT_QUEUE_DISCREPANCY_H

#include "queue/apply.h"

/*
 * In the present transaction, SPI connected: what the trade rows said against
 * the outcomes that were written to them just now.
 */
extern void discrepancies_record(const ApplyRow *rows, int n);

#endif
