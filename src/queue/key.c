/*
 * key.c
 *	  The idempotency key of a flight and the fingerprint of what is sent.
 *
 * The key is made of source, trade id and generation; the content is not part
 * of it, so that the same trade with other amounts collides at the wallet.
 */
#include "postgres.h"

#include "common/sha2.h"

#include "pgver.h"
#include "policy/idempotency.h"
#include "queue/attachment.h"
#include "queue/key.h"

#define MAX_BODY	8192

StaticAssertDecl(FINGERPRINT_LEN == PG_SHA256_DIGEST_LENGTH,
				 "a fingerprint is a SHA-256");

static void
sha256(const char *data, int len, uint8 *out)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (context == NULL ||
		pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, (const uint8 *) data, len) < 0 ||
		pg_cryptohash_final(context, out, PG_SHA256_DIGEST_LENGTH) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a SHA-256 hash")));
	pg_cryptohash_free(context);
}

/* False when the trade does not fit into a request. */
static bool
compute_fingerprint(const TradeFlight *flight, const WalletClient *client,
					int format, uint8 *out)
{
	static char body[MAX_BODY];
	int			len = wallet_request_body(client, format, &flight->wire, body,
										  sizeof(body));

	if (len < 0)
		return false;
	sha256(body, len, out);
	return true;
}

static void
check_resend(TradeFlight *flight, const WalletClient *client)
{
	uint8		print[FINGERPRINT_LEN];

	if (!flight->has_fingerprint)
		return;
	if (!compute_fingerprint(flight, client, flight->format, print) ||
		memcmp(print, flight->fingerprint, FINGERPRINT_LEN) != 0)
		flight->local_class = "fingerprint_mismatch";
}

/*
 * The trade's own trace id, else that of its first key: a redrive with another
 * key stays in the same trace.
 */
static void
make_trace(const char *source, const char *trade_id, const char *mapped,
		   char out[TRACE_ID_LEN + 1])
{
	char		first_key[IDEMPOTENCY_KEY_LEN + 1];

	if (mapped != NULL && trace_id_read(mapped, strlen(mapped), out))
		return;
	idempotency_key(source, trade_id, 0, first_key);
	trace_id_of_key(first_key, out);
}

void
key_trace(int attached_id, const char *trade_id, const char *mapped,
		  char out[TRACE_ID_LEN + 1])
{
	Oid			root;
	const char *source = attachment_source(attached_id, &root);

	out[0] = '\0';
	if (source != NULL && trade_id != NULL)
		make_trace(source, trade_id, mapped, out);
}

void
key_prepare(TradeFlight **flights, int n, const WalletClient *client)
{
	int			attached_id = 0;
	const char *source = NULL;

	for (int i = 0; i < n; i++)
	{
		TradeFlight *flight = flights[i];

		if (i == 0 || flight->attached_id != attached_id)
		{
			Oid			root;

			attached_id = flight->attached_id;
			source = attachment_source(attached_id, &root);
		}
		flight->trace[0] = '\0';
		if (source == NULL)
		{
			flight->local_class = "not_attached";
			continue;
		}
		handled_begin(flight->queue_id);
		idempotency_key(source, flight->wire.trade_id, flight->generation,
						flight->key);
		if (flight->trace_id == NULL && flight->generation == 0)
			trace_id_of_key(flight->key, flight->trace);
		else
			make_trace(source, flight->wire.trade_id, flight->trace_id, flight->trace);
		check_resend(flight, client);
		handled_end();
	}
}

void
key_fingerprint(TradeFlight *flight, const WalletClient *client)
{
	if (flight->format == 0)
		flight->format = wallet_request_format(client);
	if (!flight->has_fingerprint)
		flight->has_fingerprint =
			compute_fingerprint(flight, client, flight->format, flight->fingerprint);
}
