/*
 * walletd.c
 *	  The reference wallet: a double-entry ledger behind HTTP, with idempotency
 *	  keys, that can be told to misbehave.
 */
#include <stdio.h>
#include <stdlib.h>

#include "options.h"
#include "server.h"

int
main(int argc, char **argv)
{
	Options		options;
	Server		server;
	bool		ok = false;

	switch (options_read(&options, argc, argv))
	{
		case OPTIONS_EXIT_OK:
			options_free(&options);
			return EXIT_SUCCESS;
		case OPTIONS_EXIT_BAD:
			options_free(&options);
			return 2;
		case OPTIONS_RUN:
			break;
	}
	if (server_open(&server, &options))
	{
		printf("walletd: listening on port %d\n", listener_port(&server.listener));
		fflush(stdout);
		ok = server_run(&server);
	}
	server_close(&server);
	options_free(&options);
	return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
