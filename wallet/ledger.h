/*
 * ledger.h
 *	  Accounts, balances, postings: the money.
 *
 * Every function works inside a transaction that the caller began.  What was
 * written is undone by its rollback and by nothing else, so a caller rolls back
 * when a function answers LEDGER_FAILED.
 */
#ifndef WALLET_LEDGER_H
#define WALLET_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include <gmp.h>

#include "database.h"
#include "text.h"
#include "trade.h"

#define LEDGER_SOURCE_ACCOUNT	"external"	/* deposits come from here */
#define SETTLEMENT_LEGS			5

typedef enum LedgerResult
{
	LEDGER_DONE = 0,
	LEDGER_INSUFFICIENT_BALANCE,
	LEDGER_USER_NOT_FOUND,
	LEDGER_RESERVATION_NOT_FOUND,
	LEDGER_FAILED				/* the database failed: roll back */
} LedgerResult;

typedef struct Ledger
{
	Database   *database;
	const char *fee_account;
	bool		reservations;	/* a settlement needs both parties' reservations */
	int64_t		last_transfer;
	sqlite3_stmt *find_account;
	sqlite3_stmt *add_account;
	sqlite3_stmt *get_balance;
	sqlite3_stmt *set_balance;
	sqlite3_stmt *add_transfer;
	sqlite3_stmt *add_posting;
	sqlite3_stmt *get_reservation;
	sqlite3_stmt *set_reservation;
	sqlite3_stmt *drop_reservation;
	sqlite3_stmt *reserved;
	mpz_t		deltas[SETTLEMENT_LEGS];	/* work space, to spare allocation */
	mpz_t		balances[SETTLEMENT_LEGS];
} Ledger;

/* Creates the system accounts; needs no transaction around it. */
extern bool ledger_open(Ledger *ledger, Database *database,
						const char *fee_account, bool reservations);
extern void ledger_close(Ledger *ledger);

/*
 * Five postings or none.  Each debit must be covered by the balance from before
 * the trade, also when buyer and seller are the same.  why (static) explains a
 * rejection.
 */
extern LedgerResult ledger_settle(Ledger *ledger, const Trade *trade,
								  const char *key, int64_t now,
								  char settlement_id[UUID_LEN + 1],
								  const char **why);

/* Creates the account when it is new; zero is a deposit that only does this. */
extern LedgerResult ledger_deposit(Ledger *ledger, const char *account,
								   const char *currency, const mpz_t amount,
								   int64_t now);

/* Sets aside part of a balance for an order; again for the same order: replaces. */
extern LedgerResult ledger_reserve(Ledger *ledger, const char *order_id,
								   const char *account, const char *currency,
								   const mpz_t amount);

#endif
