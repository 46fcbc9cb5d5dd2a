/*
 * batch.c
 *	  Group commit: the settle requests of one turn share one transaction.
 *
 * There is no timer: a batch is whatever came in while the last one was being
 * committed.  If the transaction fails, each of its requests is answered 500 and
 * none has had an effect.
 */
#include "batch.h"

#include "settle.h"

#define BATCH_MAX 1024

void
batch_add(Request *request)
{
	Server	   *server = request->server;

	request->next_in_batch = NULL;
	if (server->batch_last == NULL)
		server->batch_first = request;
	else
		server->batch_last->next_in_batch = request;
	server->batch_last = request;
}

bool
batch_waiting(const Server *server)
{
	return server->batch_first != NULL;
}

static Request *
take(Server *server, uint64_t *size)
{
	Request    *first = server->batch_first;
	Request    *last = first;

	for (*size = 1; *size < BATCH_MAX && last->next_in_batch != NULL; ++*size)
		last = last->next_in_batch;
	server->batch_first = last->next_in_batch;
	if (server->batch_first == NULL)
		server->batch_last = NULL;
	last->next_in_batch = NULL;
	return first;
}

static bool
settle_all(Server *server, Request *first)
{
	if (!database_begin(&server->database))
		return false;
	for (Request *request = first; request != NULL; request = request->next_in_batch)
		if (!settle_in_transaction(request))
			return false;
	return database_commit(&server->database);
}

void
batch_run(Server *server)
{
	uint64_t	size;
	Request    *request;
	Request    *next;
	bool		ok;

	if (!batch_waiting(server))
		return;
	request = take(server, &size);
	ok = settle_all(server, request);
	if (!ok)
	{
		log_message(&server->log, "could not commit a batch of %llu: %s",
					(unsigned long long) size, database_error(&server->database));
		database_rollback(&server->database);
	}
	server->stats.batches++;
	if (size > server->stats.largest_batch)
		server->stats.largest_batch = size;

	for (; request != NULL; request = next)
	{
		next = request->next_in_batch;
		settle_done(request, ok);
	}
}
