/*
 * outcome_test.c
 *	  Every row of the outcome table, and what must hold over all combinations
 *	  of facts (1.9 million of them).
 */
#include "unit.h"

#include "policy/outcome.h"

/* A complete reply with a status and nothing else. */
static AttemptFacts
reply(int status)
{
	AttemptFacts f = {.maybe_sent = true,.http_status = status,.success = -1,.retry_after_ms = -1};

	return f;
}

static AttemptFacts
reply_code(int status, int success, ReplyCode code)
{
	AttemptFacts f = reply(status);

	f.parsed = true;
	f.success = success;
	f.code = code;
	return f;
}

static AttemptFacts
good_reply(int status)
{
	AttemptFacts f = reply_code(status, 1, CODE_NONE);

	f.has_settlement_id = true;
	return f;
}

static AttemptFacts
broken(Transport transport, bool maybe_sent)
{
	AttemptFacts f = reply(0);

	f.transport = transport;
	f.maybe_sent = maybe_sent;
	return f;
}

static void
expect(AttemptFacts f, Outcome outcome, const char *error_class,
	   BreakerSignal signal, bool chargeable, bool definite)
{
	Verdict		v = outcome_of_settle(&f);

	assert_int_equal(v.outcome, outcome);
	if (error_class == NULL)
		assert_null(v.error_class);
	else
		assert_string_equal(v.error_class, error_class);
	assert_int_equal(v.signal, signal);
	assert_int_equal(v.chargeable, chargeable);
	assert_int_equal(v.definite, definite);
	assert_int_equal(v.slow_down, outcome == OUTCOME_NOT_EXECUTED &&
					 (f.http_status == 425 || f.http_status == 429));
}

static void
complete_good_reply_settles(void **state)
{
	(void) state;
	expect(good_reply(200), OUTCOME_SETTLED, NULL, SIGNAL_ANSWERED, false, true);
	expect(good_reply(201), OUTCOME_SETTLED, NULL, SIGNAL_ANSWERED, false, true);
}

static void
success_with_an_unknown_code_settles(void **state)
{
	AttemptFacts f = good_reply(200);

	(void) state;
	f.code = CODE_UNRECOGNISED;
	expect(f, OUTCOME_SETTLED, NULL, SIGNAL_ANSWERED, false, true);
}

static void
success_without_id_is_unknown(void **state)
{
	AttemptFacts f = good_reply(200);

	(void) state;
	f.has_settlement_id = false;
	expect(f, OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_SUSPECT, true, false);
}

static void
echo_of_another_trade_is_unknown_at_any_status(void **state)
{
	(void) state;
	for (int status = 200; status < 600; status++)
	{
		AttemptFacts f = good_reply(status);

		f.echo_mismatch = true;
		for (int code = CODE_NONE; code <= CODE_UNKNOWN_KEY; code++)
		{
			f.code = (ReplyCode) code;
			expect(f, OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_FAILED, true, false);
		}
	}
}

static void
success_with_a_denying_code_is_unknown(void **state)
{
	const ReplyCode codes[] = {CODE_REJECTION, CODE_KEY_CONFLICT, CODE_STALE_EPOCH};

	(void) state;
	for (size_t i = 0; i < LENGTH(codes); i++)
	{
		AttemptFacts f = good_reply(200);

		f.code = codes[i];
		expect(f, OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_FAILED, true, false);
		f.http_status = 422;
		expect(f, OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_FAILED, true, false);
	}
}

static void
key_conflict_beats_the_status(void **state)
{
	(void) state;
	expect(reply_code(422, -1, CODE_KEY_CONFLICT), OUTCOME_CONFLICT,
		   "key_conflict", SIGNAL_ANSWERED, false, true);
	expect(reply_code(409, 0, CODE_KEY_CONFLICT), OUTCOME_CONFLICT,
		   "key_conflict", SIGNAL_ANSWERED, false, true);
	expect(reply_code(500, 0, CODE_KEY_CONFLICT), OUTCOME_CONFLICT,
		   "key_conflict", SIGNAL_ANSWERED, false, true);
}

