/* A disk that keeps its word and not a byte more.
 *
 * kill -9 does not test durability: what a process wrote survives it in the page cache of the kernel, synced or not.
 * Loaded with LD_PRELOAD, this library holds back every write to files below the directory POWERCUT_DIR, in memory of
 * the process, and applies them when the process syncs that file (fsync, fdatasync, O_DSYNC, RWF_DSYNC).
 * The end of the process, however it comes, is the power cut: what was not synced was never on the disk.
 *
 * The process itself reads what it wrote: reads and sizes go through the held writes.
 *
 *   POWERCUT_DIR          absolute path of the directory
 *   POWERCUT_IGNORE_SYNC  set: a sync says yes and applies nothing (the planted fault)
 *   POWERCUT_LEAK         a number: about half of the 512-byte sectors of each unsynced write reach the disk at once,
 *                         chosen by this seed; this is what torn writes look like
 *
 * Not modelled: names (create, rename, unlink are durable at once), sync, syncfs, mmap, io_uring, copy_file_range,
 * sendfile, splice, fallocate, truncate by name, statx, the stdio of C. A forked child starts with nothing held. Linux with glibc, 64 bit.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512

/* One thing held back: bytes at an offset, or (data == NULL) a new size in offset. */
struct held {
    struct held *next;
    char *data;
    size_t length;
    off_t offset;
};

/* A file below the directory, by inode, so that it does not matter through which descriptor it is used. */
struct file {
    struct file *next;
    dev_t dev;
    ino_t ino;
    off_t size;      /* as the process sees it; meaningful while something is held */
    struct held *first, **end;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files;
static const char *directory; /* POWERCUT_DIR */
static int ignore_sync, leak;
static uint64_t coin;

/* The functions of the C library behind ours, as real_NAME. */
#define EACH(apply)                                                                                                    \
    apply(open) apply(openat) apply(write) apply(writev) apply(pwrite) apply(pwritev2) apply(read) apply(readv)       \
    apply(pread) apply(preadv2) apply(lseek) apply(ftruncate) apply(fsync) apply(fdatasync) apply(stat) apply(lstat)  \
    apply(fstatat) apply(fstat)
#define DECLARE(name) static __typeof__(name) *real_##name;
#define LOAD(name) real_##name = real(#name);
EACH(DECLARE)

/* Signals wait while the lock is held: a handler that writes (the wake-up of an event loop) would wait for itself. */
static void hold_lock(sigset_t *before) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
    pthread_mutex_lock(&lock);
}

