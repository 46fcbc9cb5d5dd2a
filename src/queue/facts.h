/*
 * facts.h
 *	  The facts of a trade: the columns that queue, deferred and dlq have in
 *	  common and that travel together (sql/tables.sql).
 */
#ifndef SETTLEMENT_QUEUE_FACTS_H
#define SETTLEMENT_QUEUE_FACTS_H

/* For statements that move a row from one state table to another. */
#define FACT_COLUMNS \
	"enqueued_at, attached_id, leaf, attempts, generation, charged, crashes, " \
	"format, maybe_executed, lookup_first, trade_tid, trade_id, row_key, symbol, " \
	"buyer_id, seller_id, buyer_order_id, seller_order_id, price, quantity, " \
	"quote_amount, buyer_fee, seller_fee, trace_id, first_sent_at, pending_ms, " \
	"fingerprint"

/* Attribute numbers of settlement.queue. */
enum
{
	Anum_queue_id = 1,
	Anum_queue_enqueued_at,
	Anum_queue_attached_id,
	Anum_queue_leaf,
	Anum_queue_attempts,
	Anum_queue_generation,
	Anum_queue_charged,
	Anum_queue_crashes,
	Anum_queue_format,
	Anum_queue_maybe_executed,
	Anum_queue_lookup_first,
	Anum_queue_trade_tid,
	Anum_queue_trade_id,
	Anum_queue_row_key,
	Anum_queue_symbol,
	Anum_queue_buyer_id,
	Anum_queue_seller_id,
	Anum_queue_buyer_order_id,
	Anum_queue_seller_order_id,
	Anum_queue_price,
	Anum_queue_quantity,
	Anum_queue_quote_amount,
	Anum_queue_buyer_fee,
	Anum_queue_seller_fee,
	Anum_queue_trace_id,
	Anum_queue_first_sent_at,
	Anum_queue_pending_ms,
	Anum_queue_fingerprint,
	Natts_queue = Anum_queue_fingerprint
};

#endif
