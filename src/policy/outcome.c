/*
 * outcome.c
 *	  The outcome table.
 *
 * Keeps true: SETTLED and REJECTED are said only by a complete, well-formed
 * reply that speaks of this trade; NOT_EXECUTED only when nothing was sent or
 * when the status says so; everything else that may have been sent is UNKNOWN.
 * Pure: no lock, no allocation, no clock, never fails.
 *
 * Rules match from the top.  "sent" is maybe_sent, or any proof of it (a status
 * line, a blocked resend): facts that contradict each other count as sent.
 * "contradiction" is success:true together with a code that says otherwise.
 *
 *  facts                                 outcome      class            signal    charge definite
 *  request could not be written          NOT_EXECUTED invalid_trade    NONE      yes    no
 *  no complete reply, not sent           NOT_EXECUTED network[_timeout] FAILED   no     no
 *  no complete reply, sent: timeout      UNKNOWN      network_timeout  FAILED    yes    no
 *  ...: too large, not HTTP, truncated   UNKNOWN      wallet_reply     FAILED    yes    no
 *  ...: reset, resend blocked, any other UNKNOWN      network          FAILED    yes    no
 *  reply: echo mismatch, contradiction   UNKNOWN      wallet_reply     FAILED    yes    no
 *  code KEY_CONFLICT                     CONFLICT     key_conflict     ANSWERED  no     yes
 *  code STALE_EPOCH                      FENCED       stale_epoch      ANSWERED  no     no
 *  rejection, 4xx or 2xx success:false   REJECTED     rejected         ANSWERED  no     yes
 *  202                                   PENDING      wallet_pending   ANSWERED  no     no
 *  2xx success:true + settlement id      SETTLED      -                ANSWERED  no     yes
 *  2xx in the reply's shape, otherwise   UNKNOWN      wallet_reply     SUSPECT   yes    no
 *  2xx, anything else                    UNKNOWN      wallet_reply     FAILED    yes    no
 *  3xx                                   UNKNOWN      wallet_redirect  OPEN_NOW  yes    no
 *  401, 403                              NOT_EXECUTED wallet_auth      OPEN_NOW  no     no
 *  408                                   UNKNOWN      wallet_error     FAILED    yes    no
 *  409                                   PENDING      in_progress      ANSWERED  no     no
 *  425, 429                              NOT_EXECUTED rate_limited     NONE      no     no
 *  other 4xx                             NOT_EXECUTED wallet_path      SUSPECT   yes    no
 *  5xx                                   UNKNOWN      wallet_error     FAILED    yes    no
 *  any other status                      UNKNOWN      wallet_reply     FAILED    yes    no
 *
 * A request of several trades that is answered trade by trade gives each the
 * rules above, with the status that the wallet gave to it.  Otherwise:
 *
 *  its reply leaves this trade out       UNKNOWN      wallet_reply     NONE      yes    no
 *  no complete reply to the whole        as above                                no
 *  4xx with the code STALE_EPOCH         FENCED       stale_epoch      ANSWERED  no     no
 *  404, 405                              NOT_EXECUTED wallet_batch     NONE      no     no
 *  401, 403, 408, 409, 425, 429          as above                                no
 *  other 4xx, whatever the code          UNKNOWN      wallet_batch     NONE      no     no
 *  2xx but 202, whatever it says         UNKNOWN      wallet_reply     FAILED    no     no
 *  202, 3xx, 5xx, any other status       as above                                no
 *
 * Why an unwritable request is charged: it is this trade's fault alone, so it
 * must end, in the dead letter queue, without a sign of the wallet's health.
 * Why 202 is never SETTLED: "accepted" is not "done", whatever its body says;
 * asking again with the same key gives the final answer.
 * Why 3xx may be charged: it is unknown, and the charge is made only if other
 * keys are answered meanwhile.  Without it one trade that alone draws a 3xx
 * would open the breaker for ever; in an outage nothing is charged anyway.
 * Why 429 is no sign of life: a proxy says it too, before a dead wallet.
 * Why 503 with Retry-After slows all: it names a time at which the service, not
 * the trade, will be available (RFC 9110, 15.6.4).  It is a failure besides.
 * Why a 4xx to a whole batch is UNKNOWN: a wallet that takes the trades one by
 * one may have settled some before it came upon the one that it refuses.
 * Why it rejects none of them, and nothing of a whole batch is charged: whose
 * fault it is will show when each is sent alone (worker/sender.c).
 * Why it is no sign of health: the requests of one trade that follow give one.
 * Why an unknown code in a good reply is SUSPECT: one user's trades may draw it
 * while the wallet works; when all trades draw it the contract is broken.
 */
