/*
 * server.h
 *	  A small HTTP server that misbehaves on purpose, in threads of the test.
 *
 * Each request that was read whole is counted and handed to the test's script,
 * which answers in any way it likes.
 */
#ifndef SETTLEMENT_TEST_SERVER_H
#define SETTLEMENT_TEST_SERVER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct Server Server;

typedef struct Request
{
	Server	   *server;
	int			fd;
	void	   *ssl;			/* NULL: plain */
	int			n;				/* of this server, from 1 */
	int			n_here;			/* of this connection, from 1 */
	char		head[8192];		/* request line and headers */
	char		body[16384];
	char		key[64];		/* Idempotency-Key, or "" */
	char		scratch[64];	/* the script's, for the life of the connection */
} Request;

/* Answer one request; false closes the connection. */
typedef bool (*Script) (Request *request);

/* cert and key files, or NULL for plain http.  Listens on 127.0.0.1. */
extern Server *server_start(Script script, const char *cert, const char *key);

/* The same over TLS, with a certificate of this CA asked of the client. */
extern Server *server_start_mutual(Script script, const char *cert, const char *key,
								   const char *client_ca);
extern void server_stop(Server *server);

extern int	server_port(const Server *server);
extern int	server_requests(Server *server);
extern int	server_connections(Server *server);

/* Most connections that were open at one time. */
extern int	server_peak(Server *server);
extern const Request *server_last_request(Server *server);

/* No new connection after this: they are refused. */
extern void server_stop_listening(Server *server);

/* Wait until so many requests were read; false after 5 s. */
extern bool server_wait_requests(Server *server, int n);

/* For scripts. */
extern void send_bytes(Request *request, const char *bytes, size_t len);
extern void send_text(Request *request, const char *text);

/* A whole reply with a body; status is "200 OK" and the like. */
extern void send_reply(Request *request, const char *status, const char *body);

/* The good reply to this request: its settlement id is "s-" and the key. */
extern void send_success(Request *request);

/*
 * The keys of a batch, in its order; how many.  Each is NUL terminated.
 */
#define BATCH_KEYS_MAX	32
extern int	batch_keys(const Request *request, char keys[BATCH_KEYS_MAX][64]);

/* The good reply to each trade of this batch. */
extern void send_batch_success(Request *request);

/* Make the close that follows a reset. */
extern void reset_on_close(Request *request);
extern void sleep_ms(int ms);

#endif
