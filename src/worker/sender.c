/*
 * sender.c
 *	  Requests of a worker: submit, collect, tell breaker and limiter.
 *
 * No transaction is open in here.  A flight is submitted only after its claim
 * is durable; its result is kept until a turn has recorded it.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "pgver.h"
#include "policy/breaker.h"
#include "policy/limiter.h"
#include "policy/tracecontext.h"
#include "queue/decision.h"
#include "queue/in_flight.h"
#include "queue/identity.h"
#include "shared/logline.h"
#include "shared/pace.h"
#include "shared/settings.h"
#include "shared/wallet_config.h"
#include "worker/worker.h"

/* --------------------------------------------------------- configuration */

SendState
sender_configure(Worker *w)
{
	WalletConfig config;
	char		secret[MAX_SECRET];
	char		error[256];

	Assert(w->pool->n_used == 0);
	/* it has the old client's descriptor; the new client may have the same address */
	if (w->wait_set != NULL)
		FreeWaitEventSet(w->wait_set);
	w->wait_set = NULL;
	if (w->client != NULL)
		wallet_client_destroy(w->client);
	w->client = NULL;
	w->reconfigure = false;
	/* it may be another wallet */
	concurrency_init(&w->adaptive, GetCurrentTimestamp());
	batching_forget(w);
	pg_atomic_write_u32(&w->slot->concurrency_limit, sender_concurrency(w));

	if (settlement_wallet_url[0] == '\0')
		return SEND_NO_URL;
	if (!wallet_config_read(&config, secret))
	{
		ereport(LOG,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("could not read the file that settlement.wallet_auth_file names"),
				 errhint("It must be readable by the server and hold the value of the Authorization header in its first line.")));
		return SEND_BAD_CONFIG;
	}
	config.max_pause_ms = SURE_OF_CLAIMS_MS;
	w->client = wallet_client_create(&config, error, sizeof(error));
	explicit_bzero(secret, sizeof(secret));
	if (w->client == NULL)
	{
		ereport(LOG,
				(errcode(ERRCODE_CONFIG_FILE_ERROR),
				 errmsg("could not set up the connection to the wallet: %s", error)));
		return SEND_BAD_CONFIG;
	}
	return SEND_OK;
}

/* ------------------------------------------------- breaker and limiter */

int
sender_concurrency(const Worker *w)
{
	if (!settlement_adaptive_concurrency)
		return settlement_concurrency;
	return concurrency_limit(&w->adaptive, settlement_concurrency);
}

static LoadSignal
load_signal(const TradeFlight *flight)
{
	const Verdict *verdict = &flight->result.verdict;

	if (verdict->slow_down || verdict->signal == SIGNAL_FAILED)
		return LOAD_OVERLOAD;
	/* a look-up is another kind of work: its latency does not compare */
	if (verdict->signal == SIGNAL_ANSWERED && flight->verb == WALLET_SETTLE)
		return LOAD_ANSWERED;
	return LOAD_NONE;
}

/* The flight still counts as one of those under way. */
static void
report_load(Worker *w, const TradeFlight *flight)
{
	if (settlement_adaptive_concurrency)
		concurrency_report(&w->adaptive, load_signal(flight), flight->sent_at,
						   flight->result.duration_us, w->pool->n_used - w->n_answered + 1,
						   settlement_concurrency, flight->answered_at);
	pg_atomic_write_u32(&w->slot->concurrency_limit, sender_concurrency(w));
}

static void
breaker_policy(BreakerPolicy *policy)
{
	policy->failures = settlement_breaker_failures;
	policy->suspects = settlement_breaker_suspects;
	policy->initial_open_ms = settlement_breaker_initial_open;
	policy->max_open_ms = Max(settlement_breaker_max_open, settlement_breaker_initial_open);
	policy->probe_timeout_ms = settlement_connect_timeout + settlement_request_timeout +
		TAKEOVER_GRACE_MS;
}

int
sender_allow(Worker *w, int want, bool *probe)
{
	BreakerPolicy policy;
	TimestampTz now = GetCurrentTimestamp();
	int			n;

	breaker_policy(&policy);
	LWLockAcquire(w->db->policy_lock, LW_EXCLUSIVE);
	n = breaker_allow(&w->db->breaker, &policy, want, now, probe);
	if (n > 0)
	{
		int			granted = limiter_take(&w->db->limiter, settlement_rate_limit, n, now);

		if (granted == 0 && *probe)
		{
			breaker_abandon_probe(&w->db->breaker);
			*probe = false;
		}
		n = granted;
	}
	LWLockRelease(w->db->policy_lock);
	return n;
}

