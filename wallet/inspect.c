/*
 * inspect.c
 *	  Endpoints that show what the wallet holds.
 *
 * The ledger is streamed a page at a time, so that a long one neither fills the
 * memory nor holds up the settlements.  Postings are only ever added, so pages
 * up to the end as it was at the first make one consistent view.
 */
#include "inspect.h"

#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "reply.h"

#define LEDGER_PAGE		256
#define LEGS_PER_SEQ	8		/* seq = transfer * 8 + leg */

void
inspect_health(Request *request)
{
	reply_json(request, 200, json_pack("{s:s}", "status", "ok"));
}

void
inspect_stats(Request *request)
{
	json_t	   *document = stats_describe(&request->server->stats);

	json_object_set_new(document, "epoch",
						json_integer((json_int_t) answers_highest_epoch(&request->server->answers)));
	reply_json(request, 200, document);
}

void
inspect_balances(Request *request)
{
	static const char sql[] = "SELECT account, currency, amount FROM balances"
		" WHERE ?1 IS NULL OR account = ?1";
	static const char sql_one[] = "SELECT account, currency, amount FROM balances"
		" WHERE account = ?1";
	const char *account = http_query(request, "account");
	json_t	   *list = json_array();
	sqlite3_stmt *statement;
	int			step = SQLITE_ERROR;

	if (sqlite3_prepare_v2(request->server->database.handle,
						   account == NULL ? sql : sql_one, -1, &statement, NULL) == SQLITE_OK)
	{
		bind_text(statement, 1, account);
		while ((step = sqlite3_step(statement)) == SQLITE_ROW)
			json_array_append_new(list,
								  json_pack("{s:s s:s s:s}",
											"account", column_text(statement, 0),
											"currency", column_text(statement, 1),
											"amount", column_text(statement, 2)));
		sqlite3_finalize(statement);
	}
	if (step == SQLITE_DONE)
		reply_json(request, 200, json_pack("{s:o}", "balances", list));
	else
	{
		json_decref(list);
		reply_error(request, 500, NULL, "the ledger could not be read");
	}
}

typedef struct LedgerStream
{
	Request    *request;
	sqlite3_stmt *statement;
	int64_t		after;			/* seq of the last posting written */
	int64_t		last_transfer;	/* the end, as of the start */
	int64_t		left;			/* postings still wanted */
	char	   *account;		/* NULL: any */
	char	   *trade_id;
	char	   *page;			/* lines not yet sent */
	size_t		page_length;
	size_t		page_sent;
	bool		failed;
} LedgerStream;

static void
ledger_stream_free(void *cls)
{
	LedgerStream *stream = cls;

	sqlite3_finalize(stream->statement);
	free(stream->account);
	free(stream->trade_id);
	free(stream->page);
	free(stream);
}

static bool
append_line(LedgerStream *stream, size_t *capacity)
{
	sqlite3_stmt *row = stream->statement;
	char		at[TIME_TEXT_MAX];
	json_t	   *line;
	size_t		n;

	stream->after = sqlite3_column_int64(row, 0) * LEGS_PER_SEQ + sqlite3_column_int(row, 1);
	time_format(at, sqlite3_column_int64(row, 9));
	line = json_pack("{s:I s:s s:s? s:s? s:s? s:i s:s s:s s:s s:s}",
					 "seq", (json_int_t) stream->after,
					 "kind", column_text(row, 2),
					 "key", sqlite3_column_text(row, 3),
					 "trade_id", sqlite3_column_text(row, 4),
					 "settlement_id", sqlite3_column_text(row, 5),
					 "leg", sqlite3_column_int(row, 1),
					 "account", column_text(row, 6),
					 "currency", column_text(row, 7),
					 "amount", column_text(row, 8),
					 "at", at);
	if (line == NULL)
		return false;
	while ((n = json_dumpb(line, stream->page + stream->page_length,
						   *capacity - stream->page_length, JSON_COMPACT)) + 1 >
		   *capacity - stream->page_length)
	{
		char	   *larger = realloc(stream->page, *capacity * 2 + 1024);

		if (larger == NULL || n == 0)
			break;
		stream->page = larger;
		*capacity = *capacity * 2 + 1024;
	}
	json_decref(line);
	if (n == 0 || n + 1 > *capacity - stream->page_length)
		return false;
	stream->page[stream->page_length + n] = '\n';
	stream->page_length += n + 1;
	return true;
}

