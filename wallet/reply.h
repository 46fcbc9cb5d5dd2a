/*
 * reply.h
 *	  Making replies: JSON and errors.
 */
#ifndef WALLET_REPLY_H
#define WALLET_REPLY_H

#include "request.h"

extern void reply_free(Reply *reply);

/* Takes over body (malloc'ed, NUL terminated); drops what was there. */
extern void reply_set(Request *request, int status, char *body);

/* Takes over the document. */
extern void reply_json(Request *request, int status, json_t *document);

/* {"error","message"} and, when not NULL, "code" and "trade_id". */
extern void reply_error(Request *request, int status, const char *code,
						const char *message);

/* 412 with the highest epoch that was seen. */
extern void reply_stale_epoch(Request *request, int64_t seen);

extern const char *status_reason(int status);

#endif