void
sender_return(Worker *w, int unused, bool probe_unused)
{
	if (unused == 0 && !probe_unused)
		return;
	LWLockAcquire(w->db->policy_lock, LW_EXCLUSIVE);
	if (unused > 0)
		limiter_return(&w->db->limiter, unused);
	if (probe_unused)
		breaker_abandon_probe(&w->db->breaker);
	LWLockRelease(w->db->policy_lock);
}

bool
sender_breaker_closed(Worker *w)
{
	bool		result;

	LWLockAcquire(w->db->policy_lock, LW_SHARED);
	result = w->db->breaker.state == BREAKER_CLOSED;
	LWLockRelease(w->db->policy_lock);
	return result;
}

bool
sender_on_hold(Worker *w)
{
	bool		result;

	LWLockAcquire(w->db->policy_lock, LW_SHARED);
	result = limiter_is_held(&w->db->limiter, GetCurrentTimestamp());
	LWLockRelease(w->db->policy_lock);
	return result;
}

bool
sender_unhindered(Worker *w)
{
	bool		result;

	LWLockAcquire(w->db->policy_lock, LW_SHARED);
	result = w->db->breaker.state == BREAKER_CLOSED &&
		limiter_is_idle(&w->db->limiter, settlement_rate_limit, GetCurrentTimestamp());
	LWLockRelease(w->db->policy_lock);
	return result;
}

int
sender_in_flight(const Worker *w)
{
	return w->pool->n_used - w->n_answered - w->n_held;
}

/* ms until breaker and limiter may let one through; -1: only by hand. */
long
sender_wait_ms(Worker *w, TimestampTz now)
{
	BreakerPolicy policy;
	int64		by_breaker;
	int64		by_limiter;

	breaker_policy(&policy);
	LWLockAcquire(w->db->policy_lock, LW_SHARED);
	by_breaker = breaker_wait_ms(&w->db->breaker, &policy, now);
	by_limiter = limiter_wait_ms(&w->db->limiter, settlement_rate_limit, now);
	LWLockRelease(w->db->policy_lock);
	if (by_breaker < 0)
		return -1;
	return (long) Max(by_breaker, by_limiter);
}

/* What people want to read when nothing is sent. */
static bool
is_wallet_fault(const Verdict *verdict)
{
	return verdict->error_class != NULL &&
		(verdict->slow_down || verdict->signal == SIGNAL_FAILED ||
		 verdict->signal == SIGNAL_SUSPECT || verdict->signal == SIGNAL_OPEN_NOW);
}

/* With the failure that was the last straw. */
static void
log_breaker_opened(const TradeFlight *flight)
{
	const WalletResult *result = &flight->result;
	StringInfoData fields;

	initStringInfo(&fields);
	log_field(&fields, "class", result->verdict.error_class);
	log_field(&fields, "code", result->code);
	if (result->facts.http_status != 0)
		log_field_int(&fields, "http_status", result->facts.http_status);
	log_field(&fields, "trade_id", flight->wire.trade_id);
	log_field(&fields, "trace_id", flight->trace);
	log_field_ms(&fields, "duration_ms", result->duration_us);
	log_field(&fields, "message", result->message);
	ereport(LOG,
			(errcode(LOG_BREAKER_OPENED),
			 errmsg("settlement circuit breaker opened: %s",
					result->verdict.error_class ? result->verdict.error_class : "failure"),
			 errdetail_internal("%s", fields.data),
			 errhint("Nothing is sent meanwhile but one probe at a time; it closes by itself.")));
	pfree(fields.data);
}

