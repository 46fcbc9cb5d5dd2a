/*
 * routes.c
 *	  Which path does what, who may use it, how long its body may be.
 */
#include "routes.h"

#include <string.h>

#include "admin.h"
#include "audit_job.h"
#include "http.h"
#include "inspect.h"
#include "reply.h"
#include "settle.h"
#include "settle_batch.h"

#define SMALL_BODY	(64 * 1024)
#define BATCH_BODY	(8 * 1024 * 1024)
#define LARGE_BODY	(64 * 1024 * 1024)

typedef enum RouteKind
{
	ROUTE_WALLET,				/* counts by itself */
	ROUTE_INSPECT,
	ROUTE_ADMIN,
	ROUTE_OPEN					/* needs no authorization */
} RouteKind;

typedef struct Route
{
	const char *method;
	const char *path;			/* ends in '/': a prefix, the rest an argument */
	RouteKind	kind;
	size_t		body_max;
	void		(*handle) (Request *request);
} Route;

static const Route routes[] = {
	{"POST", "/api/wallets/settle", ROUTE_WALLET, SMALL_BODY, settle_handle},
	{"POST", "/api/wallets/settle-batch", ROUTE_WALLET, BATCH_BODY, settle_batch_handle},
	{"GET", "/api/wallets/settlements/", ROUTE_WALLET, SMALL_BODY, lookup_handle},
	{"GET", "/ledger", ROUTE_INSPECT, SMALL_BODY, inspect_ledger},
	{"GET", "/audit", ROUTE_INSPECT, SMALL_BODY, audit_handle},
	{"GET", "/balances", ROUTE_INSPECT, SMALL_BODY, inspect_balances},
	{"GET", "/stats", ROUTE_INSPECT, SMALL_BODY, inspect_stats},
	{"GET", "/healthz", ROUTE_OPEN, SMALL_BODY, inspect_health},
	{"POST", "/admin/accounts", ROUTE_ADMIN, LARGE_BODY, admin_accounts},
	{"POST", "/admin/deposit", ROUTE_ADMIN, SMALL_BODY, admin_deposit},
	{"POST", "/admin/reservations", ROUTE_ADMIN, LARGE_BODY, admin_reservations},
	{"GET", "/admin/faults", ROUTE_ADMIN, SMALL_BODY, admin_list_faults},
	{"PUT", "/admin/faults", ROUTE_ADMIN, LARGE_BODY, admin_replace_faults},
	{"POST", "/admin/faults", ROUTE_ADMIN, LARGE_BODY, admin_add_faults},
	{"DELETE", "/admin/faults", ROUTE_ADMIN, SMALL_BODY, admin_clear_faults},
	{"POST", "/admin/refuse", ROUTE_ADMIN, SMALL_BODY, admin_refuse},
	{"POST", "/admin/forget-keys", ROUTE_ADMIN, LARGE_BODY, admin_forget_keys},
	{"POST", "/admin/epoch", ROUTE_ADMIN, SMALL_BODY, admin_epoch},
	{"POST", "/admin/reset-stats", ROUTE_ADMIN, SMALL_BODY, admin_reset_stats},
};

#define ROUTE_COUNT (sizeof(routes) / sizeof(routes[0]))

static bool
path_matches(const Route *route, const char *path)
{
	size_t		length = strlen(route->path);

	if (route->path[length - 1] != '/')
		return strcmp(route->path, path) == 0;
	return strncmp(route->path, path, length) == 0 && path[length] != '\0';
}

void
routes_find(Request *request)
{
	if (request->path_too_long)
		return;
	for (size_t i = 0; i < ROUTE_COUNT; i++)
		if (strcmp(routes[i].method, request->method) == 0 &&
			path_matches(&routes[i], request->path))
		{
			request->route = &routes[i];
			request->path_argument = request->path + strlen(routes[i].path);
			return;
		}
}

size_t
routes_body_max(const Request *request)
{
	return request->route == NULL ? SMALL_BODY : request->route->body_max;
}

/* Takes the same time wherever the texts differ. */
static bool
same_secret(const char *wanted, const char *given)
{
	size_t		length = strlen(given);
	unsigned char difference = strlen(wanted) != length;

	for (size_t i = 0; wanted[i] != '\0'; i++)
		difference |= (unsigned char) wanted[i] ^
			(unsigned char) given[length == 0 ? 0 : i % length];
	return difference == 0;
}

static bool
authorized(const Request *request)
{
	const char *wanted = request->server->options->authorization;
	const char *given;

	if (wanted == NULL || (request->route != NULL && request->route->kind == ROUTE_OPEN))
		return true;
	given = http_header(request, "Authorization");
	return given != NULL && same_secret(wanted, given);
}

static void
no_route(Request *request)
{
	for (size_t i = 0; i < ROUTE_COUNT; i++)
		if (!request->path_too_long && path_matches(&routes[i], request->path))
		{
			reply_error(request, 405, NULL, "the path does not have this method");
			return;
		}
	reply_error(request, 404, NULL, "no such path");
}

static void
count(Request *request)
{
	Stats	   *stats = &request->server->stats;

	if (request->route == NULL || request->route->kind == ROUTE_INSPECT ||
		request->route->kind == ROUTE_OPEN)
		stats->other_requests++;
	else if (request->route->kind == ROUTE_ADMIN)
		stats->admin_requests++;
}

void
routes_dispatch(Request *request)
{
	request->state = REQUEST_READY;
	count(request);
	if (!authorized(request))
	{
		request->server->stats.unauthorized++;
		reply_error(request, 401, NULL, "the Authorization header is missing or wrong");
	}
	else if (request->route == NULL)
		no_route(request);
	else if (request->route->kind == ROUTE_ADMIN && !request->server->options->admin)
		reply_error(request, 403, NULL, "the admin endpoints are switched off");
	else if (request->body_too_large)
		reply_error(request, 413, NULL, "the body is too long");
	else
		request->route->handle(request);
}
