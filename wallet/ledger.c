/*
 * ledger.c
 *	  Accounts, balances, postings: the money.
 *
 * The only file that writes balances and postings.  Every write of a balance is
 * the sum of what was read and the postings written with it.
 */
#include "ledger.h"

#include <assert.h>
#include <string.h>

#include "amount.h"

/* One posting in the making. */
typedef struct Leg
{
	const char *account;
	const char *currency;
	int			balance;		/* which of ledger->balances it moves */
} Leg;

enum
{
	BUYER_PAYS, BUYER_GETS, SELLER_GIVES, SELLER_GETS, FEES
};

bool
ledger_open(Ledger *ledger, Database *database, const char *fee_account,
			bool reservations)
{
	*ledger = (Ledger) {.database = database, .fee_account = fee_account,
		.reservations = reservations};
	for (int i = 0; i < SETTLEMENT_LEGS; i++)
		mpz_inits(ledger->deltas[i], ledger->balances[i], NULL);

	sqlite3_stmt *last = NULL;
	const StatementText texts[] = {
		{&ledger->find_account, "SELECT kind FROM accounts WHERE account = ?1"},
		{&ledger->add_account,
			"INSERT INTO accounts VALUES (?1, ?2) ON CONFLICT DO NOTHING"},
		{&ledger->get_balance,
			"SELECT amount FROM balances WHERE account = ?1 AND currency = ?2"},
		{&ledger->set_balance, "REPLACE INTO balances VALUES (?1, ?2, ?3)"},
		{&ledger->add_transfer,
			"INSERT INTO transfers VALUES (?1, ?2, ?3, ?4, ?5, ?6)"},
		{&ledger->add_posting, "INSERT INTO postings VALUES (?1, ?2, ?3, ?4, ?5)"},
		{&ledger->get_reservation,
			"SELECT account, currency, amount FROM reservations WHERE order_id = ?1"},
		{&ledger->set_reservation,
			"REPLACE INTO reservations VALUES (?1, ?2, ?3, ?4)"},
		{&ledger->drop_reservation, "DELETE FROM reservations WHERE order_id = ?1"},
		{&ledger->reserved,
			"SELECT amount FROM reservations"
			" WHERE account = ?1 AND currency = ?2 AND order_id <> ?3"},
		{&last, "SELECT coalesce(max(id), 0) FROM transfers"},
	};

	if (!database_prepare(database, texts, sizeof(texts) / sizeof(texts[0])) ||
		sqlite3_step(last) != SQLITE_ROW)
		return false;
	ledger->last_transfer = sqlite3_column_int64(last, 0);
	sqlite3_finalize(last);

	bind_text(ledger->add_account, 1, LEDGER_SOURCE_ACCOUNT);
	bind_text(ledger->add_account, 2, "system");
	if (!statement_run(ledger->add_account))
		return false;
	bind_text(ledger->add_account, 1, fee_account);
	return statement_run(ledger->add_account);
}

void
ledger_close(Ledger *ledger)
{
	for (int i = 0; i < SETTLEMENT_LEGS; i++)
		mpz_clears(ledger->deltas[i], ledger->balances[i], NULL);
}

/* Zero when the account has none of the currency.  False: the database failed. */
static bool
read_balance(Ledger *ledger, const char *account, const char *currency,
			 mpz_t out, bool *found)
{
	sqlite3_stmt *get = ledger->get_balance;
	int			step;
	bool		ok = true;

	bind_text(get, 1, account);
	bind_text(get, 2, currency);
	step = sqlite3_step(get);
	*found = step == SQLITE_ROW;
	if (*found)
		ok = amount_parse_stored(out, column_text(get, 0));
	else
		mpz_set_ui(out, 0);
	sqlite3_reset(get);
	return ok && (step == SQLITE_ROW || step == SQLITE_DONE);
}

static bool
write_balance(Ledger *ledger, const char *account, const char *currency,
			  const mpz_t amount)
{
	char		text[AMOUNT_TEXT_MAX];

	if (!amount_format(text, amount))
		return false;
	bind_text(ledger->set_balance, 1, account);
	bind_text(ledger->set_balance, 2, currency);
	bind_text(ledger->set_balance, 3, text);
	return statement_run(ledger->set_balance);
}

