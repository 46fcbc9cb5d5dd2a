/*
 * attachment.c
 *	  What the columns of an attached table mean, cached per backend.
 *
 * Reads settlement.attached with a catalog snapshot, below privileges, so that
 * a role with INSERT on the trade table and nothing else can enqueue.  Takes no
 * lock on user tables.  Entries are only marked by the invalidation callback
 * and freed by the next look-up, so that a result stays readable until then.
 *
 * A mapped column that has been dropped, renamed or altered since attach()
 * shows as attno 0 or as another type: the caller has to cope, because the
 * INSERT must not fail.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_index.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "pgver.h"
#include "queue/attachment.h"
#include "queue/catalog.h"

/* Attribute numbers of settlement.attached. */
#define Anum_attached_id			1
#define Anum_attached_relid			2
#define Anum_attached_source		3
#define Anum_attached_columns		4
#define Anum_attached_key_columns	5

typedef struct CacheEntry
{
	Oid			relid;			/* hash key */
	bool		valid;
	Oid			root;			/* InvalidOid while it is being built */
	Attachment *attachment;		/* NULL: not built */
	MemoryContext context;
} CacheEntry;

static HTAB *cache = NULL;

static const char *const column_names[N_TRADE_COLUMNS] = {
	[COLUMN_TRADE_ID] = "trade_id",
	[COLUMN_SYMBOL] = "symbol",
	[COLUMN_BUYER_ID] = "buyer_id",
	[COLUMN_SELLER_ID] = "seller_id",
	[COLUMN_BUYER_ORDER_ID] = "buyer_order_id",
	[COLUMN_SELLER_ORDER_ID] = "seller_order_id",
	[COLUMN_PRICE] = "price",
	[COLUMN_QUANTITY] = "quantity",
	[COLUMN_BUYER_FEE] = "buyer_fee",
	[COLUMN_SELLER_FEE] = "seller_fee",
	[COLUMN_TRACE_ID] = "trace_id",
	[COLUMN_STATUS] = "status",
	[COLUMN_SETTLEMENT_ID] = "settlement_id",
	[COLUMN_SETTLED_AT] = "settled_at",
	[COLUMN_ATTEMPTS] = "attempts",
	[COLUMN_ERROR] = "error",
};

const char *
trade_column_name(TradeColumn column)
{
	Assert(column >= 0 && column < N_TRADE_COLUMNS);
	return column_names[column];
}

static void
cache_invalidate(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS status;
	CacheEntry *entry;

	hash_seq_init(&status, cache);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (relid == InvalidOid || entry->root == InvalidOid ||
			relid == entry->relid || relid == entry->root)
			entry->valid = false;
	}
}

static void
cache_create(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(CacheEntry);
	ctl.hcxt = CacheMemoryContext;
	cache = hash_create("settlement attachments", 16, &ctl,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(cache_invalidate, (Datum) 0);
}

/*
 * A copy of the row of settlement.attached whose column `attno` equals `value`,
 * with its descriptor; NULL when there is none.
 */
static HeapTuple
fetch_attached(AttrNumber attno, RegProcedure eq, Datum value, TupleDesc *desc)
{
	Relation	rel = table_open(settlement_catalog(false)->attached, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, attno, BTEqualStrategyNumber, eq, value);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		tuple = heap_copytuple(tuple);
	*desc = CreateTupleDescCopy(RelationGetDescr(rel));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return tuple;
}

/* The row of the relation itself or of the nearest attached ancestor. */
static HeapTuple
fetch_attached_of(Relation rel, Oid *root, TupleDesc *desc)
{
	HeapTuple	tuple;
	ListCell   *lc;

	*root = RelationGetRelid(rel);
	tuple = fetch_attached(Anum_attached_relid, F_OIDEQ,
						   ObjectIdGetDatum(*root), desc);
	if (HeapTupleIsValid(tuple) || !rel->rd_rel->relispartition)
		return tuple;
	foreach(lc, get_partition_ancestors(RelationGetRelid(rel)))
	{
		*root = lfirst_oid(lc);
		tuple = fetch_attached(Anum_attached_relid, F_OIDEQ,
							   ObjectIdGetDatum(*root), desc);
		if (HeapTupleIsValid(tuple))
			return tuple;
	}
	return NULL;
}

static AttrNumber
find_column(TupleDesc desc, const char *name, int len, Oid *base_type)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped &&
			strncmp(NameStr(att->attname), name, len) == 0 &&
			NameStr(att->attname)[len] == '\0')
		{
			*base_type = getBaseType(att->atttypid);
			return att->attnum;
		}
	}
	*base_type = InvalidOid;
	return InvalidAttrNumber;
}

/* Fill attno and type from the jsonb of role -> column name. */
static void
map_columns(Attachment *a, TupleDesc leaf, Jsonb *columns)
{
	for (int i = 0; i < N_TRADE_COLUMNS; i++)
	{
		JsonbValue	key;
		JsonbValue *name;

		key.type = jbvString;
		key.val.string.val = unconstify(char *, column_names[i]);
		key.val.string.len = strlen(column_names[i]);
		name = findJsonbValueFromContainer(&columns->root, JB_FOBJECT, &key);
		a->mapped[i] = name != NULL && name->type == jbvString;
		if (a->mapped[i])
			a->attno[i] = find_column(leaf, name->val.string.val,
									  name->val.string.len, &a->type[i]);
	}
}

