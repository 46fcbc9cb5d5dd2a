#ifndef I_H
#define I_H
#include "shared/shmem.h"
extern SendState identity_check(DbState *db);
extern bool identity_epoch_raised(DbState *db);
#endif
