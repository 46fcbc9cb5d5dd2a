/*
 * identity.c
 *	  The clone fence: is this the one database that may send?
 *
 * A copy of a database (base backup, snapshot, dump, CREATE DATABASE ...
 * TEMPLATE, recovery to a point in time) has the same queue as its original and
 * must send nothing of it.  Each kind of copy differs from the original in one
 * of the four things that the identity names.  What differs after a failover,
 * the place and the timeline, is accepted only if this postmaster came up as a
 * standby, and raises the epoch that goes with each request, so that a wallet
 * can refuse the old primary.
 *
 * The row is read in the caller's transaction, and locked before it is changed.
 */
#include "postgres.h"

#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "pgver.h"
#include "queue/identity.h"
#include "shared/settings.h"

#define MACHINE_ID_FILE		"/etc/machine-id"
#define MAX_SITE_FILE		65536
#define SHA256_LEN			32

typedef struct Identity
{
	uint64		system_identifier;
	Oid			database;
	char	   *place;
	int64		epoch;
	TimeLineID	timeline;
} Identity;

typedef enum IdentityVerdict
{
	MAY_SEND,
	RAISE_EPOCH,				/* this server was promoted */
	NEW_SITE_FILE,				/* the same place has got a site_file */
	FENCED
} IdentityVerdict;

static const char *last_reason = "no worker has looked yet";

/* ------------------------------------------------------------- the place */

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
static void
machine_id(char *buffer, int size)
{
	int			n = read_start(MACHINE_ID_FILE, buffer, size - 1);

	buffer[Max(n, 0)] = '\0';
	buffer[strcspn(buffer, "\r\n")] = '\0';
	if (buffer[0] != '\0' && strcmp(buffer, "uninitialized") != 0)
		return;
	if (gethostname(buffer, size) != 0)
		buffer[0] = '\0';
	buffer[size - 1] = '\0';
}

/*
 * This machine and this data directory.  Each copy has other inodes; one made
 * by a snapshot of the disk keeps them, but is mounted elsewhere.  The device
 * number is not part of it: it may change when the machine boots.
 */
static char *
host_place(const char **problem)
{
	char		machine[256];
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
	machine_id(machine, sizeof(machine));
	text = psprintf("%s\n%llu\n%s", machine, (unsigned long long) st.st_ino, directory);
	result = hex_hash("host:", text, strlen(text));
	pfree(text);
	return result;
}

char *
identity_place(const char **problem)
{
	if (settlement_site_file != NULL && settlement_site_file[0] != '\0')
		return site_place(problem);
	return host_place(problem);
}

TimeLineID
identity_timeline(void)
{
#if PG_VERSION_NUM >= 150000
	return GetWALInsertionTimeLine();
#else
	(void) RecoveryInProgress();	/* sets it */
	return ThisTimeLineID;
#endif
}

/* ----------------------------------------------------------- the identity */

/* False when there is none.  Inside SPI_connect/SPI_finish. */
static bool
read_identity(Identity *identity, bool for_update)
{
	HeapTuple	tuple;
	TupleDesc	desc;
	bool		isnull;
	int			rc;

	rc = SPI_execute(for_update ?
					 "SELECT system_identifier, database_oid, place, epoch, timeline "
					 "FROM settlement.identity FOR UPDATE" :
					 "SELECT system_identifier, database_oid, place, epoch, timeline "
					 "FROM settlement.identity", false, 1);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not read settlement.identity: %s", SPI_result_code_string(rc));
	if (SPI_processed == 0)
		return false;
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	identity->system_identifier =
		(uint64) DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	identity->database = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	identity->place = TextDatumGetCString(SPI_getbinval(tuple, desc, 3, &isnull));
	identity->epoch = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &isnull));
	identity->timeline = (TimeLineID) DatumGetInt32(SPI_getbinval(tuple, desc, 5, &isnull));
	return true;
}

