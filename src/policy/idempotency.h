/*
 * idempotency.h
 *	  The idempotency key of a trade and the fingerprint of its content.
 */
#ifndef SETTLEMENT_POLICY_IDEMPOTENCY_H
#define SETTLEMENT_POLICY_IDEMPOTENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IDEMPOTENCY_KEY_LEN		36	/* text form of a UUID, without NUL */
#define IDEMPOTENCY_NAME_MAX	8192	/* bytes of source and trade id together */

/*
 * UUIDv5 (RFC 4122, section 4.3) over a fixed namespace and the name
 * source NUL trade_id NUL generation-in-decimal.  The NULs keep
 * ("a", "bc") and ("ab", "c") apart: neither text can hold one.
 * Writes lower-case text and a terminating NUL.  False, and an empty text that
 * wallet_client_submit refuses, when source and trade_id exceed
 * IDEMPOTENCY_NAME_MAX together.
 */
extern bool idempotency_key(const char *source, const char *trade_id,
							int generation, char out[IDEMPOTENCY_KEY_LEN + 1]);

/* 64-bit hash (FNV-1a) of a text, to tell trades apart in the breaker. */
extern uint64_t trade_hash(const char *text);

#endif
