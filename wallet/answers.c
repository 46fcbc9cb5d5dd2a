/*
 * answers.c
 *	  What the wallet remembers besides money: the answer of each idempotency
 *	  key, and the highest epoch seen of each lineage of databases.
 */
#include "answers.h"

#include <stdlib.h>
#include <string.h>

#include <gnutls/crypto.h>

bool
answers_open(Answers *answers, Database *database)
{
	const StatementText texts[] = {
		{&answers->find,
			"SELECT fingerprint, status, body FROM answers WHERE key = ?1"},
		{&answers->add,
			"INSERT INTO answers (key, fingerprint, status, body, at)"
			" VALUES (?1, ?2, ?3, ?4, ?5)"},
		{&answers->forget_one, "DELETE FROM answers WHERE key = ?1"},
		{&answers->forget_older, "DELETE FROM answers WHERE at < ?1"},
		{&answers->set_epoch, "REPLACE INTO epochs VALUES (?1, ?2)"},
		{&answers->set_epochs, "UPDATE epochs SET epoch = ?1"},
		{&answers->get_epoch, "SELECT epoch FROM epochs WHERE lineage = ?1"},
		{&answers->highest_epoch, "SELECT max(epoch) FROM epochs"},
	};

	*answers = (Answers) {.database = database};
	return database_prepare(database, texts, sizeof(texts) / sizeof(texts[0]));
}

void
fingerprint_make(unsigned char out[FINGERPRINT_LEN], const void *body, size_t length)
{
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, body, length, out) != 0)
		abort();				/* only without SHA-256 in the library */
}

AnswerSearch
answers_find(Answers *answers, const char *key, StoredAnswer *out)
{
	AnswerSearch result = ANSWER_FAILED;
	sqlite3_stmt *find = answers->find;

	bind_text(find, 1, key);
	switch (sqlite3_step(find))
	{
		case SQLITE_ROW:
			if (sqlite3_column_bytes(find, 0) != FINGERPRINT_LEN)
				break;
			memcpy(out->fingerprint, sqlite3_column_blob(find, 0), FINGERPRINT_LEN);
			out->status = sqlite3_column_int(find, 1);
			out->body = strdup(column_text(find, 2));
			if (out->body == NULL)
				break;
			out->length = strlen(out->body);
			result = ANSWER_FOUND;
			break;
		case SQLITE_DONE:
			result = ANSWER_NONE;
			break;
	}
	sqlite3_reset(find);
	return result;
}

bool
answers_add(Answers *answers, const char *key,
			const unsigned char fingerprint[FINGERPRINT_LEN],
			int status, const char *body, int64_t now)
{
	bind_text(answers->add, 1, key);
	sqlite3_bind_blob(answers->add, 2, fingerprint, FINGERPRINT_LEN, SQLITE_STATIC);
	sqlite3_bind_int(answers->add, 3, status);
	bind_text(answers->add, 4, body);
	sqlite3_bind_int64(answers->add, 5, now);
	return statement_run(answers->add);
}

static int
run_counted(Answers *answers, sqlite3_stmt *statement)
{
	if (!statement_run(statement))
		return -1;
	return sqlite3_changes(answers->database->handle);
}

int
answers_forget(Answers *answers, const char *key)
{
	bind_text(answers->forget_one, 1, key);
	return run_counted(answers, answers->forget_one);
}

int
answers_forget_older(Answers *answers, int64_t before)
{
	sqlite3_bind_int64(answers->forget_older, 1, before);
	return run_counted(answers, answers->forget_older);
}

/* The number in the row that the statement returns, 0 without one. */
static int64_t
read_number(sqlite3_stmt *statement)
{
	int64_t		result = sqlite3_step(statement) == SQLITE_ROW ?
		sqlite3_column_int64(statement, 0) : 0;

	sqlite3_reset(statement);
	return result;
}

int64_t
answers_epoch(Answers *answers, const char *lineage)
{
	bind_text(answers->get_epoch, 1, lineage);
	return read_number(answers->get_epoch);
}

int64_t
answers_highest_epoch(Answers *answers)
{
	return read_number(answers->highest_epoch);
}

bool
answers_set_epoch(Answers *answers, const char *lineage, int64_t epoch)
{
	bind_text(answers->set_epoch, 1, lineage);
	sqlite3_bind_int64(answers->set_epoch, 2, epoch);
	return statement_run(answers->set_epoch);
}

bool
answers_set_epochs(Answers *answers, int64_t epoch)
{
	sqlite3_bind_int64(answers->set_epochs, 1, epoch);
	return statement_run(answers->set_epochs) && answers_set_epoch(answers, "", epoch);
}
