/*
 * tls.h
 *	  Certificates: what the HTTP library is given, and who may connect.
 */
#ifndef WALLET_TLS_H
#define WALLET_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <microhttpd.h>

#include "options.h"

typedef struct Tls
{
	bool		enabled;
	char	   *cert;			/* PEM texts */
	char	   *key;			/* a secret */
	char	   *client_ca;		/* NULL: clients need no certificate */
} Tls;

/* Reads and checks the files.  False with a message. */
extern bool tls_open(Tls *tls, const Options *options, char *err, size_t errlen);
extern void tls_close(Tls *tls);

/*
 * At the start of a connection: make the handshake itself fail for a client
 * whose certificate is missing or not signed by the CA.
 */
extern void tls_demand_certificate(const Tls *tls, struct MHD_Connection *connection);

#endif
