/*
 * catalog.h
 *	  OIDs of our own tables, indexes and sequences in this database, looked up
 *	  once per backend and again after a relcache invalidation of one of them.
 */
#ifndef SETTLEMENT_QUEUE_CATALOG_H
#define SETTLEMENT_QUEUE_CATALOG_H

typedef struct SettlementCatalog
{
	Oid			schema;
	Oid			attached;
	Oid			queue;
	Oid			queue_pkey;
	Oid			queue_id_seq;
	Oid			claims;
	Oid			deferred;
	Oid			deferred_id_seq;
	Oid			deferred_trade_id_idx;
	Oid			dlq;
	Oid			dlq_id_seq;
	Oid			dlq_tally;
	Oid			dlq_trade_id_idx;
	Oid			unapplied;
	Oid			unapplied_id_seq;
	Oid			unapplied_trade_id_idx;
} SettlementCatalog;

/*
 * The OIDs, or NULL when the extension is not in this database (missing_ok);
 * else an error with errcode undefined_object.
 */
extern const SettlementCatalog *settlement_catalog(bool missing_ok);

#endif
