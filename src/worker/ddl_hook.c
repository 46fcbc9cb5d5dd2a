/*
 * ddl_hook.c
 *	  Keeps database and extension DDL and the workers out of each other's way.
 *
 * PostgreSQL refuses to drop, rename, move or copy a database while anybody is
 * connected to it, and our workers always are.  So those commands first hold
 * the database (requests.c); the hold ends with the transaction.  DROP
 * EXTENSION drains what is in flight in the same way and then refuses while
 * trades would be lost.
 *
 * The hook only acts for those who may run the command: others get their error
 * from PostgreSQL, and do not stop anything.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_namespace.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"

#include "pgver.h"
#include "queue/announce.h"
#include "queue/unsettled.h"
#include "shared/settings.h"
#include "shared/shmem.h"
#include "worker/ddl_hook.h"
#include "worker/requests.h"

#define EXTENSION	"settlement"
#define SCHEMA		"settlement"

static ProcessUtility_hook_type previous_hook = NULL;

/* --------------------------------------------------------------- databases */

static void
hold_database(const char *name)
{
	Oid			database = get_database_oid(name, true);

	if (OidIsValid(database) && owns_database(database, GetUserId()))
		(void) request_hold(database);
}

/* The value of an option of CREATE or ALTER DATABASE; NULL when not given. */
static const char *
option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *element = lfirst_node(DefElem, cell);

		if (strcmp(element->defname, name) == 0 && element->arg != NULL)
			return defGetString(element);
	}
	return NULL;
}

static void
before_create_database(CreatedbStmt *stmt)
{
	const char *template = option(stmt->options, "template");

	hold_database(template ? template : "template1");
}

static void
before_alter_database(AlterDatabaseStmt *stmt)
{
	if (option(stmt->options, "tablespace") != NULL)
		hold_database(stmt->dbname);
}

/* --------------------------------------------------------------- extension */

/* Refuse the drop while trades would be lost. */
static void
refuse_while_unsettled(void)
{
	UnsettledTrades n = unsettled_lock_and_count();

	if (n.queued + n.deferred + n.unapplied + n.unknown > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop extension \"%s\" because trades are not settled", EXTENSION),
				 errdetail("Queued: %lld, deferred: %lld, not applied to the trade row: %lld, dead-lettered as UNKNOWN: %lld.",
						   (long long) n.queued, (long long) n.deferred,
						   (long long) n.unapplied, (long long) n.unknown),
				 errhint("Detach the tables, wait until the rest is settled and resolve the unknown ones, or set settlement.force_drop to discard them.")));
}

static void
before_drop_extension(Oid extension)
{
	(void) request_hold(MyDatabaseId);
	request_forget_extension(extension);
	if (!settlement_force_drop)
		refuse_while_unsettled();
}

