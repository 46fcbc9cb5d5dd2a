/*
 * admin.c
 *	  Endpoints that set the wallet up or make it misbehave.
 *
 * Each writes in a transaction of its own, all or nothing, and answers after
 * the commit.
 */
#include "admin.h"

#include <stdio.h>
#include <string.h>

#include "amount.h"
#include "http.h"
#include "reply.h"

static void
bad_request(Request *request, const char *message)
{
	reply_error(request, 400, "INVALID_REQUEST", message);
}

/* The body as JSON; an empty body is an empty object.  NULL: answered. */
static json_t *
read_body(Request *request)
{
	json_error_t error;
	json_t	   *document;

	if (request->length == 0)
		return json_object();
	document = json_loadb(request->body, request->length, JSON_REJECT_DUPLICATES, &error);
	if (document == NULL)
		bad_request(request, error.text);
	return document;
}

/* Ends a transaction as it went: true when it is committed. */
static bool
finish_transaction(Request *request, bool ok)
{
	Server	   *server = request->server;

	if (ok && database_commit(&server->database))
		return true;
	if (request->reply.status == 0)
		reply_error(request, 500, NULL, "the ledger could not be written");
	database_rollback(&server->database);
	return false;
}

static bool
bad_entry(Request *request, size_t index, const char *message)
{
	char		text[200];

	snprintf(text, sizeof(text), "entry %zu: %s", index, message);
	bad_request(request, text);
	return false;
}

static const char *
entry_text(const json_t *entry, const char *name, size_t max)
{
	const char *text = json_string_value(json_object_get(entry, name));

	return text == NULL || text[0] == '\0' || strlen(text) > max ? NULL : text;
}

/* account, currency and amount of an entry; false: answered. */
static bool
read_entry(Request *request, const json_t *entry, size_t index,
		   const char **account, const char **currency, mpz_t amount)
{
	const char *text = json_string_value(json_object_get(entry, "amount"));

	*account = entry_text(entry, "account", TRADE_ID_MAX);
	*currency = entry_text(entry, "currency", TRADE_CURRENCY_MAX);
	if (*account == NULL || strcmp(*account, LEDGER_SOURCE_ACCOUNT) == 0)
		return bad_entry(request, index, "account must be a text of 1 to 256 bytes, not \""
						 LEDGER_SOURCE_ACCOUNT "\"");
	if (*currency == NULL)
		return bad_entry(request, index, "currency must be a text of 1 to 32 bytes");
	if (text == NULL || !amount_parse(amount, text))
		return bad_entry(request, index, "amount must be a decimal string that fits");
	return true;
}

static bool
deposit_entry(Request *request, const json_t *entry, size_t index, mpz_t amount)
{
	const char *account;
	const char *currency;

	return read_entry(request, entry, index, &account, &currency, amount) &&
		ledger_deposit(&request->server->ledger, account, currency, amount,
					   time_now_us()) == LEDGER_DONE;
}

static bool
reserve_entry(Request *request, const json_t *entry, size_t index, mpz_t amount)
{
	const char *order_id = entry_text(entry, "order_id", TRADE_ID_MAX);
	const char *account;
	const char *currency;

	if (order_id == NULL)
		return bad_entry(request, index, "order_id must be a text of 1 to 256 bytes");
	if (!read_entry(request, entry, index, &account, &currency, amount))
		return false;
	switch (ledger_reserve(&request->server->ledger, order_id, account, currency, amount))
	{
		case LEDGER_DONE:
			return true;
		case LEDGER_INSUFFICIENT_BALANCE:
			reply_error(request, 422, "INSUFFICIENT_BALANCE",
						"the free balance does not cover the reservation");
			return false;
		default:
			return false;
	}
}

/* One transaction over an array (or a single object) of entries. */
static void
for_each_entry(Request *request,
			   bool (*work) (Request *, const json_t *, size_t, mpz_t))
{
	json_t	   *document = read_body(request);
	json_t	   *entry;
	size_t		index;
	size_t		done = 0;
	mpz_t		amount;
	bool		ok;

	if (document == NULL)
		return;
	if (json_is_object(document))
		document = json_pack("[o]", document);
	mpz_init(amount);
	ok = database_begin(&request->server->database);
	json_array_foreach(document, index, entry)
	{
		if (!ok)
			break;
		ok = work(request, entry, index + 1, amount);
		done++;
	}
	if (!json_is_array(document))
	{
		bad_request(request, "the body must be an object or an array of objects");
		ok = false;
	}
	mpz_clear(amount);
	json_decref(document);
	if (finish_transaction(request, ok))
		reply_json(request, 200, json_pack("{s:I}", "entries", (json_int_t) done));
}