static void release_lock(const sigset_t *before) {
    pthread_mutex_unlock(&lock);
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static void forget(struct file *file) {
    while (file->first) {
        struct held *held = file->first;
        file->first = held->next;
        free(held->data);
        free(held);
    }
    file->end = &file->first;
}

static void in_child(void) {
    pthread_mutex_init(&lock, NULL);
    for (struct file *file = files; file; file = file->next) forget(file);
}

static void *real(const char *name) {
    void *symbol = dlsym(RTLD_NEXT, name);
    if (!symbol) {
        fprintf(stderr, "powercut: the C library has no %s; glibc 2.33 or newer is needed\n", name);
        _exit(127);
    }
    return symbol;
}

__attribute__((constructor)) static void start(void) {
    if (real_fstat) return;
    directory = getenv("POWERCUT_DIR");
    ignore_sync = getenv("POWERCUT_IGNORE_SYNC") != NULL;
    leak = getenv("POWERCUT_LEAK") != NULL;
    coin = leak ? strtoull(getenv("POWERCUT_LEAK"), NULL, 10) * 2 + 1 : 0;
    pthread_atfork(NULL, NULL, in_child);
    EACH(LOAD)
}

/* Files */

static struct file *by_inode(const struct stat *status) {
    for (struct file *file = files; file; file = file->next)
        if (file->ino == status->st_ino && file->dev == status->st_dev) return file;
    return NULL;
}

/* The held-back file behind a descriptor, or NULL. With the lock. */
static struct file *of(int fd) {
    struct stat status;
    if (!files || real_fstat(fd, &status) || !S_ISREG(status.st_mode)) return NULL;
    struct file *file = by_inode(&status);
    if (file && !file->first) file->size = status.st_size;
    return file;
}

static void remove_file(struct file *gone) {
    struct file **at = &files;
    while (*at != gone) at = &(*at)->next;
    *at = gone->next;
    forget(gone);
    free(gone);
}

/* After an open: is this file ours? is_new: whatever was held for this inode belonged to a file that is gone. */
static int opened(int fd, int is_new) {
    char link[40], path[PATH_MAX];
    struct stat status;
    int saved = errno;
    if (fd < 0 || !directory) return fd;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    size_t prefix = strlen(directory);
    if (length > (ssize_t)prefix && !strncmp(path, directory, prefix) && path[prefix] == '/' && !real_fstat(fd, &status) &&
        S_ISREG(status.st_mode)) {
        sigset_t before;
        hold_lock(&before);
        struct file *file = by_inode(&status);
        if (length >= 4 && !memcmp(path + length - 4, "-shm", 4)) {
            /* Shared memory of SQLite: mapped, never synced. Its inode may be that of a file that is gone. */
            if (file) remove_file(file);
        } else {
            if (!file) {
                file = calloc(1, sizeof *file);
                file->dev = status.st_dev;
                file->ino = status.st_ino;
                file->next = files;
                files = file;
                is_new = 1;
            }
            if (is_new) forget(file);
        }
        release_lock(&before);
    }
    errno = saved;
    return fd;
}

static struct held *hold(struct file *file, off_t offset, size_t length, int with_data) {
    struct held *held = calloc(1, sizeof *held);
    held->data = with_data ? malloc(length ? length : 1) : NULL;
    held->length = length;
    held->offset = offset;
    *file->end = held;
    file->end = &held->next;
    return held;
}

/* Bring to the disk what is held of one file. */
static int apply(int fd, struct file *file) {
    for (struct held *held = file->first; held; held = held->next) {
        if (!held->data) {
            if (real_ftruncate(fd, held->offset)) return -1;
            continue;
        }
        for (size_t done = 0; done < held->length;) {
            ssize_t written = real_pwrite(fd, held->data + done, held->length - done, held->offset + done);
            if (written < 0) return -1;
            done += written;
        }
    }
    forget(file);
    return 0;
}

/* The descriptor may be open for reading only: apply through one that writes. */
static int open_to_write(int fd) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return real_open(link, O_WRONLY | O_CLOEXEC);
}

static int finish_sync(int writable, int failed) {
    int saved = errno;
    if (writable >= 0) close(writable);
    errno = saved;
    return failed ? -1 : 0;
}

/* At once, with the lock: for writes that sync themselves. */
static int sync_file(int fd, struct file *file) {
    if (ignore_sync) return 0;
    int writable = open_to_write(fd);
    return finish_sync(writable, writable < 0 || apply(writable, file) || real_fdatasync(writable));
}

static ssize_t total(const struct iovec *vector, int count) {
    ssize_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += vector[i].iov_len;
    return bytes;
}

/* offset -1: at the position of the descriptor, which moves. */
static ssize_t write_held(int fd, struct file *file, const struct iovec *vector, int count, off_t offset, int flags) {
    int status = fcntl(fd, F_GETFL), at_position = offset < 0;
    if (status < 0) return -1;
    if ((status & O_ACCMODE) == O_RDONLY) return errno = EBADF, -1;
    if (at_position) offset = real_lseek(fd, 0, SEEK_CUR);
    if (status & O_APPEND) offset = file->size;
    size_t bytes = total(vector, count), done = 0;
    struct held *held = hold(file, offset, bytes, 1);
    for (int i = 0; i < count; done += vector[i++].iov_len)
        memcpy(held->data + done, vector[i].iov_base, vector[i].iov_len);
    if (offset + (off_t)bytes > file->size) file->size = offset + bytes;
    if (at_position) real_lseek(fd, offset + bytes, SEEK_SET);
    for (size_t from = 0; leak && from < bytes;) {
        size_t length = SECTOR - (offset + from) % SECTOR;
        if (length > bytes - from) length = bytes - from;
        coin = coin * 6364136223846793005u + 1442695040888963407u;
        if (coin >> 63 && real_pwrite(fd, held->data + from, length, offset + from) < 0) return -1;
        from += length;
    }
    if ((status & O_DSYNC || flags & (RWF_DSYNC | RWF_SYNC)) && sync_file(fd, file)) return -1;
    return bytes;
}

