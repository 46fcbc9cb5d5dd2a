/*
 * answers.h
 *	  What the wallet remembers besides money: the answer of each idempotency
 *	  key, and the highest epoch seen of each lineage of databases.
 *
 * Writes happen inside the caller's transaction, together with the postings
 * that an answer speaks of.
 */
#ifndef WALLET_ANSWERS_H
#define WALLET_ANSWERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "database.h"
#include "text.h"

#define FINGERPRINT_LEN 32

typedef struct Answers
{
	Database   *database;
	sqlite3_stmt *find;
	sqlite3_stmt *add;
	sqlite3_stmt *forget_one;
	sqlite3_stmt *forget_older;
	sqlite3_stmt *set_epoch;
	sqlite3_stmt *set_epochs;
	sqlite3_stmt *get_epoch;
	sqlite3_stmt *highest_epoch;
} Answers;

typedef struct StoredAnswer
{
	unsigned char fingerprint[FINGERPRINT_LEN];
	int			status;
	char	   *body;			/* malloc'ed, the caller's */
	size_t		length;
} StoredAnswer;

typedef enum AnswerSearch
{
	ANSWER_FOUND,
	ANSWER_NONE,
	ANSWER_FAILED
} AnswerSearch;

extern bool answers_open(Answers *answers, Database *database);

/* SHA-256 of a request body.  The same bytes are the same request. */
extern void fingerprint_make(unsigned char out[FINGERPRINT_LEN],
							 const void *body, size_t length);

extern AnswerSearch answers_find(Answers *answers, const char *key, StoredAnswer *out);
extern bool answers_add(Answers *answers, const char *key,
						const unsigned char fingerprint[FINGERPRINT_LEN],
						int status, const char *body, int64_t now);

/* The number forgotten, -1 when the database failed. */
extern int	answers_forget(Answers *answers, const char *key);
extern int	answers_forget_older(Answers *answers, int64_t before);

/* The highest epoch seen of a lineage ("" = of who names none); 0: none yet. */
extern int64_t answers_epoch(Answers *answers, const char *lineage);
extern bool answers_set_epoch(Answers *answers, const char *lineage, int64_t epoch);

/* Of all lineages. */
extern int64_t answers_highest_epoch(Answers *answers);
extern bool answers_set_epochs(Answers *answers, int64_t epoch);

#endif
