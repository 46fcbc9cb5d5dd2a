/*
 * certificate.c
 *	  When our own certificate ends: for doctor(), so that it is noticed before
 *	  the wallet refuses it.  libcurl tells of the wallet's certificate only.
 */
#include "wallet/certificate.h"

#include <stdio.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

int64_t
certificate_until(const char *path)
{
	FILE	   *file = fopen(path, "r");
	X509	   *certificate;
	struct tm	end;
	int64_t		until = 0;

	if (file == NULL)
		return 0;
	certificate = PEM_read_X509(file, NULL, NULL, NULL);
	fclose(file);
	if (certificate != NULL && ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end))
		until = timegm(&end);
	X509_free(certificate);
	/* the server's own TLS finds its queue of errors as it was */
	ERR_clear_error();
	return until;
}
