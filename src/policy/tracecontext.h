/*
 * tracecontext.h
 *	  W3C Trace Context: the traceparent header that goes with a request.
 *
 *	  https://www.w3.org/TR/trace-context/, version 00.
 */
#ifndef SETTLEMENT_POLICY_TRACECONTEXT_H
#define SETTLEMENT_POLICY_TRACECONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "policy/idempotency.h"

#define TRACE_ID_LEN		32	/* hex digits */
#define TRACEPARENT_LEN		55

/*
 * The trace id in a text of that length (which need not end with a NUL): 32 hex
 * digits, a UUID, or a whole traceparent.  Written in lower case with a NUL.
 * False, and an empty text, when there is none, or all its digits are zero.
 */
extern bool trace_id_read(const char *text, size_t len, char out[TRACE_ID_LEN + 1]);

/*
 * The trace id of a trade that brings none: its idempotency key.  The same for
 * each request of the key, and its last 8 bytes are a hash's, as good as random.
 */
extern void trace_id_of_key(const char key[IDEMPOTENCY_KEY_LEN + 1],
							char out[TRACE_ID_LEN + 1]);

/* span_id names this one request; 0, which is not valid, counts as 1. */
extern void traceparent_write(char out[TRACEPARENT_LEN + 1], const char *trace_id,
							  uint64_t span_id, bool sampled);

#endif