static LedgerResult
find_user(Ledger *ledger, const char *account)
{
	LedgerResult result = LEDGER_FAILED;

	bind_text(ledger->find_account, 1, account);
	switch (sqlite3_step(ledger->find_account))
	{
		case SQLITE_ROW:
			result = LEDGER_DONE;
			break;
		case SQLITE_DONE:
			result = LEDGER_USER_NOT_FOUND;
			break;
	}
	sqlite3_reset(ledger->find_account);
	return result;
}

static bool
write_transfer(Ledger *ledger, const char *kind, const char *key,
			   const char *trade_id, const char *settlement_id, int64_t now)
{
	sqlite3_bind_int64(ledger->add_transfer, 1, ledger->last_transfer + 1);
	bind_text(ledger->add_transfer, 2, kind);
	bind_text(ledger->add_transfer, 3, key);
	bind_text(ledger->add_transfer, 4, trade_id);
	bind_text(ledger->add_transfer, 5, settlement_id);
	sqlite3_bind_int64(ledger->add_transfer, 6, now);
	if (!statement_run(ledger->add_transfer))
		return false;
	ledger->last_transfer++;	/* a rollback leaves a gap, which is harmless */
	return true;
}

static bool
write_posting(Ledger *ledger, int leg, const char *account, const char *currency,
			  const mpz_t amount)
{
	char		text[AMOUNT_TEXT_MAX];

	if (!amount_format(text, amount))
		return false;
	sqlite3_bind_int64(ledger->add_posting, 1, ledger->last_transfer);
	sqlite3_bind_int(ledger->add_posting, 2, leg);
	bind_text(ledger->add_posting, 3, account);
	bind_text(ledger->add_posting, 4, currency);
	bind_text(ledger->add_posting, 5, text);
	return statement_run(ledger->add_posting);
}

/*
 * Who moves what.  Legs of the same account and currency (buyer = seller, or a
 * party that is the fee account) share one balance.
 */
static void
lay_out(Ledger *ledger, const Trade *trade, Leg legs[SETTLEMENT_LEGS])
{
	mpz_t	   *delta = ledger->deltas;

	legs[BUYER_PAYS] = (Leg) {trade->buyer_id, trade->quote_currency, 0};
	legs[BUYER_GETS] = (Leg) {trade->buyer_id, trade->base_currency, 0};
	legs[SELLER_GIVES] = (Leg) {trade->seller_id, trade->base_currency, 0};
	legs[SELLER_GETS] = (Leg) {trade->seller_id, trade->quote_currency, 0};
	legs[FEES] = (Leg) {ledger->fee_account, trade->quote_currency, 0};

	mpz_add(delta[BUYER_PAYS], trade->quote_amount, trade->buyer_fee);
	mpz_neg(delta[BUYER_PAYS], delta[BUYER_PAYS]);
	mpz_set(delta[BUYER_GETS], trade->base_amount);
	mpz_neg(delta[SELLER_GIVES], trade->base_amount);
	mpz_sub(delta[SELLER_GETS], trade->quote_amount, trade->seller_fee);
	mpz_add(delta[FEES], trade->buyer_fee, trade->seller_fee);

	for (int i = 0; i < SETTLEMENT_LEGS; i++)
	{
		legs[i].balance = i;
		for (int j = 0; j < i; j++)
			if (strcmp(legs[i].account, legs[j].account) == 0 &&
				strcmp(legs[i].currency, legs[j].currency) == 0)
			{
				legs[i].balance = j;
				break;
			}
	}
}

