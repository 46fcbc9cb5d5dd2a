/*
 * discrepancy.c
 *	  What trade rows say against the outcomes of their trades.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "queue/discrepancy.h"
#include "queue/statement.h"
#include "shared/logline.h"

static Statement insert_discrepancy = {
	"INSERT INTO settlement.discrepancies (attached_id, trade_id, kind, details) "
	"VALUES ($1, $2, $3, $4::pg_catalog.text::pg_catalog.jsonb)",
	4, {INT4OID, TEXTOID, TEXTOID, TEXTOID}
};

void
discrepancies_record(const ApplyRow *rows, int n)
{
	for (int i = 0; i < n; i++)
	{
		const ApplyRow *row = &rows[i];
		StringInfoData fields;
		Datum		values[4];

		if (row->result != APPLY_DONE || row->contradiction == NULL)
			continue;
		values[0] = Int32GetDatum(row->attached_id);
		values[1] = CStringGetTextDatum(row->trade_id ? row->trade_id : "");
		values[2] = CStringGetTextDatum(row->contradiction);
		values[3] = CStringGetTextDatum(row->details);
		statement_run(&insert_discrepancy, values);
		initStringInfo(&fields);
		log_field(&fields, "kind", row->contradiction);
		log_field(&fields, "trade_id", row->trade_id);
		log_field_int(&fields, "attached_id", row->attached_id);
		log_field(&fields, "status", row->status);
		log_field(&fields, "settlement_id", row->settlement_id);
		log_field(&fields, "details", row->details);
		ereport(LOG,
				(errcode(LOG_ROW_CONTRADICTS),
				 errmsg("the row of trade \"%s\" contradicts its outcome %s: %s",
						log_text(row->trade_id), row->status, row->contradiction),
				 errdetail_internal("%s", fields.data),
				 errhint("See settlement.discrepancies.")));
	}
}