static Oid
extension_owner(Oid extension)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	Oid			result = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(extension));
	scan = systable_beginscan(rel, ExtensionOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static bool
names_include(List *objects, const char *name)
{
	ListCell   *cell;

	foreach(cell, objects)
		if (IsA(lfirst(cell), String) && strcmp(strVal(lfirst(cell)), name) == 0)
			return true;
	return false;
}

/* DROP EXTENSION, or DROP SCHEMA ... CASCADE, which takes it along. */
static void
before_drop(DropStmt *stmt, Oid extension)
{
	if (stmt->removeType == OBJECT_EXTENSION &&
		names_include(stmt->objects, EXTENSION) &&
		owns_extension(extension, GetUserId()))
		before_drop_extension(extension);
	else if (stmt->removeType == OBJECT_SCHEMA && stmt->behavior == DROP_CASCADE &&
			 names_include(stmt->objects, SCHEMA) &&
			 owns_schema(get_namespace_oid(SCHEMA, false), GetUserId()))
		before_drop_extension(extension);
}

static void
before_drop_owned(DropOwnedStmt *stmt, Oid extension)
{
	Oid			owner = extension_owner(extension);
	ListCell   *cell;

	foreach(cell, stmt->roles)
		if (get_rolespec_oid(lfirst_node(RoleSpec, cell), true) == owner &&
			has_privs_of_role(GetUserId(), owner))
			before_drop_extension(extension);
}

/* -------------------------------------------------------------------- hook */

static void
before_utility(Node *node)
{
	Oid			extension;

	switch (nodeTag(node))
	{
		case T_DropdbStmt:
			hold_database(castNode(DropdbStmt, node)->dbname);
			break;
		case T_RenameStmt:
			if (castNode(RenameStmt, node)->renameType == OBJECT_DATABASE)
				hold_database(castNode(RenameStmt, node)->subname);
			break;
		case T_CreatedbStmt:
			before_create_database(castNode(CreatedbStmt, node));
			break;
		case T_AlterDatabaseStmt:
			before_alter_database(castNode(AlterDatabaseStmt, node));
			break;
		case T_DropStmt:
			if (castNode(DropStmt, node)->removeType != OBJECT_EXTENSION &&
				castNode(DropStmt, node)->removeType != OBJECT_SCHEMA)
				break;
			extension = get_extension_oid(EXTENSION, true);
			if (OidIsValid(extension))
				before_drop(castNode(DropStmt, node), extension);
			break;
		case T_DropOwnedStmt:
			extension = get_extension_oid(EXTENSION, true);
			if (OidIsValid(extension))
				before_drop_owned(castNode(DropOwnedStmt, node), extension);
			break;
		default:
			break;
	}
}

/*
 * What is to be done after a command.  Decided before, because a transaction
 * command may free the tree along with its portal.
 */
typedef struct Afterwards
{
	bool		commit_prepared;
	bool		rollback_prepared;
	PreparedWork prepared;
	bool		new_workers;
	bool		identity_check;
	Oid			probe;
} Afterwards;

static Afterwards
plan_afterwards(Node *node)
{
	Afterwards	result = {0};
	TransactionStmtKind kind;

	switch (nodeTag(node))
	{
		case T_TransactionStmt:
			kind = castNode(TransactionStmt, node)->kind;
			result.commit_prepared = kind == TRANS_STMT_COMMIT_PREPARED;
			result.rollback_prepared = kind == TRANS_STMT_ROLLBACK_PREPARED;
			if (result.commit_prepared || result.rollback_prepared)
				result.prepared = announce_prepared_work();
			break;
		case T_AlterExtensionStmt:
			result.new_workers =
				strcmp(castNode(AlterExtensionStmt, node)->extname, EXTENSION) == 0;
			break;
			/* a subscription may write our tables: identity.c */
		case T_CreateSubscriptionStmt:
		case T_AlterSubscriptionStmt:
			result.identity_check = true;
			break;
		case T_AlterDatabaseSetStmt:
			result.probe =
				get_database_oid(castNode(AlterDatabaseSetStmt, node)->dbname, true);
			break;
		default:
			break;
	}
	return result;
}

static void
settlement_utility(PROCESS_UTILITY_PARAMETERS)
{
	Afterwards	afterwards = {0};

	if (settlement_shared != NULL && !RecoveryInProgress())
	{
		before_utility(pstmt->utilityStmt);
		afterwards = plan_afterwards(pstmt->utilityStmt);
	}

	if (previous_hook)
		previous_hook(PROCESS_UTILITY_ARGUMENTS);
	else
		standard_ProcessUtility(PROCESS_UTILITY_ARGUMENTS);

	if (afterwards.commit_prepared)
		announce_prepared_commit(&afterwards.prepared);
	if (afterwards.rollback_prepared)
		announce_prepared_rollback(&afterwards.prepared);
	if (afterwards.new_workers)
		request_new_workers();
	if (afterwards.identity_check)
		request_identity_check();
	if (OidIsValid(afterwards.probe))
		request_probe(afterwards.probe);
}

void
ddl_hook_install(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = settlement_utility;
}