static void
stale_epoch_fences(void **state)
{
	(void) state;
	expect(reply_code(412, -1, CODE_STALE_EPOCH), OUTCOME_FENCED,
		   "stale_epoch", SIGNAL_ANSWERED, false, false);
}

static void
known_code_rejects_at_4xx_or_success_false(void **state)
{
	(void) state;
	for (int status = 400; status < 500; status++)
		expect(reply_code(status, -1, CODE_REJECTION), OUTCOME_REJECTED,
			   "rejected", SIGNAL_ANSWERED, false, true);
	for (int status = 200; status < 300; status++)
		expect(reply_code(status, 0, CODE_REJECTION), OUTCOME_REJECTED,
			   "rejected", SIGNAL_ANSWERED, false, true);
	/* Not a final word: no success member at 2xx, or any 5xx. */
	expect(reply_code(200, -1, CODE_REJECTION), OUTCOME_UNKNOWN,
		   "wallet_reply", SIGNAL_FAILED, true, false);
	expect(reply_code(503, 0, CODE_REJECTION), OUTCOME_UNKNOWN,
		   "wallet_error", SIGNAL_FAILED, true, false);
}

static void
success_false_without_known_code_is_unknown(void **state)
{
	(void) state;
	expect(reply_code(200, 0, CODE_NONE), OUTCOME_UNKNOWN,
		   "wallet_reply", SIGNAL_SUSPECT, true, false);
	expect(reply_code(200, 0, CODE_UNRECOGNISED), OUTCOME_UNKNOWN,
		   "wallet_reply", SIGNAL_SUSPECT, true, false);
}

static void
unparsable_2xx_is_unknown(void **state)
{
	(void) state;
	for (int status = 200; status < 300; status++)
		if (status != 202)
			expect(reply(status), OUTCOME_UNKNOWN, "wallet_reply",
				   SIGNAL_FAILED, true, false);
}

static void
accepted_is_pending_whatever_it_says(void **state)
{
	(void) state;
	expect(reply(202), OUTCOME_PENDING, "wallet_pending", SIGNAL_ANSWERED, false, false);
	expect(good_reply(202), OUTCOME_PENDING, "wallet_pending",
		   SIGNAL_ANSWERED, false, false);
	expect(reply_code(202, 0, CODE_NONE), OUTCOME_PENDING, "wallet_pending",
		   SIGNAL_ANSWERED, false, false);
}

static void
conflict_status_is_in_progress(void **state)
{
	(void) state;
	expect(reply(409), OUTCOME_PENDING, "in_progress", SIGNAL_ANSWERED, false, false);
	expect(reply_code(409, 0, CODE_UNRECOGNISED), OUTCOME_PENDING,
		   "in_progress", SIGNAL_ANSWERED, false, false);
}

static void
too_many_requests_slows_down_and_is_free(void **state)
{
	AttemptFacts f = reply(429);
	Verdict		v;

	(void) state;
	expect(reply(425), OUTCOME_NOT_EXECUTED, "rate_limited", SIGNAL_NONE, false, false);
	expect(f, OUTCOME_NOT_EXECUTED, "rate_limited", SIGNAL_NONE, false, false);
	f.retry_after_ms = 1500;
	v = outcome_of_settle(&f);
	assert_true(v.slow_down);
	assert_int_equal(v.retry_after_ms, 1500);
}

static void
refused_credentials_open_the_breaker(void **state)
{
	(void) state;
	expect(reply(401), OUTCOME_NOT_EXECUTED, "wallet_auth", SIGNAL_OPEN_NOW, false, false);
	expect(reply(403), OUTCOME_NOT_EXECUTED, "wallet_auth", SIGNAL_OPEN_NOW, false, false);
}

