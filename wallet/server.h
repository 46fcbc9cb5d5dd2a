/*
 * server.h
 *	  All that the program holds, and its one loop.
 *
 * One thread does everything: it reads what the sockets have, settles in ONE
 * transaction whatever came in meanwhile, and answers after the commit.  The
 * longer a commit takes, the more requests share the next one.  Only the audit,
 * which reads the whole ledger, runs in a thread and on a connection of its own.
 */
#ifndef WALLET_SERVER_H
#define WALLET_SERVER_H

#include <microhttpd.h>

#include "answers.h"
#include "database.h"
#include "faults.h"
#include "ledger.h"
#include "listener.h"
#include "log.h"
#include "options.h"
#include "request.h"
#include "stats.h"
#include "timers.h"
#include "tls.h"

typedef struct Server
{
	const Options *options;
	Database	database;
	Ledger		ledger;
	Answers		answers;
	Faults		faults;
	Stats		stats;
	uint64_t	in_flight;		/* settle and look-up requests */
	Timers		timers;
	Listener	listener;
	Log			log;
	Tls			tls;
	struct MHD_Daemon *daemon;
	int			daemon_fd;
	int			signal_fd;
	int			wake_pipe[2];	/* an audit's thread writes its job's address */
	int			audits;			/* threads that run */
	bool		stopping;		/* read no further request */
	Request    *batch_first;
	Request    *batch_last;
	Peer	   *peers;
	Request    *requests;
} Server;

/* Sets everything up; false after a message on standard error. */
extern bool server_open(Server *server, const Options *options);

/* Until SIGTERM or SIGINT.  False when the loop itself failed. */
extern bool server_run(Server *server);
extern void server_close(Server *server);

#endif
