/*
 * answers.c
 *	  What the wallet remembers besides money: the answer of each idempotency
 *	  key, and the highest epoch seen.
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
		{&answers->set_epoch, "REPLACE INTO settings VALUES ('epoch', ?1)"},
		{&answers->get_epoch, "SELECT value FROM settings WHERE name = 'epoch'"},
	};

	*answers = (Answers) {.database = database};
	return database_prepare(database, texts, sizeof(texts) / sizeof(texts[0])) &&
		answers_reload(answers);
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

bool
answers_set_epoch(Answers *answers, int64_t epoch)
{
	sqlite3_bind_int64(answers->set_epoch, 1, epoch);
	if (!statement_run(answers->set_epoch))
		return false;
	answers->epoch = epoch;
	return true;
}

bool
answers_reload(Answers *answers)
{
	int			step = sqlite3_step(answers->get_epoch);

	answers->epoch = step == SQLITE_ROW ? sqlite3_column_int64(answers->get_epoch, 0) : 0;
	sqlite3_reset(answers->get_epoch);
	return step == SQLITE_ROW || step == SQLITE_DONE;
}
