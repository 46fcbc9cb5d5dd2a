/*
 * faults.c
 *	  Preloaded into a server under test: fails what cannot be made to fail from
 *	  outside, at a moment that the test chooses.  See process_faults.t.
 *
 * The test writes its wishes into a small file that is mapped here; nothing is
 * read from it but these few fields.
 *
 *	  full          writes to files whose path holds this text: no space left
 *	  memory_pid    in this process each memory_every-th allocation fails
 *	  memory_min    ... or instead each of at least so many bytes
 *	  memory_max    ... and less than so many; 0: by their number
 *	  divide_pid    this process divides by zero within libcurl, once
 *	  injected      how often something was made to fail
 *	  stuck_pid     what this process writes to the WAL takes until that is 0
 *
 * A request or a reply that holds one of two texts kills its process: poison.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <curl/curl.h>
#include <jansson.h>

#define POISON_REQUEST	"kill-the-sender"
#define POISON_REPLY	"kill-the-reader"

typedef struct Wishes
{
	char		full[32];
	int32_t		memory_pid;
	int32_t		memory_every;
	int32_t		memory_min;
	int32_t		memory_max;
	int32_t		divide_pid;
	int32_t		injected;
	int32_t		stuck_pid;
} Wishes;

static volatile Wishes nothing;
static volatile Wishes *wishes = &nothing;
static int	allocations;

__attribute__((constructor)) static void
map_wishes(void)
{
	const char *path = getenv("SETTLEMENT_FAULTS");
	int			fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void	   *map;

	/* whatever else the test starts is left alone */
	if (fd < 0 || strncmp(program_invocation_short_name, "postgres", 8) != 0)
		return;
	map = mmap(NULL, sizeof(Wishes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (map != MAP_FAILED)
		wishes = map;
}

#define NEXT(name) \
	static __typeof__(&name) next; \
	if (next == NULL) next = (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

static int
path_holds(int fd, const char *part)
{
	char		link[64];
	char		path[512];
	ssize_t		len;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof path - 1);
	if (len < 0)
		return 0;
	path[len] = '\0';
	return strstr(path, part) != NULL;
}

/* Before each write: a minute at most. */
static void
be_slow(int fd)
{
	for (int i = 0; i < 6000 && wishes->stuck_pid != 0 && wishes->stuck_pid == getpid(); i++)
	{
		if (!path_holds(fd, "/pg_wal/"))
			return;
		usleep(10000);
	}
}

static int
is_full(int fd)
{
	char		part[sizeof(wishes->full)];

	be_slow(fd);
	if (wishes->full[0] == '\0')
		return 0;
	for (size_t i = 0; i < sizeof part; i++)
		part[i] = wishes->full[i];
	part[sizeof part - 1] = '\0';
	if (!path_holds(fd, part))
		return 0;
	__atomic_fetch_add(&wishes->injected, 1, __ATOMIC_RELAXED);
	errno = ENOSPC;
	return 1;
}

ssize_t
pwrite(int fd, const void *bytes, size_t n, off_t at)
{
	NEXT(pwrite);
	return is_full(fd) ? -1 : next(fd, bytes, n, at);
}

ssize_t
pwrite64(int fd, const void *bytes, size_t n, off64_t at)
{
	NEXT(pwrite64);
	return is_full(fd) ? -1 : next(fd, bytes, n, at);
}

ssize_t
pwritev(int fd, const struct iovec *parts, int n, off_t at)
{
	NEXT(pwritev);
	return is_full(fd) ? -1 : next(fd, parts, n, at);
}

ssize_t
pwritev64(int fd, const struct iovec *parts, int n, off64_t at)
{
	NEXT(pwritev64);
	return is_full(fd) ? -1 : next(fd, parts, n, at);
}

/* PostgreSQL 16 makes room for many blocks at once so. */
int
posix_fallocate(int fd, off_t at, off_t len)
{
	NEXT(posix_fallocate);
	return is_full(fd) ? ENOSPC : next(fd, at, len);
}

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static int
is_exhausted(size_t size)
{
	if (wishes->memory_pid == 0 || wishes->memory_pid != getpid())
		return 0;
	if (wishes->memory_max != 0 ?
		size < (size_t) wishes->memory_min || size >= (size_t) wishes->memory_max :
		++allocations % wishes->memory_every != 0)
		return 0;
	__atomic_fetch_add(&wishes->injected, 1, __ATOMIC_RELAXED);
	errno = ENOMEM;
	return 1;
}

void *
malloc(size_t size)
{
	return is_exhausted(size) ? NULL : __libc_malloc(size);
}

void *
calloc(size_t n, size_t size)
{
	return is_exhausted(n * size) ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *old, size_t size)
{
	return is_exhausted(size) ? NULL : __libc_realloc(old, size);
}

static void
die_of(const char *bytes, size_t len, const char *poison)
{
	if (wishes != &nothing && bytes != NULL && memmem(bytes, len, poison, strlen(poison)) != NULL)
		kill(getpid(), SIGKILL);
}

#undef curl_easy_setopt
CURLcode
curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
	va_list		args;
	void	   *value;

	NEXT(curl_easy_setopt);
	va_start(args, option);
	value = va_arg(args, void *);
	va_end(args);
	if (option == CURLOPT_POSTFIELDS && value != NULL)
		die_of(value, strlen(value), POISON_REQUEST);
	return next(easy, option, value);
}

CURLMcode
curl_multi_add_handle(CURLM *multi, CURL *easy)
{
	NEXT(curl_multi_add_handle);
	if (wishes->divide_pid == getpid())
	{
		wishes->divide_pid = 0;
		raise(SIGFPE);
	}
	return next(multi, easy);
}

json_t *
json_loadb(const char *bytes, size_t len, size_t flags, json_error_t *error)
{
	NEXT(json_loadb);
	die_of(bytes, len, POISON_REPLY);
	return next(bytes, len, flags, error);
}
