/*
 * tls.c
 *	  Certificates: what the HTTP library is given, and who may connect.
 */
#include "tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gnutls/gnutls.h>

#include "text.h"

#define PEM_MAX (1024 * 1024)

static bool
read_pem(char **out, const char *path, char *err, size_t errlen)
{
	*out = file_read(path, PEM_MAX, NULL);
	if (*out == NULL)
		snprintf(err, errlen, "could not read \"%s\": %s", path, strerror(errno));
	return *out != NULL;
}

/* The HTTP library would only say that it did not start. */
static bool
check_pair(const Tls *tls, char *err, size_t errlen)
{
	gnutls_certificate_credentials_t credentials;
	gnutls_datum_t cert = {(unsigned char *) tls->cert, (unsigned int) strlen(tls->cert)};
	gnutls_datum_t key = {(unsigned char *) tls->key, (unsigned int) strlen(tls->key)};
	int			rc = gnutls_certificate_allocate_credentials(&credentials);

	if (rc == 0)
	{
		rc = gnutls_certificate_set_x509_key_mem(credentials, &cert, &key,
												 GNUTLS_X509_FMT_PEM);
		gnutls_certificate_free_credentials(credentials);
	}
	if (rc < 0)
		snprintf(err, errlen, "certificate and key cannot be used: %s",
				 gnutls_strerror(rc));
	return rc >= 0;
}

bool
tls_open(Tls *tls, const Options *options, char *err, size_t errlen)
{
	*tls = (Tls) {.enabled = options->tls_cert != NULL};
	if (!tls->enabled)
		return true;
	return read_pem(&tls->cert, options->tls_cert, err, errlen) &&
		read_pem(&tls->key, options->tls_key, err, errlen) &&
		check_pair(tls, err, errlen) &&
		(options->tls_client_ca == NULL ||
		 read_pem(&tls->client_ca, options->tls_client_ca, err, errlen));
}

void
tls_close(Tls *tls)
{
	if (tls->key != NULL)
		explicit_bzero(tls->key, strlen(tls->key));
	free(tls->cert);
	free(tls->key);
	free(tls->client_ca);
	*tls = (Tls) {0};
}

void
tls_demand_certificate(const Tls *tls, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info;

	if (tls->client_ca == NULL)
		return;
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	if (info == NULL)
		return;
	gnutls_certificate_server_set_request((gnutls_session_t) info->tls_session,
										  GNUTLS_CERT_REQUIRE);
	gnutls_session_set_verify_cert((gnutls_session_t) info->tls_session, NULL, 0);
}