static IdentityVerdict
judge(const Identity *identity, const char *place, const char **reason)
{
	const char *ignored;
	bool		same_place = strcmp(identity->place, place) == 0;
	bool		same_timeline = identity->timeline == identity_timeline();

	if (identity->system_identifier != GetSystemIdentifier())
		*reason = "its data come from another database system";
	else if (identity->database != MyDatabaseId)
		*reason = "its data were copied from another database";
	else if (same_place && same_timeline)
		return MAY_SEND;
	else if (!same_timeline && settlement_shared != NULL &&
			 settlement_shared->started_as_standby)
		return RAISE_EPOCH;
	else if (!same_timeline)
		*reason = "it was recovered from a backup, or promoted before the last server start";
	else
	{
		char	   *host = host_place(&ignored);

		if (host != NULL && strcmp(identity->place, host) == 0)
			return NEW_SITE_FILE;
		*reason = strncmp(place, "site:", 5) == 0 ?
			"it belongs to another settlement.site_file" :
			"it belongs to another machine or data directory";
	}
	return FENCED;
}

/* Inside SPI_connect/SPI_finish. */
static IdentityVerdict
look(Identity *identity, char **place, bool for_update, const char **reason)
{
	*reason = NULL;
	*place = identity_place(reason);
	if (*place == NULL)
		return FENCED;
	if (!read_identity(identity, for_update))
	{
		*reason = "it has no identity yet: no table was attached";
		return FENCED;
	}
	return judge(identity, *place, reason);
}

static void
accept_place(Identity *identity, const char *place, IdentityVerdict verdict)
{
	bool		promoted = verdict == RAISE_EPOCH;
	Oid			types[4] = {TEXTOID, INT4OID, INT8OID, TEXTOID};
	Datum		values[4];
	int			rc;

	identity->epoch += promoted ? 1 : 0;
	values[0] = CStringGetTextDatum(place);
	values[1] = Int32GetDatum((int32) identity_timeline());
	values[2] = Int64GetDatum(identity->epoch);
	values[3] = CStringGetTextDatum(promoted ? "promotion" : "settlement.site_file was set");
	rc = SPI_execute_with_args("UPDATE settlement.identity SET place = $1, timeline = $2, "
							   "epoch = $3, adopted_at = pg_catalog.now(), "
							   "adopted_by = session_user, reason = $4",
							   4, types, values, NULL, false, 0);
	if (rc != SPI_OK_UPDATE || SPI_processed != 1)
		elog(ERROR, "could not change settlement.identity: %s", SPI_result_code_string(rc));
	if (promoted)
		ereport(LOG,
				(errmsg("settlement sends from this server after its promotion, with epoch %lld",
						(long long) identity->epoch)));
	else
		ereport(LOG, (errmsg("settlement recognizes this database by settlement.site_file from now on")));
}

SendState
identity_check(DbState *db)
{
	Identity	identity;
	IdentityVerdict		verdict;
	char	   *place;

	if (RecoveryInProgress())
		return SEND_STANDBY;

	SPI_connect();
	verdict = look(&identity, &place, false, &last_reason);
	if (verdict == RAISE_EPOCH || verdict == NEW_SITE_FILE)
	{
		/* another worker may just have done it */
		verdict = look(&identity, &place, true, &last_reason);
		if (verdict == RAISE_EPOCH || verdict == NEW_SITE_FILE)
			accept_place(&identity, place, verdict);
	}
	if (verdict != FENCED)
		pg_atomic_write_u64(&db->epoch, (uint64) identity.epoch);
	SPI_finish();
	return verdict == FENCED ? SEND_FENCED : SEND_OK;
}

const char *
identity_reason(void)
{
	return last_reason;
}

const char *
identity_problem(void)
{
	Identity	identity;
	const char *reason;
	char	   *place;

	SPI_connect();
	(void) look(&identity, &place, false, &reason);
	SPI_finish();
	return reason;
}

/* -------------------------------------------------------------- the epoch */

void
identity_epoch_refused(DbState *db, uint64 epoch)
{
	pg_atomic_write_u64(&db->refused_epoch, epoch);
}

bool
identity_epoch_raised(DbState *db)
{
	return pg_atomic_read_u64(&db->epoch) > pg_atomic_read_u64(&db->refused_epoch);
}
