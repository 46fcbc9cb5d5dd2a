/*
 * late.c
 *	  The wallet settled a trade whose claim this worker has lost.
 *
 * The worker that took over has put the trade back in line; perhaps an operator
 * has given it up since.  Money has moved, so SETTLED wins; the trade row is
 * written through unapplied, like any outcome that cannot be written at once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "queue/apply.h"
#include "queue/late.h"
#include "queue/statement.h"
#include "queue/unapplied.h"

static Statement remove_everywhere = {
	"WITH q AS (DELETE FROM settlement.queue WHERE trade_id = $2 AND attached_id = $1 RETURNING 1), "
	"f AS (DELETE FROM settlement.deferred WHERE trade_id = $2 AND attached_id = $1 RETURNING 1), "
	"d AS (DELETE FROM settlement.dlq WHERE trade_id = $2 AND attached_id = $1 RETURNING 1) "
	"SELECT (SELECT pg_catalog.count(*) FROM q), (SELECT pg_catalog.count(*) FROM f), "
	"(SELECT pg_catalog.count(*) FROM d)",
	2, {INT4OID, TEXTOID}
};

static Statement record_discrepancy = {
	"INSERT INTO settlement.discrepancies (attached_id, trade_id, kind, details) "
	"SELECT $1, $2, 'settled_after_resolve', pg_catalog.jsonb_build_object("
	"'settlement_id', $3, 'act', a.act, 'acted_at', a.at, 'acted_by', a.role, 'details', a.details) "
	"FROM settlement.audit_log a WHERE a.trade_id = $2 AND a.attached_id = $1 "
	"AND (a.act = 'dlq_purge' OR a.act = 'resolve' AND a.details ->> 'outcome' = 'FAILED') "
	"AND a.at > $4 ORDER BY a.id DESC LIMIT 1",
	4, {INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
};

int64
late_settlement(const TradeFlight *flight)
{
	ApplyRow	row = {0};
	Datum		values[4];
	int64		from_queue;

	values[0] = Int32GetDatum(flight->attached_id);
	values[1] = CStringGetTextDatum(flight->wire.trade_id);
	statement_run(&remove_everywhere, values);
	from_queue = result_int8(0, 1);
	if (from_queue + result_int8(0, 2) + result_int8(0, 3) == 0)
	{
		values[2] = CStringGetTextDatum(flight->result.settlement_id);
		values[3] = TimestampTzGetDatum(flight->claimed_at);
		statement_run(&record_discrepancy, values);
	}

	row.attached_id = flight->attached_id;
	row.leaf = flight->leaf;
	row.tid = flight->trade_tid;
	row.trade_id = flight->wire.trade_id;
	row.n_keys = flight->n_keys;
	row.row_key = (const char *const *) flight->row_key;
	row.status = "SETTLED";
	row.settlement_id = flight->result.settlement_id;
	row.settled_at = flight->answered_at;
	row.attempts = flight->attempts + 1;
	unapplied_record(&row, 1, NULL);
	return from_queue;
}
