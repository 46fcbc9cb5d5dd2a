/*
 * probe_wallet.c
 *	  SQL functions behind doctor(): ask the wallet, now, from this session, and
 *	  look at the files that name it: settlement._probe_wallet(),
 *	  _wallet_files().
 *
 * The probe is a look-up of a key that nobody has, made by the client that the
 * workers use, with the settings of this session: it moves nothing, and what is
 * wrong for it is wrong for them.  It takes no lock, ends within PROBE_MAX_MS and
 * can be cancelled.  Neither function shows a path or a secret.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "api/rows.h"
#include "shared/settings.h"
#include "shared/wallet_config.h"
#include "wallet/certificate.h"

PG_FUNCTION_INFO_V1(settlement_probe_wallet);
PG_FUNCTION_INFO_V1(settlement_wallet_files);

#define PROBE_MAX_MS	3000
#define PROBE_STEP_MS	50		/* how soon a cancel is noticed, at the latest */

/* What became of a probe. */
typedef struct ProbeResult
{
	bool		tried;
	WalletResult result;
	char		problem[256];	/* why it could not be tried */
} ProbeResult;

/* A key that no trade has: version 4, while those of trades are version 5. */
static void
random_key(char key[IDEMPOTENCY_KEY_LEN + 1])
{
	uint8		b[16];

	if (!pg_strong_random(b, sizeof(b)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	b[6] = (b[6] & 0x0f) | 0x40;
	b[8] = (b[8] & 0x3f) | 0x80;
	snprintf(key, IDEMPOTENCY_KEY_LEN + 1,
			 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
			 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
			 b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* Wait for the only request; the client is destroyed by the caller. */
static void
run_probe(WalletClient *client, ProbeResult *probe)
{
	char		key[IDEMPOTENCY_KEY_LEN + 1];
	const WalletResult *result;

	random_key(key);
	probe->tried = wallet_client_submit(client, WALLET_LOOKUP, NULL, key,
										wallet_request_format(client), 0, NULL, NULL);
	while (probe->tried)
	{
		int			wait_ms;

		wallet_client_run(client);
		result = wallet_client_next(client);
		if (result != NULL)
		{
			probe->result = *result;
			return;
		}
		wait_ms = wallet_client_timeout_ms(client);
		wait_ms = wait_ms < 0 ? PROBE_STEP_MS : Min(wait_ms, PROBE_STEP_MS);
		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
								 wallet_client_fd(client), wait_ms, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
probe_wallet(ProbeResult *probe)
{
	static bool initialised = false;
	char		secret[MAX_SECRET];
	WalletConfig config;
	WalletClient *client;
	const char *problem = initialised ? NULL : wallet_global_init();

	memset(probe, 0, sizeof(*probe));
	if (problem != NULL)
	{
		strlcpy(probe->problem, problem, sizeof(probe->problem));
		return;
	}
	initialised = true;
	if (!wallet_config_read(&config, secret))
	{
		strlcpy(probe->problem, "the file that settlement.wallet_auth_file names cannot be read",
				sizeof(probe->problem));
		return;
	}
	config.inspect = true;
	config.max_connections = 1;
	config.connect_timeout_ms = Min(config.connect_timeout_ms, PROBE_MAX_MS);
	config.request_timeout_ms = Min(config.request_timeout_ms, PROBE_MAX_MS);
	client = wallet_client_create(&config, probe->problem, sizeof(probe->problem));
	explicit_bzero(secret, sizeof(secret));
	if (client == NULL)
		return;
	PG_TRY();
	{
		run_probe(client, probe);
	}
	PG_FINALLY();
	{
		wallet_client_destroy(client);
	}
	PG_END_TRY();
}

/* A word for what the wallet said. */
static const char *
verdict_of(const ProbeResult *probe)
{
	const WalletResult *result = &probe->result;

	if (!probe->tried)
		return "not tried";
	switch (result->lookup)
	{
		case LOOKUP_UNKNOWN_KEY:
			return "ok";
		case LOOKUP_SETTLED:
		case LOOKUP_REJECTED:
		case LOOKUP_PENDING:
			return "strange";	/* it claims to know a key that nobody has */
		case LOOKUP_FAILED:
			break;
	}
	return result->verdict.error_class ? result->verdict.error_class : "failed";
}

static Datum
unix_time(int64 seconds)
{
	return TimestampTzGetDatum(time_t_to_timestamptz((pg_time_t) seconds));
}

/*
 * verdict, http_status, message, duration (s), wallet_clock, asked_at (the
 * middle of the exchange), certificate_until.
 */
Datum
settlement_probe_wallet(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	ProbeResult probe;
	const WalletResult *result = &probe.result;
	const char *message;
	Datum		value[7];
	bool		null[lengthof(value)] = {false};

	probe_wallet(&probe);
	message = probe.tried ? result->message : probe.problem;
	message = pg_any_to_server(message, strlen(message), PG_UTF8);
	value[0] = CStringGetTextDatum(verdict_of(&probe));
	value[1] = Int32GetDatum(result->facts.http_status);
	null[1] = result->facts.http_status == 0;
	value[2] = CStringGetTextDatum(message);
	null[2] = message[0] == '\0';
	value[3] = Float8GetDatum(result->duration_us / 1000000.0);
	null[3] = !probe.tried;
	value[4] = unix_time(result->date_s);
	null[4] = result->date_s == 0;
	value[5] = TimestampTzGetDatum(GetCurrentTimestamp() - result->duration_us / 2);
	value[6] = unix_time(result->certificate_until_s);
	null[6] = result->certificate_until_s == 0;
	rows_put(&sink, value, null);
	return (Datum) 0;
}

/* What is wrong with a file that the workers have to read; NULL: nothing. */
static const char *
file_problem(const char *path, bool secret)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return errno == ENOENT ? "there is no such file" : "it cannot be looked at";
	if (!S_ISREG(st.st_mode))
		return "it is not a file";
	if (access(path, R_OK) != 0)
		return "the server may not read it";
	if (st.st_size == 0)
		return "it is empty";
	if (secret && (st.st_mode & (S_IRWXO | S_IWGRP)) != 0)
		return "others may read or change it";
	return NULL;
}

/*
 * setting, problem (NULL: none), until (when our certificate ends; NULL: it is no
 * certificate of ours) of each file that is set.
 */
Datum
settlement_wallet_files(PG_FUNCTION_ARGS)
{
	RowSink		sink = rows_begin(fcinfo);
	const struct
	{
		const char *setting;
		const char *path;
		bool		secret;
	}			files[] = {
		{"settlement.wallet_auth_file", settlement_wallet_auth_file, true},
		{"settlement.wallet_ca_file", settlement_wallet_ca_file, false},
		{"settlement.wallet_cert_file", settlement_wallet_cert_file, false},
		{"settlement.wallet_key_file", settlement_wallet_key_file, true},
		{"settlement.site_file", settlement_site_file, false},
	};

	for (int i = 0; i < lengthof(files); i++)
	{
		const char *problem;
		int64		until = 0;
		Datum		value[3];
		bool		null[lengthof(value)] = {false};

		if (files[i].path == NULL || files[i].path[0] == '\0')
			continue;
		problem = file_problem(files[i].path, files[i].secret);
		if (files[i].path == settlement_wallet_cert_file && problem == NULL)
		{
			until = certificate_until(files[i].path);
			if (until == 0)
				problem = "no certificate can be read in it";
		}
		value[0] = CStringGetTextDatum(files[i].setting);
		value[1] = problem ? CStringGetTextDatum(problem) : (Datum) 0;
		null[1] = problem == NULL;
		value[2] = unix_time(until);
		null[2] = until == 0;
		rows_put(&sink, value, null);
	}
	return (Datum) 0;
}
