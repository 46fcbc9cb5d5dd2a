/*
 * evidence.c
 *	  SQL functions behind evidence(): the bytes of a trade's request and its key,
 *	  made by the code that makes them for the wallet, so that what is shown
 *	  cannot differ from what is sent: settlement._request_body(),
 *	  _idempotency_key(), _settle_path().
 *
 * Pure: no I/O, no shared memory.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

#include "pgver.h"
#include "policy/idempotency.h"
#include "queue/facts.h"
#include "queue/flight.h"
#include "shared/settings.h"
#include "wallet/adapter.h"

PG_FUNCTION_INFO_V1(settlement_request_body);
PG_FUNCTION_INFO_V1(settlement_idempotency_key);
PG_FUNCTION_INFO_V1(settlement_settle_path);

#define MAX_BODY	65536

/* Columns without which there is no request: those of an invalid trade. */
static const AttrNumber needed[] = {
	Anum_queue_trade_id, Anum_queue_symbol, Anum_queue_buyer_id, Anum_queue_seller_id,
	Anum_queue_buyer_order_id, Anum_queue_seller_order_id, Anum_queue_price,
	Anum_queue_quantity, Anum_queue_quote_amount, Anum_queue_buyer_fee,
	Anum_queue_seller_fee
};

static bool
is_complete(TupleTableSlot *slot)
{
	for (int i = 0; i < lengthof(needed); i++)
		if (slot_attisnull(slot, needed[i]))
			return false;
	return true;
}

/* A value of type settlement.queue as the slot that a worker reads. */
static TupleTableSlot *
slot_of(HeapTupleHeader row)
{
	TupleDesc	desc = lookup_rowtype_tupdesc_copy(HeapTupleHeaderGetTypeId(row),
												   HeapTupleHeaderGetTypMod(row));
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	HeapTuple	tuple = palloc0(sizeof(HeapTupleData));

	if (desc->natts != Natts_queue)
		elog(ERROR, "a queue row has %d columns, not %d", desc->natts, Natts_queue);
	tuple->t_len = HeapTupleHeaderGetDatumLength(row);
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_data = row;
	ExecStoreHeapTuple(tuple, slot, false);
	return slot;
}

/*
 * settlement._request_body(trade settlement.queue): the body of its request, in
 * the format that its key was first sent with, or the present one.  NULL when
 * the trade cannot be sent.
 */
Datum
settlement_request_body(PG_FUNCTION_ARGS)
{
	const WalletAdapter *adapter = wallet_adapter_by_name(settlement_wallet_adapter);
	TupleTableSlot *slot = slot_of(PG_GETARG_HEAPTUPLEHEADER(0));
	TradeFlight *flight;
	char	   *body;
	int			len;

	if (adapter == NULL || !is_complete(slot))
		PG_RETURN_NULL();
	flight = palloc0(sizeof(TradeFlight));
	flight_read(flight, slot, CurrentMemoryContext);
	body = palloc(MAX_BODY);
	len = adapter->request_body(flight->format ? flight->format : adapter->format,
								&flight->wire, body, MAX_BODY);
	if (len < 0)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(cstring_to_text_with_len(body, len));
}

/* settlement._idempotency_key(source, trade_id, generation). */
Datum
settlement_idempotency_key(PG_FUNCTION_ARGS)
{
	char		key[IDEMPOTENCY_KEY_LEN + 1];

	idempotency_key(text_to_cstring(PG_GETARG_TEXT_PP(0)),
					text_to_cstring(PG_GETARG_TEXT_PP(1)), PG_GETARG_INT32(2), key);
	PG_RETURN_TEXT_P(cstring_to_text(key));
}

/* settlement._settle_path(): where requests go, below the wallet's URL. */
Datum
settlement_settle_path(PG_FUNCTION_ARGS)
{
	const WalletAdapter *adapter = wallet_adapter_by_name(settlement_wallet_adapter);

	if (adapter == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(adapter->settle_path));
}
