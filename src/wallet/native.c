/*
 * native.c
 *	  The adapter of our own wallet contract (docs: the wallet contract;
 *	  wallet/openapi.yaml).
 *
 * Keeps true: a format's bytes never change; a reply counts as a success only
 * when it says so in the contract's own form; what cannot be read changes no
 * fact.  The reply is untrusted: any bytes whatever, bounded by the caller.
 * Allocates only inside jansson; no I/O.
 *
 * PostgreSQL exports a function json_object too, and its wins in a backend: no
 * json_object() and no json_pack() of jansson may be called here.  Its parser is
 * bound to its own (native_test shows that).
 */
#include "wallet/adapter.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "wallet/json.h"
#include "wallet/native_batch.h"
#include "wallet/plain_reply.h"

#define FORMAT_1	1

/* Shortest secret that is looked for; shorter ones are in every text. */
#define SECRET_MIN	6

/* Longest member, escaped, that an echo is compared with. */
#define MEMBER_MAX	16384

#define WITHHELD	"(withheld: it repeats the authorization)"

/* Members of the request, in the order of the contract. */
typedef enum MemberKind
{
	MEMBER_TEXT,
	MEMBER_AMOUNT				/* compared as a number when echoed */
} MemberKind;

static const struct
{
	const char *name;
	size_t		offset;			/* of the text in WalletTrade */
	MemberKind	kind;
}			members[] =
{
	{"trade_id", offsetof(WalletTrade, trade_id), MEMBER_TEXT},
	{"buyer_id", offsetof(WalletTrade, buyer_id), MEMBER_TEXT},
	{"seller_id", offsetof(WalletTrade, seller_id), MEMBER_TEXT},
	{"buyer_order_id", offsetof(WalletTrade, buyer_order_id), MEMBER_TEXT},
	{"seller_order_id", offsetof(WalletTrade, seller_order_id), MEMBER_TEXT},
	{"base_currency", offsetof(WalletTrade, base_currency), MEMBER_TEXT},
	{"quote_currency", offsetof(WalletTrade, quote_currency), MEMBER_TEXT},
	{"base_amount", offsetof(WalletTrade, base_amount), MEMBER_AMOUNT},
	{"quote_amount", offsetof(WalletTrade, quote_amount), MEMBER_AMOUNT},
	{"price", offsetof(WalletTrade, price), MEMBER_AMOUNT},
	{"buyer_fee", offsetof(WalletTrade, buyer_fee), MEMBER_AMOUNT},
	{"seller_fee", offsetof(WalletTrade, seller_fee), MEMBER_AMOUNT},
};

#define N_MEMBERS	(sizeof members / sizeof members[0])

/*
 * Codes of the contract.  INVALID_REQUEST is a final word on a settlement; as
 * the answer to a look-up it may speak of the look-up itself, so it says nothing
 * there.
 */
static const struct
{
	const char *code;
	ReplyCode	settle;
	ReplyCode	lookup;
	const char *class;			/* of a rejection */
}			codes[] =
{
	{"INSUFFICIENT_BALANCE", CODE_REJECTION, CODE_REJECTION, "insufficient_balance"},
	{"USER_NOT_FOUND", CODE_REJECTION, CODE_REJECTION, "user_not_found"},
	{"RESERVATION_NOT_FOUND", CODE_REJECTION, CODE_REJECTION, "reservation_not_found"},
	{"INVALID_REQUEST", CODE_REJECTION, CODE_UNRECOGNISED, "invalid_request"},
	{"KEY_CONFLICT", CODE_KEY_CONFLICT, CODE_UNRECOGNISED, NULL},
	{"STALE_EPOCH", CODE_STALE_EPOCH, CODE_STALE_EPOCH, NULL},
	{"UNKNOWN_KEY", CODE_UNRECOGNISED, CODE_UNKNOWN_KEY, NULL},
};

static const char *
member_of(const WalletTrade *trade, size_t i)
{
	return *(const char *const *) ((const char *) trade + members[i].offset);
}

static int
native_request_body(int format, const WalletTrade *trade, char *out, size_t outlen)
{
	JsonWriter	w;

	if (format != FORMAT_1)
		return -1;
	json_begin(&w, out, outlen);
	for (size_t i = 0; i < N_MEMBERS; i++)
		json_member(&w, members[i].name, member_of(trade, i));
	return json_end(&w);
}

static int
native_lookup_path(const char *key, char *out, size_t outlen)
{
	int			len = snprintf(out, outlen, "/api/wallets/settlements/%s", key);

	return len >= 0 && (size_t) len < outlen ? len : -1;
}

static const char *
native_rejection_class(const char *code)
{
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (codes[i].class != NULL && strcmp(codes[i].code, code) == 0)
			return codes[i].class;
	return "rejected";
}

