/*
 * audit.c
 *	  Does the ledger add up?
 *
 * Each check is one query whose rows are what is wrong.  SQLite cannot add
 * decimals exactly, so it is given two aggregates that can.
 */
#include "audit.h"

#include <stdlib.h>
#include <string.h>

#include "amount.h"
#include "database.h"

#define EXAMPLES_MAX 20

static const char set_up[] =
	"DROP TABLE IF EXISTS temp.sums; DROP TABLE IF EXISTS temp.groups;"
	"CREATE TEMP TABLE sums AS SELECT account, currency, exact_sum(amount) AS amount,"
	"  count(*) AS postings FROM postings GROUP BY account, currency;"
	"CREATE TEMP TABLE groups (transfer INTEGER PRIMARY KEY, postings INTEGER, ok INTEGER);"
	"INSERT INTO groups SELECT transfer, count(*), sums_to_zero(currency, amount)"
	"  FROM postings GROUP BY transfer ORDER BY transfer;";

static const char tear_down[] = "DROP TABLE temp.sums; DROP TABLE temp.groups;";

/* Rows: one text that names what is wrong. */
static const struct
{
	const char *name;
	const char *sql;
}			checks[] =
{
	{"currencies_not_zero",
		"SELECT currency FROM sums GROUP BY currency HAVING exact_sum(amount) IS NOT '0'"},
	{"transfers_not_zero",
	"SELECT transfer FROM groups WHERE ok IS NOT 1"},
	{"settlements_without_five_postings",
		"SELECT coalesce(t.trade_id, t.id) FROM transfers t"
		" LEFT JOIN groups g ON g.transfer = t.id"
	" WHERE t.kind = 'settlement' AND g.postings IS NOT 5"},
	{"deposits_without_two_postings",
		"SELECT t.id FROM transfers t LEFT JOIN groups g ON g.transfer = t.id"
	" WHERE t.kind = 'deposit' AND g.postings IS NOT 2"},
	{"postings_without_transfer",
		"SELECT g.transfer FROM groups g LEFT JOIN transfers t ON t.id = g.transfer"
	" WHERE t.id IS NULL"},
	{"duplicate_trades",
		"SELECT trade_id FROM transfers WHERE kind = 'settlement'"
	" GROUP BY trade_id HAVING count(*) > 1"},
	{"balances_not_sum_of_postings",
		"SELECT coalesce(b.account, s.account) || ' ' || coalesce(b.currency, s.currency)"
		" FROM balances b FULL JOIN sums s"
		"   ON s.account = b.account AND s.currency = b.currency"
	" WHERE b.amount IS NOT s.amount"},
	{"overdrawn_balances",
		"SELECT account || ' ' || currency FROM balances"
	" WHERE amount LIKE '-%' AND account <> 'external'"},
	{"answers_without_settlement",
		"SELECT a.key FROM answers a LEFT JOIN transfers t"
		"   ON t.settlement_id = json_extract(a.body, '$.settlement_id')"
	" WHERE a.status = 200 AND t.id IS NULL"},
};

/* exact_sum(text): a decimal text, NULL when a value cannot be read. */
typedef struct ExactSum
{
	bool		started;
	bool		unreadable;
	mpz_t		sum;
	mpz_t		value;
} ExactSum;

static void
exact_sum_step(sqlite3_context *context, int count, sqlite3_value **values)
{
	ExactSum   *state = sqlite3_aggregate_context(context, sizeof(ExactSum));
	const char *text = (const char *) sqlite3_value_text(values[0]);

	(void) count;
	if (state == NULL)
		return;
	if (!state->started)
	{
		mpz_inits(state->sum, state->value, NULL);
		state->started = true;
	}
	if (text == NULL || !amount_parse_stored(state->value, text))
		state->unreadable = true;
	else
		mpz_add(state->sum, state->sum, state->value);
}

static void
exact_sum_final(sqlite3_context *context)
{
	ExactSum   *state = sqlite3_aggregate_context(context, 0);
	char		text[AMOUNT_TEXT_MAX];

	if (state == NULL || !state->started)
		return;
	if (!state->unreadable && amount_format(text, state->sum))
		sqlite3_result_text(context, text, -1, SQLITE_TRANSIENT);
	mpz_clears(state->sum, state->value, NULL);
}

/* sums_to_zero(currency, amount): 1 when each currency of the group does. */
#define CURRENCIES_PER_GROUP 5

typedef struct ZeroSum
{
	int			currencies;
	bool		wrong;
	char		names[CURRENCIES_PER_GROUP][64];
	mpz_t		sums[CURRENCIES_PER_GROUP];
	mpz_t		value;
} ZeroSum;

