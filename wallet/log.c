/*
 * log.c
 *	  A line per request, and messages.
 *
 * A request's line is JSON, so that a test or a person can filter it.
 */
#include "log.h"

#include <stdarg.h>
#include <string.h>

#include "http.h"

bool
log_open(Log *log, const char *path)
{
	log->file = NULL;
	if (path == NULL)
		return true;
	log->file = strcmp(path, "-") == 0 ? stderr : fopen(path, "ae");
	return log->file != NULL;
}

void
log_close(Log *log)
{
	if (log->file != NULL && log->file != stderr)
		fclose(log->file);
	log->file = NULL;
}

static const char *
ending_name(const Request *request)
{
	static const char *const names[] = {
		[END_REPLY] = "reply", [END_CLOSE] = "close", [END_RESET] = "reset",
		[END_RAW] = "raw"
	};

	return names[request->ending];
}

void
log_request(Log *log, const Request *request)
{
	char		at[TIME_TEXT_MAX];
	const char *trade_id = NULL;
	const char *fault = NULL;
	json_t	   *line;

	if (log->file == NULL)
		return;
	time_format(at, time_now_us());
	if (request->has_trade && request->trade.trade_id[0] != '\0')
		trade_id = request->trade.trade_id;
	if (request->fault.rule != NULL)
		fault = fault_action_name(request->fault.plan.action);
	line = json_pack("{s:s s:s s:s* s:i s:s s:s* s:s* s:s* s:s* s:o*}",
					 "at", at,
					 "method", request->method,
					 "path", request->path,
					 "status", request->reply.status,
					 "ending", ending_name(request),
					 "key", request->key[0] == '\0' ? NULL : request->key,
					 "trade_id", trade_id,
					 "traceparent", http_header(request, "traceparent"),
					 "fault", fault,
					 "items", request->item_count == 0 ? NULL
					 : json_integer((json_int_t) request->item_count));
	if (line == NULL)
		return;
	json_dumpf(line, log->file, JSON_COMPACT);
	fputc('\n', log->file);
	json_decref(line);
}

void
log_flush(Log *log)
{
	if (log->file != NULL)
		fflush(log->file);
}

static void
write_message(FILE *file, const char *format, va_list args)
{
	fputs("walletd: ", file);
	vfprintf(file, format, args);
	fputc('\n', file);
	fflush(file);
}

void
log_message(Log *log, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	write_message(stderr, format, args);
	va_end(args);
	if (log->file != NULL && log->file != stderr)
	{
		va_start(args, format);
		write_message(log->file, format, args);
		va_end(args);
	}
}
