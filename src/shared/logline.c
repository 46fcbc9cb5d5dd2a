/*
 * logline.c
 *	  Fields of the lines that settlement writes to the server log.
 *
 * No catalog is looked at: lines are written after a commit, too.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "policy/logtext.h"
#include "shared/logline.h"

static bool
is_utf8(void)
{
	return GetDatabaseEncoding() == PG_UTF8;
}

char *
log_text(const char *text)
{
	char		out[LOG_TEXT_SIZE];

	log_text_escape(text ? text : "", is_utf8(), out);
	return pstrdup(out);
}

static void
begin_field(StringInfo fields, const char *name)
{
	if (fields->len > 0)
		appendStringInfoChar(fields, ' ');
	appendStringInfo(fields, "%s=", name);
}

void
log_field(StringInfo fields, const char *name, const char *value)
{
	char		out[LOG_TEXT_SIZE];

	if (value == NULL || value[0] == '\0')
		return;
	log_text_value(value, is_utf8(), out);
	begin_field(fields, name);
	appendStringInfoString(fields, out);
}

void
log_field_int(StringInfo fields, const char *name, int64 value)
{
	begin_field(fields, name);
	appendStringInfo(fields, INT64_FORMAT, value);
}

void
log_field_ms(StringInfo fields, const char *name, int64 us)
{
	begin_field(fields, name);
	appendStringInfo(fields, "%.3f", us / 1000.0);
}
