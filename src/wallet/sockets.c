/*
 * sockets.c
 *	  One epoll set for all connections of a client.
 *
 * A connection stays in the set while it is idle.  That saves two system calls
 * per request, and it is the guard against a reply that belongs to nobody: an
 * idle connection that becomes readable either closes or speaks out of turn (a
 * reply sent twice), and libcurl 7.88 would take such bytes for the answer to
 * the next request on that connection.  It is cut before that.
 *
 * Keeps true: no descriptor is watched that was closed; no I/O blocks.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE			/* dup3 */
#endif

#include "wallet/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct SocketState
{
	uint32_t	watched;		/* what the owner waits for; 0: idle or none */
	uint32_t	registered;		/* what the kernel was told */
	bool		connection;		/* opened by sockets_open and not yet closed */
} SocketState;

struct Sockets
{
	int			epoll_fd;
	int			eof_fd;			/* always at end of file */
	SocketState *state;			/* by descriptor */
	int			n_state;
	int			open_now;
	uint64_t	opened;
	uint64_t	cut_idle;
};

Sockets *
sockets_create(void)
{
	Sockets    *s = calloc(1, sizeof *s);
	int			pair[2] = {-1, -1};

	if (s == NULL)
		return NULL;
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (s->epoll_fd < 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
	{
		if (s->epoll_fd >= 0)
			close(s->epoll_fd);
		free(s);
		return NULL;
	}
	close(pair[1]);
	s->eof_fd = pair[0];
	return s;
}

void
sockets_destroy(Sockets *s)
{
	if (s == NULL)
		return;
	close(s->epoll_fd);
	close(s->eof_fd);
	free(s->state);
	free(s);
}

int
sockets_fd(const Sockets *s)
{
	return s->epoll_fd;
}

/* The state of a descriptor, or NULL out of memory. */
static SocketState *
state_of(Sockets *s, int fd)
{
	if (fd >= s->n_state)
	{
		int			n = fd < 64 ? 128 : fd * 2;
		SocketState *grown = realloc(s->state, (size_t) n * sizeof *grown);

		if (grown == NULL)
			return NULL;
		memset(grown + s->n_state, 0, (size_t) (n - s->n_state) * sizeof *grown);
		s->state = grown;
		s->n_state = n;
	}
	return &s->state[fd];
}

/*
 * Tell the kernel.  A descriptor may have been closed and given out again behind
 * our back (the HTTP library has some of its own), so each way has its other.
 */
static bool
register_events(Sockets *s, int fd, SocketState *state, uint32_t events)
{
	struct epoll_event event = {.events = events,.data.fd = fd};
	int			rc;

	if (events == 0)
		rc = epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, fd, &event);
	else
	{
		rc = epoll_ctl(s->epoll_fd,
					   state->registered != 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
					   fd, &event);
		if (rc < 0 && (errno == ENOENT || errno == EEXIST))
			rc = epoll_ctl(s->epoll_fd,
						   errno == ENOENT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD,
						   fd, &event);
	}
	state->registered = rc == 0 ? events : 0;
	return rc == 0 || events == 0;
}

int
sockets_open(Sockets *s, int domain, int type, int protocol)
{
	int			fd = socket(domain, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
	SocketState *state;

	if (fd < 0)
		return -1;
	state = state_of(s, fd);
	if (state == NULL)
	{
		close(fd);
		return -1;
	}
	memset(state, 0, sizeof *state);
	state->connection = true;
	s->opened++;
	s->open_now++;
	return fd;
}

void
sockets_close(Sockets *s, int fd)
{
	if (fd >= 0 && fd < s->n_state && s->state[fd].connection)
	{
		memset(&s->state[fd], 0, sizeof s->state[fd]);
		s->open_now--;
	}
	close(fd);
}

bool
sockets_watch(Sockets *s, int fd, uint32_t events)
{
	SocketState *state = state_of(s, fd);

	if (state == NULL)
		return false;
	state->watched = events;
	if (state->connection && (events == 0 || events == state->registered))
		return true;
	return register_events(s, fd, state, events);
}

/*
 * Put an end of file in the place of the connection: its next user finds it
 * closed by the peer, whatever was or will be in it.
 */
void
sockets_cut(Sockets *s, int fd)
{
	if (fd < 0 || fd >= s->n_state || !s->state[fd].connection)
		return;
	register_events(s, fd, &s->state[fd], 0);
	if (dup3(s->eof_fd, fd, O_CLOEXEC) < 0)
		shutdown(fd, SHUT_RDWR);
	if (s->state[fd].watched != 0)
		register_events(s, fd, &s->state[fd], s->state[fd].watched);
}

/*
 * Nobody waits for this descriptor.  Is it an idle connection that woke?  True
 * when it must be asked again.
 */
static bool
handle_unwatched(Sockets *s, int fd)
{
	SocketState *state = fd < s->n_state ? &s->state[fd] : NULL;
	char		byte;

	if (state == NULL || !state->connection)
	{
		epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		return false;
	}
	if (state->registered != EPOLLIN)
	{
		/* Left waiting to write, as it was when it went idle. */
		register_events(s, fd, state, EPOLLIN);
		return true;
	}
	if (recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
		(errno == EAGAIN || errno == EINTR))
		return false;			/* its bytes were read in this same turn */
	s->cut_idle++;
	sockets_cut(s, fd);
	return false;
}

int
sockets_poll(Sockets *s, struct epoll_event *events, int max, bool *more)
{
	int			n = epoll_wait(s->epoll_fd, events, max, 0);
	int			kept = 0;

	*more = n == max;
	for (int i = 0; i < n; i++)
	{
		int			fd = events[i].data.fd;

		if (fd < s->n_state && s->state[fd].watched != 0)
			events[kept++] = events[i];
		else if (handle_unwatched(s, fd))
			*more = true;
	}
	return kept;
}

uint64_t
sockets_opened(const Sockets *s)
{
	return s->opened;
}

int
sockets_open_now(const Sockets *s)
{
	return s->open_now;
}

uint64_t
sockets_cut_idle(const Sockets *s)
{
	return s->cut_idle;
}