static void
other_4xx_is_a_suspect_path(void **state)
{
	(void) state;
	for (int status = 400; status < 500; status++)
	{
		if (status == 401 || status == 403 || status == 408 ||
			status == 409 || status == 425 || status == 429)
			continue;
		expect(reply(status), OUTCOME_NOT_EXECUTED, "wallet_path",
			   SIGNAL_SUSPECT, true, false);
		expect(reply_code(status, 0, CODE_UNRECOGNISED), OUTCOME_NOT_EXECUTED,
			   "wallet_path", SIGNAL_SUSPECT, true, false);
		expect(reply_code(status, 0, CODE_UNKNOWN_KEY), OUTCOME_NOT_EXECUTED,
			   "wallet_path", SIGNAL_SUSPECT, true, false);
	}
}

static void
request_timeout_status_is_unknown(void **state)
{
	(void) state;
	expect(reply(408), OUTCOME_UNKNOWN, "wallet_error", SIGNAL_FAILED, true, false);
}

static void
redirect_is_unknown_and_opens(void **state)
{
	(void) state;
	for (int status = 300; status < 400; status++)
		expect(reply(status), OUTCOME_UNKNOWN, "wallet_redirect",
			   SIGNAL_OPEN_NOW, true, false);
}

static void
server_error_is_unknown(void **state)
{
	(void) state;
	for (int status = 500; status < 600; status++)
		expect(good_reply(status), OUTCOME_UNKNOWN, "wallet_error",
			   SIGNAL_FAILED, true, false);
}

static void
strange_status_is_unknown(void **state)
{
	const int	statuses[] = {0, 1, 99, 100, 101, 199, 600, 999, -1};

	(void) state;
	for (size_t i = 0; i < LENGTH(statuses); i++)
		expect(good_reply(statuses[i]), OUTCOME_UNKNOWN, "wallet_reply",
			   SIGNAL_FAILED, true, false);
}

static void
failure_before_sending_is_not_executed(void **state)
{
	(void) state;
	expect(broken(TRANSPORT_CONNECT, false), OUTCOME_NOT_EXECUTED,
		   "network", SIGNAL_FAILED, false, false);
	expect(broken(TRANSPORT_DNS, false), OUTCOME_NOT_EXECUTED,
		   "network", SIGNAL_FAILED, false, false);
	expect(broken(TRANSPORT_TLS, false), OUTCOME_NOT_EXECUTED,
		   "network", SIGNAL_FAILED, false, false);
	expect(broken(TRANSPORT_RESET, false), OUTCOME_NOT_EXECUTED,
		   "network", SIGNAL_FAILED, false, false);
	expect(broken(TRANSPORT_TIMEOUT, false), OUTCOME_NOT_EXECUTED,
		   "network_timeout", SIGNAL_FAILED, false, false);
}

/* Not the wallet's fault: no sign for the breaker, but it must end. */
static void
unwritable_request_is_charged_to_its_trade(void **state)
{
	(void) state;
	expect(broken(TRANSPORT_UNSENDABLE, false), OUTCOME_NOT_EXECUTED,
		   "invalid_trade", SIGNAL_NONE, true, false);
	expect(broken(TRANSPORT_UNSENDABLE, true), OUTCOME_UNKNOWN,
		   "network", SIGNAL_FAILED, true, false);
}

static void
failure_after_sending_is_unknown_whatever_its_name(void **state)
{
	(void) state;
	expect(broken(TRANSPORT_TIMEOUT, true), OUTCOME_UNKNOWN,
		   "network_timeout", SIGNAL_FAILED, true, false);
	expect(broken(TRANSPORT_CONNECT, true), OUTCOME_UNKNOWN,
		   "network", SIGNAL_FAILED, true, false);
	expect(broken(TRANSPORT_RESET, true), OUTCOME_UNKNOWN,
		   "network", SIGNAL_FAILED, true, false);
	expect(broken(TRANSPORT_RESEND_BLOCKED, true), OUTCOME_UNKNOWN,
		   "network", SIGNAL_FAILED, true, false);
	expect(broken(TRANSPORT_TOO_LARGE, true), OUTCOME_UNKNOWN,
		   "wallet_reply", SIGNAL_FAILED, true, false);
	expect(broken(TRANSPORT_PROTOCOL, true), OUTCOME_UNKNOWN,
		   "wallet_reply", SIGNAL_FAILED, true, false);
}

