/*
 * apply.c
 *	  Write a batch of outcomes to trade rows.
 *
 * Locks taken: RowExclusiveLock on each leaf and its indexes, and its rows FOR
 * NO KEY UPDATE, all of them only when free: whoever else uses the trade table
 * is never waited for.  Rows are taken in key order per leaf.  User code (a
 * trigger, say) may wait for what it likes, but only until
 * settlement.apply_timeout.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "queue/apply.h"
#include "queue/apply_leaf.h"
#include "shared/handled.h"
#include "shared/settings.h"

/*
 * Rows of a batch that may raise before the batch is given up.  Each costs a
 * subtransaction, and more than 64 of those would be dear to everybody.
 */
#define MAX_EVICTIONS	4

static TimeoutId apply_timeout;
static bool apply_timeout_registered = false;
static volatile sig_atomic_t apply_timed_out = false;

/* The row that is written just now: whose error it is. */
static ApplyRow *row_in_hand = NULL;

void
apply_begin_transaction(void)
{
	ConstraintsSetStmt *statement = makeNode(ConstraintsSetStmt);

	/* nothing deferred may be left over for a security-restricted context */
	statement->constraints = NIL;
	statement->deferred = false;
	AfterTriggerSetState(statement);
}

/* By length first, so that numbers sort as numbers. */
static int
compare_texts(const char *a, const char *b)
{
	size_t		length_a;
	size_t		length_b;

	if (a == NULL || b == NULL)
		return (a != NULL) - (b != NULL);
	length_a = strlen(a);
	length_b = strlen(b);
	if (length_a != length_b)
		return length_a < length_b ? -1 : 1;
	return strcmp(a, b);
}

/* By table, then by key. */
static int
compare_rows(const void *left, const void *right)
{
	const ApplyRow *a = *(ApplyRow *const *) left;
	const ApplyRow *b = *(ApplyRow *const *) right;
	int			result;

	if (a->attached_id != b->attached_id)
		return a->attached_id < b->attached_id ? -1 : 1;
	if (a->leaf != b->leaf)
		return a->leaf < b->leaf ? -1 : 1;
	for (int i = 0; i < Min(a->n_keys, b->n_keys); i++)
	{
		result = compare_texts(a->row_key[i], b->row_key[i]);
		if (result != 0)
			return result;
	}
	return compare_texts(a->trade_id, b->trade_id);
}

/* What is done with a batch. */
typedef struct Task
{
	ApplyFound *found;			/* NULL: write; else only read the one row */
	BlockNumber pages_left;		/* that may be read where no index helps */
} Task;

/* Write the rows whose result is APPLY_GONE so far, as far as they are here. */
static LeafAccess
apply_on_leaf(Task *task, Oid relid, ApplyRow **rows, int n, SearchBy how)
{
	ApplyLeaf	leaf;
	LeafAccess	access = leaf_open(&leaf, relid, rows[0]->attached_id,
								   &task->pages_left);

	if (access != LEAF_OPEN)
		return access;
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (rows[i]->result != APPLY_GONE)
			continue;
		row_in_hand = rows[i];
		if (rows[i]->handled_id != 0)
			handled_begin(rows[i]->handled_id);
		rows[i]->result = task->found != NULL
			? leaf_read(&leaf, rows[i], how, task->found)
			: leaf_apply(&leaf, rows[i], how);
		if (rows[i]->handled_id != 0)
			handled_end();
		row_in_hand = NULL;
	}
	leaf_close(&leaf);
	return LEAF_OPEN;
}

static bool
any_gone(ApplyRow **rows, int n)
{
	for (int i = 0; i < n; i++)
		if (rows[i]->result == APPLY_GONE)
			return true;
	return false;
}

static void
replace_gone(ApplyRow **rows, int n, ApplyResult result)
{
	for (int i = 0; i < n; i++)
		if (rows[i]->result == APPLY_GONE)
			rows[i]->result = result;
}

/*
 * Look for the rows that are not on their leaf any more in every partition of
 * the attached table: first by their key, then by trade id alone, for rows
 * whose key was changed (that is what moves a row).  A row that may be on a
 * locked partition is locked, not gone.
 */
static void
apply_elsewhere(Task *task, ApplyRow **rows, int n)
{
	static const SearchBy pass[] = {SEARCH_KEY, SEARCH_TRADE_ID};
	Oid			root;
	List	   *leaves;
	ListCell   *cell;
	bool		busy = false;

	if (attachment_source(rows[0]->attached_id, &root) == NULL ||
		get_rel_relkind(root) == '\0')
		return;
	leaves = find_all_inheritors(root, NoLock, NULL);
	for (int i = 0; i < lengthof(pass); i++)
		foreach(cell, leaves)
		{
			CHECK_FOR_INTERRUPTS();
			if (get_rel_relkind(lfirst_oid(cell)) != RELKIND_RELATION)
				continue;
			if (any_gone(rows, n) &&
				apply_on_leaf(task, lfirst_oid(cell), rows, n, pass[i]) == LEAF_BUSY)
				busy = true;
		}
	if (busy)
		replace_gone(rows, n, APPLY_LOCKED);
}