static ssize_t read_held(int fd, struct file *file, const struct iovec *vector, int count, off_t offset) {
    int at_position = offset < 0;
    if (at_position) offset = real_lseek(fd, 0, SEEK_CUR);
    ssize_t bytes = total(vector, count);
    if (bytes > file->size - offset) bytes = file->size > offset ? file->size - offset : 0;
    if (!bytes) return 0;
    char *seen = calloc(1, bytes);
    if (real_pread(fd, seen, bytes, offset) < 0) return free(seen), -1;
    for (struct held *held = file->first; held; held = held->next) {
        off_t from = held->offset > offset ? held->offset : offset;
        off_t to = held->offset + (off_t)held->length < offset + bytes ? held->offset + (off_t)held->length : offset + bytes;
        if (held->data && from < to) memcpy(seen + (from - offset), held->data + (from - held->offset), to - from);
        if (!held->data && from < offset + bytes) memset(seen + (from - offset), 0, offset + bytes - from);
    }
    ssize_t done = 0;
    for (int i = 0; i < count && done < bytes; i++) {
        size_t length = bytes - done < (ssize_t)vector[i].iov_len ? (size_t)(bytes - done) : vector[i].iov_len;
        memcpy(vector[i].iov_base, seen + done, length);
        done += length;
    }
    free(seen);
    if (at_position) real_lseek(fd, offset + bytes, SEEK_SET);
    return bytes;
}

/* What the process calls. `through` runs the held-back version for our files, the real one for all others. */

#define through(fd, ours, others)                                                                                      \
    do {                                                                                                               \
        start();                                                                                                       \
        sigset_t before;                                                                                               \
        hold_lock(&before);                                                                                            \
        struct file *file = of(fd);                                                                                    \
        if (!file) {                                                                                                   \
            release_lock(&before);                                                                                     \
            return others;                                                                                             \
        }                                                                                                              \
        __typeof__(others) result = ours;                                                                              \
        int saved = errno;                                                                                             \
        release_lock(&before);                                                                                         \
        errno = saved;                                                                                                 \
        return result;                                                                                                 \
    } while (0)

#define one(data, length) (&(struct iovec){(void *)(data), length}), 1

ssize_t write(int fd, const void *data, size_t length) {
    through(fd, write_held(fd, file, one(data, length), -1, 0), real_write(fd, data, length));
}
ssize_t writev(int fd, const struct iovec *vector, int count) {
    through(fd, write_held(fd, file, vector, count, -1, 0), real_writev(fd, vector, count));
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    through(fd, write_held(fd, file, one(data, length), offset, 0), real_pwrite(fd, data, length, offset));
}
ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    through(fd, write_held(fd, file, vector, count, offset, flags), real_pwritev2(fd, vector, count, offset, flags));
}
ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t offset) {
    return pwritev2(fd, vector, count, offset, 0);
}
ssize_t read(int fd, void *data, size_t length) {
    through(fd, read_held(fd, file, one(data, length), -1), real_read(fd, data, length));
}
ssize_t readv(int fd, const struct iovec *vector, int count) {
    through(fd, read_held(fd, file, vector, count, -1), real_readv(fd, vector, count));
}
ssize_t pread(int fd, void *data, size_t length, off_t offset) {
    through(fd, read_held(fd, file, one(data, length), offset), real_pread(fd, data, length, offset));
}
ssize_t preadv2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    through(fd, read_held(fd, file, vector, count, offset), real_preadv2(fd, vector, count, offset, flags));
}
ssize_t preadv(int fd, const struct iovec *vector, int count, off_t offset) {
    return preadv2(fd, vector, count, offset, 0);
}

