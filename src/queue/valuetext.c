/*
 * valuetext.c
 *	  Column values as text.
 *
 * On the path of each INSERT: no fmgr calls, no catalog access.  What it writes
 * is read back by the type's input function when an outcome is applied.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "pgver.h"
#include "queue/valuetext.h"

#define UUID_TEXT_LEN	36
#define MAX_INT_LEN		20

/* A bpchar's padding does not count, but has to be read. */
#define MAX_PADDED_LEN	8192

bool
is_text_type(Oid type)
{
	return type == TEXTOID || type == VARCHAROID || type == BPCHAROID;
}

bool
is_id_type(Oid type)
{
	return is_text_type(type) || type == UUIDOID ||
		type == INT8OID || type == INT4OID || type == INT2OID;
}

bool
is_key_type(Oid type)
{
	return is_id_type(type) || type == TIMESTAMPTZOID ||
		type == TIMESTAMPOID || type == DATEOID || type == NUMERICOID;
}

bool
is_amount_type(Oid type)
{
	return type == NUMERICOID ||
		type == INT8OID || type == INT4OID || type == INT2OID;
}

bool
text_bytes(Oid type, Datum value, int max_len, const char **bytes, int *len)
{
	Size		bound = type == BPCHAROID ? Max(max_len, MAX_PADDED_LEN) : max_len;
	text	   *t;

	/* Look at the size before a byte is decompressed or fetched. */
	if (toast_raw_datum_size(value) - VARHDRSZ > bound)
		return false;
	t = DatumGetTextPP(value);
	*bytes = VARDATA_ANY(t);
	*len = VARSIZE_ANY_EXHDR(t);
	if (type == BPCHAROID)
		*len = bpchartruelen(VARDATA_ANY(t), *len);
	return *len <= max_len;
}

static Datum
text_as_text(Oid type, Datum value, int max_len)
{
	const char *bytes;
	int			len;

	if (!text_bytes(type, value, max_len, &bytes, &len))
		return (Datum) 0;
	/* Requests are UTF-8; only SQL_ASCII lets other bytes in unnoticed. */
	if (GetDatabaseEncoding() == PG_SQL_ASCII &&
		!pg_verify_mbstr(PG_UTF8, bytes, len, true))
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text_with_len(bytes, len));
}

static Datum
int_as_text(int64 value)
{
	char		buf[MAX_INT_LEN + 1];

	pg_lltoa(value, buf);		/* 13 does not return the length */
	return CStringGetTextDatum(buf);
}

static Datum
uuid_as_text(const pg_uuid_t *uuid)
{
	static const char hex[] = "0123456789abcdef";
	text	   *t = palloc(VARHDRSZ + UUID_TEXT_LEN);
	char	   *p = VARDATA(t);

	SET_VARSIZE(t, VARHDRSZ + UUID_TEXT_LEN);
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		*p++ = hex[uuid->data[i] >> 4];
		*p++ = hex[uuid->data[i] & 0x0f];
	}
	return PointerGetDatum(t);
}

static Datum
timestamp_as_text(Timestamp value, bool with_zone)
{
	char		buf[MAXDATELEN + 1];
	struct pg_tm tm;
	fsec_t		fsec;

	if (TIMESTAMP_NOT_FINITE(value))
		strlcpy(buf, TIMESTAMP_IS_NOBEGIN(value) ? "-infinity" : "infinity", sizeof(buf));
	else if (timestamp2tm(value, NULL, &tm, &fsec, NULL, NULL) == 0)
	{
		tm.tm_isdst = 0;		/* below zero, it would print no zone */
		EncodeDateTime(&tm, fsec, with_zone, 0, NULL, USE_ISO_DATES, buf);
	}
	else
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text(buf));
}

static Datum
date_as_text(DateADT value)
{
	char		buf[MAXDATELEN + 1];
	struct pg_tm tm;

	if (DATE_NOT_FINITE(value))
		strlcpy(buf, DATE_IS_NOBEGIN(value) ? "-infinity" : "infinity", sizeof(buf));
	else
	{
		j2date(value + POSTGRES_EPOCH_JDATE, &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
		EncodeDateOnly(&tm, USE_ISO_DATES, buf);
	}
	return PointerGetDatum(cstring_to_text(buf));
}

static Datum
numeric_as_text(Datum value, int max_len)
{
	char	   *s;

	/* Two decimal digits a byte: more cannot fit, and need not be read. */
	if (toast_raw_datum_size(value) > VARHDRSZ + max_len)
		return (Datum) 0;
	s = numeric_normalize(DatumGetNumeric(value));
	if (strlen(s) > max_len)
		return (Datum) 0;
	return PointerGetDatum(cstring_to_text(s));
}

Datum
value_as_text(Oid type, Datum value, int max_len)
{
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return text_as_text(type, value, max_len);
		case INT8OID:
			return int_as_text(DatumGetInt64(value));
		case INT4OID:
			return int_as_text(DatumGetInt32(value));
		case INT2OID:
			return int_as_text(DatumGetInt16(value));
		case UUIDOID:
			return uuid_as_text(DatumGetUUIDP(value));
		case TIMESTAMPTZOID:
			return timestamp_as_text(DatumGetTimestampTz(value), true);
		case TIMESTAMPOID:
			return timestamp_as_text(DatumGetTimestamp(value), false);
		case DATEOID:
			return date_as_text(DatumGetDateADT(value));
		case NUMERICOID:
			return numeric_as_text(value, max_len);
		default:
			return (Datum) 0;
	}
}