/* The rows of one attached table, in order. */
static void
apply_to_table(Task *task, ApplyRow **rows, int n)
{
	for (int start = 0, end; start < n; start = end)
	{
		end = start + 1;
		while (end < n && rows[end]->leaf == rows[start]->leaf)
			end++;
		if (apply_on_leaf(task, rows[start]->leaf, rows + start, end - start,
						  SEARCH_HINT) == LEAF_BUSY)
			replace_gone(rows + start, end - start, APPLY_LOCKED);
	}
	if (any_gone(rows, n))
		apply_elsewhere(task, rows, n);
}

static void
apply_rows(ApplyRow **rows, int n, ApplyFound *found)
{
	Task		task = {
		.found = found,
		.pages_left = MyBackendType == B_BG_WORKER ? SEARCH_PAGES : MaxBlockNumber
	};

	for (int i = 0; i < n; i++)
	{
		rows[i]->result = APPLY_GONE;
		rows[i]->contradiction = NULL;
		rows[i]->details = NULL;
		rows[i]->kept = false;
		rows[i]->unsearched = false;
		rows[i]->key_unsearched = false;
	}
	qsort(rows, n, sizeof(ApplyRow *), compare_rows);
	for (int start = 0, end; start < n; start = end)
	{
		end = start + 1;
		while (end < n && rows[end]->attached_id == rows[start]->attached_id)
			end++;
		apply_to_table(&task, rows + start, end - start);
	}
}

static ApplyRow **
pointers_to(ApplyRow *rows, int n)
{
	ApplyRow  **pointers = palloc(Max(n, 1) * sizeof(ApplyRow *));

	for (int i = 0; i < n; i++)
		pointers[i] = &rows[i];
	return pointers;
}

void
apply_batch(ApplyRow *rows, int n)
{
	ApplyRow  **pointers = pointers_to(rows, n);

	apply_rows(pointers, n, NULL);
	pfree(pointers);
}

ApplyResult
apply_read(ApplyRow *row, ApplyFound *found)
{
	apply_rows(&row, 1, found);
	return row->result;
}

/* Signal handler: as a query cancel, but remembered as ours. */
static void
handle_apply_timeout(void)
{
	apply_timed_out = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
start_timeout(int ms)
{
	if (!apply_timeout_registered)
	{
		apply_timeout = RegisterTimeout(USER_TIMEOUT, handle_apply_timeout);
		apply_timeout_registered = true;
	}
	apply_timed_out = false;
	enable_timeout_after(apply_timeout, ms);
}

static void
stop_timeout(void)
{
	disable_timeout(apply_timeout, false);
	if (apply_timed_out)
		QueryCancelPending = false; /* it came too late to be seen */
}

/* Errors that are meant for the process and not for the batch. */
static bool
is_shutdown(const ErrorData *error)
{
	return ProcDiePending ||
		error->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
		error->sqlerrcode == ERRCODE_CRASH_SHUTDOWN;
}

/* Take the error of a batch out of the error state, or pass it on. */
static char *
take_error(MemoryContext context)
{
	ErrorData  *error;
	char	   *message;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	if (is_shutdown(error))
		PG_RE_THROW();
	FlushErrorState();
	handled_end();
	if (apply_timed_out && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		message = psprintf("canceled by settlement.apply_timeout (%d ms)",
						   settlement_apply_timeout);
	else
		message = pstrdup(error->message ? error->message : "error without a message");
	FreeErrorData(error);
	return message;
}

/* apply_rows in a subtransaction; false: nothing is written, *error says why. */
static bool
try_rows(ApplyRow **rows, int n, int timeout_ms, char **error)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = AllocSetContextCreate(caller, "settlement apply",
												  ALLOCSET_DEFAULT_SIZES);
	volatile bool ok = true;

	row_in_hand = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		start_timeout(timeout_ms);
		apply_rows(rows, n, NULL);
		stop_timeout();
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		stop_timeout();
		*error = take_error(caller);
		RollbackAndReleaseCurrentSubTransaction();
		ok = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	MemoryContextDelete(context);
	return ok;
}

/* Take the row whose error it was out of rows[]; false when it is not known. */
static bool
evict_row_in_hand(ApplyRow **rows, int *n)
{
	for (int i = 0; i < *n; i++)
	{
		if (rows[i] != row_in_hand)
			continue;
		rows[i]->result = APPLY_ERROR;
		rows[i] = rows[--(*n)];
		return true;
	}
	return false;
}

bool
apply_batch_safely(ApplyRow *rows, int n, char **error)
{
	TimestampTz start = GetCurrentTimestamp();
	ApplyRow  **left = pointers_to(rows, n);
	int			n_left = n;
	int			evictions = 0;
	bool		done = false;

	*error = NULL;
	while (n_left > 0 && !done)
	{
		char	   *message;
		int64		elapsed = (GetCurrentTimestamp() - start) / 1000;
		int64		timeout = settlement_apply_timeout - Max(elapsed, 0);

		if (timeout <= 0)
			break;
		done = try_rows(left, n_left, timeout, &message);
		if (done)
			break;
		if (*error == NULL)
			*error = message;
		if (apply_timed_out || evictions++ == MAX_EVICTIONS ||
			!evict_row_in_hand(left, &n_left))
			break;
	}
	for (int i = 0; i < n && !done; i++)
		rows[i].result = APPLY_ERROR;
	pfree(left);
	return done || n == 0;
}
