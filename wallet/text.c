/*
 * text.c
 *	  Small texts that several parts need: UUIDs, times, files, numbers.
 */
#include "text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define HYPHEN_AT(i) ((i) == 8 || (i) == 13 || (i) == 18 || (i) == 23)

void
uuid_make(char out[UUID_LEN + 1])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char bytes[16];
	int			nibble = 0;

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t) sizeof(bytes))
		abort();				/* cannot happen once the pool is seeded */
	bytes[6] = (bytes[6] & 0x0f) | 0x40;
	bytes[8] = (bytes[8] & 0x3f) | 0x80;
	for (int i = 0; i < UUID_LEN; i++)
	{
		if (HYPHEN_AT(i))
			out[i] = '-';
		else
		{
			unsigned char byte = bytes[nibble / 2];

			out[i] = hex[nibble % 2 == 0 ? byte >> 4 : byte & 15];
			nibble++;
		}
	}
	out[UUID_LEN] = '\0';
}

bool
uuid_normalize(char out[UUID_LEN + 1], const char *text)
{
	for (int i = 0; i < UUID_LEN; i++)
	{
		unsigned char c = (unsigned char) text[i];

		if (HYPHEN_AT(i) ? c != '-' : !isxdigit(c))
			return false;
		out[i] = (char) tolower(c);
	}
	out[UUID_LEN] = '\0';
	return text[UUID_LEN] == '\0';
}

static int64_t
clock_us(clockid_t which)
{
	struct timespec now;

	clock_gettime(which, &now);
	return (int64_t) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t
time_now_us(void)
{
	return clock_us(CLOCK_REALTIME);
}

int64_t
time_monotonic_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

void
time_format(char out[TIME_TEXT_MAX], int64_t us)
{
	time_t		seconds = (time_t) (us / 1000000);
	struct tm	parts;
	size_t		n;

	gmtime_r(&seconds, &parts);
	n = strftime(out, TIME_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &parts);
	snprintf(out + n, TIME_TEXT_MAX - n, ".%06dZ", (int) (us % 1000000));
}

bool
number_parse(int64_t *out, const char *text, int64_t min, int64_t max)
{
	char	   *end;
	long long	value;

	if (!isdigit((unsigned char) text[0]) && text[0] != '-')
		return false;
	errno = 0;
	value = strtoll(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value < min || value > max)
		return false;
	*out = value;
	return true;
}

char *
file_read(const char *path, size_t max, size_t *length)
{
	FILE	   *file = fopen(path, "rb");
	char	   *content;
	size_t		n;

	if (file == NULL)
		return NULL;
	content = malloc(max + 2);
	n = content == NULL ? 0 : fread(content, 1, max + 1, file);
	if (content == NULL || ferror(file) || n > max)
	{
		int			saved = ferror(file) ? EIO : EFBIG;

		fclose(file);
		free(content);
		errno = saved;
		return NULL;
	}
	fclose(file);
	content[n] = '\0';
	if (length != NULL)
		*length = n;
	return content;
}

bool
file_write_atomic(const char *path, const char *content)
{
	char	   *temporary;
	FILE	   *file;
	bool		ok;

	if (asprintf(&temporary, "%s.%d.tmp", path, (int) getpid()) < 0)
		return false;
	file = fopen(temporary, "wb");
	ok = file != NULL && fputs(content, file) >= 0;
	if (file != NULL && fclose(file) != 0)
		ok = false;
	ok = ok && rename(temporary, path) == 0;
	if (!ok && file != NULL)
		unlink(temporary);
	free(temporary);
	return ok;
}
