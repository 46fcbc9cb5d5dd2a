/*
 * directory.c
 *	  What tells this data directory from its copies.
 *
 * A copy beside the original has another path, one that was put in its place has
 * other inodes.
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>

#include "miscadmin.h"

#include "shared/directory.h"

int
directory_name(char *out)
{
	char		directory[PATH_MAX];
	struct stat st;

	if (stat("PG_VERSION", &st) != 0 || realpath(DataDir, directory) == NULL)
		return 0;
	return snprintf(out, DIRECTORY_NAME_SIZE, "%llu\n%s\n",
					(unsigned long long) st.st_ino, directory);
}
