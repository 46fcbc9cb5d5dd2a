/*
 * fuzz.h
 *	  What the targets of the fuzzer have in common.  A target defines CORPUS,
 *	  the directory of its files, and run_one.
 *
 * With -DLIBFUZZER it is a libFuzzer target (`make fuzz`); without, a program
 * that runs the files of the corpus and seeded mutations of them, and prints TAP.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUTATIONS	180000		/* of all files together */

/* Any bytes; aborts when something does not hold. */
static void run_one(const char *data, size_t size);

static void
require(int condition, const char *what)
{
	if (!condition)
	{
		printf("Bail out! %s\n", what);
		fflush(stdout);
		abort();
	}
}