static void
report_result(Worker *w, const TradeFlight *flight)
{
	DbState    *db = w->db;
	const Verdict *verdict = &flight->result.verdict;
	TimestampTz now = flight->answered_at;
	BreakerPolicy policy;
	BreakerState before;
	BreakerState after;

	if (verdict->definite)
		pg_atomic_write_u64(&db->last_definite_at, (uint64) now);

	breaker_policy(&policy);
	LWLockAcquire(db->policy_lock, LW_EXCLUSIVE);
	before = db->breaker.state;
	breaker_report(&db->breaker, &policy, verdict->signal, flight->hash,
				   flight->probe, random_fraction(), flight->sent_at, now);
	after = db->breaker.state;
	/* what waited for the end of the outage shall not be the next one */
	if (before != BREAKER_CLOSED && after == BREAKER_CLOSED)
		limiter_ramp(&db->limiter, now);
	if (verdict->slow_down)
		limiter_slow_down(&db->limiter, verdict->retry_after_ms, now);
	else if (verdict->signal == SIGNAL_ANSWERED)
		limiter_relax(&db->limiter, now);
	if (is_wallet_fault(verdict))
		pace_note_failure(db, now, flight->result.facts.http_status,
						  verdict->error_class, flight->result.message);
	LWLockRelease(db->policy_lock);

	if (before == BREAKER_CLOSED && after == BREAKER_OPEN)
		log_breaker_opened(flight);
	else if (before != BREAKER_CLOSED && after == BREAKER_CLOSED)
	{
		ereport(LOG,
				(errcode(LOG_BREAKER_CLOSED),
				 errmsg("settlement circuit breaker closed")));
		shmem_wake_all_workers(db);
	}
}

/* ---------------------------------------------------------------- submit */

/* A flight that we refuse to send ourselves. */
static void
answer_locally(Worker *w, TradeFlight *flight)
{
	memset(&flight->result, 0, sizeof(flight->result));
	flight->result.verb = flight->verb;
	strlcpy(flight->result.message, "not sent", sizeof(flight->result.message));
	flight->answered_at = GetCurrentTimestamp();
	flight->state = FLIGHT_ANSWERED;
	w->answered[w->n_answered++] = flight;
	/* nobody will report on it: let another trade be the probe */
	sender_return(w, 0, flight->probe);
	flight->probe = false;
}

static int
format_of(const Worker *w, const TradeFlight *flight)
{
	return flight->format ? flight->format : wallet_request_format(w->client);
}

static void
mark_sent(TradeFlight *flight)
{
	flight->sent_at = GetCurrentTimestamp();
	flight->state = FLIGHT_SENT;
}

/* One trace per trade, one span per request; NULL: it has none. */
static const char *
begin_span(TradeFlight *flight, char traceparent[TRACEPARENT_LEN + 1])
{
	if (flight->trace[0] == '\0')
		return NULL;
	flight->span_id = random_bits64() | 1;
	traceparent_write(traceparent, flight->trace, flight->span_id, settlement_trace_sampled);
	return traceparent;
}

static void
submit(Worker *w, TradeFlight *flight)
{
	char		traceparent[TRACEPARENT_LEN + 1];

	mark_sent(flight);
	wallet_client_set_lineage(w->client, identity_lineage());
	if (!wallet_client_submit(w->client, flight->verb, &flight->wire, flight->key,
							  format_of(w, flight), (int64) pg_atomic_read_u64(&w->db->epoch),
							  begin_span(flight, traceparent), flight))
		elog(ERROR, "the wallet client has no free connection");
	shmem_count(w->db, flight->verb == WALLET_LOOKUP ? COUNT_LOOKUPS : COUNT_REQUESTS, 1);
}

/* Its bytes are in our hands: a crash is its own. */
static void
submit_alone(Worker *w, TradeFlight *flight)
{
	handled_begin(flight->queue_id);
	submit(w, flight);
	handled_end();
}

static bool
add_to_batch(Worker *w, TradeFlight *flight, int64 epoch)
{
	char		traceparent[TRACEPARENT_LEN + 1];
	bool		added;

	handled_begin(flight->queue_id);
	mark_sent(flight);
	added = wallet_batch_add(w->client, &flight->wire, flight->key, format_of(w, flight),
							 epoch, begin_span(flight, traceparent), flight);
	handled_end();
	return added;
}

/*
 * Submit n trades in one request; fewer when they do not all fit.  Returns how
 * many were submitted.  No trade is named while the whole is handed over, since
 * nobody knows whose bytes a crash would be of: after one, each goes alone.
 */
static int
submit_batch(Worker *w, TradeFlight **flights, int n)
{
	int64		epoch = (int64) pg_atomic_read_u64(&w->db->epoch);
	int			added = 0;

	if (n == 1 || !wallet_batch_begin(w->client))
	{
		submit_alone(w, flights[0]);
		return 1;
	}
	while (added < n && add_to_batch(w, flights[added], epoch))
		added++;
	wallet_client_set_lineage(w->client, identity_lineage());
	wallet_batch_send(w->client, epoch);
	shmem_count(w->db, COUNT_REQUESTS, added);
	shmem_count(w->db, COUNT_BATCHES, 1);
	if (added == n)
		return n;
	submit_alone(w, flights[added]);
	return added + 1;
}

