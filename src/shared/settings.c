/*
 * settings.c
 *	  Registers the settlement.* settings.
 *
 * Each has the narrowest context that works: what the workers re-read on SIGHUP
 * is PGC_SIGHUP, so that no session can change how money moves; what may differ
 * between databases (ALTER DATABASE ... SET) is PGC_SUSET.  Paths are shown to
 * superusers only.
 */
#include "postgres.h"

#include <limits.h>

#include "miscadmin.h"
#include "utils/guc.h"

#include "pgver.h"
#include "shared/settings.h"
#include "shared/shmem.h"
#include "wallet/client.h"

bool		settlement_enabled = true;
char	   *settlement_databases = NULL;
int			settlement_workers = 2;
int			settlement_max_workers = 8;
int			settlement_concurrency = 64;
bool		settlement_adaptive_concurrency = false;
int			settlement_batch_size = 1;
char	   *settlement_wallet_url = NULL;
char	   *settlement_wallet_adapter = NULL;
bool		settlement_wallet_lookup = true;
char	   *settlement_wallet_auth_file = NULL;
char	   *settlement_wallet_ca_file = NULL;
char	   *settlement_wallet_cert_file = NULL;
char	   *settlement_wallet_key_file = NULL;
int			settlement_plain_http = PLAIN_HTTP_LOOPBACK;
int			settlement_connect_timeout = 1000;
int			settlement_request_timeout = 5000;
int			settlement_pending_timeout = 600000;
int			settlement_max_response_size = 64;
int			settlement_max_attempts = 3;
int			settlement_retry_initial_backoff = 100;
double		settlement_retry_multiplier = 2.0;
int			settlement_retry_max_backoff = 5000;
double		settlement_retry_jitter = 0.2;
bool		settlement_dead_letter_on_outage = false;
int			settlement_idempotency_window = 86400;
int			settlement_max_queue_depth = 0;
double		settlement_rate_limit = 0;
int			settlement_breaker_failures = 10;
int			settlement_breaker_suspects = 5;
int			settlement_breaker_initial_open = 250;
int			settlement_breaker_max_open = 2000;
int			settlement_shutdown_timeout = 7000;
int			settlement_poll_interval = 1000;
int			settlement_apply_timeout = 2000;
int			settlement_attempt_history = ATTEMPT_HISTORY_FAILURES;
int			settlement_attempt_retention = 30 * 24 * 60;
char	   *settlement_site_file = NULL;
int			settlement_log_settlements = LOG_SETTLEMENTS_FAILURES;
int			settlement_log_attempts = 10;
double		settlement_log_sample_rate = 1.0;
bool		settlement_trace_sampled = true;
bool		settlement_force_drop = false;
int			settlement_send_after = SEND_AFTER_LOCAL;

static const struct config_enum_entry plain_http_options[] = {
	{"never", PLAIN_HTTP_NEVER, false},
	{"loopback", PLAIN_HTTP_LOOPBACK, false},
	{"always", PLAIN_HTTP_ALWAYS, false},
	{NULL, 0, false}
};

