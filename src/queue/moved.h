/*
 * moved.h
 *	  Trades whose rows the present transaction moves: deletes and inserts again.
 */
#ifndef SETTLEMENT_QUEUE_MOVED_H
#define SETTLEMENT_QUEUE_MOVED_H

/* A PENDING row of this trade is deleted in the present transaction. */
extern void moved_note_deleted(int attached_id, const text *trade_id);

/* ... or was, by a part of it that has not been rolled back. */
extern bool moved_was_deleted(int attached_id, const text *trade_id);

#endif
