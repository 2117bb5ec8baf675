/* A drive in one file that remembers all that was done to it, for tests/faults/recording_drive.py.
 *
 *   recording_drive IMAGE RECORD MOUNTPOINT      stays in the foreground until MOUNTPOINT is unmounted
 *
 * MOUNTPOINT has two files. `drive` is the image: put a loop device and a file system on it. `say` takes words: a
 * writer puts there what it tells its client, so that it stands in the record in order with the writes; words that
 * begin with '!' are orders to the drive: "!fail N" answers EIO to the next N writes, "!heal" ends that.
 *
 * RECORD gets, for each write, flush and word: kind ('w', 'f', 's'), 7 zeros, offset (8), length (8), the bytes.
 */
#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum file { NONE, DRIVE, SAY };

static int image, record;
static long failing;

static enum file file_of(const char *path)
{
    if (strcmp(path, "/drive") == 0)
        return DRIVE;
    return strcmp(path, "/say") == 0 ? SAY : NONE;
}

static void note(char kind, uint64_t offset, const void *data, uint64_t length)
{
    unsigned char head[24] = {(unsigned char)kind};
    memcpy(head + 8, &offset, 8);
    memcpy(head + 16, &length, 8);
    if (write(record, head, sizeof head) != sizeof head || (length && write(record, data, length) != (ssize_t)length))
        abort(); /* a record with a hole would prove anything */
}

static int get_attributes(const char *path, struct stat *found, struct fuse_file_info *info)
{
    (void)info;
    memset(found, 0, sizeof *found);
    if (strcmp(path, "/") == 0) {
        found->st_mode = S_IFDIR | 0755;
        found->st_nlink = 2;
        return 0;
    }
    if (file_of(path) == NONE)
        return -ENOENT;
    struct stat whole;
    if (fstat(image, &whole))
        return -errno;
    found->st_mode = S_IFREG | 0600;
    found->st_nlink = 1;
    found->st_size = file_of(path) == DRIVE ? whole.st_size : 0;
    return 0;
}

static int open_file(const char *path, struct fuse_file_info *info)
{
    info->direct_io = file_of(path) == SAY;
    return file_of(path) == NONE ? -ENOENT : 0;
}

static int read_file(const char *path, char *data, size_t length, off_t offset, struct fuse_file_info *info)
{
    (void)info;
    if (file_of(path) != DRIVE)
        return 0;
    ssize_t got = pread(image, data, length, offset);
    return got < 0 ? -errno : (int)got;
}

static int say(const char *data, size_t length)
{
    if (length && data[0] == '!')
        failing = strncmp(data, "!fail ", 6) == 0 ? strtol(data + 6, NULL, 10) : 0;
    note('s', 0, data, length);
    return (int)length;
}

static int write_file(const char *path, const char *data, size_t length, off_t offset, struct fuse_file_info *info)
{
    (void)info;
    if (file_of(path) == SAY)
        return say(data, length);
    if (failing > 0) {
        failing--;
        return -EIO;
    }
    note('w', (uint64_t)offset, data, length);
    ssize_t put = pwrite(image, data, length, offset);
    return put < 0 ? -errno : (int)put;
}

static int flush_drive(const char *path, int data_only, struct fuse_file_info *info)
{
    (void)data_only;
    (void)info;
    if (file_of(path) == DRIVE)
        note('f', 0, NULL, 0);
    return 0;
}

static int cut_file(const char *path, off_t length, struct fuse_file_info *info)
{
    (void)length;
    (void)info;
    return file_of(path) == SAY ? 0 : -EPERM;
}

int main(int count, char **words)
{
    static const struct fuse_operations operations = {
        .getattr = get_attributes,
        .open = open_file,
        .read = read_file,
        .write = write_file,
        .fsync = flush_drive,
        .truncate = cut_file,
    };
    if (count != 4) {
        fprintf(stderr, "usage: recording_drive IMAGE RECORD MOUNTPOINT\n");
        return 2;
    }
    image = open(words[1], O_RDWR | O_CLOEXEC);
    record = open(words[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (image < 0 || record < 0) {
        perror("recording_drive");
        return 1;
    }
    /* One thread: the record's order is the drive's order. */
    char *given[] = {words[0], "-f", "-s", "-o", "allow_root", words[3], NULL};
    return fuse_main(6, given, &operations, NULL);
}