void
admin_accounts(Request *request)
{
	for_each_entry(request, deposit_entry);
}

void
admin_deposit(Request *request)
{
	for_each_entry(request, deposit_entry);
}

void
admin_reservations(Request *request)
{
	for_each_entry(request, reserve_entry);
}

void
admin_list_faults(Request *request)
{
	reply_json(request, 200, json_pack("{s:I s:o}",
									   "seed", (json_int_t) request->server->faults.seed,
									   "rules", faults_describe(&request->server->faults)));
}

static void
load_faults(Request *request, bool replace)
{
	json_t	   *document = read_body(request);
	char		err[300];

	if (document == NULL)
		return;
	if (faults_load(&request->server->faults, document, replace, err, sizeof(err)))
		admin_list_faults(request);
	else
		bad_request(request, err);
	json_decref(document);
}

void
admin_replace_faults(Request *request)
{
	load_faults(request, true);
}

void
admin_add_faults(Request *request)
{
	load_faults(request, false);
}

void
admin_clear_faults(Request *request)
{
	faults_clear(&request->server->faults);
	admin_list_faults(request);
}

/* {"ms":2000}: as if the process were gone for so long. */
void
admin_refuse(Request *request)
{
	json_t	   *document = read_body(request);
	json_int_t	ms;

	if (document == NULL)
		return;
	if (json_unpack_ex(document, NULL, JSON_STRICT, "{s:I}", "ms", &ms) != 0 ||
		ms < 0 || ms > 24 * 60 * 60 * 1000)
		bad_request(request, "the body must be {\"ms\": 0 to 86400000}");
	else
	{
		listener_refuse(&request->server->listener, time_monotonic_us() + ms * 1000);
		http_drop_connections(request->server, request);
		reply_json(request, 200, json_pack("{s:I}", "ms", ms));
	}
	json_decref(document);
}

static int
forget(Answers *answers, const json_t *keys, json_int_t older_than_ms)
{
	int			total = 0;
	size_t		index;
	json_t	   *key;

	if (keys == NULL)
		return answers_forget_older(answers, older_than_ms < 0 ? INT64_MAX
									: time_now_us() - older_than_ms * 1000);
	json_array_foreach(keys, index, key)
	{
		char		normal[UUID_LEN + 1];
		int			n;

		if (!json_is_string(key) || !uuid_normalize(normal, json_string_value(key)))
			continue;
		n = answers_forget(answers, normal);
		if (n < 0)
			return -1;
		total += n;
	}
	return total;
}

/* {} all, {"keys":[...]} these, {"older_than_ms":n} the older ones. */
void
admin_forget_keys(Request *request)
{
	json_t	   *document = read_body(request);
	json_t	   *keys = NULL;
	json_int_t	older_than_ms = -1;
	int			forgotten = -1;

	if (document == NULL)
		return;
	if (json_unpack_ex(document, NULL, JSON_STRICT, "{s?o s?I}", "keys", &keys,
					   "older_than_ms", &older_than_ms) != 0 ||
		(keys != NULL && !json_is_array(keys)))
		bad_request(request, "the body may have keys (an array) and older_than_ms");
	else
	{
		bool		ok = database_begin(&request->server->database);

		if (ok)
			forgotten = forget(&request->server->answers, keys, older_than_ms);
		if (finish_transaction(request, ok && forgotten >= 0))
			reply_json(request, 200, json_pack("{s:i}", "forgotten", forgotten));
	}
	json_decref(document);
}

void
admin_epoch(Request *request)
{
	json_t	   *document = read_body(request);
	json_int_t	epoch;

	if (document == NULL)
		return;
	if (json_unpack_ex(document, NULL, JSON_STRICT, "{s:I}", "epoch", &epoch) != 0 ||
		epoch < 0)
		bad_request(request, "the body must be {\"epoch\": 0 or more}");
	else
	{
		bool		ok = database_begin(&request->server->database);

		ok = ok && answers_set_epochs(&request->server->answers, epoch);
		if (finish_transaction(request, ok))
			reply_json(request, 200, json_pack("{s:I}", "epoch", epoch));
	}
	json_decref(document);
}

void
admin_reset_stats(Request *request)
{
	request->server->stats = (Stats) {0};
	reply_json(request, 200, json_pack("{s:b}", "ok", 1));
}
