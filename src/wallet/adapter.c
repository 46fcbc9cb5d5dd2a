/*
 * adapter.c
 *	  The list of wallet adapters.
 */
#include "wallet/adapter.h"

#include <string.h>

static const WalletAdapter *const adapters[] = {
	&native_adapter,
};

const WalletAdapter *
wallet_adapter_by_name(const char *name)
{
	for (size_t i = 0; i < sizeof adapters / sizeof adapters[0]; i++)
		if (strcmp(adapters[i]->name, name) == 0)
			return adapters[i];
	return NULL;
}
