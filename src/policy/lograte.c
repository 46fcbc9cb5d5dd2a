/*
 * lograte.c
 *	  How many lines of one kind may go to the log.
 *
 * Pure; the time is an argument.
 */
#include "policy/lograte.h"

static bool
is_over(const LogRate *rate, int64_t interval_us, int64_t now_us)
{
	return now_us < rate->since_us || now_us - rate->since_us >= interval_us;
}

bool
lograte_admit(LogRate *rate, int limit, int64_t interval_us, int64_t now_us)
{
	if (is_over(rate, interval_us, now_us))
	{
		rate->since_us = now_us;
		rate->written = 0;
	}
	if (rate->written < limit)
	{
		rate->written++;
		return true;
	}
	rate->held_back++;
	return false;
}

int64_t
lograte_summary(LogRate *rate, int64_t interval_us, int64_t now_us, bool at_once)
{
	int64_t		n = rate->held_back;

	if (n == 0 || !(at_once || is_over(rate, interval_us, now_us)))
		return 0;
	rate->held_back = 0;
	return n;
}