#include "policy/outcome.h"

#include <stddef.h>

/* A verdict without Retry-After, which the callers fill in. */
static Verdict
verdict(Outcome outcome, const char *error_class, BreakerSignal signal,
		bool chargeable)
{
	Verdict		v;

	v.outcome = outcome;
	v.definite = (outcome == OUTCOME_SETTLED || outcome == OUTCOME_REJECTED ||
				  outcome == OUTCOME_CONFLICT);
	v.chargeable = chargeable;
	v.slow_down = false;
	v.no_batches = false;
	v.signal = signal;
	v.retry_after_ms = -1;
	v.error_class = error_class;
	return v;
}

/* May a byte of the request have left?  Any proof of it beats the flag. */
static bool
was_sent(const AttemptFacts *f)
{
	return f->maybe_sent || f->http_status != 0 ||
		f->transport == TRANSPORT_OK ||
		f->transport == TRANSPORT_RESEND_BLOCKED ||
		f->transport == TRANSPORT_TOO_LARGE;
}

static bool
is_2xx(int status)
{
	return status >= 200 && status <= 299;
}

static bool
is_4xx(int status)
{
	return status >= 400 && status <= 499;
}

/* Codes that say that this request did not settle now. */
static bool
code_denies_success(ReplyCode code)
{
	return code == CODE_REJECTION || code == CODE_KEY_CONFLICT ||
		code == CODE_STALE_EPOCH;
}

/* The bytes do not make a reply to this request, though they are one. */
static bool
is_contradiction(const AttemptFacts *f)
{
	return f->parsed &&
		(f->echo_mismatch ||
		 (f->success == 1 && code_denies_success(f->code)));
}

/* A status at which a code in the body is the wallet's final word. */
static bool
may_carry_final_no(const AttemptFacts *f)
{
	return is_4xx(f->http_status) ||
		(is_2xx(f->http_status) && f->success == 0);
}

static bool
is_final_success(const AttemptFacts *f)
{
	return is_2xx(f->http_status) && f->http_status != 202 && f->parsed &&
		f->success == 1 && f->has_settlement_id && !f->echo_mismatch &&
		!code_denies_success(f->code);
}

/* No complete reply. */
static Verdict
of_transport(const AttemptFacts *f)
{
	const char *error_class = "network";

	if (f->transport == TRANSPORT_TIMEOUT)
		error_class = "network_timeout";
	if (!was_sent(f))
	{
		if (f->transport == TRANSPORT_UNSENDABLE)
			return verdict(OUTCOME_NOT_EXECUTED, "invalid_trade", SIGNAL_NONE, true);
		return verdict(OUTCOME_NOT_EXECUTED, error_class, SIGNAL_FAILED, false);
	}
	if (f->transport == TRANSPORT_TOO_LARGE ||
		f->transport == TRANSPORT_PROTOCOL)
		error_class = "wallet_reply";
	return verdict(OUTCOME_UNKNOWN, error_class, SIGNAL_FAILED, true);
}

/* 2xx but not 202, without a code that decides. */
static Verdict
of_2xx(const AttemptFacts *f)
{
	bool		in_shape = f->parsed && f->success != -1;

	if (is_final_success(f))
		return verdict(OUTCOME_SETTLED, NULL, SIGNAL_ANSWERED, false);
	return verdict(OUTCOME_UNKNOWN, "wallet_reply",
				   in_shape ? SIGNAL_SUSPECT : SIGNAL_FAILED, true);
}