static off_t seek_held(int fd, struct file *file, off_t offset, int whence) {
    return whence == SEEK_END ? real_lseek(fd, file->size + offset, SEEK_SET) : real_lseek(fd, offset, whence);
}
off_t lseek(int fd, off_t offset, int whence) {
    through(fd, seek_held(fd, file, offset, whence), real_lseek(fd, offset, whence));
}

static int truncate_held(struct file *file, off_t size) {
    hold(file, size, 0, 0);
    file->size = size;
    return 0;
}
int ftruncate(int fd, off_t size) {
    through(fd, truncate_held(file, size), real_ftruncate(fd, size));
}

/* The lock is held while bytes are applied, not while the disk works: reads and writes of sockets pass here too. */
static int sync_through(int fd, int (*how)(int)) {
    sigset_t before;
    int writable = -1, failed = 0;
    start();
    hold_lock(&before);
    struct file *file = of(fd);
    if (file && !ignore_sync) {
        writable = open_to_write(fd);
        failed = writable < 0 || apply(writable, file);
    }
    int saved = errno;
    release_lock(&before);
    errno = saved;
    if (!file) return how(fd);
    if (ignore_sync) return 0;
    return finish_sync(writable, failed || how(writable));
}
int fsync(int fd) {
    return sync_through(fd, real_fsync);
}
int fdatasync(int fd) {
    return sync_through(fd, real_fdatasync);
}

static int is_absent(int at, const char *path, int flags) {
    int saved = errno, absent = flags & O_CREAT && faccessat(at, path, F_OK, 0);
    errno = saved;
    return absent || flags & O_TRUNC;
}
int openat(int at, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    start();
    int is_new = is_absent(at, path, flags);
    return opened(real_openat(at, path, flags, mode), is_new);
}
int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat(AT_FDCWD, path, flags, mode);
}
int creat(const char *path, mode_t mode) {
    return openat(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

static int sized(int failed, struct stat *status) {
    if (!failed && files && S_ISREG(status->st_mode)) {
        sigset_t before;
        hold_lock(&before);
        struct file *file = by_inode(status);
        if (file && file->first) status->st_size = file->size;
        release_lock(&before);
    }
    return failed;
}
int fstat(int fd, struct stat *status) {
    start();
    return sized(real_fstat(fd, status), status);
}
int stat(const char *path, struct stat *status) {
    start();
    return sized(real_stat(path, status), status);
}
int lstat(const char *path, struct stat *status) {
    start();
    return sized(real_lstat(path, status), status);
}
int fstatat(int at, const char *path, struct stat *status, int flags) {
    start();
    return sized(real_fstatat(at, path, status, flags), status);
}

/* The same under the names of programs that are compiled for large files. */

#define same(name) __attribute__((alias(#name)))
ssize_t pwrite64(int, const void *, size_t, off_t) same(pwrite);
ssize_t pwritev64(int, const struct iovec *, int, off_t) same(pwritev);
ssize_t pwritev64v2(int, const struct iovec *, int, off_t, int) same(pwritev2);
ssize_t pread64(int, void *, size_t, off_t) same(pread);
ssize_t preadv64(int, const struct iovec *, int, off_t) same(preadv);
ssize_t preadv64v2(int, const struct iovec *, int, off_t, int) same(preadv2);
off_t lseek64(int, off_t, int) same(lseek);
int ftruncate64(int, off_t) same(ftruncate);
int open64(const char *, int, ...) same(open);
int openat64(int, const char *, int, ...) same(openat);
int creat64(const char *, mode_t) same(creat);
int fstat64(int fd, struct stat64 *status) { return fstat(fd, (struct stat *)status); }
int stat64(const char *path, struct stat64 *status) { return stat(path, (struct stat *)status); }
int lstat64(const char *path, struct stat64 *status) { return lstat(path, (struct stat *)status); }
int fstatat64(int at, const char *path, struct stat64 *status, int flags) {
    return fstatat(at, path, (struct stat *)status, flags);
}
int __open_2(const char *path, int flags) { return openat(AT_FDCWD, path, flags); }
int __open64_2(const char *path, int flags) { return openat(AT_FDCWD, path, flags); }
