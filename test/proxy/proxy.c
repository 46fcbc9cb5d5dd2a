/*
 * proxy.c
 *	  A TCP proxy on loopback that spoils connections on purpose.  test/lib/Proxy.pm
 *	  starts it and says what each fault means.
 *
 * usage: proxy UPSTREAM_PORT LISTEN_PORT CONTROL_PATH SEED
 *
 * It knows no HTTP: a request begins with the client's first byte after a reply,
 * a reply with the first byte after a request.  One process, one epoll set, one
 * buffer per direction; a descriptor is in the set only while we want to read
 * from it or write to it, so that nobody's hang-up can spin the loop.  Commands
 * are datagrams on a unix socket, one answer each.  Ends with its parent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_SIZE	32768
#define NO_LIMIT	INT64_MAX

typedef enum Mode
{
	PASS, DELAY, JITTER, CUT_REQUEST, CUT_REPLY, HALF_OPEN, BLACKHOLE, REFUSE, N_MODES
} Mode;

static const char *const mode_names[N_MODES] = {
	"pass", "delay", "jitter", "cut_request", "cut_reply", "half_open", "blackhole", "refuse"
};

/* What is being done to the traffic; replaced as a whole by each command. */
typedef struct Fault
{
	Mode		mode;
	long		ms;
	long		bytes;
	long		count;			/* at most so many; 0: no limit */
	int			reset;			/* cut with RST instead of FIN */
	int			request_side;	/* delay and jitter hold the request, not the reply */
	double		probability;
	char		match[64];		/* only requests that begin so */
} Fault;

typedef enum Side
{
	CLIENT, UPSTREAM
} Side;

/* Bytes that came from one side and go to the other. */
typedef struct Flow
{
	size_t		start;
	size_t		end;
	int64_t		hold_until;		/* microseconds; 0: no hold */
	int64_t		may_pass;		/* bytes before the cut */
	bool		eof;			/* its side has ended */
	bool		ended;			/* and the other side was told */
	char		bytes[BUFFER_SIZE];
} Flow;

typedef struct Connection Connection;

typedef struct End
{
	Connection *connection;		/* NULL: the listener or the control socket */
	Side		side;
	int			fd;
	uint32_t	watched;
} End;

struct Connection
{
	End			ends[2];
	Side		speaking;		/* who sent the last byte */
	bool		spoken;			/* anybody sent anything */
	bool		connected;
	bool		swallow;		/* half open: the client talks to nobody */
	bool		stuck;			/* in a black hole until the next command */
	bool		reset;
	bool		dead;			/* freed at the end of the round */
	int64_t		reply_hold_us;	/* for when the reply begins */
	Connection *next;
	Flow		flows[2];		/* by the side they come from */
};

static Fault fault = {.probability = 1};
static long faults_played;		/* since the last command */
static Connection *connections;
static bool sweep_needed;		/* somebody is dead or held */
static int	epoll_fd,
			control_fd;
static End	listener = {.fd = -1};
static struct sockaddr_in listen_address,
			upstream_address;
static bool listening;
static uint64_t random_state;
static long n_connections,
			n_requests,
			n_replies,
			n_by_mode[N_MODES];

