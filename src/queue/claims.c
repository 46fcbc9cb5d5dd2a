/*
 * claims.c
 *	  Rows of settlement.claims whose trades this worker has in flight.
 *
 * Who takes a claim over (recover.c) locks its row, or skips it when it is
 * locked; so what is done under our lock of a row that is still there is ours.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "queue/claims.h"
#include "queue/statement.h"

static Statement lock_rows = {
	"SELECT token FROM settlement.claims WHERE boot = $1 AND token = ANY ($2) FOR UPDATE",
	2, {INT8OID, INT8ARRAYOID}
};

static Statement delete_rows = {
	"DELETE FROM settlement.claims WHERE boot = $1 AND token = ANY ($2) RETURNING token",
	2, {INT8OID, INT8ARRAYOID}
};

static Statement take_ids_out = {
	"UPDATE settlement.claims SET ids = ARRAY(SELECT i FROM unnest(ids) AS i WHERE i <> ALL ($3)) "
	"WHERE boot = $1 AND token = ANY ($2) RETURNING token",
	3, {INT8OID, INT8ARRAYOID, INT8ARRAYOID}
};

/* Lost are those whose rows the statement does not return. */
static void
run(Statement *statement, OpenClaim **claims, int n, Datum ids)
{
	int64	   *tokens;
	Datum		values[3];

	if (n == 0)
		return;
	SPI_connect();
	tokens = palloc(sizeof(int64) * n);
	for (int i = 0; i < n; i++)
	{
		tokens[i] = claims[i]->token;
		claims[i]->lost = true;
	}
	values[0] = Int64GetDatum((int64) settlement_shared->boot);
	values[1] = int8_array(tokens, n);
	values[2] = ids;
	statement_run(statement, values);
	for (uint64 r = 0; r < SPI_processed; r++)
	{
		int64		token = result_int8(r, 1);

		for (int i = 0; i < n; i++)
			if (claims[i]->token == token)
				claims[i]->lost = false;
	}
	SPI_finish();
}

void
claims_lock(OpenClaim **claims, int n)
{
	run(&lock_rows, claims, n, (Datum) 0);
}

void
claims_delete(OpenClaim **claims, int n)
{
	run(&delete_rows, claims, n, (Datum) 0);
}

void
claims_take_out(OpenClaim **claims, int n, const int64 *ids, int n_ids)
{
	if (n > 0)
		run(&take_ids_out, claims, n, int8_array(ids, n_ids));
}
