/*
 * wallet_config.c
 *	  The settings of the wallet, and the secret from its file.
 */
#include "postgres.h"

#include "storage/fd.h"

#include "shared/settings.h"
#include "shared/wallet_config.h"

/* First line of the file with the Authorization header's value. */
static bool
read_secret(const char *path, char *out, size_t size)
{
	FILE	   *file = AllocateFile(path, "r");
	bool		ok;

	if (file == NULL)
		return false;
	ok = fgets(out, size, file) != NULL;
	FreeFile(file);
	if (ok)
		out[strcspn(out, "\r\n")] = '\0';
	return ok && out[0] != '\0';
}

bool
wallet_config_read(WalletConfig *config, char secret[MAX_SECRET])
{
	bool		have_auth = settlement_wallet_auth_file[0] != '\0';

	memset(config, 0, sizeof(*config));
	secret[0] = '\0';
	config->adapter = settlement_wallet_adapter;
	config->url = settlement_wallet_url;
	config->authorization = have_auth ? secret : NULL;
	config->ca_file = settlement_wallet_ca_file;
	config->cert_file = settlement_wallet_cert_file;
	config->key_file = settlement_wallet_key_file;
	config->plain_http = settlement_plain_http;
	config->connect_timeout_ms = settlement_connect_timeout;
	config->request_timeout_ms = settlement_request_timeout;
	config->max_response_size = (size_t) settlement_max_response_size * 1024;
	config->max_connections = settlement_concurrency;
	return !have_auth || read_secret(settlement_wallet_auth_file, secret, MAX_SECRET);
}
