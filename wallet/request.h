/*
 * request.h
 *	  One HTTP request on its way through the program.
 *
 * READING -> (PARKED ->) READY -> answered.  A parked request's connection is
 * suspended: it waits for the batch, for a timer or for the audit, and whoever
 * holds it ends that by http_finish.
 */
#ifndef WALLET_REQUEST_H
#define WALLET_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <microhttpd.h>

#include "answers.h"
#include "faults.h"
#include "text.h"
#include "timers.h"
#include "trade.h"

struct Server;
struct Route;

/* One connection; lives as long as its socket. */
typedef struct Peer
{
	int			fd;
	uint64_t	requests;
	bool		tls;
	struct Peer *previous;
	struct Peer *next;
} Peer;

typedef enum RequestState
{
	REQUEST_READING = 0,
	REQUEST_PARKED,
	REQUEST_READY
} RequestState;

typedef enum Ending
{
	END_REPLY = 0,				/* send the reply */
	END_CLOSE,					/* close the connection instead */
	END_RESET,					/* the same, by a TCP reset */
	END_RAW						/* send the body as raw bytes, then close */
} Ending;

typedef struct Reply
{
	int			status;
	char	   *body;			/* malloc'ed */
	size_t		length;
	const char *content_type;	/* NULL: application/json */
	const char *location;
	int64_t		retry_after;	/* seconds; -1: no header */
	struct MHD_Response *stream;	/* instead of body, when not NULL */
	char	   *trailer;		/* bytes sent after the reply, behind the HTTP
								 * library's back; malloc'ed, or NULL */
	size_t		trailer_length;
} Reply;

typedef struct Request
{
	struct Server *server;
	struct MHD_Connection *connection;
	Peer	   *peer;
	const struct Route *route;
	const char *path_argument;	/* what follows the route's path */
	char		method[16];
	char		path[256];		/* cut; for the log and routing */
	bool		path_too_long;
	RequestState state;
	bool		suspended;

	char	   *body;
	size_t		length;
	size_t		capacity;
	bool		body_too_large;

	Ending		ending;
	Reply		reply;

	/* settle and look-up only */
	char		key[UUID_LEN + 1];
	int64_t		epoch;			/* -1: no header */
	bool		has_trade;
	Trade		trade;
	unsigned char fingerprint[FINGERPRINT_LEN];
	Fault		fault;
	bool		counted;		/* in Server.in_flight */
	uint64_t   *counter;		/* of Stats: raised when the batch is committed */

	/* of a batch: a request per trade, which waits and answers with this one */
	struct Request **items;
	size_t		item_count;

	Timer		timer;
	struct Request *next_in_batch;
	struct Request *previous;	/* among all requests of the server */
	struct Request *next;
} Request;

#endif
