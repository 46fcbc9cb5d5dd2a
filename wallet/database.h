/*
 * database.h
 *	  The SQLite file: opening, schema, transactions, prepared statements.
 *
 * All of the ledger is in here and nowhere else in memory, so a transaction
 * that is rolled back leaves nothing to undo.  One connection, one thread; the
 * audit opens a connection of its own.  One process: a second one on the same
 * file is refused, since each numbers transfers and remembers the epoch by itself.
 */
#ifndef WALLET_DATABASE_H
#define WALLET_DATABASE_H

#include <stdbool.h>
#include <stddef.h>

#include <sqlite3.h>

typedef struct Database
{
	sqlite3    *handle;
	const char *path;			/* not owned */
	bool		in_memory;
	int			lock_fd;		/* held for life; -1: in memory */
	sqlite3_stmt *begin;
	sqlite3_stmt *commit;
	sqlite3_stmt *rollback;
} Database;

/* A statement of a module's table of statements. */
typedef struct StatementText
{
	sqlite3_stmt **statement;
	const char *sql;
} StatementText;

/* sync_full: a commit is on disk when database_commit returns. */
extern bool database_open(Database *database, const char *path, bool sync_full,
						  char *err, size_t errlen);
extern void database_close(Database *database);

extern bool database_begin(Database *database);
extern bool database_commit(Database *database);
extern void database_rollback(Database *database);

extern bool database_prepare(Database *database, const StatementText *texts,
							 size_t count);
extern const char *database_error(const Database *database);

/* Step a statement that returns no row, and reset it. */
extern bool statement_run(sqlite3_stmt *statement);

/* Bind a text that outlives the step; index as in SQL, from 1. */
extern void bind_text(sqlite3_stmt *statement, int index, const char *text);

/* Never NULL: a NULL column reads as "". */
extern const char *column_text(sqlite3_stmt *statement, int column);

#endif