/* 4xx without a code that decides. */
static Verdict
of_4xx(int status)
{
	Verdict		v;

	switch (status)
	{
		case 401:
		case 403:
			return verdict(OUTCOME_NOT_EXECUTED, "wallet_auth",
						   SIGNAL_OPEN_NOW, false);
		case 408:
			return verdict(OUTCOME_UNKNOWN, "wallet_error", SIGNAL_FAILED, true);
		case 409:
			return verdict(OUTCOME_PENDING, "in_progress",
						   SIGNAL_ANSWERED, false);
		case 425:
		case 429:
			v = verdict(OUTCOME_NOT_EXECUTED, "rate_limited", SIGNAL_NONE, false);
			v.slow_down = true;
			return v;
		default:
			return verdict(OUTCOME_NOT_EXECUTED, "wallet_path",
						   SIGNAL_SUSPECT, true);
	}
}

/* A complete reply whose body decides nothing, or only a success. */
static Verdict
of_status(const AttemptFacts *f)
{
	int			status = f->http_status;

	if (status == 202)
		return verdict(OUTCOME_PENDING, "wallet_pending",
					   SIGNAL_ANSWERED, false);
	if (is_2xx(status))
		return of_2xx(f);
	if (status >= 300 && status <= 399)
		return verdict(OUTCOME_UNKNOWN, "wallet_redirect",
					   SIGNAL_OPEN_NOW, true);
	if (is_4xx(status))
		return of_4xx(status);
	if (status >= 500 && status <= 599)
		return verdict(OUTCOME_UNKNOWN, "wallet_error", SIGNAL_FAILED, true);
	return verdict(OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_FAILED, true);
}

/* A 4xx to a request of several trades. */
static Verdict
of_batch_4xx(int status)
{
	Verdict		v;

	switch (status)
	{
		case 401:
		case 403:
		case 408:
		case 409:
		case 425:
		case 429:
			return of_4xx(status);
		case 404:
		case 405:
			v = verdict(OUTCOME_NOT_EXECUTED, "wallet_batch", SIGNAL_NONE, false);
			v.no_batches = true;
			return v;
		default:
			v = verdict(OUTCOME_UNKNOWN, "wallet_batch", SIGNAL_NONE, false);
			v.no_batches = status == 413 || status == 415;
			return v;
	}
}

/* A complete reply to a request of several trades that does not name them. */
static Verdict
of_batch_reply(const AttemptFacts *f)
{
	int			status = f->http_status;
	Verdict		v;

	if (is_4xx(status))
	{
		if (f->parsed && f->code == CODE_STALE_EPOCH)
			return verdict(OUTCOME_FENCED, "stale_epoch", SIGNAL_ANSWERED, false);
		return of_batch_4xx(status);
	}
	if (is_2xx(status) && status != 202)
		return verdict(OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_FAILED, false);
	v = of_status(f);
	v.no_batches = status == 501;
	return v;
}

/* A complete reply. */
static Verdict
of_reply(const AttemptFacts *f)
{
	if (f->whole_batch)
		return of_batch_reply(f);
	if (f->left_out)
		return verdict(OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_NONE, true);
	if (is_contradiction(f))
		return verdict(OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_FAILED, true);
	if (f->parsed)
	{
		if (f->code == CODE_KEY_CONFLICT)
			return verdict(OUTCOME_CONFLICT, "key_conflict",
						   SIGNAL_ANSWERED, false);
		if (f->code == CODE_STALE_EPOCH)
			return verdict(OUTCOME_FENCED, "stale_epoch",
						   SIGNAL_ANSWERED, false);
		if (f->code == CODE_REJECTION && may_carry_final_no(f))
			return verdict(OUTCOME_REJECTED, "rejected",
						   SIGNAL_ANSWERED, false);
	}
	return of_status(f);
}

