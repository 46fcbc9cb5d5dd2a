/*
 * misbehave.h
 *	  What a rule of misbehaviour does to one request.
 */
#ifndef WALLET_MISBEHAVE_H
#define WALLET_MISBEHAVE_H

#include "request.h"

/*
 * Ends a parked request as its fault says.  If the plan is to apply, the effect
 * is committed and the true reply stands in the request.
 */
extern void misbehave(Request *request);

/*
 * The same to the answer of one item of a batch.  False when its rule is about
 * the connection: then it has to be played upon the batch.
 */
extern bool misbehave_item(Request *item);

#endif
