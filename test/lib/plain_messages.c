/*
 * plain_messages.c
 *	  Messages of the server untranslated, by standing before libc's gettext.
 *
 * With the address sanitizer's runtime preloaded, the server waits for ever for
 * a lock in libc when it sets up its translations (glibc 2.36, gcc 12).
 */
char *
bindtextdomain(const char *domain, const char *directory)
{
	(void) domain;
	return (char *) directory;
}

char *
bind_textdomain_codeset(const char *domain, const char *codeset)
{
	(void) domain;
	return (char *) codeset;
}

char *
textdomain(const char *domain)
{
	return (char *) domain;
}

char *
gettext(const char *message)
{
	return (char *) message;
}

char *
dgettext(const char *domain, const char *message)
{
	(void) domain;
	return (char *) message;
}

char *
dcgettext(const char *domain, const char *message, int category)
{
	(void) domain;
	(void) category;
	return (char *) message;
}

char *
ngettext(const char *one, const char *many, unsigned long n)
{
	return (char *) (n == 1 ? one : many);
}

char *
dngettext(const char *domain, const char *one, const char *many, unsigned long n)
{
	(void) domain;
	return (char *) (n == 1 ? one : many);
}