Verdict
outcome_of_settle(const AttemptFacts *f)
{
	Verdict		v = f->transport == TRANSPORT_OK ? of_reply(f) : of_transport(f);

	v.retry_after_ms = f->retry_after_ms < 0 ? -1 : f->retry_after_ms;
	if (f->http_status == 503 && v.retry_after_ms > 0)
		v.slow_down = true;
	if (f->whole_batch)
		v.chargeable = false;
	return v;
}

/* What a complete reply says of the key; LOOKUP_FAILED when it says nothing. */
static LookupOutcome
lookup_of_reply(const AttemptFacts *f)
{
	if (is_contradiction(f))
		return LOOKUP_FAILED;
	if (is_final_success(f) && f->code != CODE_UNKNOWN_KEY)
		return LOOKUP_SETTLED;
	if (f->parsed && may_carry_final_no(f) && f->success != 1)
	{
		if (f->code == CODE_REJECTION)
			return LOOKUP_REJECTED;
		if (f->code == CODE_UNKNOWN_KEY)
			return LOOKUP_UNKNOWN_KEY;
	}
	if ((f->http_status == 202 || f->http_status == 409) &&
		!(f->parsed && (code_denies_success(f->code) ||
						f->code == CODE_UNKNOWN_KEY)))
		return LOOKUP_PENDING;
	return LOOKUP_FAILED;
}

/*
 * A look-up moves no money, so a failed one says nothing about the trade: its
 * outcome stays UNKNOWN (or FENCED) and it is never charged.
 */
LookupOutcome
outcome_of_lookup(const AttemptFacts *f, Verdict *out)
{
	LookupOutcome lookup = LOOKUP_FAILED;
	Verdict		v = outcome_of_settle(f);

	if (f->transport == TRANSPORT_OK)
		lookup = lookup_of_reply(f);
	if (lookup == LOOKUP_UNKNOWN_KEY)
	{
		v.outcome = OUTCOME_NOT_EXECUTED;
		v.error_class = "unknown_key";
		v.signal = SIGNAL_ANSWERED;
		v.definite = true;
	}
	else if (lookup == LOOKUP_FAILED)
	{
		if (v.outcome != OUTCOME_FENCED)
			v.outcome = OUTCOME_UNKNOWN;
		if (v.error_class == NULL)
			v.error_class = "wallet_reply";
		v.definite = false;
	}
	v.chargeable = false;
	if (out != NULL)
		*out = v;
	return lookup;
}

const char *
outcome_name(Outcome outcome)
{
	switch (outcome)
	{
		case OUTCOME_SETTLED:
			return "settled";
		case OUTCOME_REJECTED:
			return "rejected";
		case OUTCOME_CONFLICT:
			return "conflict";
		case OUTCOME_UNKNOWN:
			return "unknown";
		case OUTCOME_PENDING:
			return "pending";
		case OUTCOME_NOT_EXECUTED:
			return "not_executed";
		case OUTCOME_FENCED:
			return "fenced";
	}
	return "invalid";
}

const char *
transport_name(Transport transport)
{
	switch (transport)
	{
		case TRANSPORT_OK:
			return "ok";
		case TRANSPORT_TIMEOUT:
			return "timeout";
		case TRANSPORT_CONNECT:
			return "connect";
		case TRANSPORT_DNS:
			return "dns";
		case TRANSPORT_TLS:
			return "tls";
		case TRANSPORT_RESET:
			return "reset";
		case TRANSPORT_RESEND_BLOCKED:
			return "resend_blocked";
		case TRANSPORT_TOO_LARGE:
			return "too_large";
		case TRANSPORT_PROTOCOL:
			return "protocol";
		case TRANSPORT_OTHER:
			return "other";
		case TRANSPORT_UNSENDABLE:
			return "unsendable";
	}
	return "invalid";
}

const char *
phase_name(AttemptPhase phase)
{
	switch (phase)
	{
		case PHASE_PREPARED:
			return "prepared";
		case PHASE_CONNECTING:
			return "connecting";
		case PHASE_SENT:
			return "sent";
		case PHASE_REPLYING:
			return "replying";
		case PHASE_REPLIED:
			return "replied";
	}
	return "invalid";
}
