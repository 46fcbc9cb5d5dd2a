/*
 * audit_job.h
 *	  GET /audit: runs the audit beside the settlements.
 */
#ifndef WALLET_AUDIT_JOB_H
#define WALLET_AUDIT_JOB_H

#include "server.h"

extern void audit_handle(Request *request);

/* The wake pipe is readable: answer what is finished. */
extern void audit_collect(Server *server);

/* Waits for what still runs. */
extern void audit_stop(Server *server);

#endif
