/*
 * audit.h
 *	  Does the ledger add up?
 */
#ifndef WALLET_AUDIT_H
#define WALLET_AUDIT_H

#include <jansson.h>
#include <sqlite3.h>

/*
 * Reads the whole ledger through this connection, trusting nothing but the
 * tables: no balance, count or promise of the program's own.  The report, or
 * NULL when the database failed.
 */
extern json_t *audit_run(sqlite3 *database);

#endif
