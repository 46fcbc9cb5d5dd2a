/*
 * valuetext.h
 *	  Column values as text, without calling type output functions: nothing here
 *	  raises an error for a value, and nothing depends on a setting.
 */
#ifndef SETTLEMENT_QUEUE_VALUETEXT_H
#define SETTLEMENT_QUEUE_VALUETEXT_H

/* May a column of this base type hold an id?  May it be part of a row key? */
extern bool is_text_type(Oid type);
extern bool is_id_type(Oid type);
extern bool is_key_type(Oid type);
extern bool is_amount_type(Oid type);

/*
 * The bytes of a text, varchar or bpchar, the latter without its padding.  They
 * may lie inside the datum.  False when there are more than max_len.
 */
extern bool text_bytes(Oid type, Datum value, int max_len,
					   const char **bytes, int *len);

/*
 * A text datum of a value whose type passes is_key_type; 0 when the text is
 * longer than max_len or, in a SQL_ASCII database, not UTF-8.  Integers are
 * decimal, uuids as uuid_out writes them, times ISO 8601 in UTC.
 */
extern Datum value_as_text(Oid type, Datum value, int max_len);

#endif
