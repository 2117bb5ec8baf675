/* Preloaded into a daemon by tests/faults/drive_calls.py: every call that changes files below one folder is a place
 * where the power may go or the drive may refuse.
 *
 * One count runs through all processes that inherit it (runtime, zygote, workers) and through an exec: it lives in a
 * small file mapped by all of them. What happens at which place stands in the environment:
 *
 *   EDGE_FAULT_FOLDER   the folder; only files below it count
 *   EDGE_FAULT_STATE    the mapped file, at least sizeof(struct state) long, zeros
 *   EDGE_FAULT_KIND     count | before | after | error      nothing, SIGKILL before or after the call, the call fails
 *   EDGE_FAULT_PLACE    which call, from 1
 *   EDGE_FAULT_ERRNO    what a failing call answers
 *   EDGE_FAULT_LASTING  1: all later calls fail as well
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define NAMES 4096
#define NAME_BYTES 96

struct state {
    atomic_long count;
    atomic_long struck;
    char names[NAMES][NAME_BYTES]; /* "call path", of the first calls */
};

enum kind { COUNT, BEFORE, AFTER, ERROR };

static struct state *state;
static enum kind kind;
static long place;
static int error_number, lasting;
static const char *folder;
static size_t folder_length;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("EDGE_FAULT_STATE"), *word = getenv("EDGE_FAULT_KIND");
    folder = getenv("EDGE_FAULT_FOLDER");
    if (!path || !word || !folder)
        return;
    folder = strdup(folder); /* the program may clear its environment */
    folder_length = strlen(folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        perror("drive_calls: EDGE_FAULT_STATE");
        abort();
    }
    void *mapped = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED)
        abort();
    kind = !strcmp(word, "before") ? BEFORE : !strcmp(word, "after") ? AFTER : !strcmp(word, "error") ? ERROR : COUNT;
    const char *number = getenv("EDGE_FAULT_PLACE");
    place = number ? atol(number) : 0;
    number = getenv("EDGE_FAULT_ERRNO");
    error_number = number ? atoi(number) : EIO;
    lasting = getenv("EDGE_FAULT_LASTING") != NULL;
    state = mapped;
}

static int below(const char *path)
{
    return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

/* The path that a descriptor and a name relative to it stand for; 0 where it is not below the folder. */
static int ours(int fd, const char *name, char *path)
{
    if (!state)
        return 0;
    if (name && (name[0] == '/' || fd == AT_FDCWD)) {
        snprintf(path, PATH_MAX, "%s", name);
        return below(path);
    }
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (name && length + strlen(name) + 2 < PATH_MAX) {
        path[length] = '/';
        strcpy(path + length + 1, name);
    }
    return below(path);
}

/* Number of this call; dies or says -1 with errno where the fault is due. */
static long strike(const char *call, const char *path)
{
    long number = atomic_fetch_add(&state->count, 1) + 1;
    if (number <= NAMES)
        snprintf(state->names[number - 1], NAME_BYTES, "%s %s", call, path + folder_length);
    if (number < place || (number > place && !lasting) || kind == COUNT || kind == AFTER)
        return number;
    if (kind == ERROR && error_number == ENOSPC && !strncmp(call, "unlink", 6))
        return number; /* a full drive lets go of files */
    atomic_fetch_add(&state->struck, 1);
    if (kind == BEFORE)
        kill(getpid(), SIGKILL);
    errno = error_number;
    return -1;
}

static void done(long number)
{
    if (kind == AFTER && number == place) {
        atomic_fetch_add(&state->struck, 1);
        kill(getpid(), SIGKILL);
    }
}

#define AROUND(type, name, parameters, arguments, fd, at)            \
    type name parameters                                             \
    {                                                                \
        static type(*real) parameters;                               \
        char path[PATH_MAX];                                         \
        if (!real)                                                   \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);      \
        if (!ours(fd, at, path))                                     \
            return real arguments;                                   \
        long number = strike(#name, path);                           \
        if (number < 0)                                              \
            return -1;                                               \
        type answer = real arguments;                                \
        int kept = errno;                                            \
        done(number);                                                \
        errno = kept;                                                \
        return answer;                                               \
    }

AROUND(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd, NULL)
AROUND(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), fd, NULL)
AROUND(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), fd, NULL)
AROUND(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), fd, NULL)
AROUND(ssize_t, pwritev, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at), fd, NULL)
AROUND(ssize_t, pwritev64, (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at), fd, NULL)
AROUND(int, fsync, (int fd), (fd), fd, NULL)
AROUND(int, fdatasync, (int fd), (fd), fd, NULL)
AROUND(int, ftruncate, (int fd, off_t size), (fd, size), fd, NULL)
AROUND(int, ftruncate64, (int fd, off64_t size), (fd, size), fd, NULL)
AROUND(int, rename, (const char *from, const char *to), (from, to), AT_FDCWD, to)
AROUND(int, renameat, (int from_fd, const char *from, int to_fd, const char *to), (from_fd, from, to_fd, to), to_fd, to)
AROUND(int, link, (const char *from, const char *to), (from, to), AT_FDCWD, to)
AROUND(int, linkat, (int from_fd, const char *from, int to_fd, const char *to, int flags),
       (from_fd, from, to_fd, to, flags), to_fd, to)
AROUND(int, unlink, (const char *name), (name), AT_FDCWD, name)
AROUND(int, unlinkat, (int fd, const char *name, int flags), (fd, name, flags), fd, name)
AROUND(int, mkdir, (const char *name, mode_t mode), (name, mode), AT_FDCWD, name)
AROUND(int, mkdirat, (int fd, const char *name, mode_t mode), (fd, name, mode), fd, name)

/* Opening counts where it may make a file. */
#define OPENING(name, parameters, arguments, fd)                     \
    int name parameters                                              \
    {                                                                \
        static int(*real) parameters;                                \
        char path[PATH_MAX];                                         \
        mode_t mode = 0;                                             \
        if (!real)                                                   \
            real = (int(*) parameters)dlsym(RTLD_NEXT, #name);       \
        if (flags & (O_CREAT | O_TMPFILE)) {                         \
            va_list rest;                                            \
            va_start(rest, flags);                                   \
            mode = va_arg(rest, mode_t);                             \
            va_end(rest);                                            \
        }                                                            \
        if (!(flags & O_CREAT) || !ours(fd, at, path))               \
            return real arguments;                                   \
        long number = strike(#name, path);                           \
        if (number < 0)                                              \
            return -1;                                               \
        int answer = real arguments;                                 \
        int kept = errno;                                            \
        done(number);                                                \
        errno = kept;                                                \
        return answer;                                               \
    }

OPENING(open, (const char *at, int flags, ...), (at, flags, mode), AT_FDCWD)
OPENING(open64, (const char *at, int flags, ...), (at, flags, mode), AT_FDCWD)
OPENING(openat, (int fd, const char *at, int flags, ...), (fd, at, flags, mode), fd)
OPENING(openat64, (int fd, const char *at, int flags, ...), (fd, at, flags, mode), fd)
