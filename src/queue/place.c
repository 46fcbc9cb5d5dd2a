/*
 * place.c
 *	  Where is this database?  Who may send from here (the token of
 *	  settlement.site_file, or this machine), and in which data directory.
 *
 * A copy of the files has other inodes; one made by a snapshot of the disk keeps
 * them, but is mounted elsewhere.  The device number is not part of it: it may
 * change when the machine boots.
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "pgver.h"
#include "queue/place.h"
#include "shared/settings.h"

#define MACHINE_ID_FILE		"/etc/machine-id"
#define MAX_SITE_FILE		65536
#define SHA256_LEN			32

static char *
hex_hash(const char *prefix, const char *data, size_t len)
{
	bytea	   *input = (bytea *) palloc(VARHDRSZ + len);
	bytea	   *hash;
	StringInfoData result;

	SET_VARSIZE(input, VARHDRSZ + len);
	memcpy(VARDATA(input), data, len);
	hash = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(input)));

	initStringInfo(&result);
	appendStringInfoString(&result, prefix);
	for (int i = 0; i < SHA256_LEN; i++)
		appendStringInfo(&result, "%02x", (unsigned char) VARDATA_ANY(hash)[i]);
	pfree(input);
	return result.data;
}

/* The first `size` bytes of a file; the length read, or -1. */
static int
read_start(const char *path, char *buffer, int size)
{
	FILE	   *file = AllocateFile(path, "r");
	int			n;

	if (file == NULL)
		return -1;
	n = (int) fread(buffer, 1, size, file);
	if (ferror(file))
		n = -1;
	FreeFile(file);
	return n;
}

static char *
site_place(const char **problem)
{
	char	   *buffer = palloc(MAX_SITE_FILE);
	int			n = read_start(settlement_site_file, buffer, MAX_SITE_FILE);
	char	   *result = NULL;

	if (n < 0)
		*problem = "settlement.site_file cannot be read";
	else if (n == 0)
		*problem = "settlement.site_file is empty";
	else if (n == MAX_SITE_FILE)
		*problem = "settlement.site_file is larger than a token";
	else
		result = hex_hash("site:", buffer, n);
	pfree(buffer);
	return result;
}

/* systemd's id of this machine or container; its name where there is none. */
char *
place_machine(void)
{
	char		buffer[256];
	int			n = read_start(MACHINE_ID_FILE, buffer, sizeof(buffer) - 1);

	buffer[Max(n, 0)] = '\0';
	buffer[strcspn(buffer, "\r\n")] = '\0';
	if (buffer[0] == '\0' || strcmp(buffer, "uninitialized") == 0)
	{
		if (gethostname(buffer, sizeof(buffer)) != 0)
			buffer[0] = '\0';
		buffer[sizeof(buffer) - 1] = '\0';
	}
	return hex_hash("host:", buffer, strlen(buffer));
}

static char *
data_directory(const char **problem)
{
	char		directory[PATH_MAX];
	char		file[MAXPGPATH];
	struct stat st;
	char	   *text;
	char	   *result;

	snprintf(file, sizeof(file), "%s/PG_VERSION", DataDir);
	if (stat(file, &st) != 0 || realpath(DataDir, directory) == NULL)
	{
		*problem = "the data directory cannot be looked at";
		return NULL;
	}
	text = psprintf("%llu\n%s", (unsigned long long) st.st_ino, directory);
	result = hex_hash("", text, strlen(text));
	pfree(text);
	return result;
}

bool
place_read(Place *place, const char **problem)
{
	bool		has_token = settlement_site_file != NULL && settlement_site_file[0] != '\0';

	place->who = has_token ? site_place(problem) : place_machine();
	place->directory = place->who ? data_directory(problem) : NULL;
	return place->directory != NULL;
}

bool
place_is_site(const char *who)
{
	return strncmp(who, "site:", 5) == 0;
}
