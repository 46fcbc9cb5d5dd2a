/*
 * http_url.c
 *	  URLs: which ones are accepted, what they say, and how they are put together.
 */
#include "wallet/http_private.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <strings.h>

bool
http_is_loopback4(const struct in_addr *address)
{
	return ntohl(address->s_addr) >> 24 == 127;
}

/* One part of a URL, to be freed with curl_free; NULL when it has none. */
static char *
url_part(const char *url, CURLUPart part)
{
	CURLU	   *parsed = curl_url();
	char	   *text = NULL;

	if (parsed != NULL &&
		curl_url_set(parsed, CURLUPART_URL, url, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
		curl_url_get(parsed, part, &text, 0) != CURLUE_OK)
		text = NULL;
	curl_url_cleanup(parsed);
	return text;
}

static bool
has_part(const char *url, CURLUPart part)
{
	char	   *text = url_part(url, part);
	bool		has = is_set(text);

	curl_free(text);
	return has;
}

const char *
http_check_url(const char *url)
{
	const char *problem = NULL;
	char	   *scheme;

	for (const char *c = url; *c != '\0'; c++)
		if ((unsigned char) *c <= 0x20 || *c == 0x7f)
			return "URL holds a space or a control character";
	scheme = url_part(url, CURLUPART_SCHEME);
	if (scheme == NULL || strncmp(url + strlen(scheme), "://", 3) != 0 ||
		url[strlen(scheme) + 3] == '/')
		problem = "not a URL of the form http://host or https://host";
	else if (strcasecmp(scheme, "http") != 0 && strcasecmp(scheme, "https") != 0)
		problem = "URL must begin with http:// or https://";
	else if (!has_part(url, CURLUPART_HOST))
		problem = "URL has no host";
	else if (has_part(url, CURLUPART_USER) || has_part(url, CURLUPART_PASSWORD))
		problem = "URL must not hold a user or a password";
	else if (strchr(url, '?') != NULL)
		problem = "URL must not hold a query";
	else if (strchr(url, '#') != NULL)
		problem = "URL must not hold a fragment";
	curl_free(scheme);
	return problem;
}

bool
http_url_is_plain(const char *url)
{
	char	   *scheme = url_part(url, CURLUPART_SCHEME);
	bool		plain = scheme == NULL || strcasecmp(scheme, "https") != 0;

	curl_free(scheme);
	return plain;
}

bool
http_url_is_loopback(const char *url)
{
	char	   *host = url_part(url, CURLUPART_HOST);
	struct in_addr in;
	struct in6_addr in6;
	bool		loopback = false;
	size_t		len;

	if (host == NULL)
		return false;
	len = strlen(host);
	if (strcasecmp(host, "localhost") == 0)
		loopback = true;
	else if (inet_pton(AF_INET, host, &in) == 1)
		loopback = http_is_loopback4(&in);
	else if (len > 2 && host[0] == '[')
	{
		host[len - 1] = '\0';
		if (inet_pton(AF_INET6, host + 1, &in6) == 1)
			loopback = IN6_IS_ADDR_LOOPBACK(&in6);
	}
	curl_free(host);
	return loopback;
}

char *
http_join_url(const char *base, const char *path)
{
	size_t		base_len = strlen(base);
	size_t		path_len = strlen(path);
	char	   *url;

	while (base_len > 0 && base[base_len - 1] == '/')
		base_len--;
	url = malloc(base_len + path_len + 1);
	if (url != NULL)
	{
		memcpy(url, base, base_len);
		memcpy(url + base_len, path, path_len + 1);
	}
	return url;
}

/* Parsed once: libcurl would parse and print a text again for each request. */
CURLU *
http_parse_url(const char *base, const char *path)
{
	char	   *text = http_join_url(base, path);
	CURLU	   *url = curl_url();

	if (text == NULL || url == NULL ||
		curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK)
	{
		curl_url_cleanup(url);
		url = NULL;
	}
	free(text);
	return url;
}
