/*
 * stats_file.h
 *	  Counters and histograms outlast a stop of the server.
 */
#ifndef SETTLEMENT_SHARED_STATS_FILE_H
#define SETTLEMENT_SHARED_STATS_FILE_H

/*
 * In the process that has just made the shared memory: take the numbers that the
 * last stop left, and remove their file.  Takes settlement_shared->lock.  Whatever
 * is wrong with the file is a LOG message, and numbers begin at zero.
 */
extern void stats_file_take(void);

/* An exit hook of that process; does nothing when code is not 0. */
extern void stats_file_write(int code, Datum arg);

#endif
