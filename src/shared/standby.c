/*
 * standby.c
 *	  Was this data directory a standby when it last recovered from elsewhere?
 *
 * A new timeline comes from a promotion, or from a recovery to a point in time,
 * and only the start of that recovery tells them apart: the signal file is gone
 * afterwards.  A server may be stopped or crash between its promotion and the
 * moment when a worker has acted on it, so the answer is kept in a file.  It names
 * the directory, since base backups and other copies take it along.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "storage/fd.h"
#include "utils/guc.h"

#include "pgver.h"
#include "shared/directory.h"
#include "shared/standby.h"

#define FILE_NAME	"settlement.standby"	/* in the data directory */
#define TEMP_NAME	FILE_NAME ".new"

/* recovery_target* apply to a standby, too: one that stops early is a restore. */
static bool
has_recovery_target(void)
{
	static const char *const names[] = {
		"recovery_target", "recovery_target_lsn", "recovery_target_name",
		"recovery_target_time", "recovery_target_xid"
	};

	for (int i = 0; i < lengthof(names); i++)
	{
		const char *value = GetConfigOption(names[i], true, false);

		if (value != NULL && value[0] != '\0')
			return true;
	}
	return false;
}

static bool
exists(const char *file)
{
	struct stat st;

	return stat(file, &st) == 0;
}

static bool
is_remembered(void)
{
	char		expected[DIRECTORY_NAME_SIZE];
	char		found[DIRECTORY_NAME_SIZE];
	int			len = directory_name(expected);
	int			fd = OpenTransientFile(FILE_NAME, O_RDONLY | PG_BINARY);
	ssize_t		n;

	if (fd < 0)
		return false;
	n = read(fd, found, sizeof(found));
	CloseTransientFile(fd);
	return len > 0 && n == len && memcmp(found, expected, len) == 0;
}

static bool
write_file(const char *text, int len)
{
	int			fd = OpenTransientFile(TEMP_NAME, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	bool		written;

	if (fd < 0)
		return false;
	written = write(fd, text, len) == len && pg_fsync(fd) == 0;
	return CloseTransientFile(fd) == 0 && written &&
		durable_rename(TEMP_NAME, FILE_NAME, LOG) == 0;
}

static void
remember(void)
{
	char		text[DIRECTORY_NAME_SIZE];
	int			len = directory_name(text);

	if (len > 0 && write_file(text, len))
		return;
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", FILE_NAME),
			 errdetail("If this standby is promoted and restarted at once, it sends nothing before settlement.adopt().")));
}

bool
standby_at_start(void)
{
	/* a restart of the processes after a crash: the signal file may be gone */
	static bool seen = false;

	if (seen)
		return true;
	if (exists(STANDBY_SIGNAL_FILE) && !has_recovery_target())
	{
		remember();
		seen = true;
	}
	else if (exists(STANDBY_SIGNAL_FILE) || exists(RECOVERY_SIGNAL_FILE))
	{
		if (unlink(FILE_NAME) != 0 && errno != ENOENT)
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("could not remove file \"%s\": %m", FILE_NAME)));
	}
	else
		seen = is_remembered();
	return seen;
}
