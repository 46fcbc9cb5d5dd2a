/*
 * directory.h
 *	  What tells this data directory from its copies.
 */
#ifndef SETTLEMENT_SHARED_DIRECTORY_H
#define SETTLEMENT_SHARED_DIRECTORY_H

#include <limits.h>

#define DIRECTORY_NAME_SIZE	(PATH_MAX + 32)

/*
 * Path and an inode of the data directory, as text that ends in a newline, into
 * out[DIRECTORY_NAME_SIZE].  The length, or 0 when they cannot be found out.
 * For files that a base backup or another copy may take along: they name the
 * directory that they were written in.
 */
extern int	directory_name(char *out);

#endif