static void
read_page(LedgerStream *stream)
{
	sqlite3_stmt *statement = stream->statement;
	size_t		capacity = 64 * 1024;
	int64_t		wanted = stream->left < LEDGER_PAGE ? stream->left : LEDGER_PAGE;
	int			step;

	free(stream->page);
	stream->page = malloc(capacity);
	stream->page_length = stream->page_sent = 0;
	if (stream->page == NULL)
	{
		stream->failed = true;
		return;
	}
	sqlite3_bind_int64(statement, 1, stream->after / LEGS_PER_SEQ);
	sqlite3_bind_int64(statement, 2, stream->after % LEGS_PER_SEQ);
	sqlite3_bind_int64(statement, 3, stream->last_transfer);
	bind_text(statement, 4, stream->account);
	bind_text(statement, 5, stream->trade_id);
	sqlite3_bind_int64(statement, 6, wanted);
	while ((step = sqlite3_step(statement)) == SQLITE_ROW && !stream->failed)
	{
		stream->failed = !append_line(stream, &capacity);
		stream->left--;
	}
	sqlite3_reset(statement);
	if (step != SQLITE_DONE)
		stream->failed = true;
}

static ssize_t
ledger_stream_read(void *cls, uint64_t position, char *out, size_t max)
{
	LedgerStream *stream = cls;
	size_t		n;

	(void) position;
	if (stream->page_sent == stream->page_length && stream->left > 0)
		read_page(stream);
	if (stream->failed)
	{
		http_hang_up(stream->request);
		return MHD_CONTENT_READER_END_WITH_ERROR;
	}
	n = stream->page_length - stream->page_sent;
	if (n == 0)
		return MHD_CONTENT_READER_END_OF_STREAM;
	n = n > max ? max : n;
	memcpy(out, stream->page + stream->page_sent, n);
	stream->page_sent += n;
	return (ssize_t) n;
}

static bool
read_number(Request *request, const char *name, int64_t *out)
{
	const char *text = http_query(request, name);

	if (text == NULL || number_parse(out, text, 0, INT64_MAX))
		return true;
	reply_error(request, 400, "INVALID_REQUEST", "after and limit must be whole numbers");
	return false;
}

void
inspect_ledger(Request *request)
{
	static const char sql[] =
		"SELECT p.transfer, p.leg, t.kind, t.key, t.trade_id, t.settlement_id,"
		"       p.account, p.currency, p.amount, t.at"
		" FROM postings p LEFT JOIN transfers t ON t.id = p.transfer"
		" WHERE (p.transfer, p.leg) > (?1, ?2) AND p.transfer <= ?3"
		"   AND (?4 IS NULL OR p.account = ?4) AND (?5 IS NULL OR t.trade_id = ?5)"
		" ORDER BY p.transfer, p.leg LIMIT ?6";
	const char *account = http_query(request, "account");
	const char *trade_id = http_query(request, "trade_id");
	LedgerStream *stream = calloc(1, sizeof(LedgerStream));

	if (stream == NULL)
		return;
	stream->request = request;
	stream->last_transfer = request->server->ledger.last_transfer;
	stream->left = INT64_MAX;
	if (!read_number(request, "after", &stream->after) ||
		!read_number(request, "limit", &stream->left))
	{
		ledger_stream_free(stream);
		return;
	}
	stream->account = account == NULL ? NULL : strdup(account);
	stream->trade_id = trade_id == NULL ? NULL : strdup(trade_id);
	if (sqlite3_prepare_v2(request->server->database.handle, sql, -1,
						   &stream->statement, NULL) != SQLITE_OK)
	{
		ledger_stream_free(stream);
		reply_error(request, 500, NULL, "the ledger could not be read");
		return;
	}
	request->reply.status = 200;
	request->reply.content_type = "application/x-ndjson";
	request->reply.stream = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 32 * 1024,
															  ledger_stream_read, stream,
															  ledger_stream_free);
	if (request->reply.stream == NULL)
		ledger_stream_free(stream);
}
