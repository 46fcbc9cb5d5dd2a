/*
 * server.c
 *	  Set-up, the one loop, tear-down.
 *
 * A turn: wait for sockets, timers, signals; accept; read and dispatch; commit
 * what is to be settled; write the answers.  The wait is the only place that
 * blocks, and the commit the only one that may take long.
 */
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "audit_job.h"
#include "batch.h"
#include "http.h"

#define FAULTS_FILE_MAX (16 * 1024 * 1024)

static bool
open_signals(Server *server)
{
	sigset_t	ends;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	if (pthread_sigmask(SIG_BLOCK, &ends, NULL) != 0)
		return false;
	server->signal_fd = signalfd(-1, &ends, SFD_NONBLOCK | SFD_CLOEXEC);
	return server->signal_fd != -1;
}

/* A connection costs a descriptor; the soft limit is often 1024. */
static void
raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static bool
load_faults(Server *server)
{
	const char *path = server->options->faults;
	char		err[300];
	json_error_t error;
	char	   *text;
	json_t	   *rules;
	bool		ok;

	server->faults.seed = server->options->seed;
	if (path == NULL)
		return true;
	text = file_read(path, FAULTS_FILE_MAX, NULL);
	if (text == NULL)
	{
		log_message(&server->log, "could not read \"%s\": %s", path, strerror(errno));
		return false;
	}
	rules = json_loads(text, JSON_REJECT_DUPLICATES, &error);
	free(text);
	if (rules == NULL)
	{
		log_message(&server->log, "\"%s\", line %d: %s", path, error.line, error.text);
		return false;
	}
	ok = faults_load(&server->faults, rules, true, err, sizeof(err));
	json_decref(rules);
	if (!ok)
		log_message(&server->log, "\"%s\": %s", path, err);
	return ok;
}

static bool
open_ledger(Server *server)
{
	const Options *options = server->options;
	char		err[300];

	if (!database_open(&server->database, options->database, options->sync_full,
					   err, sizeof(err)))
	{
		log_message(&server->log, "%s", err);
		return false;
	}
	if (ledger_open(&server->ledger, &server->database, options->fee_account,
					options->reservations) &&
		answers_open(&server->answers, &server->database))
		return true;
	log_message(&server->log, "could not open the ledger: %s",
				database_error(&server->database));
	return false;
}

static bool
open_listener(Server *server)
{
	const Options *options = server->options;
	char		port[16];

	if (!listener_open(&server->listener, &options->address, options->address_len))
	{
		log_message(&server->log, "could not listen on %s: %s", options->listen,
					strerror(errno));
		return false;
	}
	snprintf(port, sizeof(port), "%d\n", listener_port(&server->listener));
	if (options->port_file != NULL && !file_write_atomic(options->port_file, port))
	{
		log_message(&server->log, "could not write \"%s\": %s", options->port_file,
					strerror(errno));
		return false;
	}
	return true;
}

bool
server_open(Server *server, const Options *options)
{
	char		err[300];

	*server = (Server) {.options = options, .signal_fd = -1, .wake_pipe = {-1, -1},
		.listener = {.fd = -1}, .database = {.lock_fd = -1}};
	raise_file_limit();
	if (!log_open(&server->log, options->log))
	{
		log_message(&server->log, "could not open \"%s\": %s", options->log,
					strerror(errno));
		return false;
	}
	if (!open_signals(server) ||
		pipe2(server->wake_pipe, O_NONBLOCK | O_CLOEXEC) != 0)
	{
		log_message(&server->log, "could not set up: %s", strerror(errno));
		return false;
	}
	if (!tls_open(&server->tls, options, err, sizeof(err)))
	{
		log_message(&server->log, "%s", err);
		return false;
	}
	if (!load_faults(server) || !open_ledger(server))
		return false;
	if (!options->loopback && options->authorization == NULL)
		log_message(&server->log, "warning: anyone who can reach %s can use this wallet,"
					" because there is no --auth", options->listen);
	if (!http_start(server))
	{
		log_message(&server->log, "could not start the HTTP server");
		return false;
	}
	return open_listener(server);
}

static int
sooner(int a, int b)
{
	if (a < 0)
		return b;
	return b < 0 || a < b ? a : b;
}

/* True: a signal asks for the end. */
static bool
turn(Server *server, struct pollfd waits[4])
{
	if (waits[0].revents != 0)
		return true;
	if (waits[2].revents != 0)
		audit_collect(server);
	if (waits[3].revents != 0 && waits[3].fd != -1)
		http_accept(server, waits[3].fd);
	http_run(server);
	timers_run(&server->timers, time_monotonic_us());
	while (batch_waiting(server))
		batch_run(server);
	http_run(server);
	return false;
}

bool
server_run(Server *server)
{
	struct pollfd waits[4] = {
		{.fd = server->signal_fd, .events = POLLIN},
		{.fd = server->daemon_fd, .events = POLLIN},
		{.fd = server->wake_pipe[0], .events = POLLIN},
		{.fd = -1, .events = POLLIN},
	};

	for (;;)
	{
		int64_t		now = time_monotonic_us();
		int			wait = http_wait_ms(server);

		waits[3].fd = listener_poll_fd(&server->listener, now);
		wait = sooner(wait, timers_wait_ms(&server->timers, now));
		wait = sooner(wait, listener_wait_ms(&server->listener, now));
		if (batch_waiting(server))
			wait = 0;			/* came in with the answers of the last turn */
		if (wait != 0)
			log_flush(&server->log);
		if (poll(waits, 4, wait) < 0 && errno != EINTR)
			return false;
		if (turn(server, waits))
			return true;
	}
}

void
server_close(Server *server)
{
	server->stopping = true;
	listener_close(&server->listener);
	audit_stop(server);
	if (batch_waiting(server))
		batch_run(server);
	http_stop(server);
	timers_free(&server->timers);
	faults_clear(&server->faults);
	ledger_close(&server->ledger);
	database_close(&server->database);
	tls_close(&server->tls);
	log_close(&server->log);
	for (int i = 0; i < 2; i++)
		if (server->wake_pipe[i] != -1)
			close(server->wake_pipe[i]);
	if (server->signal_fd != -1)
		close(server->signal_fd);
}