/* A proof of sending outweighs a flag that was not set. */
static void
contradicting_facts_count_as_sent(void **state)
{
	AttemptFacts f = broken(TRANSPORT_RESET, false);

	(void) state;
	f.http_status = 200;
	expect(f, OUTCOME_UNKNOWN, "network", SIGNAL_FAILED, true, false);
	expect(broken(TRANSPORT_RESEND_BLOCKED, false), OUTCOME_UNKNOWN,
		   "network", SIGNAL_FAILED, true, false);
	expect(broken(TRANSPORT_TOO_LARGE, false), OUTCOME_UNKNOWN,
		   "wallet_reply", SIGNAL_FAILED, true, false);
}

/* A status that was read does not count when the reply broke off. */
static void
status_of_a_broken_reply_decides_nothing(void **state)
{
	(void) state;
	for (int status = 100; status < 600; status++)
	{
		AttemptFacts f = good_reply(status);

		f.transport = TRANSPORT_RESET;
		expect(f, OUTCOME_UNKNOWN, "network", SIGNAL_FAILED, true, false);
	}
}

static bool
is_2xx(int status)
{
	return status >= 200 && status < 300;
}

static void
check_settle_properties(const AttemptFacts *f)
{
	Verdict		v = outcome_of_settle(f);
	bool		reply_read = f->transport == TRANSPORT_OK;

	if (v.outcome == OUTCOME_SETTLED)
		assert_true(reply_read && is_2xx(f->http_status) &&
					f->http_status != 202 && f->parsed && f->success == 1 &&
					f->has_settlement_id && !f->echo_mismatch);
	if (v.outcome == OUTCOME_REJECTED)
		assert_true(reply_read && f->parsed && f->code == CODE_REJECTION &&
					f->success != 1 && !f->echo_mismatch &&
					f->http_status / 100 != 5);
	if (f->maybe_sent && !reply_read)
		assert_int_equal(v.outcome, OUTCOME_UNKNOWN);
	if (v.outcome == OUTCOME_NOT_EXECUTED)
		assert_true(reply_read ? f->http_status / 100 == 4 : !f->maybe_sent);
	if (v.outcome == OUTCOME_FENCED)
		assert_true(reply_read && f->parsed && f->code == CODE_STALE_EPOCH);
	if (v.outcome == OUTCOME_CONFLICT)
		assert_true(reply_read && f->parsed && f->code == CODE_KEY_CONFLICT);
	if (v.outcome == OUTCOME_UNKNOWN)
		assert_true(v.chargeable);
	if (v.definite)
		assert_true(v.signal == SIGNAL_ANSWERED && !v.chargeable);
	assert_true((v.error_class == NULL) == (v.outcome == OUTCOME_SETTLED));
	assert_int_equal(v.retry_after_ms, f->retry_after_ms < 0 ? -1 : f->retry_after_ms);
}

static void
check_lookup_properties(const AttemptFacts *f)
{
	Verdict		v;
	LookupOutcome lookup = outcome_of_lookup(f, &v);

	assert_false(v.chargeable);
	assert_int_equal(outcome_of_lookup(f, NULL), lookup);
	if (f->transport != TRANSPORT_OK || f->echo_mismatch)
		assert_true(lookup == LOOKUP_FAILED ||
					(f->echo_mismatch && !f->parsed && lookup == LOOKUP_PENDING));
	switch (lookup)
	{
		case LOOKUP_SETTLED:
			assert_true(v.outcome == OUTCOME_SETTLED && f->has_settlement_id);
			break;
		case LOOKUP_REJECTED:
			assert_true(v.outcome == OUTCOME_REJECTED && v.definite);
			break;
		case LOOKUP_PENDING:
			assert_int_equal(v.outcome, OUTCOME_PENDING);
			break;
		case LOOKUP_UNKNOWN_KEY:
			assert_true(f->parsed && f->code == CODE_UNKNOWN_KEY);
			assert_true(v.outcome == OUTCOME_NOT_EXECUTED && v.definite);
			break;
		case LOOKUP_FAILED:
			assert_true(v.outcome == OUTCOME_UNKNOWN || v.outcome == OUTCOME_FENCED);
			assert_true(!v.definite && v.error_class != NULL);
			break;
	}
}

