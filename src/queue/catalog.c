/*
 * catalog.c
 *	  OIDs of our own tables, looked up once per backend.
 *
 * The copy is dropped by a relcache invalidation of any of the relations (DROP
 * EXTENSION, ALTER) and looked up again at the next call.  An incomplete set,
 * as while CREATE EXTENSION runs, is never kept.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "queue/catalog.h"

static SettlementCatalog catalog;
static bool catalog_valid = false;
static uint64 invalidations = 0;
static bool callback_registered = false;

static void
catalog_invalidate(Datum arg, Oid relid)
{
	if (relid == InvalidOid ||
		relid == catalog.attached ||
		relid == catalog.queue || relid == catalog.queue_pkey ||
		relid == catalog.queue_id_seq ||
		relid == catalog.claims || relid == catalog.deferred ||
		relid == catalog.deferred_id_seq || relid == catalog.deferred_trade_id_idx ||
		relid == catalog.dlq || relid == catalog.dlq_id_seq ||
		relid == catalog.dlq_tally ||
		relid == catalog.dlq_trade_id_idx ||
		relid == catalog.unapplied || relid == catalog.unapplied_id_seq ||
		relid == catalog.unapplied_trade_id_idx)
	{
		catalog_valid = false;
		invalidations++;
	}
}

/* Fill *c; false when something is missing. */
static bool
catalog_look_up(SettlementCatalog *c)
{
	const struct
	{
		const char *name;
		Oid		   *oid;
	}			relations[] = {
		{"attached", &c->attached},
		{"queue", &c->queue},
		{"queue_pkey", &c->queue_pkey},
		{"queue_id_seq", &c->queue_id_seq},
		{"claims", &c->claims},
		{"deferred", &c->deferred},
		{"deferred_id_seq", &c->deferred_id_seq},
		{"deferred_trade_id_idx", &c->deferred_trade_id_idx},
		{"dlq", &c->dlq},
		{"dlq_id_seq", &c->dlq_id_seq},
		{"dlq_tally", &c->dlq_tally},
		{"dlq_trade_id_idx", &c->dlq_trade_id_idx},
		{"unapplied", &c->unapplied},
		{"unapplied_id_seq", &c->unapplied_id_seq},
		{"unapplied_trade_id_idx", &c->unapplied_trade_id_idx},
	};

	c->schema = get_namespace_oid("settlement", true);
	if (!OidIsValid(c->schema))
		return false;
	for (int i = 0; i < lengthof(relations); i++)
	{
		*relations[i].oid = get_relname_relid(relations[i].name, c->schema);
		if (!OidIsValid(*relations[i].oid))
			return false;
	}
	return true;
}

const SettlementCatalog *
settlement_catalog(bool missing_ok)
{
	uint64		before;

	if (catalog_valid)
		return &catalog;

	if (!callback_registered)
	{
		CacheRegisterRelcacheCallback(catalog_invalidate, (Datum) 0);
		callback_registered = true;
	}

	/* An invalidation or an error during the look-up must win. */
	before = invalidations;
	if (!catalog_look_up(&catalog))
	{
		if (missing_ok)
			return NULL;
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"settlement\" is not installed in this database"),
				 errhint("Run CREATE EXTENSION settlement.")));
	}
	catalog_valid = invalidations == before;
	return &catalog;
}
