/*
 * stats_file.c
 *	  Counters and histograms outlast a stop of the server.
 *
 * The postmaster writes them as its last act, when nobody is left to count, and
 * takes them back when it makes the shared memory, as pg_stat_statements does.
 * In between there is no file: a crash leaves nothing stale behind, and a base
 * backup of a running server takes nothing along.  After a crash the numbers begin
 * at zero, and stats_reset says when.
 *
 * A file is dropped, with a LOG message, when it is torn, was written in another
 * data directory (a copy of a stopped server would pass the original's numbers
 * off as its own), or by a library with other counters.
 *
 * Entries are found under settlement_shared->lock; for the rest no lock is needed,
 * as no other process runs.
 */
#include "postgres.h"

#include <unistd.h>

#include "access/xlog.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#include "pgver.h"
#include "shared/directory.h"
#include "shared/shmem.h"
#include "shared/stats_file.h"

#define FILE_NAME	PGSTAT_STAT_PERMANENT_DIRECTORY "/settlement.stat"
#define TEMP_NAME	FILE_NAME ".tmp"
#define MAGIC		0x5345540A	/* to be changed with the order of the counters */

typedef struct Header
{
	uint32		magic;
	uint32		entry_size;
	uint32		n_entries;
	uint32		unused;
	uint64		system_identifier;
	char		directory[DIRECTORY_NAME_SIZE];
} Header;

/* The numbers of a database. */
typedef struct Entry
{
	TimestampTz stats_reset;
	uint64		counter[N_COUNTERS];
	Histogram	duration[N_DURATIONS];
	Histogram	claim_size;
	uint64		breaker_opened;
	Oid			database;
	uint32		unused;
} Entry;

#define MAX_FILE_SIZE \
	(sizeof(Header) + MAX_DATABASES * sizeof(Entry) + sizeof(pg_crc32c))

static void
fill_header(Header *header, uint32 n_entries)
{
	memset(header, 0, sizeof(*header));
	header->magic = MAGIC;
	header->entry_size = sizeof(Entry);
	header->n_entries = n_entries;
	header->system_identifier = GetSystemIdentifier();
	(void) directory_name(header->directory);
}

/* ------------------------------------------------------------------ write */

static bool
has_counted(DbState *db)
{
	if (!OidIsValid(db->database))
		return false;
	for (int i = 0; i < N_COUNTERS; i++)
		if (pg_atomic_read_u64(&db->counter[i]) != 0)
			return true;
	return false;
}

static void
fill_entry(Entry *entry, DbState *db)
{
	memset(entry, 0, sizeof(*entry));
	entry->database = db->database;
	entry->stats_reset = db->stats_reset;
	for (int i = 0; i < N_COUNTERS; i++)
		entry->counter[i] = pg_atomic_read_u64(&db->counter[i]);
	memcpy(entry->duration, db->duration, sizeof(entry->duration));
	entry->claim_size = db->claim_size;
	entry->breaker_opened = db->breaker.times_opened;
}

static bool
put(FILE *file, const void *data, size_t len, pg_crc32c *crc)
{
	COMP_CRC32C(*crc, data, len);
	return fwrite(data, len, 1, file) == 1;
}

static bool
write_numbers(FILE *file, uint32 n_entries)
{
	static Entry entry;			/* too large for the stack */
	Header		header;
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	fill_header(&header, n_entries);
	if (!put(file, &header, sizeof(header), &crc))
		return false;
	for (int i = 0; i < MAX_DATABASES; i++)
	{
		DbState    *db = &settlement_shared->databases[i];

		if (!has_counted(db))
			continue;
		fill_entry(&entry, db);
		if (!put(file, &entry, sizeof(entry), &crc))
			return false;
	}
	FIN_CRC32C(crc);
	return fwrite(&crc, sizeof(crc), 1, file) == 1;
}

void
stats_file_write(int code, Datum arg)
{
	uint32		n_entries = 0;
	FILE	   *file;
	bool		written;

	if (code != 0 || settlement_shared == NULL)
		return;
	for (int i = 0; i < MAX_DATABASES; i++)
		n_entries += has_counted(&settlement_shared->databases[i]);
	if (n_entries == 0)
		return;

	file = AllocateFile(TEMP_NAME, PG_BINARY_W);
	written = file != NULL && write_numbers(file, n_entries);
	if (file != NULL && FreeFile(file) != 0)
		written = false;
	if (written && durable_rename(TEMP_NAME, FILE_NAME, LOG) == 0)
		return;
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", FILE_NAME),
			 errdetail("The counters of settlement will begin at zero.")));
	unlink(TEMP_NAME);
}

/* ------------------------------------------------------------------- take */

/* The file's size, or -1 when it is not there or cannot be read. */
static ssize_t
read_file(char *buffer)
{
	FILE	   *file = AllocateFile(FILE_NAME, PG_BINARY_R);
	ssize_t		size = -1;

	if (file != NULL)
	{
		size = fread(buffer, 1, MAX_FILE_SIZE, file);
		if (ferror(file))
			size = -1;
		FreeFile(file);
	}
	if (size < 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", FILE_NAME)));
	return size;
}

/* Why the file cannot be used; NULL when it can. */
static const char *
problem_of(const char *buffer, ssize_t size)
{
	const Header *header = (const Header *) buffer;
	Header		expected;
	pg_crc32c	crc;

	if (size < (ssize_t) (sizeof(Header) + sizeof(crc)))
		return "It is damaged.";
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, buffer, size - sizeof(crc));
	FIN_CRC32C(crc);
	if (memcmp(&crc, buffer + size - sizeof(crc), sizeof(crc)) != 0)
		return "It is damaged.";
	fill_header(&expected, header->n_entries);
	if (header->magic != expected.magic || header->entry_size != expected.entry_size ||
		header->n_entries > MAX_DATABASES ||
		size != sizeof(Header) + header->n_entries * sizeof(Entry) + sizeof(crc))
		return "It was written by another version of the library.";
	if (expected.directory[0] == '\0' || memcmp(header, &expected, sizeof(Header)) != 0)
		return "It was written in another data directory.";
	return NULL;
}

static void
take_entry(const Entry *entry)
{
	DbState    *db = shmem_database(entry->database, true);

	if (db == NULL)
		return;
	db->stats_reset = entry->stats_reset;
	for (int i = 0; i < N_COUNTERS; i++)
		pg_atomic_write_u64(&db->counter[i], entry->counter[i]);
	memcpy(db->duration, entry->duration, sizeof(db->duration));
	db->claim_size = entry->claim_size;
	db->breaker.times_opened = entry->breaker_opened;
}

void
stats_file_take(void)
{
	char	   *buffer = palloc(MAX_FILE_SIZE);
	ssize_t		size = read_file(buffer);
	const char *problem;

	/* One that stays would be taken again after a crash, when it is stale. */
	if (size >= 0 && durable_unlink(FILE_NAME, LOG) == 0)
	{
		problem = problem_of(buffer, size);
		if (problem == NULL)
			for (uint32 i = 0; i < ((Header *) buffer)->n_entries; i++)
				take_entry((Entry *) (buffer + sizeof(Header)) + i);
		else
			ereport(LOG,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("ignoring file \"%s\"", FILE_NAME),
					 errdetail("%s The counters of settlement begin at zero.", problem)));
	}
	pfree(buffer);
}
