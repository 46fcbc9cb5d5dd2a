/*
 * log.h
 *	  A line per request, and messages.  Never a secret.
 */
#ifndef WALLET_LOG_H
#define WALLET_LOG_H

#include <stdbool.h>
#include <stdio.h>

#include "request.h"

typedef struct Log
{
	FILE	   *file;			/* NULL: no request log */
} Log;

/* path NULL: no request log; "-": standard error. */
extern bool log_open(Log *log, const char *path);
extern void log_close(Log *log);
extern void log_request(Log *log, const Request *request);
extern void log_flush(Log *log);

/* To standard error, and to the log when there is one. */
extern void log_message(Log *log, const char *format,...)
			__attribute__((format(printf, 2, 3)));

#endif
