/*
 * settings.h
 *	  The settlement.* settings, typed, with units; docs/reference.md lists them.
 */
#ifndef SETTLEMENT_SHARED_SETTINGS_H
#define SETTLEMENT_SHARED_SETTINGS_H

/* Durations are in ms unless the name says otherwise. */
extern bool settlement_enabled;
extern char *settlement_databases;
extern int	settlement_workers;
extern int	settlement_max_workers;
extern int	settlement_concurrency;
extern bool settlement_adaptive_concurrency;
extern int	settlement_batch_size;
extern char *settlement_wallet_url;
extern char *settlement_wallet_adapter;
extern bool settlement_wallet_lookup;
extern char *settlement_wallet_auth_file;
extern char *settlement_wallet_ca_file;
extern char *settlement_wallet_cert_file;
extern char *settlement_wallet_key_file;
extern int	settlement_plain_http;	/* enum PlainHttp */
extern int	settlement_connect_timeout;
extern int	settlement_request_timeout;
extern int	settlement_pending_timeout;
extern int	settlement_max_response_size;	/* kB */
extern int	settlement_max_attempts;
extern int	settlement_retry_initial_backoff;
extern double settlement_retry_multiplier;
extern int	settlement_retry_max_backoff;
extern double settlement_retry_jitter;
extern bool settlement_dead_letter_on_outage;
extern int	settlement_idempotency_window;	/* s */
extern int	settlement_max_queue_depth;
extern double settlement_rate_limit;	/* per second and database; 0 = none */
extern int	settlement_breaker_failures;
extern int	settlement_breaker_suspects;
extern int	settlement_breaker_initial_open;
extern int	settlement_breaker_max_open;
extern int	settlement_shutdown_timeout;
extern int	settlement_poll_interval;
extern int	settlement_apply_timeout;
extern int	settlement_attempt_history;	/* ATTEMPT_HISTORY_* */
extern int	settlement_attempt_retention;	/* min */
extern char *settlement_site_file;
extern int	settlement_log_settlements;	/* LOG_SETTLEMENTS_* */
extern int	settlement_log_attempts;	/* per class, worker and minute */
extern double settlement_log_sample_rate;
extern bool settlement_trace_sampled;
extern bool settlement_force_drop;
extern int	settlement_send_after;	/* SEND_AFTER_* */

/* Where the claim must be on disk before a request leaves. */
#define SEND_AFTER_LOCAL	0
#define SEND_AFTER_STANDBY	1

#define ATTEMPT_HISTORY_FAILURES	0
#define ATTEMPT_HISTORY_ALL			1

#define LOG_SETTLEMENTS_NONE		0
#define LOG_SETTLEMENTS_FAILURES	1
#define LOG_SETTLEMENTS_ALL			2

/* Register every setting; called from _PG_init only. */
extern void settings_define(void);

#endif