/* Reads the balances the legs move, and whether both parties exist. */
static LedgerResult
read_parties(Ledger *ledger, const Leg legs[SETTLEMENT_LEGS], const char **why)
{
	static const char *const unknown[SETTLEMENT_LEGS] = {
		[BUYER_PAYS] = "the buyer has no account",
		[SELLER_GIVES] = "the seller has no account",
	};

	for (int i = 0; i < SETTLEMENT_LEGS; i++)
	{
		bool		found;

		if (legs[i].balance != i)
			continue;
		if (!read_balance(ledger, legs[i].account, legs[i].currency,
						  ledger->balances[i], &found))
			return LEDGER_FAILED;

		/* who has a balance has an account: no second look-up */
		if (unknown[i] != NULL)
		{
			LedgerResult result = LEDGER_DONE;

			if (strcmp(legs[i].account, LEDGER_SOURCE_ACCOUNT) == 0)
				result = LEDGER_USER_NOT_FOUND;
			else if (!found)
				result = find_user(ledger, legs[i].account);
			if (result != LEDGER_DONE)
			{
				*why = unknown[i];
				return result;
			}
		}
	}
	return LEDGER_DONE;
}

/* Draws one party's reservation down by what the trade takes. */
static LedgerResult
draw_reservation(Ledger *ledger, const char *order_id, const Leg *leg,
				 const mpz_t delta, bool write, const char **why)
{
	sqlite3_stmt *get = ledger->get_reservation;
	LedgerResult result = LEDGER_RESERVATION_NOT_FOUND;
	mpz_t		left;
	char		text[AMOUNT_TEXT_MAX];
	int			step;

	*why = "the order has no open reservation";
	mpz_init(left);
	bind_text(get, 1, order_id);
	step = sqlite3_step(get);
	if (step == SQLITE_ROW && strcmp(column_text(get, 0), leg->account) == 0 &&
		strcmp(column_text(get, 1), leg->currency) == 0 &&
		amount_parse_stored(left, column_text(get, 2)))
	{
		result = LEDGER_DONE;
		mpz_add(left, left, delta);
		if (mpz_sgn(left) < 0)
		{
			*why = "the reservation does not cover the trade";
			result = LEDGER_INSUFFICIENT_BALANCE;
		}
	}
	else if (step != SQLITE_ROW && step != SQLITE_DONE)
		result = LEDGER_FAILED;
	sqlite3_reset(get);

	if (result == LEDGER_DONE && write)
	{
		sqlite3_stmt *change = mpz_sgn(left) == 0 ? ledger->drop_reservation
			: ledger->set_reservation;

		bind_text(change, 1, order_id);
		if (mpz_sgn(left) != 0)
		{
			amount_format(text, left);
			bind_text(change, 2, leg->account);
			bind_text(change, 3, leg->currency);
			bind_text(change, 4, text);
		}
		if (!statement_run(change))
			result = LEDGER_FAILED;
	}
	mpz_clear(left);
	return result;
}

/* Both are looked at before either is written: a rejection leaves no trace. */
static LedgerResult
draw_reservations(Ledger *ledger, const Trade *trade,
				  const Leg legs[SETTLEMENT_LEGS], const char **why)
{
	for (int write = 0; write <= 1; write++)
	{
		LedgerResult result;

		result = draw_reservation(ledger, trade->buyer_order_id, &legs[BUYER_PAYS],
								  ledger->deltas[BUYER_PAYS], write, why);
		if (result == LEDGER_DONE)
			result = draw_reservation(ledger, trade->seller_order_id,
									  &legs[SELLER_GIVES],
									  ledger->deltas[SELLER_GIVES], write, why);
		if (result != LEDGER_DONE)
			return result;
	}
	return LEDGER_DONE;
}

static bool
covered(Ledger *ledger, const Leg legs[SETTLEMENT_LEGS], int debit)
{
	return mpz_cmpabs(ledger->deltas[debit],
					  ledger->balances[legs[debit].balance]) <= 0 &&
		mpz_sgn(ledger->balances[legs[debit].balance]) >= 0;
}

static bool
post(Ledger *ledger, const Leg legs[SETTLEMENT_LEGS])
{
	for (int i = 0; i < SETTLEMENT_LEGS; i++)
	{
		mpz_t	   *balance = &ledger->balances[legs[i].balance];

		mpz_add(*balance, *balance, ledger->deltas[i]);
		if (!write_posting(ledger, i + 1, legs[i].account, legs[i].currency,
						   ledger->deltas[i]))
			return false;
	}
	for (int i = 0; i < SETTLEMENT_LEGS; i++)
	{
		if (legs[i].balance != i)
			continue;
		assert(mpz_sgn(ledger->balances[i]) >= 0);
		if (!write_balance(ledger, legs[i].account, legs[i].currency,
						   ledger->balances[i]))
			return false;
	}
	return true;
}

