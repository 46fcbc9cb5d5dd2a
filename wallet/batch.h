/*
 * batch.h
 *	  Group commit: the settle requests of one turn share one transaction.
 */
#ifndef WALLET_BATCH_H
#define WALLET_BATCH_H

#include "server.h"

extern void batch_add(Request *request);

/* Settles what is waiting; replies are released only after the commit. */
extern void batch_run(Server *server);

extern bool batch_waiting(const Server *server);

#endif
