/*
 * options.h
 *	  The command line.
 */
#ifndef WALLET_OPTIONS_H
#define WALLET_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct Options
{
	const char *listen;
	struct sockaddr_storage address;	/* of listen */
	socklen_t	address_len;
	bool		loopback;		/* nobody else can reach it */
	const char *port_file;
	const char *database;
	bool		sync_full;
	const char *tls_cert;
	const char *tls_key;
	const char *tls_client_ca;
	char	   *authorization;	/* a secret; NULL: none is asked for */
	const char *fee_account;
	bool		reservations;
	bool		admin;
	uint64_t	seed;
	const char *faults;
	const char *log;
} Options;

typedef enum OptionsResult
{
	OPTIONS_RUN,
	OPTIONS_EXIT_OK,			/* --help or --version was printed */
	OPTIONS_EXIT_BAD			/* a message was printed */
} OptionsResult;

extern OptionsResult options_read(Options *options, int argc, char **argv);
extern void options_free(Options *options);

#endif
