/*
 * key.c
 *	  settlement._idempotency_key(): the key that a trade is sent under, for
 *	  exports and for statements of the wallet that name keys.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "pgver.h"
#include "policy/idempotency.h"

PG_FUNCTION_INFO_V1(settlement_idempotency_key);

/* settlement._idempotency_key(source, trade_id, generation); strict. */
Datum
settlement_idempotency_key(PG_FUNCTION_ARGS)
{
	char		key[IDEMPOTENCY_KEY_LEN + 1];

	if (!idempotency_key(text_to_cstring(PG_GETARG_TEXT_PP(0)),
						 text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_INT32(2), key))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(key));
}
