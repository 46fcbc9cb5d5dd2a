/*
 * same_place.c
 *	  Preloaded into a server under test: what is allocated again has the address
 *	  that it had, which otherwise happens only now and then.  Whoever tells an
 *	  object from its successor by the address is found out.
 *
 * For single objects of the size of a wallet client (calloc(1, 900 to 4096)), in
 * processes of the server.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <string.h>

#define LEAST		900
#define MOST		4096
#define N_PLACES	64

static struct
{
	void	   *address;
	size_t		size;
	int			is_free;
}			places[N_PLACES];

extern void *__libc_calloc(size_t n, size_t size);
extern void __libc_free(void *address);
extern void *calloc(size_t n, size_t size);
extern void free(void *address);

void *
calloc(size_t n, size_t size)
{
	int			unused = -1;
	void	   *address;

	if (n != 1 || size < LEAST || size > MOST ||
		strncmp(program_invocation_short_name, "postgres", 8) != 0)
		return __libc_calloc(n, size);
	for (int i = 0; i < N_PLACES; i++)
	{
		if (places[i].address == NULL && unused < 0)
			unused = i;
		if (places[i].is_free && places[i].size == size)
		{
			places[i].is_free = 0;
			return memset(places[i].address, 0, size);
		}
	}
	address = __libc_calloc(n, size);
	if (unused >= 0 && address != NULL)
	{
		places[unused].address = address;
		places[unused].size = size;
	}
	return address;
}

void
free(void *address)
{
	for (int i = 0; address != NULL && i < N_PLACES; i++)
		if (places[i].address == address)
		{
			places[i].is_free = 1;
			return;
		}
	__libc_free(address);
}
