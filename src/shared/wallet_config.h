/*
 * wallet_config.h
 *	  The settings of the wallet as its client wants them.
 */
#ifndef SETTLEMENT_SHARED_WALLET_CONFIG_H
#define SETTLEMENT_SHARED_WALLET_CONFIG_H

#include "wallet/client.h"

#define MAX_SECRET	4096

/*
 * Fill the configuration; the secret goes into the given buffer, which the
 * caller wipes after use.  False when settlement.wallet_auth_file is set and its
 * first line cannot be read or is empty.
 */
extern bool wallet_config_read(WalletConfig *config, char secret[MAX_SECRET]);

#endif
