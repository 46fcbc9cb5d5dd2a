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

/*
 * Attribute numbers of settlement.deferred and dlq before their facts.  There
 * the number of a fact is its number in queue plus the offset.
 */
enum
{
	Anum_deferred_id = 1,
	Anum_deferred_retry_at,
	Anum_deferred_reason,
	Anum_deferred_chargeable,
	Anum_deferred_last_sent_at,
	Anum_deferred_last_class,
	Anum_deferred_last_code,
	Anum_deferred_last_status,
	Anum_deferred_last_message,
	Deferred_facts_offset = Anum_deferred_last_message + 1 - Anum_queue_enqueued_at,
	Natts_deferred = Natts_queue + Deferred_facts_offset
};

enum
{
	Anum_dlq_id = 1,
	Anum_dlq_status,
	Anum_dlq_class,
	Anum_dlq_code,
	Anum_dlq_http_status,
	Anum_dlq_message,
	Anum_dlq_died_at,
	Anum_dlq_final_rejection,
	Dlq_facts_offset = Anum_dlq_final_rejection + 1 - Anum_queue_enqueued_at,
	Anum_dlq_safe_to_discard = Natts_queue + Dlq_facts_offset + 1,	/* generated */
	Natts_dlq = Anum_dlq_safe_to_discard
};

/* Attribute numbers of settlement.dlq_tally. */
enum
{
	Anum_tally_status = 1,
	Anum_tally_class,
	Anum_tally_code,
	Anum_tally_http_status,
	Anum_tally_symbol,
	Anum_tally_trades,
	Anum_tally_discardable,
	Anum_tally_quote_value,
	Anum_tally_first_seen,
	Anum_tally_last_seen,
	Natts_tally = Anum_tally_last_seen
};

/* Attribute numbers of settlement.unapplied. */
enum
{
	Anum_unapplied_id = 1,
	Anum_unapplied_next_apply_at,
	Anum_unapplied_failures,
	Anum_unapplied_last_failure,
	Anum_unapplied_last_failed_at,
	Anum_unapplied_recorded_at,
	Anum_unapplied_attached_id,
	Anum_unapplied_leaf,
	Anum_unapplied_trade_tid,
	Anum_unapplied_trade_id,
	Anum_unapplied_row_key,
	Anum_unapplied_status,
	Anum_unapplied_settlement_id,
	Anum_unapplied_settled_at,
	Anum_unapplied_attempts,
	Anum_unapplied_error,
	Anum_unapplied_content,
	Anum_unapplied_trace_id,
	Natts_unapplied = Anum_unapplied_trace_id
};

#endif