static int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* splitmix64, as a number in [0, 1) */
static double
draw(void)
{
	uint64_t	z = (random_state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	return (double) (z >> 11) / 9007199254740992.0;
}

static bool
strikes(void)
{
	if (fault.mode == PASS || (fault.count > 0 && faults_played >= fault.count) ||
		draw() >= fault.probability)
		return false;
	faults_played++;
	n_by_mode[fault.mode]++;
	return true;
}

/* Nothing gets through at all, not even what was under way. */
static bool
all_dark(void)
{
	return fault.mode == BLACKHOLE && fault.probability >= 1 && fault.count == 0 &&
		fault.match[0] == '\0';
}

static void
watch(End *end, uint32_t events)
{
	struct epoll_event event = {.events = events,.data.ptr = end};
	int			op = events == 0 ? EPOLL_CTL_DEL :
		end->watched == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (end->fd == -1 || end->watched == events)
		return;
	if (epoll_ctl(epoll_fd, op, end->fd, &event) != 0)
		err(1, "epoll_ctl");
	end->watched = events;
}

static void
close_end(End *end, bool reset)
{
	struct linger linger = {.l_onoff = 1};

	if (end->fd == -1)
		return;
	watch(end, 0);
	if (reset)
		setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	close(end->fd);
	end->fd = -1;
}

static void
drop(Connection *c, bool reset)
{
	close_end(&c->ends[CLIENT], reset);
	close_end(&c->ends[UPSTREAM], reset);
	c->dead = sweep_needed = true;
}

static void
no_delay(int fd)
{
	int			on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* ---- what happens to a request and its reply ---- */

static void
hold(Flow *flow, int64_t us)
{
	flow->hold_until = us == 0 ? 0 : now_us() + us;
	sweep_needed |= us != 0;
}

static void
begin_reply(Connection *c)
{
	n_replies++;
	hold(&c->flows[UPSTREAM], c->reply_hold_us);
}

static void
begin_request(Connection *c)
{
	Flow	   *request = &c->flows[CLIENT];
	Flow	   *reply = &c->flows[UPSTREAM];
	size_t		match = strlen(fault.match);
	int64_t		us;

	n_requests++;
	request->may_pass = reply->may_pass = NO_LIMIT;
	c->reply_hold_us = 0;
	if (fault.mode == REFUSE || request->end < match ||
		memcmp(request->bytes, fault.match, match) != 0 || !strikes())
		return;
	switch (fault.mode)
	{
		case DELAY:
		case JITTER:
			us = (int64_t) (fault.ms * 1000 * (fault.mode == JITTER ? draw() : 1));
			if (fault.request_side)
				hold(request, us);
			else
				c->reply_hold_us = us;
			break;
		case CUT_REQUEST:
			request->may_pass = fault.bytes;
			c->reset = fault.reset;
			break;
		case CUT_REPLY:
			reply->may_pass = fault.bytes;
			c->reset = fault.reset;
			break;
		case HALF_OPEN:
			c->swallow = true;
			close_end(&c->ends[UPSTREAM], false);
			break;
		case BLACKHOLE:
			c->stuck = true;
			break;
		case PASS:
		case REFUSE:			/* of connections, not of requests */
		case N_MODES:
			break;
	}
}

/* False when there is nothing to pass on for now. */
static bool
fill(Connection *c, Side from)
{
	Flow	   *flow = &c->flows[from];
	ssize_t		n;

	if (flow->start < flow->end)
		return true;
	if (flow->eof)
		return false;
	flow->start = flow->end = 0;
	n = read(c->ends[from].fd, flow->bytes, sizeof flow->bytes);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0)
	{
		drop(c, true);
		return false;
	}
	flow->eof = n == 0;
	flow->end = (size_t) n;
	if (n == 0)
		return false;
	if (!c->spoken || c->speaking != from)
	{
		c->spoken = true;
		c->speaking = from;
		if (from == CLIENT)
			begin_request(c);
		else
			begin_reply(c);
	}
	return !c->dead;
}

/* Write what may be written.  False when it has to wait. */
static bool
spill(Connection *c, Side from)
{
	Flow	   *flow = &c->flows[from];
	size_t		len = flow->end - flow->start;
	ssize_t		n;

	if (c->swallow)
	{
		flow->start = flow->end;
		return true;
	}
	if (flow->hold_until > now_us())
		return false;
	flow->hold_until = 0;
	if ((int64_t) len > flow->may_pass)
		len = (size_t) flow->may_pass;
	n = len == 0 ? 0 : send(c->ends[!from].fd, flow->bytes + flow->start, len, MSG_NOSIGNAL);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n < 0)
	{
		drop(c, true);
		return false;
	}
	flow->start += (size_t) n;
	if (flow->may_pass != NO_LIMIT && (flow->may_pass -= n) == 0)
	{
		drop(c, c->reset);
		return false;
	}
	return (size_t) n == len;
}

static bool
standing(const Connection *c)
{
	return c->dead || c->stuck || all_dark();
}

/* Move what can be moved in one direction. */
static void
pump(Connection *c, Side from)
{
	Flow	   *flow = &c->flows[from];

	while (!standing(c) && (c->connected || c->swallow) && c->ends[from].fd != -1 &&
		   fill(c, from) && !standing(c) && spill(c, from))
		;
	if (!c->dead && flow->eof && flow->start == flow->end && !flow->ended)
	{
		flow->ended = true;
		if (c->swallow || c->flows[!from].ended)
			drop(c, false);
		else
			shutdown(c->ends[!from].fd, SHUT_WR);
	}
}