/* Calls check on every combination of the finite columns at one status. */
static void
for_all_at_status(int status, void (*check) (const AttemptFacts *))
{
	for (int bits = 0; bits < 16; bits++)
		for (int transport = TRANSPORT_OK; transport <= TRANSPORT_UNSENDABLE; transport++)
			for (int success = -1; success <= 1; success++)
				for (int code = CODE_NONE; code <= CODE_UNKNOWN_KEY; code++)
				{
					AttemptFacts f = {
						.maybe_sent = bits & 1,
						.transport = (Transport) transport,
						.http_status = status,
						.parsed = bits & 2,
						.success = success,
						.has_settlement_id = bits & 4,
						.echo_mismatch = bits & 8,
						.code = (ReplyCode) code,
						.retry_after_ms = bits % 3 - 1,
					};

					check(&f);
				}
}

static void
properties_hold_over_all_settle_facts(void **state)
{
	(void) state;
	for (int status = -1; status <= 605; status++)
		for_all_at_status(status, check_settle_properties);
}

static void
properties_hold_over_all_lookup_facts(void **state)
{
	(void) state;
	for (int status = -1; status <= 605; status++)
		for_all_at_status(status, check_lookup_properties);
}

static void
lookup_reads_the_stored_answer(void **state)
{
	AttemptFacts f = good_reply(200);

	(void) state;
	assert_int_equal(outcome_of_lookup(&f, NULL), LOOKUP_SETTLED);
	f = reply_code(422, 0, CODE_REJECTION);
	assert_int_equal(outcome_of_lookup(&f, NULL), LOOKUP_REJECTED);
	f = reply_code(404, -1, CODE_UNKNOWN_KEY);
	assert_int_equal(outcome_of_lookup(&f, NULL), LOOKUP_UNKNOWN_KEY);
	f = reply(202);
	assert_int_equal(outcome_of_lookup(&f, NULL), LOOKUP_PENDING);
	f = reply(409);
	assert_int_equal(outcome_of_lookup(&f, NULL), LOOKUP_PENDING);
}

static void
bare_404_is_a_failed_lookup(void **state)
{
	AttemptFacts f = reply(404);
	Verdict		v;

	(void) state;
	assert_int_equal(outcome_of_lookup(&f, &v), LOOKUP_FAILED);
	assert_int_equal(v.outcome, OUTCOME_UNKNOWN);
	assert_string_equal(v.error_class, "wallet_path");
	assert_int_equal(v.signal, SIGNAL_SUSPECT);
	f = reply_code(404, -1, CODE_UNRECOGNISED);
	assert_int_equal(outcome_of_lookup(&f, NULL), LOOKUP_FAILED);
	f = reply_code(500, -1, CODE_UNKNOWN_KEY);
	assert_int_equal(outcome_of_lookup(&f, NULL), LOOKUP_FAILED);
}

static void
fenced_lookup_says_so(void **state)
{
	AttemptFacts f = reply_code(412, -1, CODE_STALE_EPOCH);
	Verdict		v;

	(void) state;
	assert_int_equal(outcome_of_lookup(&f, &v), LOOKUP_FAILED);
	assert_int_equal(v.outcome, OUTCOME_FENCED);
}

