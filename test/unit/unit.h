/*
 * unit.h
 *	  What every unit test includes: cmocka and the headers it wants first.
 */
#ifndef SETTLEMENT_TEST_UNIT_H
#define SETTLEMENT_TEST_UNIT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <setjmp.h>
#include <cmocka.h>

#define SECOND	INT64_C(1000000)
#define MS		INT64_C(1000)
#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

#endif
