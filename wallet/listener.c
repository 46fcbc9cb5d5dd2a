/*
 * listener.c
 *	  The listening socket, which can be told to refuse or to stall.
 */
#include "listener.h"

#include <netinet/in.h>
#include <unistd.h>

#define BACKLOG 1024

static int
open_socket(const struct sockaddr_storage *address, socklen_t address_len)
{
	int			on = 1;
	int			fd = socket(address->ss_family,
							SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd == -1)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *) address, address_len) == 0 &&
		listen(fd, BACKLOG) == 0)
		return fd;
	close(fd);
	return -1;
}

bool
listener_open(Listener *listener, const struct sockaddr_storage *address,
			  socklen_t address_len)
{
	*listener = (Listener) {.fd = open_socket(address, address_len)};
	if (listener->fd == -1)
		return false;
	listener->address_len = sizeof(listener->address);
	return getsockname(listener->fd, (struct sockaddr *) &listener->address,
					   &listener->address_len) == 0;
}

void
listener_close(Listener *listener)
{
	if (listener->fd != -1)
		close(listener->fd);
	listener->fd = -1;
}

int
listener_port(const Listener *listener)
{
	if (listener->address.ss_family == AF_INET)
		return ntohs(((const struct sockaddr_in *) &listener->address)->sin_port);
	return ntohs(((const struct sockaddr_in6 *) &listener->address)->sin6_port);
}

void
listener_refuse(Listener *listener, int64_t until)
{
	listener_close(listener);
	listener->back_at = until;
}

void
listener_stall(Listener *listener, int64_t until)
{
	listener->back_at = until;
}

int
listener_poll_fd(Listener *listener, int64_t now)
{
	if (listener->back_at > now)
		return -1;
	if (listener->fd == -1)
	{
		listener->fd = open_socket(&listener->address, listener->address_len);
		if (listener->fd == -1)
		{
			/* someone else has the port for now: again soon */
			listener->back_at = now + 100000;
			return -1;
		}
	}
	listener->back_at = 0;
	return listener->fd;
}

int
listener_wait_ms(const Listener *listener, int64_t now)
{
	if (listener->back_at == 0)
		return -1;
	return listener->back_at <= now ? 0 : (int) ((listener->back_at - now + 999) / 1000);
}
