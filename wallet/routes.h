/*
 * routes.h
 *	  Which path does what, who may use it, how long its body may be.
 */
#ifndef WALLET_ROUTES_H
#define WALLET_ROUTES_H

#include "request.h"

/* By method and path; known before the body is read. */
extern void routes_find(Request *request);
extern size_t routes_body_max(const Request *request);

/* The body is complete: answer, or leave the request parked. */
extern void routes_dispatch(Request *request);

#endif
