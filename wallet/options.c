/*
 * options.c
 *	  The command line: read, checked as a whole, refused with a reason.
 */
#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ledger.h"
#include "text.h"

#define AUTHORIZATION_MAX 8192

static const char usage[] =
	"walletd is a reference wallet: a double-entry ledger behind HTTP.\n"
	"\n"
	"usage: walletd --db FILE|:memory: [option]...\n"
	"\n"
	"  --listen HOST:PORT    where to listen (127.0.0.1:8080); port 0 takes a free one\n"
	"  --port-file FILE      write the port there once listening\n"
	"  --db FILE|:memory:    the ledger\n"
	"  --sync full|off       full: an answer is on disk before it is sent (full)\n"
	"  --tls-cert FILE       serve TLS with this certificate chain (PEM)\n"
	"  --tls-key FILE        and this key\n"
	"  --tls-client-ca FILE  ask clients for a certificate signed by this\n"
	"  --auth FILE           require the Authorization header to be the file's content\n"
	"  --fee-account NAME    who receives the fees (exchange)\n"
	"  --reservations        settle only against open reservations\n"
	"  --admin, --no-admin   serve /admin (on when listening on loopback only)\n"
	"  --seed N              seed of the misbehaviour (1)\n"
	"  --faults FILE         rules of misbehaviour at start (JSON)\n"
	"  --log FILE            a line per request; - for standard error\n"
	"  --help, --version\n";

enum
{
	OPT_LISTEN = 1000, OPT_PORT_FILE, OPT_DB, OPT_SYNC, OPT_TLS_CERT, OPT_TLS_KEY,
	OPT_TLS_CLIENT_CA, OPT_AUTH, OPT_FEE_ACCOUNT, OPT_RESERVATIONS, OPT_ADMIN,
	OPT_NO_ADMIN, OPT_SEED, OPT_FAULTS, OPT_LOG, OPT_HELP, OPT_VERSION
};

static const struct option long_options[] = {
	{"listen", required_argument, NULL, OPT_LISTEN},
	{"port-file", required_argument, NULL, OPT_PORT_FILE},
	{"db", required_argument, NULL, OPT_DB},
	{"sync", required_argument, NULL, OPT_SYNC},
	{"tls-cert", required_argument, NULL, OPT_TLS_CERT},
	{"tls-key", required_argument, NULL, OPT_TLS_KEY},
	{"tls-client-ca", required_argument, NULL, OPT_TLS_CLIENT_CA},
	{"auth", required_argument, NULL, OPT_AUTH},
	{"fee-account", required_argument, NULL, OPT_FEE_ACCOUNT},
	{"reservations", no_argument, NULL, OPT_RESERVATIONS},
	{"admin", no_argument, NULL, OPT_ADMIN},
	{"no-admin", no_argument, NULL, OPT_NO_ADMIN},
	{"seed", required_argument, NULL, OPT_SEED},
	{"faults", required_argument, NULL, OPT_FAULTS},
	{"log", required_argument, NULL, OPT_LOG},
	{"help", no_argument, NULL, OPT_HELP},
	{"version", no_argument, NULL, OPT_VERSION},
	{NULL, 0, NULL, 0}
};

__attribute__((format(printf, 1, 2)))
static bool
refuse(const char *format,...)
{
	va_list		args;

	fputs("walletd: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputs("\nTry \"walletd --help\".\n", stderr);
	return false;
}

/* HOST:PORT with a numeric host; [::1]:80 for IPv6. */
static bool
read_address(Options *options)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
	.ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	char		host[128];
	const char *colon = strrchr(options->listen, ':');
	size_t		length = colon == NULL ? 0 : (size_t) (colon - options->listen);
	const char *from = options->listen;
	int64_t		port;

	if (length >= 2 && from[0] == '[' && from[length - 1] == ']')
	{
		from++;
		length -= 2;
	}
	if (colon == NULL || length == 0 || length >= sizeof(host) ||
		!number_parse(&port, colon + 1, 0, 65535))
		return refuse("--listen must be HOST:PORT, not \"%s\"", options->listen);
	memcpy(host, from, length);
	host[length] = '\0';
	if (getaddrinfo(host, colon + 1, &hints, &found) != 0)
		return refuse("--listen needs a numeric address, not \"%s\"", host);
	memcpy(&options->address, found->ai_addr, found->ai_addrlen);
	options->address_len = found->ai_addrlen;
	freeaddrinfo(found);
	return true;
}