/* Say to epoll what each end is waited for. */
static void
rewatch(Connection *c)
{
	for (Side side = CLIENT; side <= UPSTREAM && !c->dead; side++)
	{
		Flow	   *in = &c->flows[side];
		Flow	   *out = &c->flows[!side];
		uint32_t	events = 0;

		if (!standing(c))
		{
			if (side == UPSTREAM && !c->connected)
				events = EPOLLOUT;
			else if ((c->connected || c->swallow) && in->start == in->end && !in->eof)
				events = EPOLLIN;
			if (c->connected && out->start < out->end && out->hold_until <= now_us())
				events |= EPOLLOUT;
		}
		watch(&c->ends[side], events);
	}
}

static void
serve(Connection *c)
{
	pump(c, CLIENT);
	pump(c, UPSTREAM);
	rewatch(c);
}

/* ---- connections ---- */

static void
finish_connect(Connection *c)
{
	int			error = 0;
	socklen_t	len = sizeof error;

	getsockopt(c->ends[UPSTREAM].fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0)
		drop(c, true);
	c->connected = error == 0;
}

static void
accept_one(void)
{
	int			fd = accept4(listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	Connection *c;

	if (fd == -1)
		return;
	c = malloc(sizeof *c);
	if (c == NULL)
		errx(1, "out of memory");
	/* All but the bytes. */
	memset(c, 0, offsetof(Connection, flows));
	for (Side side = CLIENT; side <= UPSTREAM; side++)
	{
		memset(&c->flows[side], 0, offsetof(Flow, bytes));
		c->flows[side].may_pass = NO_LIMIT;
		c->ends[side] = (End) {.connection = c,.side = side,.fd = -1};
	}
	n_connections++;
	c->next = connections;
	connections = c;
	c->ends[CLIENT].fd = fd;
	no_delay(fd);
	if (fault.mode == REFUSE && strikes())
	{
		drop(c, true);
		return;
	}
	c->ends[UPSTREAM].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	no_delay(c->ends[UPSTREAM].fd);
	if (connect(c->ends[UPSTREAM].fd, (struct sockaddr *) &upstream_address,
				sizeof upstream_address) == 0)
		c->connected = true;
	else if (errno != EINPROGRESS)
		drop(c, true);
	serve(c);
}

/* Bound it always is, so that nobody takes the port; it listens unless we refuse. */
static void
listen_or_not(bool want)
{
	int			on = 1;

	if (listener.fd != -1 && want == listening)
		return;
	if (listener.fd == -1 || !want)
	{
		close_end(&listener, false);
		listener.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		setsockopt(listener.fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
		if (bind(listener.fd, (struct sockaddr *) &listen_address, sizeof listen_address) != 0)
			err(1, "bind");
	}
	if (want && listen(listener.fd, 511) != 0)
		err(1, "listen");
	listening = want;
}

/* ---- commands ---- */

/* The new fault goes for what begins now; what stood still moves again. */
static void
apply_fault(void)
{
	bool		refuse_all = fault.mode == REFUSE && fault.probability >= 1 && fault.count == 0;

	faults_played = 0;
	listen_or_not(!refuse_all);
	watch(&listener, listening && !all_dark() ? EPOLLIN : 0);
	for (Connection *c = connections; c != NULL; c = c->next)
	{
		c->stuck = false;
		if (refuse_all)
			drop(c, true);
		serve(c);
	}
}

static bool
set_word(Fault *new, const char *name, const char *value)
{
	if (strcmp(name, "mode") == 0)
	{
		for (Mode mode = PASS; mode < N_MODES; mode++)
			if (strcmp(value, mode_names[mode]) == 0)
			{
				new->mode = mode;
				return true;
			}
		return false;
	}
	if (strcmp(name, "ms") == 0)
		new->ms = atol(value);
	else if (strcmp(name, "bytes") == 0)
		new->bytes = atol(value);
	else if (strcmp(name, "count") == 0)
		new->count = atol(value);
	else if (strcmp(name, "reset") == 0)
		new->reset = atoi(value);
	else if (strcmp(name, "probability") == 0)
		new->probability = atof(value);
	else if (strcmp(name, "side") == 0)
		new->request_side = strcmp(value, "request") == 0;
	else if (strcmp(name, "match") == 0)
		snprintf(new->match, sizeof new->match, "%s", value);
	else
		return false;
	return true;
}

static const char *
command_set(char *words)
{
	Fault		new = {.probability = 1};
	char	   *value;

	for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
	{
		value = strchr(word, '=');
		if (value == NULL)
			return "error";
		*value++ = '\0';
		if (!set_word(&new, word, value))
			return "error";
	}
	fault = new;
	apply_fault();
	return "ok";
}

static void
command(void)
{
	struct sockaddr_un from;
	socklen_t	len = sizeof from;
	char		text[1024];
	char		answer[1024];
	ssize_t		n = recvfrom(control_fd, text, sizeof text - 1, 0, (struct sockaddr *) &from, &len);

	if (n < 0)
		return;
	text[n] = '\0';
	if (strncmp(text, "set ", 4) == 0)
		snprintf(answer, sizeof answer, "%s", command_set(text + 4));
	else
	{
		int			at = snprintf(answer, sizeof answer,
								  "connections=%ld requests=%ld replies=%ld",
								  n_connections, n_requests, n_replies);

		for (Mode mode = DELAY; mode < N_MODES; mode++)
			at += snprintf(answer + at, sizeof answer - at, " %s=%ld", mode_names[mode],
						   n_by_mode[mode]);
	}
	sendto(control_fd, answer, strlen(answer), 0, (struct sockaddr *) &from, len);
}

/* ---- the loop ---- */

/* Free the dead; serve those whose hold is over; say when the next one is. */
static int
sweep(void)
{
	int64_t		now = now_us();
	int64_t		next = INT64_MAX;

	if (!sweep_needed)
		return -1;
	sweep_needed = false;
	for (Connection **at = &connections; *at != NULL;)
	{
		Connection *c = *at;

		for (Side side = CLIENT; side <= UPSTREAM; side++)
		{
			Flow	   *flow = &c->flows[side];

			if (c->dead || flow->hold_until <= 0 || flow->start == flow->end)
				continue;
			if (flow->hold_until <= now)
				serve(c);
			else
			{
				sweep_needed = true;
				if (flow->hold_until < next)
					next = flow->hold_until;
			}
		}
		if (c->dead)
		{
			*at = c->next;
			free(c);
		}
		else
			at = &c->next;
	}
	return next == INT64_MAX ? -1 : (int) ((next - now) / 1000 + 1);
}

static void
set_up(char **argv)
{
	struct sockaddr_un control = {.sun_family = AF_UNIX};
	struct epoll_event event = {.events = EPOLLIN,.data.ptr = NULL};
	socklen_t	len = sizeof listen_address;

	listen_address = upstream_address = (struct sockaddr_in) {.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	upstream_address.sin_port = htons((uint16_t) atoi(argv[1]));
	listen_address.sin_port = htons((uint16_t) atoi(argv[2]));
	random_state = strtoull(argv[4], NULL, 10);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	listen_or_not(true);
	getsockname(listener.fd, (struct sockaddr *) &listen_address, &len);
	watch(&listener, EPOLLIN);
	control_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	snprintf(control.sun_path, sizeof control.sun_path, "%s", argv[3]);
	if (bind(control_fd, (struct sockaddr *) &control, sizeof control) != 0)
		err(1, "%s", argv[3]);
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, control_fd, &event);
	printf("%d\n", ntohs(listen_address.sin_port));
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	struct epoll_event events[64];
	pid_t		parent = getppid();
	int			timeout = -1;

	if (argc != 5)
		errx(2, "usage: proxy UPSTREAM_PORT LISTEN_PORT CONTROL_PATH SEED");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		return 0;
	set_up(argv);
	for (;;)
	{
		int			n = epoll_wait(epoll_fd, events, 64, timeout);

		for (int i = 0; i < n; i++)
		{
			End		   *end = events[i].data.ptr;

			if (end == NULL)
				command();
			else if (end == &listener)
				accept_one();
			else if (!end->connection->dead)
			{
				if (end->side == UPSTREAM && !end->connection->connected)
					finish_connect(end->connection);
				serve(end->connection);
			}
		}
		timeout = sweep();
	}
}