static const struct config_enum_entry attempt_history_options[] = {
	{"failures", ATTEMPT_HISTORY_FAILURES, false},
	{"all", ATTEMPT_HISTORY_ALL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry log_settlements_options[] = {
	{"none", LOG_SETTLEMENTS_NONE, false},
	{"failures", LOG_SETTLEMENTS_FAILURES, false},
	{"all", LOG_SETTLEMENTS_ALL, false},
	{NULL, 0, false}
};

static const struct config_enum_entry send_after_options[] = {
	{"local", SEND_AFTER_LOCAL, false},
	{"standby", SEND_AFTER_STANDBY, false},
	{NULL, 0, false}
};

/* A URL that the client could not use is refused when it is set. */
static bool
check_wallet_url(char **newval, void **extra, GucSource source)
{
	const char *why;

	if (*newval == NULL || **newval == '\0')
		return true;
	why = wallet_check_url(*newval);
	if (why == NULL)
		return true;
	/* Not the value itself, as the usual message would: it may hold a password. */
	GUC_check_errmsg("invalid value for parameter \"%s\"", "settlement.wallet_url");
	GUC_check_errdetail("The URL cannot be used: %s.", why);
	return false;
}

static bool
check_adapter(char **newval, void **extra, GucSource source)
{
	if (*newval != NULL && strcmp(*newval, "native") == 0)
		return true;
	GUC_check_errdetail("Available adapters: native.");
	return false;
}

static void
define_bool(const char *name, const char *desc, bool *var, bool boot,
			GucContext context)
{
	DefineCustomBoolVariable(name, desc, NULL, var, boot, context, 0,
							 NULL, NULL, NULL);
}

static void
define_int(const char *name, const char *desc, int *var, int boot, int min,
		   int max, GucContext context, int unit)
{
	DefineCustomIntVariable(name, desc, NULL, var, boot, min, max, context,
							unit, NULL, NULL, NULL);
}

static void
define_real(const char *name, const char *desc, double *var, double boot,
			double min, double max)
{
	DefineCustomRealVariable(name, desc, NULL, var, boot, min, max,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* A path: may name where secrets are, so superusers only. */
static void
define_path(const char *name, const char *desc, char **var)
{
	DefineCustomStringVariable(name, desc, NULL, var, "", PGC_SIGHUP,
							   GUC_SUPERUSER_ONLY, NULL, NULL, NULL);
}

static void
define_wallet_settings(void)
{
	DefineCustomStringVariable("settlement.wallet_url",
							   "Base URL of the wallet service.",
							   "Can be set per database with ALTER DATABASE.",
							   &settlement_wallet_url, "", PGC_SUSET, 0,
							   check_wallet_url, NULL, NULL);
	DefineCustomStringVariable("settlement.wallet_adapter",
							   "How the wallet is spoken to.", NULL,
							   &settlement_wallet_adapter, "native", PGC_SIGHUP,
							   0, check_adapter, NULL, NULL);
	define_bool("settlement.wallet_lookup",
				"The wallet can be asked what it knows of a key.",
				&settlement_wallet_lookup, true, PGC_SIGHUP);
	define_path("settlement.wallet_auth_file",
				"File with the value of the Authorization header.",
				&settlement_wallet_auth_file);
	define_path("settlement.wallet_ca_file",
				"File with the certificates that may sign the wallet's.",
				&settlement_wallet_ca_file);
	define_path("settlement.wallet_cert_file",
				"File with the client certificate.",
				&settlement_wallet_cert_file);
	define_path("settlement.wallet_key_file",
				"File with the client certificate's private key.",
				&settlement_wallet_key_file);
	DefineCustomEnumVariable("settlement.plain_http",
							 "Where the wallet may be reached without TLS.",
							 NULL, &settlement_plain_http, PLAIN_HTTP_LOOPBACK,
							 plain_http_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_int("settlement.connect_timeout",
			   "Longest wait for a connection to the wallet.",
			   &settlement_connect_timeout, 1000, 1, 600000, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("settlement.request_timeout",
			   "Longest wait for the wallet's reply.",
			   &settlement_request_timeout, 5000, 1, 600000, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("settlement.pending_timeout",
			   "How long the wallet may answer \"not finished yet\" for one trade while it answers others.",
			   &settlement_pending_timeout, 600000, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("settlement.max_response_size",
			   "Largest reply that is read.",
			   &settlement_max_response_size, 64, 1, 16384, PGC_SIGHUP, GUC_UNIT_KB);
}

static void
define_retry_settings(void)
{
	define_int("settlement.max_attempts",
			   "Charged attempts after which a trade is dead-lettered.",
			   &settlement_max_attempts, 3, 1, 1000, PGC_SIGHUP, 0);
	define_int("settlement.retry_initial_backoff",
			   "Wait before the first retry.",
			   &settlement_retry_initial_backoff, 100, 1, 3600000, PGC_SIGHUP, GUC_UNIT_MS);
	define_real("settlement.retry_multiplier",
				"Each further wait is longer by this factor.",
				&settlement_retry_multiplier, 2.0, 1.0, 100.0);
	define_int("settlement.retry_max_backoff",
			   "Longest wait between retries.",
			   &settlement_retry_max_backoff, 5000, 1, 86400000, PGC_SIGHUP, GUC_UNIT_MS);
	define_real("settlement.retry_jitter",
				"Part by which waits are spread at random.",
				&settlement_retry_jitter, 0.2, 0.0, 1.0);
	define_bool("settlement.dead_letter_on_outage",
				"Charge every failed attempt, also when the wallet answers nobody.",
				&settlement_dead_letter_on_outage, false, PGC_SIGHUP);
	define_int("settlement.idempotency_window",
			   "How long the wallet remembers a key; an unknown trade is not resent later.",
			   &settlement_idempotency_window, 86400, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S);
	define_int("settlement.max_queue_depth",
			   "Queued trades above which a new one is dead-lettered as queue_full; 0 = no limit.",
			   &settlement_max_queue_depth, 0, 0, INT_MAX, PGC_SIGHUP, 0);
	define_real("settlement.rate_limit",
				"Most requests per second and database; 0 = no limit.",
				&settlement_rate_limit, 0, 0, 1e9);
	define_int("settlement.breaker_failures",
			   "Failures of the wallet in a row that open the circuit breaker.",
			   &settlement_breaker_failures, 10, 1, 1000000, PGC_SIGHUP, 0);
	define_int("settlement.breaker_suspects",
			   "Different trades in a row that draw an unexpected 4xx and so open the circuit breaker.",
			   &settlement_breaker_suspects, 5, 1, 1000000, PGC_SIGHUP, 0);
	define_int("settlement.breaker_initial_open",
			   "How long the circuit breaker stays open at first.",
			   &settlement_breaker_initial_open, 250, 1, 3600000, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("settlement.breaker_max_open",
			   "How long the circuit breaker stays open at most.",
			   &settlement_breaker_max_open, 2000, 1, 3600000, PGC_SIGHUP, GUC_UNIT_MS);
}

static void
define_worker_settings(void)
{
	define_bool("settlement.enabled",
				"Send settlements; off stops all sending.",
				&settlement_enabled, true, PGC_SIGHUP);
	DefineCustomEnumVariable("settlement.send_after",
							 "Where a claim must be on disk before its requests are sent.",
							 "standby: also on the synchronous standbys.",
							 &settlement_send_after, SEND_AFTER_LOCAL,
							 send_after_options, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("settlement.databases",
							   "Databases whose trades are settled; empty = every one with the extension.",
							   NULL, &settlement_databases, "", PGC_SIGHUP,
							   GUC_LIST_INPUT, NULL, NULL, NULL);
	define_int("settlement.workers", "Workers per database.",
			   &settlement_workers, 2, 0, 64, PGC_SUSET, 0);
	define_int("settlement.max_workers", "Workers of all databases together.",
			   &settlement_max_workers, 8, 1, 256,
			   /* a session that loads the library late cannot have the former */
			   process_shared_preload_libraries_in_progress ? PGC_POSTMASTER : PGC_SIGHUP,
			   0);
	define_int("settlement.concurrency",
			   "Trades that one worker may have at the wallet at a time.",
			   &settlement_concurrency, 64, 1, MAX_CONCURRENCY, PGC_SIGHUP, 0);
	define_bool("settlement.adaptive_concurrency",
				"Find out how many requests the wallet can take, up to settlement.concurrency.",
				&settlement_adaptive_concurrency, false, PGC_SIGHUP);
	define_int("settlement.batch_size",
			   "Most trades in one request, for a wallet that takes batches; 1 = each alone.",
			   &settlement_batch_size, 1, 1, 1000, PGC_SIGHUP, 0);
	define_int("settlement.shutdown_timeout",
			   "How long a worker that stops waits for its requests.",
			   &settlement_shutdown_timeout, 7000, 0, 600000, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("settlement.poll_interval",
			   "How often an idle worker looks without having been woken.",
			   &settlement_poll_interval, 1000, 10, 3600000, PGC_SIGHUP, GUC_UNIT_MS);
	define_int("settlement.apply_timeout",
			   "Longest time that writing outcomes to trade rows may take per turn.",
			   &settlement_apply_timeout, 2000, 1, 600000, PGC_SIGHUP, GUC_UNIT_MS);
	DefineCustomEnumVariable("settlement.attempt_history",
							 "Which requests are kept in settlement.attempts.",
							 NULL, &settlement_attempt_history,
							 ATTEMPT_HISTORY_FAILURES, attempt_history_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_int("settlement.attempt_retention",
			   "How long settlement.attempts are kept.",
			   &settlement_attempt_retention, 30 * 24 * 60, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_MIN);
	define_path("settlement.site_file",
				"File outside the data directory with a token that every node that may send has.",
				&settlement_site_file);
	DefineCustomEnumVariable("settlement.log_settlements",
							 "Which outcomes are written to the server log.",
							 NULL, &settlement_log_settlements,
							 LOG_SETTLEMENTS_FAILURES, log_settlements_options,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	define_int("settlement.log_attempts",
			   "Failed attempts that are written to the server log per class, worker and minute; the others are summed up.",
			   &settlement_log_attempts, 10, 0, 1000000, PGC_SIGHUP, 0);
	define_real("settlement.log_sample_rate",
				"Part of the settled trades that is written to the server log with settlement.log_settlements = all.",
				&settlement_log_sample_rate, 1.0, 0.0, 1.0);
	define_bool("settlement.trace_sampled",
				"The traceparent header asks the wallet to record the trace.",
				&settlement_trace_sampled, true, PGC_SIGHUP);
	define_bool("settlement.force_drop",
				"Let DROP EXTENSION discard trades that are not settled.",
				&settlement_force_drop, false, PGC_SUSET);
}

void
settings_define(void)
{
	define_wallet_settings();
	define_retry_settings();
	define_worker_settings();
	MarkGUCPrefixReserved("settlement");
}
