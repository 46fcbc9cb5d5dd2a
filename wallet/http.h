/*
 * http.h
 *	  The HTTP library, and only here: connections, requests in, replies out.
 */
#ifndef WALLET_HTTP_H
#define WALLET_HTTP_H

#include <stdbool.h>

#include "server.h"

extern bool http_start(Server *server);

/* Ends what is suspended and closes all connections. */
extern void http_stop(Server *server);

/* Takes new connections from the listening socket, a bounded number. */
extern void http_accept(Server *server, int listen_fd);

/* Reads, dispatches and writes whatever can be without blocking. */
extern void http_run(Server *server);

/* ms until http_run must be called; -1: no bound. */
extern int	http_wait_ms(Server *server);

/* A parked request is to be answered as its ending and reply say. */
extern void http_finish(Request *request);

/* Suspends a reply that is being written, and later goes on with it. */
extern void http_suspend_writing(Request *request);
extern void http_resume_writing(Request *request);

/* Has the client of a suspended request gone? */
extern bool http_client_left(const Request *request);

/* Ends a connection whose reply fails while it is being written. */
extern void http_hang_up(const Request *request);

/* Shuts all connections but that of one request. */
extern void http_drop_connections(Server *server, const Request *except);

extern const char *http_header(const Request *request, const char *name);
extern const char *http_query(const Request *request, const char *name);

#endif
