/*
 * database.c
 *	  The SQLite file: opening, schema, transactions, prepared statements.
 *
 * Amounts are stored as text, because they are exact and wider than any number
 * SQLite has.  A transfer is a settlement or a deposit; its postings sum to zero
 * per currency.  There is deliberately no unique index on trade_id: the wallet
 * promises one effect per key, and a second key for the same trade must show in
 * the audit instead of being hidden by a constraint.
 */
#include "database.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define SCHEMA_VERSION	2
#define LOCK_TRIES		40
#define LOCK_TRY_US		50000

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS accounts ("
	"  account TEXT PRIMARY KEY,"
	"  kind TEXT NOT NULL CHECK (kind IN ('user', 'system'))"
	") WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS balances ("
	"  account TEXT NOT NULL,"
	"  currency TEXT NOT NULL,"
	"  amount TEXT NOT NULL,"
	"  PRIMARY KEY (account, currency)"
	") WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS transfers ("
	"  id INTEGER PRIMARY KEY,"
	"  kind TEXT NOT NULL CHECK (kind IN ('settlement', 'deposit')),"
	"  key TEXT,"
	"  trade_id TEXT,"
	"  settlement_id TEXT,"
	"  at INTEGER NOT NULL"		/* microseconds since 1970 */
	");"
	"CREATE TABLE IF NOT EXISTS postings ("
	"  transfer INTEGER NOT NULL,"
	"  leg INTEGER NOT NULL CHECK (leg BETWEEN 1 AND 5),"
	"  account TEXT NOT NULL,"
	"  currency TEXT NOT NULL,"
	"  amount TEXT NOT NULL,"
	"  PRIMARY KEY (transfer, leg)"
	") WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS answers ("
	"  id INTEGER PRIMARY KEY,"
	"  key TEXT NOT NULL UNIQUE,"
	"  fingerprint BLOB NOT NULL,"	/* SHA-256 of the request body */
	"  status INTEGER NOT NULL,"
	"  body TEXT NOT NULL,"
	"  at INTEGER NOT NULL"
	");"
	"CREATE TABLE IF NOT EXISTS reservations ("
	"  order_id TEXT PRIMARY KEY,"
	"  account TEXT NOT NULL,"
	"  currency TEXT NOT NULL,"
	"  amount TEXT NOT NULL"
	") WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS epochs ("
	"  lineage TEXT PRIMARY KEY,"	/* '' of those who name none */
	"  epoch INTEGER NOT NULL"
	") WITHOUT ROWID;";

static bool
run(Database *database, const char *sql)
{
	return sqlite3_exec(database->handle, sql, NULL, NULL, NULL) == SQLITE_OK;
}

static int
user_version(Database *database)
{
	sqlite3_stmt *statement;
	int			version = -1;

	if (sqlite3_prepare_v2(database->handle, "PRAGMA user_version", -1,
						   &statement, NULL) != SQLITE_OK)
		return -1;
	if (sqlite3_step(statement) == SQLITE_ROW)
		version = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	return version;
}

static bool
set_up_schema(Database *database, char *err, size_t errlen)
{
	int			version = user_version(database);
	char		set[64];

	if (version != 0 && version != SCHEMA_VERSION)
	{
		snprintf(err, errlen, "\"%s\" has schema version %d, this program needs %d",
				 database->path, version, SCHEMA_VERSION);
		return false;
	}
	snprintf(set, sizeof(set), "PRAGMA user_version = %d", SCHEMA_VERSION);
	if (run(database, "BEGIN IMMEDIATE") && run(database, schema) &&
		run(database, set) && run(database, "COMMIT"))
		return true;
	snprintf(err, errlen, "could not set up \"%s\": %s", database->path,
			 database_error(database));
	return false;
}

/*
 * A lock on a file beside the database, because SQLite's own locks on it would
 * be dropped by our closing a descriptor of it.  The kernel drops this one when
 * the process ends, however it ends.  A predecessor that is just ending gets a
 * moment to do so.
 */
static bool
take_lock(Database *database, char *err, size_t errlen)
{
	char	   *path;
	bool		ok;

	if (database->in_memory)
		return true;
	if (asprintf(&path, "%s-lock", database->path) < 0)
		return false;
	database->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ok = database->lock_fd != -1;
	for (int i = 0; ok && flock(database->lock_fd, LOCK_EX | LOCK_NB) != 0; i++)
	{
		ok = errno == EWOULDBLOCK && i < LOCK_TRIES;
		if (ok)
			usleep(LOCK_TRY_US);
	}
	if (!ok && database->lock_fd != -1 && errno == EWOULDBLOCK)
		snprintf(err, errlen, "\"%s\" is in use by another walletd", database->path);
	else if (!ok)
		snprintf(err, errlen, "could not open \"%s\": %s", path, strerror(errno));
	free(path);
	return ok;
}

bool
database_open(Database *database, const char *path, bool sync_full,
			  char *err, size_t errlen)
{
	int			flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;

	*database = (Database) {.path = path, .in_memory = strcmp(path, ":memory:") == 0,
		.lock_fd = -1};
	if (!take_lock(database, err, errlen))
		return false;
	if (sqlite3_open_v2(path, &database->handle, flags, NULL) != SQLITE_OK)
	{
		snprintf(err, errlen, "could not open \"%s\": %s", path,
				 database_error(database));
		return false;
	}
	sqlite3_busy_timeout(database->handle, 5000);

	/*
	 * A checkpoint is worth its fsyncs only once per many megabytes of log; the
	 * cache holds the index of keys, which is hit at random.
	 */
	if (!run(database, "PRAGMA journal_mode = WAL") ||
		!run(database, sync_full ? "PRAGMA synchronous = FULL"
			 : "PRAGMA synchronous = OFF") ||
		!run(database, "PRAGMA wal_autocheckpoint = 8192") ||
		!run(database, "PRAGMA cache_size = -131072"))
	{
		snprintf(err, errlen, "could not configure \"%s\": %s", path,
				 database_error(database));
		return false;
	}
	if (!set_up_schema(database, err, errlen))
		return false;

	const StatementText texts[] = {
		{&database->begin, "BEGIN IMMEDIATE"},
		{&database->commit, "COMMIT"},
		{&database->rollback, "ROLLBACK"},
	};

	if (database_prepare(database, texts, sizeof(texts) / sizeof(texts[0])))
		return true;
	snprintf(err, errlen, "could not prepare statements: %s", database_error(database));
	return false;
}

void
database_close(Database *database)
{
	sqlite3_stmt *statement;

	while (database->handle != NULL &&
		   (statement = sqlite3_next_stmt(database->handle, NULL)) != NULL)
		sqlite3_finalize(statement);
	sqlite3_close(database->handle);
	database->handle = NULL;
	if (database->lock_fd != -1)
		close(database->lock_fd);
	database->lock_fd = -1;
}

bool
database_begin(Database *database)
{
	return statement_run(database->begin);
}

bool
database_commit(Database *database)
{
	return statement_run(database->commit);
}

void
database_rollback(Database *database)
{
	if (!sqlite3_get_autocommit(database->handle))
		statement_run(database->rollback);
}

bool
database_prepare(Database *database, const StatementText *texts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (sqlite3_prepare_v3(database->handle, texts[i].sql, -1,
							   SQLITE_PREPARE_PERSISTENT, texts[i].statement,
							   NULL) != SQLITE_OK)
			return false;
	return true;
}

const char *
database_error(const Database *database)
{
	return sqlite3_errmsg(database->handle);
}

bool
statement_run(sqlite3_stmt *statement)
{
	bool		ok = sqlite3_step(statement) == SQLITE_DONE;

	sqlite3_reset(statement);
	return ok;
}

void
bind_text(sqlite3_stmt *statement, int index, const char *text)
{
	if (text == NULL)
		sqlite3_bind_null(statement, index);
	else
		sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
}

const char *
column_text(sqlite3_stmt *statement, int column)
{
	const unsigned char *text = sqlite3_column_text(statement, column);

	return text == NULL ? "" : (const char *) text;
}