static bool
is_loopback(const Options *options)
{
	if (options->address.ss_family == AF_INET)
	{
		const struct sockaddr_in *in = (const struct sockaddr_in *) &options->address;

		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	}
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *) &options->address)->sin6_addr);
}

static bool
read_authorization(Options *options, const char *path)
{
	size_t		length;
	char	   *content = file_read(path, AUTHORIZATION_MAX, &length);

	if (content == NULL)
		return refuse("could not read the --auth file \"%s\": %s", path, strerror(errno));
	while (length > 0 && strchr("\r\n", content[length - 1]) != NULL)
		content[--length] = '\0';
	free(options->authorization);
	options->authorization = content;
	if (length == 0 || strlen(content) != length || strpbrk(content, "\r\n") != NULL)
		return refuse("the --auth file \"%s\" must hold one line", path);
	return true;
}

static bool
read_one(Options *options, int option, const char *value, int *admin)
{
	int64_t		number;

	switch (option)
	{
		case OPT_LISTEN: options->listen = value; return true;
		case OPT_PORT_FILE: options->port_file = value; return true;
		case OPT_DB: options->database = value; return true;
		case OPT_TLS_CERT: options->tls_cert = value; return true;
		case OPT_TLS_KEY: options->tls_key = value; return true;
		case OPT_TLS_CLIENT_CA: options->tls_client_ca = value; return true;
		case OPT_AUTH: return read_authorization(options, value);
		case OPT_RESERVATIONS: options->reservations = true; return true;
		case OPT_ADMIN: *admin = 1; return true;
		case OPT_NO_ADMIN: *admin = 0; return true;
		case OPT_FAULTS: options->faults = value; return true;
		case OPT_LOG: options->log = value; return true;
		case OPT_SYNC:
			if (strcmp(value, "full") != 0 && strcmp(value, "off") != 0)
				return refuse("--sync must be full or off, not \"%s\"", value);
			options->sync_full = strcmp(value, "full") == 0;
			return true;
		case OPT_SEED:
			if (!number_parse(&number, value, 0, INT64_MAX))
				return refuse("--seed must be a whole number, not \"%s\"", value);
			options->seed = (uint64_t) number;
			return true;
		case OPT_FEE_ACCOUNT:
			if (value[0] == '\0' || strlen(value) > TRADE_ID_MAX ||
				strcmp(value, LEDGER_SOURCE_ACCOUNT) == 0)
				return refuse("--fee-account cannot be \"%s\"", value);
			options->fee_account = value;
			return true;
	}
	return refuse("unknown option");
}

static bool
check(Options *options, int admin)
{
	if (options->database == NULL || options->database[0] == '\0')
		return refuse("--db is required (a file name, or :memory:)");
	if ((options->tls_cert == NULL) != (options->tls_key == NULL))
		return refuse("--tls-cert and --tls-key belong together");
	if (options->tls_client_ca != NULL && options->tls_cert == NULL)
		return refuse("--tls-client-ca needs --tls-cert and --tls-key");
	if (!read_address(options))
		return false;
	options->loopback = is_loopback(options);
	options->admin = admin == -1 ? options->loopback : admin == 1;
	return true;
}

OptionsResult
options_read(Options *options, int argc, char **argv)
{
	int			admin = -1;		/* as the address says */
	int			option;

	*options = (Options) {.listen = "127.0.0.1:8080", .sync_full = true,
		.fee_account = "exchange", .seed = 1};
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", long_options, NULL)) != -1)
	{
		if (option == OPT_HELP)
		{
			fputs(usage, stdout);
			return OPTIONS_EXIT_OK;
		}
		if (option == OPT_VERSION)
		{
			puts("walletd 1.0");
			return OPTIONS_EXIT_OK;
		}
		if (option == ':')
			refuse("%s needs a value", argv[optind - 1]);
		else if (option == '?')
			refuse("unknown option \"%s\"", argv[optind - 1]);
		if (option == ':' || option == '?' ||
			!read_one(options, option, optarg, &admin))
			return OPTIONS_EXIT_BAD;
	}
	if (optind < argc)
	{
		refuse("unexpected argument \"%s\"", argv[optind]);
		return OPTIONS_EXIT_BAD;
	}
	return check(options, admin) ? OPTIONS_RUN : OPTIONS_EXIT_BAD;
}

void
options_free(Options *options)
{
	if (options->authorization != NULL)
		explicit_bzero(options->authorization, strlen(options->authorization));
	free(options->authorization);
	options->authorization = NULL;
}
