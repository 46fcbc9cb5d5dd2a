/*
 * idempotency.c
 *	  The idempotency key: a UUIDv5 over what names a trade, never over what it
 *	  says.
 *
 * Keeps true: the same source, trade id and generation give the same key in
 * every version of this program.  The namespace and the layout of the name must
 * therefore never change.  Pure, no lock; the hashing is libuuid's.
 */
#include "policy/idempotency.h"

#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

/* 9f1c6a52-7d0e-4b1f-8a63-52c4e0d7b9a1: random, drawn once, ours alone. */
static const uuid_t key_namespace = {
	0x9f, 0x1c, 0x6a, 0x52, 0x7d, 0x0e, 0x4b, 0x1f,
	0x8a, 0x63, 0x52, 0xc4, 0xe0, 0xd7, 0xb9, 0xa1
};

bool
idempotency_key(const char *source, const char *trade_id, int generation,
				char out[IDEMPOTENCY_KEY_LEN + 1])
{
	char		name[IDEMPOTENCY_NAME_MAX + 16];
	size_t		source_len = strlen(source);
	size_t		id_len = strlen(trade_id);
	size_t		len;
	uuid_t		key;

	out[0] = '\0';
	if (source_len > IDEMPOTENCY_NAME_MAX ||
		id_len > IDEMPOTENCY_NAME_MAX ||
		source_len + 1 + id_len + 1 > IDEMPOTENCY_NAME_MAX)
		return false;
	memcpy(name, source, source_len + 1);
	memcpy(name + source_len + 1, trade_id, id_len + 1);
	len = source_len + 1 + id_len + 1;
	len += (size_t) snprintf(name + len, sizeof name - len, "%d", generation);
	uuid_generate_sha1(key, key_namespace, name, len);
	uuid_unparse_lower(key, out);
	return true;
}

/* FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
uint64_t
trade_hash(const char *text)
{
	uint64_t	hash = UINT64_C(14695981039346656037);

	for (; *text != '\0'; text++)
	{
		hash ^= (unsigned char) *text;
		hash *= UINT64_C(1099511628211);
	}
	return hash;
}
