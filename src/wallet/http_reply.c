/*
 * http_reply.c
 *	  How an exchange ended: what libcurl's result means here.
 */
#include "wallet/http_private.h"

#include <stdio.h>

static Transport
transport_of(CURLcode rc)
{
	switch (rc)
	{
		case CURLE_OK:
			return TRANSPORT_OK;
		case CURLE_OPERATION_TIMEDOUT:
			return TRANSPORT_TIMEOUT;
		case CURLE_COULDNT_CONNECT:
			return TRANSPORT_CONNECT;
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_RESOLVE_PROXY:
			return TRANSPORT_DNS;
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_SSL_ENGINE_NOTFOUND:
		case CURLE_SSL_ENGINE_SETFAILED:
		case CURLE_SSL_CERTPROBLEM:
		case CURLE_SSL_CIPHER:
		case CURLE_PEER_FAILED_VERIFICATION:
		case CURLE_USE_SSL_FAILED:
		case CURLE_SSL_ENGINE_INITFAILED:
		case CURLE_SSL_CACERT_BADFILE:
		case CURLE_SSL_CRL_BADFILE:
		case CURLE_SSL_ISSUER_ERROR:
		case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
		case CURLE_SSL_INVALIDCERTSTATUS:
		case CURLE_SSL_CLIENTCERT:
			return TRANSPORT_TLS;
		case CURLE_GOT_NOTHING:
		case CURLE_SEND_ERROR:
		case CURLE_RECV_ERROR:
			return TRANSPORT_RESET;
		case CURLE_FILESIZE_EXCEEDED:
			return TRANSPORT_TOO_LARGE;
		case CURLE_WEIRD_SERVER_REPLY:
		case CURLE_PARTIAL_FILE:
		case CURLE_UNSUPPORTED_PROTOCOL:
		case CURLE_BAD_CONTENT_ENCODING:
		case CURLE_HTTP2:
			return TRANSPORT_PROTOCOL;
		default:
			return TRANSPORT_OTHER;
	}
}

static void
set_error(HttpExchange *x, const char *text)
{
	if (text != x->error)
		snprintf(x->error, sizeof x->error, "%s", text);
}

/*
 * What libcurl's result means here.  Our own flags come first: what libcurl
 * reports after a blocked resend is about the second send, not about the cause.
 */
static void
judge(HttpExchange *x, CURLcode rc)
{
	HttpReply  *reply = &x->reply;

	reply->transport = transport_of(rc);
	if (rc == CURLE_OK)
		x->error[0] = '\0';
	else if (x->resend_blocked)
	{
		x->http->resends_blocked++;
		reply->transport = TRANSPORT_RESEND_BLOCKED;
		set_error(x, "connection closed by the wallet after the request was sent, "
				  "before it replied");
	}
	else if (x->refused_address)
	{
		reply->transport = TRANSPORT_CONNECT;
		set_error(x, "plain http is allowed to loopback addresses only");
	}
	else if (x->too_large || reply->transport == TRANSPORT_TOO_LARGE)
	{
		reply->transport = TRANSPORT_TOO_LARGE;
		set_error(x, "reply exceeds the maximum size");
	}
	else if (x->error[0] == '\0')
		set_error(x, curl_easy_strerror(rc));
}

/* Which phase an exchange is in, or was when it ended. */
static AttemptPhase
phase_of(const HttpExchange *x)
{
	long		status = 0;

	if (!x->reply.maybe_sent)
		return x->added ? PHASE_CONNECTING : PHASE_PREPARED;
	curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
	return status != 0 ? PHASE_REPLYING : PHASE_SENT;
}

void
http_finish(HttpExchange *x, CURLcode rc)
{
	Http	   *http = x->http;
	HttpReply  *reply = &x->reply;
	curl_off_t	retry_after = 0;
	long		status = 0;

	judge(x, rc);
	reply->phase = phase_of(x);
	if (reply->maybe_sent)
	{
		curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status != 200)
			curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &retry_after);
	}
	if (rc == CURLE_OK)
		reply->phase = PHASE_REPLIED;
	reply->status = (int) status;
	if (http->config.inspect)
		http_inspect_certificate(x);
	if (retry_after > 0)
		reply->retry_after_ms = retry_after > INT64_MAX / 1000 ?
			INT64_MAX : (int64_t) retry_after * 1000;
	reply->body = x->buffer != NULL ? x->buffer : "";
	reply->error = x->error;
	reply->duration_us = http_now_us() - x->started_us;
	http_list_remove(http_list_of(x), x);
	x->state = EXCHANGE_ENDED;
	http_list_append(&http->ended, x);
}

AttemptPhase
http_phase(const HttpExchange *x)
{
	return x->state == EXCHANGE_ENDED ? x->reply.phase : phase_of(x);
}
