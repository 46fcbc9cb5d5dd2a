/*
 * audit_job.c
 *	  GET /audit: runs the audit beside the settlements.
 *
 * The thread owns its job and its connection until it has written the job's
 * address to the pipe; then the loop owns the job.  Nothing else is shared.
 */
#include "audit_job.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "audit.h"
#include "http.h"
#include "reply.h"

#define AUDITS_MAX 2

typedef struct AuditJob
{
	Request    *request;		/* parked; the loop's */
	const char *path;
	int			wake_fd;
	pthread_t	thread;
	json_t	   *report;			/* NULL: failed */
} AuditJob;

static void
answer(Request *request, json_t *report)
{
	if (report == NULL)
		reply_error(request, 500, NULL, "the ledger could not be audited");
	else
		reply_json(request, 200, report);
}

static void *
work(void *argument)
{
	AuditJob   *job = argument;
	sqlite3    *database;

	if (sqlite3_open_v2(job->path, &database,
						SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK)
	{
		sqlite3_busy_timeout(database, 5000);
		job->report = audit_run(database);
	}
	sqlite3_close(database);
	if (write(job->wake_fd, &job, sizeof(job)) != (ssize_t) sizeof(job))
		abort();				/* a pipe takes that much in one piece */
	return NULL;
}

void
audit_handle(Request *request)
{
	Server	   *server = request->server;
	AuditJob   *job;

	if (server->database.in_memory)
	{
		/* only this connection can see it */
		answer(request, audit_run(server->database.handle));
		return;
	}
	job = server->audits < AUDITS_MAX ? calloc(1, sizeof(AuditJob)) : NULL;
	if (job != NULL)
		*job = (AuditJob) {.request = request, .path = server->database.path,
			.wake_fd = server->wake_pipe[1]};
	if (job == NULL || pthread_create(&job->thread, NULL, work, job) != 0)
	{
		free(job);
		reply_error(request, 503, NULL, "too many audits at once");
		request->reply.retry_after = 1;
		return;
	}
	server->audits++;
	request->state = REQUEST_PARKED;
}

void
audit_collect(Server *server)
{
	AuditJob   *job;

	while (read(server->wake_pipe[0], &job, sizeof(job)) == (ssize_t) sizeof(job))
	{
		pthread_join(job->thread, NULL);
		server->audits--;
		answer(job->request, job->report);
		http_finish(job->request);
		free(job);
	}
}

void
audit_stop(Server *server)
{
	while (server->audits > 0)
	{
		struct pollfd wait = {.fd = server->wake_pipe[0], .events = POLLIN};

		poll(&wait, 1, -1);
		audit_collect(server);
	}
}
