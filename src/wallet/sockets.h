/*
 * sockets.h
 *	  The sockets of one HTTP client: one private epoll set, and what is known
 *	  of each descriptor in it.
 */
#ifndef SETTLEMENT_WALLET_SOCKETS_H
#define SETTLEMENT_WALLET_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

typedef struct Sockets Sockets;

/* NULL when the system has no room; errno says why. */
extern Sockets *sockets_create(void);
extern void sockets_destroy(Sockets *s);

/* The epoll descriptor: readable when sockets_wait has something. */
extern int	sockets_fd(const Sockets *s);

/* A new TCP socket (non-blocking, close on exec), or -1. */
extern int	sockets_open(Sockets *s, int domain, int type, int protocol);
extern void sockets_close(Sockets *s, int fd);

/* Wait for these events (EPOLLIN, EPOLLOUT) of a descriptor; 0: no more. */
extern bool sockets_watch(Sockets *s, int fd, uint32_t events);

/*
 * What has happened, without blocking: at most max descriptors that someone
 * watches.  Idle connections that speak or close are cut on the way, see
 * sockets.c.  *more says that another call may bring more.
 */
extern int	sockets_poll(Sockets *s, struct epoll_event *events, int max, bool *more);

/* Make this connection dead for whoever uses it next. */
extern void sockets_cut(Sockets *s, int fd);

/* For tests and metrics: connections ever opened, now open, cut while idle. */
extern uint64_t sockets_opened(const Sockets *s);
extern int	sockets_open_now(const Sockets *s);
extern uint64_t sockets_cut_idle(const Sockets *s);

#endif
