/*
 * fixture.h
 *	  What the tests of the wallet client share: a client, a server that misbehaves,
 *	  and what every test of a broken exchange looks at: how many requests reached
 *	  the server, whether maybe_sent says so, and that nothing that may have been
 *	  executed is called anything but unknown.
 */
#ifndef SETTLEMENT_TEST_FIXTURE_H
#define SETTLEMENT_TEST_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "server.h"
#include "wallet/client.h"

#define SECRET		"Bearer s3cr3t-t0k3n-abc"
#define MAX_RESULTS 2000

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* Of the present test; set_up makes them anew. */
extern const WalletTrade trade;
extern WalletConfig config;
extern char url[128];
extern WalletClient *client;
extern Server *server;
extern WalletResult results[MAX_RESULTS];
extern int	n_results;

/* CLIENT_TEST_SLOW: how much slower than usual everything is (valgrind). */
extern int	slow;

/* Once per process; false when there is no point in going on. */
extern bool fixture_init(void);
extern int	set_up(void **state);
extern int	tear_down(void **state);
extern int64_t now_ms(void);

/* A client of config.url, or else of the server; a server with it. */
extern void start_client(void);
extern void serve(Script script);

/* Requests are numbered; key_of is valid until the next call. */
extern const char *key_of(int n);
extern void submit(int n);
extern void take_results(void);

/* As the worker does it: run, take, wait on the descriptor. */
extern void run_until_results(int n);

/* Run for a while without taking results. */
extern void run_for(int ms);

/* Submit, and wait for its result. */
extern const WalletResult *attempt(int n);
extern void expect_settled(const WalletResult *result);
extern void expect_unknown(const WalletResult *result, Transport transport);
extern void expect_not_sent(const WalletResult *result, Transport transport);
extern WalletCounters counters(void);

/*
 * One attempt that settles, then wait until its connection is at its end: closed
 * by libcurl, or cut by us while it was idle.
 */
extern void settle_and_lose_connection(int n);

/* Scripts. */
extern bool settle(Request *r);
extern bool settle_then_close(Request *r);
extern bool largest_allowed(Request *r);
extern bool never_reply(Request *r);

#endif
