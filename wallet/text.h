/*
 * text.h
 *	  Small texts that several parts need: UUIDs, times, files, numbers.
 */
#ifndef WALLET_TEXT_H
#define WALLET_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UUID_LEN		36
#define TIME_TEXT_MAX	32

/* A new random (version 4) UUID in lower case. */
extern void uuid_make(char out[UUID_LEN + 1]);

/* Copies a UUID in lower case; false when the text is not a UUID. */
extern bool uuid_normalize(char out[UUID_LEN + 1], const char *text);

/* Microseconds since 1970, wall clock: for the record only. */
extern int64_t time_now_us(void);

/* Microseconds of the monotonic clock: for delays. */
extern int64_t time_monotonic_us(void);

/* 2026-01-31T12:34:56.123456Z */
extern void time_format(char out[TIME_TEXT_MAX], int64_t us);

/* A whole number in decimal, nothing else; false when out of [min, max]. */
extern bool number_parse(int64_t *out, const char *text, int64_t min, int64_t max);

/* The whole file, NUL terminated, malloc'ed; NULL with errno, or when > max. */
extern char *file_read(const char *path, size_t max, size_t *length);

/* Writes the file under another name and renames it: readers see all or nothing. */
extern bool file_write_atomic(const char *path, const char *content);

#endif
