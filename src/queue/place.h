/*
 * place.h
 *	  Where is this database?
 */
#ifndef SETTLEMENT_QUEUE_PLACE_H
#define SETTLEMENT_QUEUE_PLACE_H

typedef struct Place
{
	char	   *who;			/* "site:" and a hash of the token, or "host:" and one of the machine */
	char	   *directory;		/* a hash of the data directory's path and inode */
} Place;

/* False, and *problem says why, when that cannot be told.  Palloc'ed. */
extern bool place_read(Place *place, const char **problem);

/* What `who` is where settlement.site_file is not set.  Palloc'ed. */
extern char *place_machine(void);

extern bool place_is_site(const char *who);

#endif
