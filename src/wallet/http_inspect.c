/*
 * http_inspect.c
 *	  What a reply tells about the server that no settlement needs: its clock and
 *	  when its certificate ends.  For HttpConfig.inspect only.
 */
#include "wallet/http_private.h"

#include <strings.h>
#include <time.h>

#define LONGEST_DATE	64

/* Unix time; 0 when it cannot be read. */
static int64_t
parse_date(const char *text, size_t len)
{
	char		copy[LONGEST_DATE];
	size_t		n = 0;
	time_t		date;

	/* libcurl reads a date without dashes, as one of its TLS libraries writes it */
	for (size_t i = 0; i < len && n < sizeof copy - 1; i++)
		if (text[i] != '-' || i > 10)
			copy[n++] = text[i];
	copy[n] = '\0';
	date = curl_getdate(copy, NULL);
	return date > 0 ? (int64_t) date : 0;
}

void
http_inspect_header(HttpExchange *x, const char *bytes, size_t len)
{
	static const char name[] = "Date:";
	const size_t prefix = sizeof name - 1;

	if (len > prefix && strncasecmp(bytes, name, prefix) == 0)
		x->reply.date_s = parse_date(bytes + prefix, len - prefix);
}

/* The first certificate of the chain is the server's own. */
void
http_inspect_certificate(HttpExchange *x)
{
	static const char name[] = "Expire date:";
	const size_t prefix = sizeof name - 1;
	struct curl_certinfo *info = NULL;

	if (curl_easy_getinfo(x->easy, CURLINFO_CERTINFO, &info) != CURLE_OK ||
		info == NULL || info->num_of_certs < 1)
		return;
	for (struct curl_slist *field = info->certinfo[0]; field != NULL; field = field->next)
		if (strncmp(field->data, name, prefix) == 0)
			x->reply.certificate_until_s =
				parse_date(field->data + prefix, strlen(field->data + prefix));
}
