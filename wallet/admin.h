/*
 * admin.h
 *	  Endpoints that set the wallet up or make it misbehave.
 */
#ifndef WALLET_ADMIN_H
#define WALLET_ADMIN_H

#include "request.h"

extern void admin_accounts(Request *request);
extern void admin_deposit(Request *request);
extern void admin_reservations(Request *request);
extern void admin_list_faults(Request *request);
extern void admin_replace_faults(Request *request);
extern void admin_add_faults(Request *request);
extern void admin_clear_faults(Request *request);
extern void admin_refuse(Request *request);
extern void admin_forget_keys(Request *request);
extern void admin_epoch(Request *request);
extern void admin_reset_stats(Request *request);

#endif
