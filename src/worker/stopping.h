/*
 * stopping.h
 *	  SIGTERM: leave in order, and by force when that takes too long.
 */
#ifndef SETTLEMENT_WORKER_STOPPING_H
#define SETTLEMENT_WORKER_STOPPING_H

/*
 * Install the handler of SIGTERM.  The first one asks the loop to stop
 * (ShutdownRequestPending).  settlement.shutdown_timeout and a grace later the
 * process is told to die at its next interrupt point, also when it waits for a
 * synchronous standby that is gone: such a wait looks at nothing else.
 */
extern void stopping_install(void);

#endif
