/*
 * identity.c
 *	  The clone fence: is this the one database that may send?
 *
 * A copy of a database (base backup, snapshot, dump, CREATE DATABASE ...
 * TEMPLATE, recovery to a point in time, logical replication) has the same queue
 * as its original and must send nothing of it.  Each kind of copy differs from
 * the original in one of the things that the identity names.  What differs after
 * a failover, the place and the timeline, is accepted only if this server was a
 * standby (shared/standby.c), and raises the epoch that goes with each request,
 * so that a wallet can refuse the old primary.  The lineage, which all copies have
 * in common, tells it whose epoch that is.
 *
 * The row is read in the caller's transaction, and locked before it is changed.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "pgver.h"
#include "queue/identity.h"
#include "queue/place.h"
#include "shared/logline.h"
#include "shared/settings.h"

/* The last digits of an epoch are drawn at random: see identity_next_epoch. */
#define EPOCH_STEP			1000000

#define UUID_TEXT_LEN		36

/* identity.place of a database whose state tables came by replication */
#define PLACE_REPLICATED	"replicated"

typedef struct Identity
{
	uint64		system_identifier;
	Oid			database;
	char	   *who;
	char	   *directory;
	int64		epoch;
	TimeLineID	timeline;
	bool		written_here;	/* by a transaction, not by a restore */
	char	   *lineage;
} Identity;

typedef enum IdentityVerdict
{
	MAY_SEND,
	RAISE_EPOCH,				/* this server was promoted */
	NEW_SITE_FILE,				/* the same place has got a site_file */
	DISOWN,						/* a subscription writes our tables */
	FENCED
} IdentityVerdict;

/* Why nothing is sent, and what to do; NULL when that is adopt(). */
typedef struct Finding
{
	const char *reason;
	const char *hint;
} Finding;

static Finding last = {"no worker has looked yet", NULL};

static char lineage[UUID_TEXT_LEN + 1];	/* "" until the database may send */

TimeLineID
identity_timeline(void)
{
	return insertion_timeline_compat();
}

/* ----------------------------------------------------------- the identity */

#define IDENTITY_COLUMNS \
	"system_identifier, database_oid, place, epoch, timeline, directory, written_by = xmin, " \
	"lineage::pg_catalog.text"

/* False when there is none.  Inside SPI_connect/SPI_finish. */
static bool
read_identity(Identity *identity, bool for_update)
{
	HeapTuple	tuple;
	TupleDesc	desc;
	bool		isnull;
	int			rc;

	rc = SPI_execute(for_update ?
					 "SELECT " IDENTITY_COLUMNS " FROM settlement.identity FOR UPDATE" :
					 "SELECT " IDENTITY_COLUMNS " FROM settlement.identity", false, 1);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not read settlement.identity: %s", SPI_result_code_string(rc));
	if (SPI_processed == 0)
		return false;
	tuple = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	identity->system_identifier =
		(uint64) DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	identity->database = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	identity->who = TextDatumGetCString(SPI_getbinval(tuple, desc, 3, &isnull));
	identity->epoch = DatumGetInt64(SPI_getbinval(tuple, desc, 4, &isnull));
	identity->timeline = (TimeLineID) DatumGetInt32(SPI_getbinval(tuple, desc, 5, &isnull));
	identity->directory = TextDatumGetCString(SPI_getbinval(tuple, desc, 6, &isnull));
	identity->written_here = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
	identity->lineage = TextDatumGetCString(SPI_getbinval(tuple, desc, 8, &isnull));
	return true;
}

/* Does a subscription write our tables?  Inside SPI_connect/SPI_finish. */
static bool
is_subscribed(void)
{
	int			rc;

	rc = SPI_execute("SELECT FROM pg_catalog.pg_subscription_rel r "
					 "JOIN pg_catalog.pg_class c ON c.oid = r.srrelid "
					 "WHERE c.relnamespace = 'settlement'::pg_catalog.regnamespace", false, 1);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not read pg_subscription_rel: %s", SPI_result_code_string(rc));
	return SPI_processed > 0;
}

static IdentityVerdict
fence(Finding *finding, const char *reason, const char *hint)
{
	finding->reason = reason;
	finding->hint = hint;
	return FENCED;
}

