/*
 * logtext.h
 *	  Texts of others on a log line: bounded, and unable to end it, to begin
 *	  another field, or to steer a terminal.
 */
#ifndef SETTLEMENT_POLICY_LOGTEXT_H
#define SETTLEMENT_POLICY_LOGTEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of a text that are looked at; the rest is cut off, and "..." follows. */
#define LOG_TEXT_MAX		255

/* What they may grow to, with quotes, dots and the NUL. */
#define LOG_TEXT_SIZE		(6 * LOG_TEXT_MAX + 6)

/*
 * Write a text with '"', '\', control characters, line and paragraph separators
 * and those that change the direction of writing as in a JSON string (\n, \u001b).
 * utf8: characters are those of UTF-8, and a byte that is part of none is written
 * \ufffd; otherwise each byte beyond ASCII is written as \u00XX.  Returns the
 * length without the NUL.
 */
extern size_t log_text_escape(const char *text, bool utf8, char out[LOG_TEXT_SIZE]);

/*
 * The same as the value of a logfmt field: in quotes unless it consists of
 * visible ASCII characters other than '"', '\' and '='.
 */
extern size_t log_text_value(const char *text, bool utf8, char out[LOG_TEXT_SIZE]);

#endif