/* RFC 9110: the service will be available then, whichever trade asked. */
static void
unavailable_until_a_time_slows_all(void **state)
{
	AttemptFacts f = reply_code(503, 0, CODE_NONE);
	Verdict		v;

	(void) state;
	f.retry_after_ms = 2000;
	v = outcome_of_settle(&f);
	assert_true(v.slow_down);
	assert_int_equal(v.retry_after_ms, 2000);
	assert_int_equal(v.signal, SIGNAL_FAILED);
	assert_int_equal(v.outcome, OUTCOME_UNKNOWN);
	f.retry_after_ms = -1;
	assert_false(outcome_of_settle(&f).slow_down);
	f.retry_after_ms = 2000;
	f.http_status = 500;
	assert_false(outcome_of_settle(&f).slow_down);
}

/* ---- several trades in one request ---- */

static AttemptFacts
whole(AttemptFacts f)
{
	f.whole_batch = true;
	return f;
}

static void
refusal_of_a_batch_blames_no_trade(void **state)
{
	const int	refusals[] = {400, 406, 410, 412, 422};

	(void) state;
	for (size_t i = 0; i < LENGTH(refusals); i++)
		for (int code = CODE_NONE; code <= CODE_KEY_CONFLICT; code++)
			expect(whole(reply_code(refusals[i], 0, (ReplyCode) code)), OUTCOME_UNKNOWN,
				   "wallet_batch", SIGNAL_NONE, false, false);
	expect(whole(reply(401)), OUTCOME_NOT_EXECUTED, "wallet_auth", SIGNAL_OPEN_NOW, false, false);
	expect(whole(reply(409)), OUTCOME_PENDING, "in_progress", SIGNAL_ANSWERED, false, false);
	expect(whole(reply(429)), OUTCOME_NOT_EXECUTED, "rate_limited", SIGNAL_NONE, false, false);
	expect(whole(reply_code(412, -1, CODE_STALE_EPOCH)), OUTCOME_FENCED, "stale_epoch",
		   SIGNAL_ANSWERED, false, false);
}

static void
wallet_without_batches_is_told(void **state)
{
	const struct
	{
		int			status;
		bool		no_batches;
		Outcome		outcome;
	}			rows[] = {
		{404, true, OUTCOME_NOT_EXECUTED}, {405, true, OUTCOME_NOT_EXECUTED},
		{413, true, OUTCOME_UNKNOWN}, {415, true, OUTCOME_UNKNOWN},
		{501, true, OUTCOME_UNKNOWN}, {400, false, OUTCOME_UNKNOWN},
		{500, false, OUTCOME_UNKNOWN}, {429, false, OUTCOME_NOT_EXECUTED},
		{200, false, OUTCOME_UNKNOWN},
	};

	(void) state;
	for (size_t i = 0; i < LENGTH(rows); i++)
	{
		AttemptFacts f = whole(reply(rows[i].status));
		AttemptFacts alone = reply(rows[i].status);

		assert_int_equal(outcome_of_settle(&f).no_batches, rows[i].no_batches);
		assert_int_equal(outcome_of_settle(&f).outcome, rows[i].outcome);
		assert_false(outcome_of_settle(&alone).no_batches);
	}
}

static void
trade_that_a_batch_leaves_out_is_unknown(void **state)
{
	AttemptFacts f = reply(200);

	(void) state;
	f.left_out = true;
	expect(f, OUTCOME_UNKNOWN, "wallet_reply", SIGNAL_NONE, true, false);
}

static void
check_whole_batch_properties(const AttemptFacts *facts)
{
	AttemptFacts f = whole(*facts);
	AttemptFacts alone = *facts;
	Verdict		v = outcome_of_settle(&f);
	bool		reply_read = f.transport == TRANSPORT_OK;

	assert_true(v.outcome != OUTCOME_SETTLED && v.outcome != OUTCOME_REJECTED &&
				v.outcome != OUTCOME_CONFLICT);
	assert_true(!v.definite && !v.chargeable && v.error_class != NULL);
	if (v.outcome == OUTCOME_NOT_EXECUTED && reply_read)
		assert_true(f.http_status == 401 || f.http_status == 403 || f.http_status == 404 ||
					f.http_status == 405 || f.http_status == 425 || f.http_status == 429);
	if (!reply_read)
		assert_int_equal(v.outcome, outcome_of_settle(&alone).outcome);
}

