/*
 * plain_reply.c
 *	  The answer that nearly every request gets, read without a JSON parser.
 *
 * Keeps true: what is read here a strict JSON parser reads, too, and as the same
 * (test/unit/fuzz_native.c compares the two).  Whatever is out of the ordinary
 * ends it, so there are no cases to get wrong.  Reads no byte beyond the text's
 * length; allocates nothing.
 */
#include "wallet/plain_reply.h"

#include <string.h>

typedef struct Cursor
{
	const char *at;
	const char *end;
} Cursor;

typedef enum Member
{
	MEMBER_SUCCESS,
	MEMBER_SETTLEMENT_ID,
	MEMBER_BUYER_RELEASED,
	MEMBER_SELLER_RELEASED,
	MEMBER_MESSAGE,
	N_MEMBERS
} Member;

static const char *const names[N_MEMBERS] = {
	[MEMBER_SUCCESS] = "success",
	[MEMBER_SETTLEMENT_ID] = "settlement_id",
	[MEMBER_BUYER_RELEASED] = "buyer_reservation_released",
	[MEMBER_SELLER_RELEASED] = "seller_reservation_released",
	[MEMBER_MESSAGE] = "message",
};

static void
skip_space(Cursor *c)
{
	while (c->at < c->end &&
		   (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
		c->at++;
}

/* The next byte after white space, if it is this one. */
static bool
take(Cursor *c, char byte)
{
	skip_space(c);
	if (c->at == c->end || *c->at != byte)
		return false;
	c->at++;
	return true;
}

static bool
take_word(Cursor *c, const char *word)
{
	size_t		len = strlen(word);

	skip_space(c);
	if ((size_t) (c->end - c->at) < len || memcmp(c->at, word, len) != 0)
		return false;
	c->at += len;
	return true;
}

/* A text of fewer than `size` bytes, each of which stands for itself. */
static bool
take_text(Cursor *c, char *out, size_t size)
{
	const char *start;
	size_t		len;

	if (!take(c, '"'))
		return false;
	start = c->at;
	while (c->at < c->end && *c->at >= 0x20 && *c->at < 0x7f &&
		   *c->at != '"' && *c->at != '\\')
		c->at++;
	len = (size_t) (c->at - start);
	if (c->at == c->end || *c->at != '"' || len >= size)
		return false;
	c->at++;
	memcpy(out, start, len);
	out[len] = '\0';
	return true;
}

static bool
take_name(Cursor *c, Member *member)
{
	char		name[32];

	if (!take_text(c, name, sizeof name) || !take(c, ':'))
		return false;
	for (int i = 0; i < N_MEMBERS; i++)
		if (strcmp(name, names[i]) == 0)
		{
			*member = (Member) i;
			return true;
		}
	return false;
}

static bool
take_value(Cursor *c, Member member, PlainReply *reply)
{
	switch (member)
	{
		case MEMBER_SUCCESS:
			return take_word(c, "true");
		case MEMBER_SETTLEMENT_ID:
			return take_text(c, reply->settlement_id, sizeof reply->settlement_id) &&
				reply->settlement_id[0] != '\0';
		case MEMBER_MESSAGE:
			return take_text(c, reply->message, sizeof reply->message);
		default:
			return take_word(c, "true") || take_word(c, "false");
	}
}

bool
plain_reply_read(const char *text, size_t len, PlainReply *reply)
{
	Cursor		c = {text, text + len};
	unsigned	seen = 0;

	reply->settlement_id[0] = reply->message[0] = '\0';
	if (!take(&c, '{'))
		return false;
	do
	{
		Member		member;

		if (!take_name(&c, &member) || (seen & 1U << member) != 0 ||
			!take_value(&c, member, reply))
			return false;
		seen |= 1U << member;
	} while (take(&c, ','));
	if (!take(&c, '}'))
		return false;
	skip_space(&c);
	return c.at == c.end &&
		(seen & 1U << MEMBER_SUCCESS) != 0 && (seen & 1U << MEMBER_SETTLEMENT_ID) != 0;
}
