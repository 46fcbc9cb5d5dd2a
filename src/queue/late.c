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

/*
 * A row that is moved while a statement looks is where its snapshot does not
 * show it: the statement waits for who moves it and finds it gone.  The next one
 * sees where it went.
 */
#define LOOKS		3

/*
 * The queue has no index by trade id, and may hold millions.  What was put back in
 * line has a later id than it had then, and lies near the tail; so many rows from
 * there are looked at.  One that lies further back is dropped by its claim while
 * its outcome waits in unapplied; else the same key is sent, and gets the answer
 * that it got before.
 */
#define NEAR_TAIL	20000

/* $1, $2 the trades  $3 the first id that one of them had */
static Statement remove_everywhere = {
	"WITH c AS (SELECT * FROM unnest($1::int4[], $2::text[]) AS c(a, t)), "
	"n AS (SELECT n.id FROM (SELECT id, attached_id, trade_id FROM settlement.queue "
	"WHERE id >= $3 ORDER BY id DESC LIMIT " CppAsString2(NEAR_TAIL) ") n "
	"WHERE n.trade_id = ANY ($2) AND EXISTS (SELECT FROM c WHERE c.t = n.trade_id AND c.a = n.attached_id)), "
	"q AS (DELETE FROM settlement.queue q USING n WHERE q.id = n.id RETURNING 1), "
	"f AS (DELETE FROM settlement.deferred f USING c WHERE f.trade_id = c.t AND f.attached_id = c.a), "
	"d AS (DELETE FROM settlement.dlq d USING c WHERE d.trade_id = c.t AND d.attached_id = c.a) "
	"SELECT pg_catalog.count(*) FROM q",
	3, {INT4ARRAYOID, TEXTARRAYOID, INT8OID}
};

/* $4: when it was sent.  Ahead of now the clock was set back since: any act counts. */
static Statement record_discrepancy = {
	"INSERT INTO settlement.discrepancies (attached_id, trade_id, kind, details) "
	"SELECT $1, $2, 'settled_after_resolve', pg_catalog.jsonb_build_object("
	"'settlement_id', $3, 'act', a.act, 'acted_at', a.at, 'acted_by', a.role, 'details', a.details) "
	"FROM settlement.audit_log a WHERE a.trade_id = $2 AND a.attached_id = $1 "
	"AND (a.act = 'dlq_purge' OR a.act = 'resolve' AND a.details ->> 'outcome' = 'FAILED') "
	"AND (a.at > $4 OR $4 > pg_catalog.clock_timestamp()) ORDER BY a.id DESC LIMIT 1",
	4, {INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID}
};

static void
record_settled(const TradeFlight *flight)
{
	ApplyRow	row = {0};
	Datum		values[4];

	values[0] = Int32GetDatum(flight->attached_id);
	values[1] = CStringGetTextDatum(flight->wire.trade_id);
	values[2] = CStringGetTextDatum(flight->result.settlement_id);
	values[3] = TimestampTzGetDatum(flight->sent_at);
	statement_run(&record_discrepancy, values);

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
	row.content = flight_content(flight);
	row.trace_id = flight->trace_id;
	unapplied_record(&row, 1, NULL);
}

int64
late_settlements(TradeFlight *const *flights, int n)
{
	int		   *attached = palloc(sizeof(int) * Max(n, 1));
	const char **ids = palloc(sizeof(char *) * Max(n, 1));
	int64		first_id = PG_INT64_MAX;
	int64		from_queue = 0;
	Datum		values[3];

	if (n == 0)
		return 0;
	for (int i = 0; i < n; i++)
	{
		attached[i] = flights[i]->attached_id;
		ids[i] = flights[i]->wire.trade_id;
		first_id = Min(first_id, flights[i]->queue_id);
	}
	values[0] = int4_array(attached, n);
	values[1] = text_array(ids, n);
	values[2] = Int64GetDatum(first_id);
	for (int look = 0; look < LOOKS; look++)
	{
		statement_run(&remove_everywhere, values);
		from_queue += result_int8(0, 1);
	}
	for (int i = 0; i < n; i++)
		record_settled(flights[i]);
	return from_queue;
}