static void
whole_batch_settles_and_rejects_nothing(void **state)
{
	(void) state;
	for (int status = -1; status <= 605; status++)
		for_all_at_status(status, check_whole_batch_properties);
}

static void
names_are_distinct_and_complete(void **state)
{
	(void) state;
	for (int i = OUTCOME_SETTLED; i <= OUTCOME_FENCED; i++)
		for (int j = OUTCOME_SETTLED; j < i; j++)
			assert_string_not_equal(outcome_name((Outcome) i), outcome_name((Outcome) j));
	for (int i = TRANSPORT_OK; i <= TRANSPORT_UNSENDABLE; i++)
		assert_string_not_equal(transport_name((Transport) i), "invalid");
	for (int i = PHASE_PREPARED; i <= PHASE_REPLIED; i++)
		assert_string_not_equal(phase_name((AttemptPhase) i), "invalid");
	assert_string_equal(outcome_name((Outcome) 99), "invalid");
	assert_string_equal(transport_name((Transport) 99), "invalid");
	assert_string_equal(phase_name((AttemptPhase) 99), "invalid");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(complete_good_reply_settles),
		cmocka_unit_test(success_with_an_unknown_code_settles),
		cmocka_unit_test(success_without_id_is_unknown),
		cmocka_unit_test(echo_of_another_trade_is_unknown_at_any_status),
		cmocka_unit_test(success_with_a_denying_code_is_unknown),
		cmocka_unit_test(key_conflict_beats_the_status),
		cmocka_unit_test(stale_epoch_fences),
		cmocka_unit_test(known_code_rejects_at_4xx_or_success_false),
		cmocka_unit_test(success_false_without_known_code_is_unknown),
		cmocka_unit_test(unparsable_2xx_is_unknown),
		cmocka_unit_test(accepted_is_pending_whatever_it_says),
		cmocka_unit_test(conflict_status_is_in_progress),
		cmocka_unit_test(too_many_requests_slows_down_and_is_free),
		cmocka_unit_test(refused_credentials_open_the_breaker),
		cmocka_unit_test(other_4xx_is_a_suspect_path),
		cmocka_unit_test(request_timeout_status_is_unknown),
		cmocka_unit_test(redirect_is_unknown_and_opens),
		cmocka_unit_test(server_error_is_unknown),
		cmocka_unit_test(strange_status_is_unknown),
		cmocka_unit_test(failure_before_sending_is_not_executed),
		cmocka_unit_test(unwritable_request_is_charged_to_its_trade),
		cmocka_unit_test(failure_after_sending_is_unknown_whatever_its_name),
		cmocka_unit_test(contradicting_facts_count_as_sent),
		cmocka_unit_test(status_of_a_broken_reply_decides_nothing),
		cmocka_unit_test(properties_hold_over_all_settle_facts),
		cmocka_unit_test(properties_hold_over_all_lookup_facts),
		cmocka_unit_test(lookup_reads_the_stored_answer),
		cmocka_unit_test(bare_404_is_a_failed_lookup),
		cmocka_unit_test(fenced_lookup_says_so),
		cmocka_unit_test(unavailable_until_a_time_slows_all),
		cmocka_unit_test(refusal_of_a_batch_blames_no_trade),
		cmocka_unit_test(wallet_without_batches_is_told),
		cmocka_unit_test(trade_that_a_batch_leaves_out_is_unknown),
		cmocka_unit_test(whole_batch_settles_and_rejects_nothing),
		cmocka_unit_test(names_are_distinct_and_complete),
	};

	return cmocka_run_group_tests_name("outcome", tests, NULL, NULL);
}