/*
 * A new timeline is that of a promotion, if this server was a standby; where
 * tokens say which servers may send, if it has the token, too.
 */
static IdentityVerdict
judge_timeline(const Identity *identity, const Place *place, Finding *finding)
{
	if (settlement_shared == NULL || !settlement_shared->was_standby)
		return fence(finding, "it was recovered from a backup or to a point in time",
					 "Wherever the original still runs, it is the one that sends.  If this one replaces it: SELECT settlement.adopt('why');");
	if (place_is_site(identity->who) && strcmp(identity->who, place->who) != 0)
		return fence(finding, "it was promoted where the token of its settlement.site_file is not",
					 "On a server that may take over, put the token in place.  If this one is to send all the same: SELECT settlement.adopt('why');");
	return RAISE_EPOCH;
}

/* The timeline is that of the identity. */
static IdentityVerdict
judge_place(const Identity *identity, const Place *place, Finding *finding)
{
	bool		same_directory = strcmp(identity->directory, place->directory) == 0;

	if (strcmp(identity->who, place->who) == 0)
	{
		if (same_directory)
			return MAY_SEND;
		return fence(finding, "its files were copied to another data directory",
					 "If the original does not run any more and this is its successor: SELECT settlement.adopt('why');");
	}
	if (same_directory && place_is_site(place->who) &&
		strcmp(identity->who, place_machine()) == 0)
		return NEW_SITE_FILE;
	if (place_is_site(place->who))
		return fence(finding, "it belongs to another settlement.site_file",
					 "Put the former token back; or, if the original does not run any more: SELECT settlement.adopt('why');");
	if (place_is_site(identity->who))
		return fence(finding, "it belongs to a settlement.site_file that is not set here",
					 "Set settlement.site_file as it was; or, if the original does not run any more: SELECT settlement.adopt('why');");
	return fence(finding, "it belongs to another machine",
				 "If the original does not run any more and this is its successor: SELECT settlement.adopt('why');");
}

static IdentityVerdict
judge(const Identity *identity, const Place *place, Finding *finding)
{
	if (identity->system_identifier != GetSystemIdentifier())
		return fence(finding, "its data come from another database system",
					 "After pg_upgrade, or a move by dump and restore, of a system that does not run any more: SELECT settlement.adopt('why');");
	if (identity->database != MyDatabaseId)
		return fence(finding, "its data were copied from another database",
					 "If the original is not used any more: SELECT settlement.adopt('why');");
	if (!identity->written_here)
		return fence(finding, "its data were restored from a dump",
					 "Trades may have been settled since the dump.  To look them up at the wallet and go on: SELECT settlement.adopt('why');");
	if (is_subscribed())
	{
		(void) fence(finding, "a subscription writes settlement's tables",
					 "ALTER PUBLICATION on the other side so that it leaves out schema settlement, ALTER SUBSCRIPTION ... REFRESH PUBLICATION here, then SELECT settlement.adopt('why');");
		return strcmp(identity->who, PLACE_REPLICATED) == 0 ? FENCED : DISOWN;
	}
	if (strcmp(identity->who, PLACE_REPLICATED) == 0)
		return fence(finding, "a subscription wrote settlement's tables",
					 "Rows of the other side may be in the queue; delete them.  Then: SELECT settlement.adopt('why');");
	if (identity->timeline != identity_timeline())
		return judge_timeline(identity, place, finding);
	return judge_place(identity, place, finding);
}

/* Inside SPI_connect/SPI_finish. */
static IdentityVerdict
look(Identity *identity, Place *place, bool for_update, Finding *finding)
{
	const char *problem;

	finding->reason = finding->hint = NULL;
	if (!place_read(place, &problem))
		return fence(finding, problem, "The server's account must be able to read it.");
	if (!read_identity(identity, for_update))
		return fence(finding, "it has no identity yet: no table was attached",
					 "settlement.attach() of a trade table gives it one; a database restored without it needs SELECT settlement.adopt('why');");
	return judge(identity, place, finding);
}

