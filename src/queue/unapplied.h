#include "queue/apply.h"
#include "shared/shmem.h"
extern int unapplied_record(const ApplyRow *rows, int n, const char *failure);
extern int unapplied_run(DbState *db, int max);
