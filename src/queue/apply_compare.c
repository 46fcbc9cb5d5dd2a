/*
 * apply_compare.c
 *	  Does the trade row say what the outcome says?
 *
 * A trade is settled as it was when it was enqueued.  A row whose content was
 * changed since, or whose status somebody else has set, contradicts that and
 * needs a person; the outcome is written all the same, except over SETTLED and
 * REVERSED (apply_row.c).
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

#include "queue/apply_leaf.h"
#include "queue/trade.h"

StaticAssertDecl(COLUMN_SELLER_FEE - COLUMN_SYMBOL + 1 == N_CONTENT,
				 "content is what lies between symbol and seller_fee");

static void
add_json(StringInfo json, const char *name, const char *value)
{
	appendStringInfoString(json, json->len == 0 ? "{" : ", ");
	escape_json(json, name);
	appendStringInfoString(json, ": ");
	if (value == NULL)
		appendStringInfoString(json, "null");
	else
		escape_json(json, value);
}

static void
contradict(ApplyRow *row, const char *kind, StringInfo json)
{
	add_json(json, "outcome", row->status);
	add_json(json, "settlement_id", row->settlement_id);
	appendStringInfoChar(json, '}');
	row->contradiction = kind;
	row->details = MemoryContextStrdup(TopTransactionContext, json->data);
}

/* ---------------------------------------------------------------- content */

/* As it would be enqueued now; NULL when it could not be. */
static const char *
present_value(const Trade *trade, TradeColumn column)
{
	if (!trade->present[column])
		return NULL;
	if (column >= COLUMN_PRICE)
		return numeric_normalize(DatumGetNumeric(trade->value[column]));
	return TextDatumGetCString(trade->value[column]);
}

/*
 * The version that was enqueued, at its place: nothing can have changed.  This
 * is the usual case, and costs nothing.
 */
static bool
is_enqueued_version(const ApplyLeaf *leaf, const ApplyRow *row)
{
	ItemPointerData tid = row->tid;

	return leaf->n_blocks > 0 && RelationGetRelid(leaf->rel) == row->leaf &&
		ItemPointerIsValid(&tid) &&
		ItemPointerEquals(&tid, &leaf->old->tts_tid);
}

void
leaf_compare_content(ApplyLeaf *leaf, ApplyRow *row)
{
	StringInfoData json;
	Trade		trade;

	if (row->content == NULL || is_enqueued_version(leaf, row) ||
		strcmp(row->status, "FAILED") == 0)
		return;
	initStringInfo(&json);
	trade_read(&leaf->att, leaf->old, &trade);
	for (int i = 0; i < N_CONTENT; i++)
	{
		TradeColumn column = COLUMN_SYMBOL + i;
		const char *paid = row->content[i];
		const char *present;

		if (leaf->att.attno[column] == InvalidAttrNumber || paid == NULL)
			continue;			/* dropped or renamed: nothing to compare */
		present = present_value(&trade, column);
		if (present != NULL && strcmp(present, paid) == 0)
			continue;
		add_json(&json, trade_column_name(column), present);
		add_json(&json, psprintf("enqueued_%s", trade_column_name(column)), paid);
	}
	if (json.len > 0)
		contradict(row, "trade_changed", &json);
}

/* ----------------------------------------------------------------- status */

void
leaf_keep_status(ApplyRow *row, const char *status, const char *settlement_id)
{
	bool		settled = strcmp(row->status, "SETTLED") == 0;
	StringInfoData json;

	row->kept = !settled && strcmp(row->status, "REVERSED") != 0;
	if (settled && (row->settlement_id == NULL ||
					(settlement_id != NULL && strcmp(settlement_id, row->settlement_id) == 0)))
		return;
	if (!settled && strcmp(row->status, "FAILED") != 0 &&
		strcmp(row->status, "UNKNOWN") != 0)
		return;
	initStringInfo(&json);
	add_json(&json, "settlement_status", status);
	add_json(&json, "row_settlement_id", settlement_id);
	add_json(&json, "error", row->error);
	contradict(row, "status_changed", &json);
}
