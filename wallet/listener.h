/*
 * listener.h
 *	  The listening socket, which can be told to refuse or to stall.
 *
 * It is ours and not the HTTP library's, because misbehaving needs to close it
 * and open it again on the same port.
 */
#ifndef WALLET_LISTENER_H
#define WALLET_LISTENER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

typedef struct Listener
{
	int			fd;				/* -1: closed, connections are refused */
	struct sockaddr_storage address;	/* with the port that was given */
	socklen_t	address_len;
	int64_t		back_at;		/* closed or stalled until then; 0: neither */
} Listener;

extern bool listener_open(Listener *listener, const struct sockaddr_storage *address,
						  socklen_t address_len);
extern void listener_close(Listener *listener);
extern int	listener_port(const Listener *listener);

/* Refuse: the port is closed.  Stall: the kernel connects, nobody accepts. */
extern void listener_refuse(Listener *listener, int64_t until);
extern void listener_stall(Listener *listener, int64_t until);

/* The descriptor to wait on, or -1; opens again what is due. */
extern int	listener_poll_fd(Listener *listener, int64_t now);

/* ms until listener_poll_fd must be called again; -1: no bound. */
extern int	listener_wait_ms(const Listener *listener, int64_t now);

#endif