static ReplyCode
native_reply_code(WalletVerb verb, const char *code)
{
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (strcmp(codes[i].code, code) == 0)
			return verb == WALLET_SETTLE ? codes[i].settle : codes[i].lookup;
	return CODE_UNRECOGNISED;
}

/* Does the text hold the secret, or its part after the scheme's name? */
static bool
repeats_secret(const char *text, const char *secret)
{
	const char *token;

	if (secret == NULL || strlen(secret) < SECRET_MIN)
		return false;
	if (strstr(text, secret) != NULL)
		return true;
	token = strchr(secret, ' ');
	return token != NULL && strlen(token + 1) >= SECRET_MIN &&
		strstr(text, token + 1) != NULL;
}

/* Looked at before it is cut, so that no part of a secret is left at the cut. */
static bool
copy_text(char *out, size_t size, const char *text, const char *secret)
{
	if (repeats_secret(text, secret))
		return utf8_copy(out, size, WITHHELD) && false;
	return utf8_copy(out, size, text);
}

/*
 * Is this member, as a text, in the request's body?  The body is our own
 * writer's: inside a value every quote is escaped, so the bytes of a whole member
 * between separators can be nothing but that member.
 */
static bool
request_has(const char *request, const char *name, const char *value)
{
	char		object[MEMBER_MAX];
	JsonWriter	w;
	const char *found = request;
	int			len;

	json_begin(&w, object, sizeof object);
	json_member(&w, name, value);
	len = json_end(&w);
	if (len < 2)
		return false;
	object[len - 1] = '\0';		/* the member alone, without braces */
	len -= 2;
	while ((found = strstr(found, object + 1)) != NULL)
	{
		if (found > request && (found[-1] == '{' || found[-1] == ',') &&
			(found[len] == ',' || found[len] == '}'))
			return true;
		found++;
	}
	return false;
}

/* The text of a member of the request, for amounts only (they need no escape). */
static bool
request_amount(const char *request, const char *name, char *out, size_t size)
{
	char		prefix[64];
	const char *found;
	size_t		len;

	snprintf(prefix, sizeof prefix, ",\"%s\":\"", name);
	found = strstr(request, prefix);
	if (found == NULL)
		return false;
	found += strlen(prefix);
	len = strcspn(found, "\"");
	if (len >= size)
		return false;
	memcpy(out, found, len);
	out[len] = '\0';
	return true;
}

/*
 * Cut a plain decimal (no exponent) to its shortest form in place: no plus, no
 * leading or trailing zeros, no minus zero.  False when it is none.
 */
static bool
normalise_decimal(char *s)
{
	char	   *digits = s + (*s == '-' || *s == '+');
	size_t		whole = strspn(digits, "0123456789");
	size_t		part = 0;
	size_t		zeros;
	bool		minus = *s == '-';

	if (digits[whole] == '.')
		part = strspn(digits + whole + 1, "0123456789") + 1;
	if (whole == 0 || part == 1 || digits[whole + part] != '\0')
		return false;
	while (part > 0 && (digits[whole + part - 1] == '0' || digits[whole + part - 1] == '.'))
	{
		bool		point = digits[whole + part - 1] == '.';

		digits[whole + --part] = '\0';
		if (point)
			break;
	}
	zeros = strspn(digits, "0");
	if (zeros == whole)
		zeros--;				/* keep one digit before the point */
	if (minus && strcmp(digits + zeros, "0") == 0)
		minus = false;
	memmove(s + minus, digits + zeros, strlen(digits + zeros) + 1);
	if (minus)
		s[0] = '-';
	return true;
}

/* "0.50", 0.5 and "0.5" are the same amount. */
static bool
amount_matches(const char *request, const char *name, const json_t *value)
{
	char		sent[512];
	char		echoed[512];

	if (!request_amount(request, name, sent, sizeof sent))
		return false;
	if (json_is_real(value))
		return strtod(sent, NULL) == json_real_value(value);
	if (json_is_integer(value))
		snprintf(echoed, sizeof echoed, "%" JSON_INTEGER_FORMAT,
				 json_integer_value(value));
	else if (!json_is_string(value) ||
			 json_string_length(value) >= sizeof echoed)
		return false;
	else
		memcpy(echoed, json_string_value(value), json_string_length(value) + 1);
	return normalise_decimal(sent) && normalise_decimal(echoed) &&
		strcmp(sent, echoed) == 0;
}

static bool
text_matches(const char *request, const char *name, const json_t *value)
{
	char		number[32];

	if (json_is_string(value))
		return request_has(request, name, json_string_value(value));
	if (!json_is_integer(value))
		return false;
	snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT,
			 json_integer_value(value));
	return request_has(request, name, number);
}

