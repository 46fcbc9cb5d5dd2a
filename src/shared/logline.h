/*
 * logline.h
 *	  What settlement writes to the server log: kinds, and fields of their details.
 *
 *	  Each kind has a SQLSTATE of its own, so that it can be told from others
 *	  whatever the language of the messages (%e in log_line_prefix; state_code
 *	  in jsonlog).  docs/logging.md is the list for those who read logs.
 */
#ifndef SETTLEMENT_SHARED_LOGLINE_H
#define SETTLEMENT_SHARED_LOGLINE_H

#include "lib/stringinfo.h"
#include "utils/elog.h"

/* What becomes of a trade. */
#define LOG_TRADE_SETTLED		MAKE_SQLSTATE('S','T','0','0','1')
#define LOG_TRADE_FAILED		MAKE_SQLSTATE('S','T','0','0','2')
#define LOG_TRADE_UNKNOWN		MAKE_SQLSTATE('S','T','0','0','3')
#define LOG_ATTEMPT_FAILED		MAKE_SQLSTATE('S','T','0','0','4')
#define LOG_HELD_BACK			MAKE_SQLSTATE('S','T','0','0','5')
#define LOG_SETTLED_LATE		MAKE_SQLSTATE('S','T','0','0','6')

/* Its row. */
#define LOG_ROW_NOT_WRITTEN		MAKE_SQLSTATE('S','T','0','1','1')
#define LOG_ROW_WRITTEN_LATE	MAKE_SQLSTATE('S','T','0','1','2')
#define LOG_ROW_GONE			MAKE_SQLSTATE('S','T','0','1','3')
#define LOG_ROW_CONTRADICTS		MAKE_SQLSTATE('S','T','0','1','4')

/* Sending as a whole. */
#define LOG_BREAKER_OPENED		MAKE_SQLSTATE('S','T','0','2','1')
#define LOG_BREAKER_CLOSED		MAKE_SQLSTATE('S','T','0','2','2')
#define LOG_SENDING				MAKE_SQLSTATE('S','T','0','2','3')
#define LOG_NOT_SENDING			MAKE_SQLSTATE('S','T','0','2','4')
#define LOG_TAKEN_OVER			MAKE_SQLSTATE('S','T','0','2','5')
#define LOG_CLOCK_SET			MAKE_SQLSTATE('S','T','0','2','6')
#define LOG_STOPPED_IN_FLIGHT	MAKE_SQLSTATE('S','T','0','2','7')
#define LOG_IDENTITY_CHANGED	MAKE_SQLSTATE('S','T','0','2','8')

/* What an operator does. */
#define LOG_ACT					MAKE_SQLSTATE('S','T','0','3','1')

/*
 * A text that is not ours, for a message: bounded, on one line, without what
 * could be taken for ours.  palloc'ed; "" for NULL.
 */
extern char *log_text(const char *text);

/*
 * Fields of an errdetail, name=value (logfmt), in the order of the calls.  Values
 * that need it are quoted.  A text that is NULL or empty is left out.
 */
extern void log_field(StringInfo fields, const char *name, const char *value);
extern void log_field_int(StringInfo fields, const char *name, int64 value);
extern void log_field_ms(StringInfo fields, const char *name, int64 us);

#endif
