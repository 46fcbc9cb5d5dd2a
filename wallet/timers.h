/*
 * timers.h
 *	  What is to happen later: a binary heap of due times.
 *
 * A timer is embedded in what it belongs to and must be cancelled before that
 * is freed.  Time is an argument, in microseconds of the monotonic clock.
 */
#ifndef WALLET_TIMERS_H
#define WALLET_TIMERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct Timer
{
	int64_t		due;
	size_t		place;			/* 1-based index in the heap; 0: not set */
	void		(*fire) (void *argument);
	void	   *argument;
} Timer;

typedef struct Timers
{
	Timer	  **heap;
	size_t		count;
	size_t		capacity;
} Timers;

extern void timers_free(Timers *timers);

/* Sets or moves a timer.  False only when memory is exhausted. */
extern bool timers_set(Timers *timers, Timer *timer, int64_t due,
					   void (*fire) (void *argument), void *argument);
extern void timers_cancel(Timers *timers, Timer *timer);

/* Fires what is due; a timer is unset before it fires. */
extern void timers_run(Timers *timers, int64_t now);

/* ms until the next one is due, rounded up; -1: none. */
extern int	timers_wait_ms(const Timers *timers, int64_t now);

#endif