static void
map_key(Attachment *a, Relation rel, ArrayType *names)
{
	Datum	   *name;
	int			n;
	HeapTuple	tuple;

	deconstruct_array(names, NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR,
					  &name, NULL, &n);
	a->n_keys = Min(n, MAX_KEY_COLUMNS);
	for (int i = 0; i < a->n_keys; i++)
	{
		char	   *s = NameStr(*DatumGetName(name[i]));

		a->key_attno[i] = find_column(RelationGetDescr(rel), s, strlen(s),
									  &a->key_type[i]);
		a->key_index_column[i] = -1;
	}
	a->key_is_trade_id = a->n_keys == 1 && a->key_attno[0] != 0 &&
		a->key_attno[0] == a->attno[COLUMN_TRADE_ID];

	a->key_index = RelationGetPrimaryKey(rel);
	if (!OidIsValid(a->key_index))
		return;
	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(a->key_index));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", a->key_index);
	for (int i = 0; i < a->n_keys; i++)
	{
		Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

		for (int j = 0; j < index->indnkeyatts; j++)
			if (index->indkey.values[j] == a->key_attno[i])
				a->key_index_column[i] = j;
	}
	ReleaseSysCache(tuple);
}

/*
 * From a row of settlement.attached.  The result is in `result_context`; what is
 * read on the way is left in the present one.
 */
static Attachment *
build_attachment(Relation rel, Oid root, HeapTuple tuple, TupleDesc desc,
				 MemoryContext result_context)
{
	Attachment *a;
	Datum		value[Anum_attached_key_columns + 1];

	for (int i = Anum_attached_id; i <= Anum_attached_key_columns; i++)
	{
		bool		isnull;

		value[i] = heap_getattr(tuple, i, desc, &isnull);
		if (isnull)
			elog(ERROR, "null in column %d of settlement.attached", i);
	}

	a = MemoryContextAllocZero(result_context, sizeof(Attachment));
	a->relid = RelationGetRelid(rel);
	a->root = root;
	a->attached_id = DatumGetInt32(value[Anum_attached_id]);
	a->source = MemoryContextStrdup(result_context,
									TextDatumGetCString(value[Anum_attached_source]));
	map_columns(a, RelationGetDescr(rel), DatumGetJsonbP(value[Anum_attached_columns]));
	map_key(a, rel, DatumGetArrayTypeP(value[Anum_attached_key_columns]));
	return a;
}

static void
drop_entry(CacheEntry *entry)
{
	if (entry->context != NULL)
		MemoryContextDelete(entry->context);
	hash_search(cache, &entry->relid, HASH_REMOVE, NULL);
}

const Attachment *
attachment_of(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	CacheEntry *entry;
	TupleDesc	desc;
	HeapTuple	tuple;
	Oid			root;
	bool		found;

	if (cache == NULL)
		cache_create();
	entry = hash_search(cache, &relid, HASH_FIND, NULL);
	if (entry != NULL)
	{
		if (entry->valid && entry->attachment != NULL)
			return entry->attachment;
		drop_entry(entry);
	}

	/* An invalidation that arrives while it is built must win. */
	entry = hash_search(cache, &relid, HASH_ENTER, &found);
	entry->valid = true;
	entry->root = InvalidOid;
	entry->attachment = NULL;
	entry->context = NULL;
	entry->context = AllocSetContextCreate(CacheMemoryContext,
										   "settlement attachment",
										   ALLOCSET_SMALL_SIZES);
	tuple = fetch_attached_of(rel, &root, &desc);
	if (!HeapTupleIsValid(tuple))
	{
		drop_entry(entry);
		return NULL;
	}
	entry->attachment = build_attachment(rel, root, tuple, desc, entry->context);
	entry->root = entry->attachment->root;
	return entry->attachment;
}

const Attachment *
attachment_of_former(Relation rel, int attached_id)
{
	Attachment *a;
	TupleDesc	desc;
	HeapTuple	tuple;

	tuple = fetch_attached(Anum_attached_id, F_INT4EQ,
						   Int32GetDatum(attached_id), &desc);
	if (!HeapTupleIsValid(tuple))
		return NULL;
	a = build_attachment(rel, RelationGetRelid(rel), tuple, desc,
						 CurrentMemoryContext);
	if (a->attno[COLUMN_TRADE_ID] == InvalidAttrNumber ||
		a->attno[COLUMN_STATUS] == InvalidAttrNumber)
		return NULL;
	for (int i = 0; i < a->n_keys; i++)
		if (a->key_attno[i] == InvalidAttrNumber)
			return NULL;
	return a;
}

char *
attachment_source(int attached_id, Oid *root)
{
	TupleDesc	desc;
	HeapTuple	tuple;
	bool		isnull;

	tuple = fetch_attached(Anum_attached_id, F_INT4EQ,
						   Int32GetDatum(attached_id), &desc);
	if (!HeapTupleIsValid(tuple))
		return NULL;
	if (root != NULL)
		*root = DatumGetObjectId(heap_getattr(tuple, Anum_attached_relid, desc, &isnull));
	return TextDatumGetCString(heap_getattr(tuple, Anum_attached_source, desc, &isnull));
}