static void
write_place(Identity *identity, const Place *place, const char *why)
{
	Oid			types[5] = {TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID};
	Datum		values[5];
	int			rc;

	values[0] = CStringGetTextDatum(place->who);
	values[1] = CStringGetTextDatum(place->directory);
	values[2] = Int32GetDatum((int32) identity_timeline());
	values[3] = Int64GetDatum(identity->epoch);
	values[4] = CStringGetTextDatum(why);
	rc = SPI_execute_with_args("UPDATE settlement.identity SET place = $1, directory = $2, "
							   "timeline = $3, epoch = $4, written_by = settlement._writer(), "
							   "adopted_at = pg_catalog.now(), "
							   "adopted_by = session_user, reason = $5",
							   5, types, values, NULL, false, 0);
	if (rc != SPI_OK_UPDATE || SPI_processed != 1)
		elog(ERROR, "could not change settlement.identity: %s", SPI_result_code_string(rc));
}

/* Change the identity as the verdict says; the verdict from now on. */
static IdentityVerdict
carry_out(Identity *identity, Place *place, IdentityVerdict verdict)
{
	switch (verdict)
	{
		case RAISE_EPOCH:
			identity->epoch = identity_next_epoch(identity->epoch);
			write_place(identity, place, "promotion");
			ereport(LOG,
					(errcode(LOG_IDENTITY_CHANGED),
					 errmsg("settlement sends from this server after its promotion, with epoch %lld",
							(long long) identity->epoch)));
			return MAY_SEND;
		case NEW_SITE_FILE:
			write_place(identity, place, "settlement.site_file was set");
			ereport(LOG,
					(errcode(LOG_IDENTITY_CHANGED),
					 errmsg("settlement recognizes this database by settlement.site_file from now on")));
			return MAY_SEND;
		case DISOWN:
			/* for good: what came in stays when the subscription is gone */
			place->who = PLACE_REPLICATED;
			write_place(identity, place, "a subscription writes settlement's tables");
			return FENCED;
		case MAY_SEND:
		case FENCED:
			break;
	}
	return verdict;
}

SendState
identity_check(DbState *db)
{
	Identity	identity;
	IdentityVerdict verdict;
	Place		place;

	if (RecoveryInProgress())
		return SEND_STANDBY;

	SPI_connect();
	verdict = look(&identity, &place, false, &last);
	if (verdict != MAY_SEND && verdict != FENCED)
	{
		/* another worker may just have done it */
		verdict = look(&identity, &place, true, &last);
		verdict = carry_out(&identity, &place, verdict);
	}
	if (verdict == MAY_SEND)
	{
		pg_atomic_write_u64(&db->epoch, (uint64) identity.epoch);
		strlcpy(lineage, identity.lineage, sizeof(lineage));
	}
	SPI_finish();
	return verdict == MAY_SEND ? SEND_OK : SEND_FENCED;
}

const char *
identity_lineage(void)
{
	return lineage;
}

const char *
identity_reason(void)
{
	return last.reason;
}

const char *
identity_problem(const char **hint)
{
	Identity	identity;
	Finding		finding;
	Place		place;

	SPI_connect();
	(void) look(&identity, &place, false, &finding);
	SPI_finish();
	*hint = finding.hint;
	return finding.reason;
}

/* -------------------------------------------------------------- the epoch */

/*
 * Two copies of one database may be promoted or adopted, each not knowing of the
 * other.  With a random part their epochs differ, so that the wallet refuses one
 * of them; who loses may adopt again.  It wins if the wallet has told the epoch
 * that it has seen, or else after a few times.
 */
int64
identity_next_epoch(int64 former)
{
	DbState    *db = shmem_my_database();
	uint32		tie_breaker;

	if (!pg_strong_random(&tie_breaker, sizeof(tie_breaker)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random number for an epoch")));
	if (db != NULL)
		former = Max(former, (int64) pg_atomic_read_u64(&db->refused_epoch));
	return (former / EPOCH_STEP + 1) * EPOCH_STEP + tie_breaker % EPOCH_STEP;
}

void
identity_epoch_refused(DbState *db, int64 seen)
{
	pg_atomic_write_u64(&db->refused_epoch,
						Max((uint64) seen, pg_atomic_read_u64(&db->epoch)));
}

bool
identity_epoch_raised(DbState *db)
{
	return pg_atomic_read_u64(&db->epoch) > pg_atomic_read_u64(&db->refused_epoch);
}