static bool
key_matches(const ReplyContext *context, const json_t *value)
{
	return json_is_string(value) &&
		strcasecmp(json_string_value(value), context->key) == 0;
}

/* One member of the reply: does it repeat one of the request, and truly? */
static bool
member_mismatches(const ReplyContext *context, const char *name, const json_t *value)
{
	if (json_is_null(value))
		return false;
	if (strcmp(name, "idempotency_key") == 0)
		return !key_matches(context, value);
	for (size_t i = 0; i < N_MEMBERS && context->request[0] != '\0'; i++)
		if (strcmp(members[i].name, name) == 0)
			return members[i].kind == MEMBER_AMOUNT ?
				!amount_matches(context->request, name, value) :
				!text_matches(context->request, name, value);
	return false;
}

/* Does the reply repeat a field of the request with another value? */
static bool
has_mismatch(const ReplyContext *context, const json_t *reply)
{
	json_t	   *object = (json_t *) reply;	/* its iterator changes nothing */

	for (void *i = json_object_iter(object); i != NULL;
		 i = json_object_iter_next(object, i))
		if (member_mismatches(context, json_object_iter_key(i), json_object_iter_value(i)))
			return true;
	return false;
}

/* An id that is cut, empty or unprintable names nothing. */
static bool
copy_settlement_id(const ReplyContext *context, const char *id, char *out)
{
	if (id == NULL || *id == '\0')
		return false;
	for (const char *c = id; *c != '\0'; c++)
		if ((unsigned char) *c < 0x20 || *c == 0x7f)
			return false;
	if (copy_text(out, WALLET_ID_MAX + 1, id, context->secret))
		return true;
	out[0] = '\0';
	return false;
}

/* A wallet that goes by a number near the end of the range cannot be outdone. */
static int64_t
newer_epoch(const json_t *reply)
{
	json_int_t	epoch = json_integer_value(json_object_get(reply, "epoch"));

	return epoch > 0 && epoch < INT64_MAX / 2 ? (int64_t) epoch : 0;
}

/* The usual answer; false: it is another. */
static bool
read_plain_reply(const ReplyContext *context, WalletResult *result)
{
	AttemptFacts *facts = &result->facts;
	PlainReply	plain;

	if (!plain_reply_read(context->reply, context->reply_len, &plain))
		return false;
	facts->parsed = true;
	facts->success = true;
	facts->has_settlement_id =
		copy_settlement_id(context, plain.settlement_id, result->settlement_id);
	copy_text(result->message, sizeof result->message, plain.message, context->secret);
	return true;
}

/* An item's body, or a whole reply; NULL when there is none. */
static void
native_read_item(const ReplyContext *context, const void *body, WalletResult *result)
{
	AttemptFacts *facts = &result->facts;
	const json_t *reply = body;
	const json_t *success;
	const char *text;

	if (!json_is_object(reply))
		return;
	facts->parsed = true;
	success = json_object_get(reply, "success");
	if (json_is_boolean(success))
		facts->success = json_is_true(success);
	facts->has_settlement_id =
		copy_settlement_id(context, json_string_value(json_object_get(reply, "settlement_id")),
						   result->settlement_id);
	facts->echo_mismatch = has_mismatch(context, reply);
	text = json_string_value(json_object_get(reply, "code"));
	if (text != NULL && *text != '\0')
	{
		facts->code = native_reply_code(context->verb, text);
		copy_text(result->code, sizeof result->code, text, context->secret);
	}
	if (facts->code == CODE_STALE_EPOCH)
		result->newer_epoch = newer_epoch(reply);
	text = json_string_value(json_object_get(reply, "message"));
	if (text == NULL || *text == '\0')
		text = json_string_value(json_object_get(reply, "error"));
	if (text != NULL)
		copy_text(result->message, sizeof result->message, text, context->secret);
}

static void
read_json_reply(const ReplyContext *context, WalletResult *result)
{
	json_t	   *reply = json_read(context->reply, context->reply_len);

	native_read_item(context, reply, result);
	json_decref(reply);
}

static void
native_read_reply(const ReplyContext *context, WalletResult *result)
{
	if (!read_plain_reply(context, result))
		read_json_reply(context, result);
}

const WalletAdapter native_adapter = {
	.name = "native",
	.format = FORMAT_1,
	.rejection_is_final = true,
	.settle_path = "/api/wallets/settle",
	.rejection_class = native_rejection_class,
	.request_body = native_request_body,
	.lookup_path = native_lookup_path,
	.reply_code = native_reply_code,
	.read_reply = native_read_reply,
	.batch_path = "/api/wallets/settle-batch",
	.batch_item = native_batch_item,
	.batch_end = "]",
	.open_batch = native_open_batch,
	.open_item = native_open_item,
	.close_batch = native_close_batch,
	.read_item = native_read_item,
};