static void
zero_sum_step(sqlite3_context *context, int count, sqlite3_value **values)
{
	ZeroSum    *state = sqlite3_aggregate_context(context, sizeof(ZeroSum));
	const char *currency = (const char *) sqlite3_value_text(values[0]);
	const char *text = (const char *) sqlite3_value_text(values[1]);
	int			i;

	(void) count;
	if (state == NULL)
		return;
	if (currency == NULL || text == NULL || strlen(currency) >= sizeof(state->names[0]))
	{
		state->wrong = true;
		return;
	}
	for (i = 0; i < state->currencies; i++)
		if (strcmp(state->names[i], currency) == 0)
			break;
	if (i == state->currencies)
	{
		if (i == CURRENCIES_PER_GROUP)
		{
			state->wrong = true;
			return;
		}
		if (i == 0)
			mpz_init(state->value);
		mpz_init(state->sums[i]);
		strcpy(state->names[i], currency);
		state->currencies++;
	}
	if (amount_parse_stored(state->value, text))
		mpz_add(state->sums[i], state->sums[i], state->value);
	else
		state->wrong = true;
}

static void
zero_sum_final(sqlite3_context *context)
{
	ZeroSum    *state = sqlite3_aggregate_context(context, 0);

	if (state == NULL)
		return;
	for (int i = 0; i < state->currencies; i++)
	{
		if (mpz_sgn(state->sums[i]) != 0)
			state->wrong = true;
		mpz_clear(state->sums[i]);
	}
	if (state->currencies > 0)
		mpz_clear(state->value);
	sqlite3_result_int(context, !state->wrong);
}

/* The problems of one check: their number, and some of them. */
static bool
run_check(sqlite3 *database, const char *sql, json_int_t *count, json_t *examples)
{
	sqlite3_stmt *statement;
	int			step;

	*count = 0;
	if (sqlite3_prepare_v2(database, sql, -1, &statement, NULL) != SQLITE_OK)
		return false;
	while ((step = sqlite3_step(statement)) == SQLITE_ROW)
		if (++*count <= EXAMPLES_MAX)
			json_array_append_new(examples, json_string(column_text(statement, 0)));
	sqlite3_finalize(statement);
	return step == SQLITE_DONE;
}

/* name (column 0) to value (column 1) of each row. */
static bool
run_map(sqlite3 *database, const char *sql, json_t *out)
{
	sqlite3_stmt *statement;
	int			step;

	if (sqlite3_prepare_v2(database, sql, -1, &statement, NULL) != SQLITE_OK)
		return false;
	while ((step = sqlite3_step(statement)) == SQLITE_ROW)
	{
		json_t	   *value = sqlite3_column_type(statement, 1) == SQLITE_INTEGER
			? json_integer(sqlite3_column_int64(statement, 1))
			: json_string(column_text(statement, 1));

		json_object_set_new(out, column_text(statement, 0), value);
	}
	sqlite3_finalize(statement);
	return step == SQLITE_DONE;
}

static bool
write_report(sqlite3 *database, json_t *report)
{
	json_t	   *problems = json_object();
	json_t	   *currencies = json_object();
	bool		clean = true;
	bool		ok;

	json_object_set_new(report, "problems", problems);
	json_object_set_new(report, "currencies", currencies);
	ok = run_map(database,
				 "SELECT 'settlements', count(*) FROM transfers WHERE kind = 'settlement'"
				 " UNION ALL SELECT 'deposits', count(*) FROM transfers WHERE kind = 'deposit'"
				 " UNION ALL SELECT 'trades', count(DISTINCT trade_id) FROM transfers"
				 "  WHERE kind = 'settlement'"
				 " UNION ALL SELECT 'postings', coalesce(sum(postings), 0) FROM sums"
				 " UNION ALL SELECT 'accounts', count(*) FROM accounts"
				 " UNION ALL SELECT 'answers', count(*) FROM answers", report) &&
		run_map(database, "SELECT currency, coalesce(exact_sum(amount), 'unreadable')"
				" FROM sums GROUP BY currency", currencies);
	for (size_t i = 0; ok && i < sizeof(checks) / sizeof(checks[0]); i++)
	{
		json_t	   *examples = json_array();
		json_int_t	count;

		ok = run_check(database, checks[i].sql, &count, examples);
		json_object_set_new(report, checks[i].name, json_integer(count));
		if (count > 0)
		{
			clean = false;
			json_object_set(problems, checks[i].name, examples);
		}
		json_decref(examples);
	}
	json_object_set_new(report, "ok", json_boolean(ok && clean));
	return ok;
}

json_t *
audit_run(sqlite3 *database)
{
	json_t	   *report = json_object();
	bool		ok;

	ok = sqlite3_create_function(database, "exact_sum", 1, SQLITE_UTF8, NULL, NULL,
								 exact_sum_step, exact_sum_final) == SQLITE_OK &&
		sqlite3_create_function(database, "sums_to_zero", 2, SQLITE_UTF8, NULL, NULL,
								zero_sum_step, zero_sum_final) == SQLITE_OK &&
		sqlite3_exec(database, "BEGIN", NULL, NULL, NULL) == SQLITE_OK;
	ok = ok && sqlite3_exec(database, set_up, NULL, NULL, NULL) == SQLITE_OK &&
		write_report(database, report) &&
		sqlite3_exec(database, tear_down, NULL, NULL, NULL) == SQLITE_OK;
	if (!sqlite3_get_autocommit(database))
		sqlite3_exec(database, ok ? "COMMIT" : "ROLLBACK", NULL, NULL, NULL);
	if (ok)
		return report;
	json_decref(report);
	return NULL;
}
