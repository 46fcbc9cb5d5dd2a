/*
 * handled.c
 *	  Which trade's bytes a worker has in its hands.
 *
 * The pages of a shared mapping belong to the kernel: they survive the death of
 * the process that wrote them, though not that of the machine, where a count
 * more or less does not matter.  One cache line per worker, one writer each.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "storage/fd.h"

#include "shared/handled.h"

#define FILE_NAME	"settlement.handled"	/* in the data directory */

typedef union Record
{
	HandledTrade trade;
	char		line[64];
} Record;

static volatile HandledTrade *mine = NULL;

static int
read_records(int fd, HandledTrade *out, int max)
{
	Record		record;
	int			n = 0;

	while (n < max && read(fd, &record, sizeof(record)) == sizeof(record))
		if (record.trade.id != 0)
			out[n++] = record.trade;
	return n;
}

int
handled_start(HandledTrade *out, int max, int slots)
{
	int			fd = OpenTransientFile(FILE_NAME, O_RDWR | O_CREAT | PG_BINARY);
	int			n;

	if (fd < 0)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", FILE_NAME)));
		return 0;
	}
	n = read_records(fd, out, max);
	if (ftruncate(fd, 0) != 0 || ftruncate(fd, slots * sizeof(Record)) != 0)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not truncate file \"%s\": %m", FILE_NAME)));
	CloseTransientFile(fd);
	return n;
}

void
handled_open(int slot, Oid database)
{
	int			fd = OpenTransientFile(FILE_NAME, O_RDWR | PG_BINARY);
	off_t		size;
	char	   *map = MAP_FAILED;

	if (fd >= 0)
	{
		size = lseek(fd, 0, SEEK_END);
		/* a page beyond the end would be a SIGBUS */
		if (size >= (off_t) ((slot + 1) * sizeof(Record)))
			map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		CloseTransientFile(fd);
	}
	if (map == MAP_FAILED)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not map file \"%s\": %m", FILE_NAME),
				 errdetail("A trade that crashes a worker will not be recognised.")));
		return;
	}
	mine = &((Record *) map)[slot].trade;
	mine->id = 0;
	mine->database = database;
}

void
handled_begin(int64 id)
{
	if (mine != NULL)
		mine->id = id;
}

void
handled_end(void)
{
	if (mine != NULL)
		mine->id = 0;
}
