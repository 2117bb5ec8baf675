/* Preloaded into real daemons: a wall clock that jumps or stands still, a box that slept. Four numbers in a file that a
 * test writes and all processes map say how: nanoseconds to add to the wall clock, to CLOCK_BOOTTIME, and whether the
 * wall clock stands still, at what. Used by tests/faults/test_shifted_clock.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t NS_PER_S = 1000000000;
static volatile int64_t *told;

__attribute__((constructor)) static void begin(void)
{
	const char *name = getenv("EDGE_SHIFTED_CLOCK");
	int file = name == NULL ? -1 : open(name, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return;
	void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
	close(file);
	if (map != MAP_FAILED)
		told = map;
}

static void shift(clockid_t clock, struct timespec *at)
{
	if (told == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_BOOTTIME))
		return;
	int64_t ns = at->tv_sec * NS_PER_S + at->tv_nsec;
	if (clock == CLOCK_BOOTTIME)
		ns += told[1];
	else
		ns = told[2] ? told[3] : ns + told[0];
	at->tv_sec = ns / NS_PER_S;
	at->tv_nsec = ns % NS_PER_S;
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
	int code = (int)syscall(SYS_clock_gettime, clock, at);
	if (code == 0)
		shift(clock, at);
	return code;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec exact;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
		return -1;
	at->tv_sec = exact.tv_sec;
	at->tv_usec = exact.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *into)
{
	struct timespec exact;
	clock_gettime(CLOCK_REALTIME, &exact);
	if (into != NULL)
		*into = exact.tv_sec;
	return exact.tv_sec;
}
