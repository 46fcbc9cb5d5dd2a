/*
 * key.c
 *	  The idempotency key of a flight and the fingerprint of what is sent.
 *
 * The key is made of source, trade id and generation; the content is not part
 * of it, so that the same trade with other amounts collides at the wallet.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"

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

/* Source of the attached table; looked up seldom, as it hardly ever changes. */
static const char *
source_of(int attached_id)
{
	Oid			root;

	return attachment_source(attached_id, &root);
}

void
key_prepare(TradeFlight *flight, const WalletClient *client)
{
	static char body[MAX_BODY];
	uint8		print[FINGERPRINT_LEN];
	const char *source = source_of(flight->attached_id);
	int			format = flight->format;
	int			len;

	if (source == NULL)
	{
		flight->local_class = "not_attached";
		return;
	}
	idempotency_key(source, flight->wire.trade_id, flight->generation, flight->key);

	if (format == 0)
		format = wallet_request_format(client);
	len = wallet_request_body(client, format, &flight->wire, body, sizeof(body));
	if (len < 0)
	{
		flight->local_class = "invalid_trade";
		return;
	}
	sha256(body, len, print);
	if (flight->has_fingerprint &&
		memcmp(print, flight->fingerprint, FINGERPRINT_LEN) != 0)
	{
		flight->local_class = "fingerprint_mismatch";
		return;
	}
	memcpy(flight->fingerprint, print, FINGERPRINT_LEN);
	flight->has_fingerprint = true;
	flight->format = format;
}