static void
show_phase(Worker *w, TradeFlight **flights, int n, AttemptPhase phase)
{
	int64	   *ids = palloc(sizeof(int64) * Max(n, 1));

	for (int i = 0; i < n; i++)
		ids[i] = flights[i]->queue_id;
	in_flight_set_phase(w->slot_index, ids, n, phase);
	pfree(ids);
}

void
sender_submit(Worker *w, TradeFlight **flights, int n)
{
	int			size = batching_size(w);
	TradeFlight **together = palloc(sizeof(TradeFlight *) * Max(n, 1));
	int			n_together = 0;

	for (int i = 0; i < n; i++)
	{
		Assert(flights[i]->state == FLIGHT_READY);
		if (flights[i]->local_class != NULL)
			answer_locally(w, flights[i]);
		else if (size == 1 || batching_goes_alone(flights[i]))
			submit_alone(w, flights[i]);
		else
			together[n_together++] = flights[i];
	}
	for (int i = 0; i < n_together;)
		i += submit_batch(w, together + i, Min(size, n_together - i));
	show_phase(w, flights, n, PHASE_SENT);
	pfree(together);
}

void
sender_show_answered(Worker *w)
{
	show_phase(w, w->answered, w->n_answered, PHASE_REPLIED);
}

/* --------------------------------------------------------------- collect */

/*
 * The wallet never saw the key, and is sure to remember it if it had: send.
 * The claim still covers it, unless this worker has been silent for so long
 * that another one may have taken it over.
 */
static bool
send_after_lookup(Worker *w, const TradeFlight *flight)
{
	return flight->verb == WALLET_LOOKUP &&
		flight->result.lookup == LOOKUP_UNKNOWN_KEY &&
		!w->stopping && !w->woke_late && claim_may_leave(flight->claim) &&
		pg_atomic_read_u32(&w->db->send_state) == SEND_OK &&
		sender_breaker_closed(w) && !sender_on_hold(w) &&
		!past_idempotency_window(flight->first_sent_at);
}

/*
 * The trade that was answered last.  The look-up was allowed for; the request that
 * follows it is a second one.
 */
static void
submit_after_lookup(Worker *w)
{
	TradeFlight *flight = w->answered[w->n_answered - 1];

	LWLockAcquire(w->db->policy_lock, LW_EXCLUSIVE);
	limiter_owe(&w->db->limiter, settlement_rate_limit, 1, GetCurrentTimestamp());
	LWLockRelease(w->db->policy_lock);
	w->submitting = true;
	w->n_answered--;
	flight->verb = WALLET_SETTLE;
	/* nobody had used this key by now: what it may forget begins here */
	flight->first_sent_at = Max(flight->first_sent_at, flight->claimed_at);
	submit(w, flight);
	w->submitting = false;
}

/* Before its bytes are parsed; NULL when nothing has ended. */
static TradeFlight *
next_ended(Worker *w)
{
	w->in_client = true;
	wallet_client_open(w->client);
	w->in_client = false;
	return wallet_client_peek(w->client);
}

static void
report(Worker *w, TradeFlight *flight)
{
	const WalletResult *result = &flight->result;

	report_result(w, flight);
	report_load(w, flight);
	batching_note(w, flight);
	histogram_add(&w->db->duration[DURATION_REQUEST], result->duration_us);
	if (flight->verb == WALLET_SETTLE &&
		result->verdict.outcome != OUTCOME_SETTLED)
		shmem_count(w->db, COUNT_REQUEST_FAILURES, 1);
	if (result->verdict.outcome == OUTCOME_FENCED &&
		flight->verb == WALLET_SETTLE)
	{
		identity_epoch_refused(w->db, result->newer_epoch);
		pg_atomic_write_u32(&w->db->send_state, SEND_STALE_EPOCH);
	}
}

void
sender_collect(Worker *w)
{
	TradeFlight *flight;

	while ((flight = next_ended(w)) != NULL)
	{
		Assert(flight->state == FLIGHT_SENT);
		/* the parser works on bytes that come from elsewhere */
		handled_begin(flight->queue_id);
		w->in_client = true;
		flight->result = *wallet_client_next(w->client);
		w->in_client = false;
		handled_end();
		flight->answered_at = GetCurrentTimestamp();
		/* an error from here on must not lose it: the client has forgotten it */
		flight->state = FLIGHT_ANSWERED;
		w->answered[w->n_answered++] = flight;
		report(w, flight);
		if (send_after_lookup(w, flight))
			submit_after_lookup(w);
	}
}
