/*
 * timers.c
 *	  A binary heap of due times; heap[0] is unused so that places are 1-based.
 */
#include "timers.h"

#include <stdlib.h>

static void
put(Timers *timers, size_t place, Timer *timer)
{
	timers->heap[place] = timer;
	timer->place = place;
}

static void
sift_up(Timers *timers, size_t place)
{
	Timer	   *timer = timers->heap[place];

	while (place > 1 && timers->heap[place / 2]->due > timer->due)
	{
		put(timers, place, timers->heap[place / 2]);
		place /= 2;
	}
	put(timers, place, timer);
}

static void
sift_down(Timers *timers, size_t place)
{
	Timer	   *timer = timers->heap[place];

	for (;;)
	{
		size_t		child = place * 2;

		if (child > timers->count)
			break;
		if (child < timers->count &&
			timers->heap[child + 1]->due < timers->heap[child]->due)
			child++;
		if (timers->heap[child]->due >= timer->due)
			break;
		put(timers, place, timers->heap[child]);
		place = child;
	}
	put(timers, place, timer);
}

void
timers_free(Timers *timers)
{
	free(timers->heap);
	*timers = (Timers) {0};
}

bool
timers_set(Timers *timers, Timer *timer, int64_t due,
		   void (*fire) (void *argument), void *argument)
{
	timers_cancel(timers, timer);
	if (timers->count + 2 > timers->capacity)
	{
		size_t		capacity = timers->capacity == 0 ? 64 : timers->capacity * 2;
		Timer	  **heap = realloc(timers->heap, capacity * sizeof(Timer *));

		if (heap == NULL)
			return false;
		timers->heap = heap;
		timers->capacity = capacity;
	}
	timer->due = due;
	timer->fire = fire;
	timer->argument = argument;
	timers->count++;
	put(timers, timers->count, timer);
	sift_up(timers, timers->count);
	return true;
}

void
timers_cancel(Timers *timers, Timer *timer)
{
	size_t		place = timer->place;
	Timer	   *last;

	if (place == 0)
		return;
	timer->place = 0;
	last = timers->heap[timers->count--];
	if (last == timer)
		return;
	put(timers, place, last);
	sift_up(timers, place);
	sift_down(timers, last->place);
}

void
timers_run(Timers *timers, int64_t now)
{
	while (timers->count > 0 && timers->heap[1]->due <= now)
	{
		Timer	   *timer = timers->heap[1];

		timers_cancel(timers, timer);
		timer->fire(timer->argument);
	}
}

int
timers_wait_ms(const Timers *timers, int64_t now)
{
	int64_t		left;

	if (timers->count == 0)
		return -1;
	left = timers->heap[1]->due - now;
	if (left <= 0)
		return 0;
	left = (left + 999) / 1000;
	return left > 60000 ? 60000 : (int) left;
}