LedgerResult
ledger_settle(Ledger *ledger, const Trade *trade, const char *key, int64_t now,
			  char settlement_id[UUID_LEN + 1], const char **why)
{
	Leg			legs[SETTLEMENT_LEGS];
	LedgerResult result;

	assert(trade->problem == NULL);
	*why = "";
	lay_out(ledger, trade, legs);
	result = read_parties(ledger, legs, why);
	if (result != LEDGER_DONE)
		return result;
	if (!covered(ledger, legs, BUYER_PAYS))
	{
		*why = "the buyer's balance does not cover quote_amount and buyer_fee";
		return LEDGER_INSUFFICIENT_BALANCE;
	}
	if (!covered(ledger, legs, SELLER_GIVES))
	{
		*why = "the seller's balance does not cover base_amount";
		return LEDGER_INSUFFICIENT_BALANCE;
	}
	if (ledger->reservations)
	{
		result = draw_reservations(ledger, trade, legs, why);
		if (result != LEDGER_DONE)
			return result;
	}
	uuid_make(settlement_id);
	if (!write_transfer(ledger, "settlement", key, trade->trade_id, settlement_id, now) ||
		!post(ledger, legs))
		return LEDGER_FAILED;
	return LEDGER_DONE;
}

static bool
move_deposit(Ledger *ledger, int leg, const char *account, const char *currency,
			 const mpz_t delta)
{
	bool		found;

	if (!read_balance(ledger, account, currency, ledger->balances[0], &found))
		return false;
	mpz_add(ledger->balances[0], ledger->balances[0], delta);
	return write_posting(ledger, leg, account, currency, delta) &&
		write_balance(ledger, account, currency, ledger->balances[0]);
}

LedgerResult
ledger_deposit(Ledger *ledger, const char *account, const char *currency,
			   const mpz_t amount, int64_t now)
{
	bind_text(ledger->add_account, 1, account);
	bind_text(ledger->add_account, 2, "user");
	if (!statement_run(ledger->add_account))
		return LEDGER_FAILED;
	if (mpz_sgn(amount) == 0)
		return LEDGER_DONE;

	mpz_neg(ledger->deltas[0], amount);
	if (!write_transfer(ledger, "deposit", NULL, NULL, NULL, now) ||
		!move_deposit(ledger, 1, LEDGER_SOURCE_ACCOUNT, currency, ledger->deltas[0]) ||
		!move_deposit(ledger, 2, account, currency, amount))
		return LEDGER_FAILED;
	return LEDGER_DONE;
}

LedgerResult
ledger_reserve(Ledger *ledger, const char *order_id, const char *account,
			   const char *currency, const mpz_t amount)
{
	mpz_t	   *free_balance = &ledger->balances[0];
	mpz_t	   *other = &ledger->balances[1];
	sqlite3_stmt *reserved = ledger->reserved;
	char		text[AMOUNT_TEXT_MAX];
	bool		found;
	int			step;

	if (!read_balance(ledger, account, currency, *free_balance, &found))
		return LEDGER_FAILED;
	bind_text(reserved, 1, account);
	bind_text(reserved, 2, currency);
	bind_text(reserved, 3, order_id);
	while ((step = sqlite3_step(reserved)) == SQLITE_ROW)
		if (amount_parse_stored(*other, column_text(reserved, 0)))
			mpz_sub(*free_balance, *free_balance, *other);
	sqlite3_reset(reserved);
	if (step != SQLITE_DONE)
		return LEDGER_FAILED;
	if (mpz_cmp(*free_balance, amount) < 0)
		return LEDGER_INSUFFICIENT_BALANCE;

	amount_format(text, amount);
	bind_text(ledger->set_reservation, 1, order_id);
	bind_text(ledger->set_reservation, 2, account);
	bind_text(ledger->set_reservation, 3, currency);
	bind_text(ledger->set_reservation, 4, text);
	return statement_run(ledger->set_reservation) ? LEDGER_DONE : LEDGER_FAILED;
}
