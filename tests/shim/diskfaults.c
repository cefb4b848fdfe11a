/* A disk that fails when it is told to, and one that writes down what was asked of it.
 *
 * Loaded with LD_PRELOAD, this library looks at the calls by which a process uses files below the directory DISKFAULTS_DIR.
 *
 *   DISKFAULTS_CONTROL  a file that is mapped and shared with the test: rules (which call of which kind on which file fails how)
 *                       and counters. A rule counts from the moment it is put, also in a process that runs already.
 *   DISKFAULTS_TRACE    a file to which every call that changes something below the directory is appended, in order. The test appends
 *                       marks of its own to it; each record is one append, so that the order is that of the file.
 *
 * A write, a name or a size is recorded under a lock together with the call itself. A sync is recorded twice, when it begins and when it
 * has returned: it covers what was written before it began, and promises only once it has returned.
 *
 * Recorded as "not modelled", so that nobody believes a trace that misses something: a writable shared mapping (but for the -shm file of
 * SQLite, which is made anew after a power cut), fallocate, copy_file_range, sendfile, splice, link, truncate by name, O_TMPFILE, O_DIRECT.
 * Not seen at all: io_uring, sync, syncfs, the stdio of C. Linux with glibc, 64 bit. The layouts stand in crdtstore/testing/diskfaults.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE, SYNC, SYNC_DIRECTORY, READ, OPEN, CREATE, TRUNCATE, RENAME, UNLINK, MKDIR, OPEN_TO_WRITE };

#define RULES 32
struct rule {
    uint32_t active, kinds; /* kinds: a bit each */
    uint64_t first, last;   /* of the calls that match, the first is 1 */
    uint64_t seen, hits;
    int64_t keep;    /* of a write: so many bytes are written all the same; -1: all (none when an error is given) */
    int32_t error;   /* errno; 0: the call is made */
    uint32_t delay_us;
    uint32_t stop;   /* 1: SIGKILL before the call, 2: after it */
    uint32_t growing; /* only writes beyond the end of their file */
    char name[64];   /* a pattern for the path below the directory */
};
struct control {
    uint64_t magic;
    uint32_t ignore_sync, unused;
    uint64_t calls[16], failed[16];
    struct rule rules[RULES];
};
#define CONTROL_MAGIC 0x31746c7561666b64ull /* "dkfault1" */

enum event { E_WRITE = 1, E_SIZE, E_SYNC_BEGUN, E_SYNCED, E_SYNC_FAILED, E_SYNC_DIRECTORY_BEGUN, E_DIRECTORY_SYNCED, E_CREATE, E_OPEN,
             E_RENAME, E_UNLINK, E_MKDIR, E_RMDIR, E_NOT_MODELLED };
struct head {
    uint32_t magic;
    uint16_t event, name_bytes;
    uint64_t file, offset, data_bytes;
};
#define TRACE_MAGIC 0x63617274u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char directory[PATH_MAX];
static size_t directory_bytes;
static struct control *control;
static int trace = -1;

/* The functions of the C library behind ours, as real_NAME. */
#define EACH(apply)                                                                                                    \
    apply(open) apply(openat) apply(write) apply(writev) apply(pwrite) apply(pwritev2) apply(read) apply(readv)       \
    apply(pread) apply(preadv2) apply(ftruncate) apply(fsync) apply(fdatasync) apply(renameat2) apply(unlinkat)       \
    apply(mkdirat) apply(linkat) apply(truncate) apply(fallocate) apply(posix_fallocate) apply(sendfile)              \
    apply(copy_file_range) apply(splice) apply(mmap)
#define DECLARE(name) static __typeof__(name) *real_##name;
#define LOAD(name) real_##name = real(#name);
EACH(DECLARE)

static void say(const char *what, const char *why) {
    fprintf(stderr, "diskfaults: %s: %s\n", what, why);
    _exit(127);
}

static void *real(const char *name) {
    void *symbol = dlsym(RTLD_NEXT, name);
    if (!symbol) say(name, "not in this C library; glibc 2.28 or newer is needed");
    return symbol;
}

static void in_child(void) { pthread_mutex_init(&lock, NULL); }

__attribute__((constructor)) static void start(void) {
    if (real_mmap) return;
    EACH(LOAD)
    const char *named = getenv("DISKFAULTS_DIR"), *controls = getenv("DISKFAULTS_CONTROL"), *traces = getenv("DISKFAULTS_TRACE");
    if (!named) return;
    if (!realpath(named, directory)) snprintf(directory, sizeof directory, "%s", named);
    directory_bytes = strlen(directory);
    pthread_atfork(NULL, NULL, in_child);
    if (controls) {
        int fd = real_open(controls, O_RDWR | O_CLOEXEC);
        void *mapped = fd < 0 ? MAP_FAILED : real_mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapped == MAP_FAILED || ((struct control *)mapped)->magic != CONTROL_MAGIC) say(controls, "not a control file");
        control = mapped;
        close(fd);
    }
    if (traces) {
        int fd = real_open(traces, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        trace = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 500);
        if (trace < 0) say(traces, strerror(errno));
        close(fd);
    }
}

/* Whose file it is */

struct place {
    struct stat status;
    char path[PATH_MAX];
    const char *name; /* below the directory, without a slash in front; "" for the directory itself */
};

static int is_below(struct place *place) {
    if (strncmp(place->path, directory, directory_bytes)) return 0;
    const char *rest = place->path + directory_bytes;
    if (*rest && *rest != '/') return 0;
    place->name = *rest ? rest + 1 : rest;
    return 1;
}

static int of_descriptor(int fd, struct place *place) {
    char link[40];
    int saved = errno, found = 0;
    if (directory_bytes && !fstat(fd, &place->status) && (S_ISREG(place->status.st_mode) || S_ISDIR(place->status.st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, place->path, sizeof place->path - 1);
        if (length > 0) {
            place->path[length] = 0;
            if (length > 10 && !strcmp(place->path + length - 10, " (deleted)")) place->path[length - 10] = 0;
            found = is_below(place);
        }
    }
    errno = saved;
    return found;
}

static int of_path(int at, const char *path, struct place *place) {
    char whole[2 * PATH_MAX], parent[PATH_MAX], link[40];
    int saved = errno, found = 0;
    if (!directory_bytes || !path || strlen(path) >= PATH_MAX) return 0;
    if (*path == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else {
        ssize_t length = -1;
        if (at == AT_FDCWD) {
            if (getcwd(parent, sizeof parent)) length = strlen(parent);
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            length = readlink(link, parent, sizeof parent - 1);
        }
        if (length < 0) goto end;
        parent[length] = 0;
        snprintf(whole, sizeof whole, "%s/%s", parent, path);
    }
    for (size_t length = strlen(whole); length > 1 && whole[length - 1] == '/';) whole[--length] = 0;
    char *last = strrchr(whole, '/');
    *last = 0;
    if (!realpath(last == whole ? "/" : whole, parent)) goto end;
    if (strlen(parent) + strlen(last + 1) + 2 > sizeof place->path) goto end;
    strcpy(place->path, parent);
    strcat(place->path, "/");
    strcat(place->path, last + 1);
    found = is_below(place);
    if (found && fstatat(AT_FDCWD, place->path, &place->status, AT_SYMLINK_NOFOLLOW)) memset(&place->status, 0, sizeof place->status);
end:
    errno = saved;
    return found;
}

/* The trace; with the lock */

static void record(enum event event, uint64_t file, uint64_t offset, const char *name, const char *to, const struct iovec *vector, int count, size_t bytes) {
    if (trace < 0) return;
    int saved = errno;
    size_t name_bytes = strlen(name) + (to ? 1 + strlen(to) : 0);
    size_t total = sizeof(struct head) + name_bytes + bytes, done = 0;
    char *buffer = malloc(total), *at = buffer + sizeof(struct head);
    *(struct head *)buffer = (struct head){TRACE_MAGIC, event, name_bytes, file, offset, bytes};
    memcpy(at, name, strlen(name));
    if (to) {
        at[strlen(name)] = 0;
        memcpy(at + strlen(name) + 1, to, strlen(to));
    }
    at += name_bytes;
    for (int i = 0; i < count && done < bytes; i++) {
        size_t length = vector[i].iov_len < bytes - done ? vector[i].iov_len : bytes - done;
        memcpy(at + done, vector[i].iov_base, length);
        done += length;
    }
    if (real_write(trace, buffer, total) != (ssize_t)total) say("the trace", strerror(errno));
    free(buffer);
    errno = saved;
}

static void not_modelled(const char *call, struct place *place) {
    pthread_mutex_lock(&lock);
    record(E_NOT_MODELLED, place->status.st_ino, 0, place->name, call, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
}

/* The rules */

struct verdict {
    int error, stop;
    int64_t keep;
};

static struct verdict judge(enum kind kind, const char *name, int grows) {
    struct verdict verdict = {0, 0, -1};
    if (!control) return verdict;
    __atomic_add_fetch(&control->calls[kind], 1, __ATOMIC_SEQ_CST);
    for (struct rule *rule = control->rules; rule < control->rules + RULES; rule++) {
        if (!__atomic_load_n(&rule->active, __ATOMIC_SEQ_CST) || !(rule->kinds >> kind & 1)) continue;
        if ((rule->growing && !grows) || fnmatch(rule->name, name, 0)) continue;
        uint64_t number = __atomic_add_fetch(&rule->seen, 1, __ATOMIC_SEQ_CST);
        if (number < rule->first || number > rule->last) continue;
        __atomic_add_fetch(&rule->hits, 1, __ATOMIC_SEQ_CST);
        if (rule->delay_us) usleep(rule->delay_us);
        if (rule->error) verdict.error = rule->error;
        if (rule->keep >= 0 || rule->error) verdict.keep = rule->keep < 0 ? 0 : rule->keep;
        if (rule->stop) verdict.stop = rule->stop;
    }
    if (verdict.error || verdict.keep >= 0) __atomic_add_fetch(&control->failed[kind], 1, __ATOMIC_SEQ_CST);
    if (verdict.stop == 1) kill(getpid(), SIGKILL), pause();
    return verdict;
}

static void end(struct verdict verdict) {
    if (verdict.stop == 2) kill(getpid(), SIGKILL), pause();
}

static int is_refused(struct verdict verdict) {
    if (verdict.error) errno = verdict.error;
    return verdict.error;
}

/* Writing */

static ssize_t total(const struct iovec *vector, int count) {
    ssize_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += vector[i].iov_len;
    return bytes;
}

/* A sync has a number, in the place of an offset, by which its two records find each other. With the lock. */
static uint64_t sync_begun(struct place *place) {
    static uint32_t syncs;
    uint64_t number = (uint64_t)getpid() << 32 | ++syncs;
    record(S_ISDIR(place->status.st_mode) ? E_SYNC_DIRECTORY_BEGUN : E_SYNC_BEGUN, place->status.st_ino, number, place->name, NULL, NULL, 0, 0);
    return number;
}

static void synced(struct place *place, uint64_t number, int failed) {
    pthread_mutex_lock(&lock);
    record(S_ISDIR(place->status.st_mode) ? E_DIRECTORY_SYNCED : failed ? E_SYNC_FAILED : E_SYNCED, place->status.st_ino, number, place->name,
           NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
}

/* offset -1: at the position of the descriptor, which moves. */
static ssize_t write_ours(int fd, struct place *place, const struct iovec *vector, int count, off_t offset, int flags) {
    int how = fcntl(fd, F_GETFL);
    size_t bytes = total(vector, count);
    off_t from = how & O_APPEND ? place->status.st_size : offset < 0 ? lseek(fd, 0, SEEK_CUR) : offset;
    struct verdict verdict = judge(WRITE, place->name, from + (off_t)bytes > place->status.st_size);
    if (verdict.keep >= 0 && (size_t)verdict.keep < bytes) bytes = verdict.keep;
    if (how & O_DIRECT) not_modelled("O_DIRECT", place);
    ssize_t done = 0;
    pthread_mutex_lock(&lock);
    if (bytes || !verdict.error) {
        /* In one piece, so that it can be cut short anywhere. */
        char *buffer = malloc(bytes ? bytes : 1);
        size_t filled = 0;
        for (int i = 0; i < count && filled < bytes; i++) {
            size_t length = vector[i].iov_len < bytes - filled ? vector[i].iov_len : bytes - filled;
            memcpy(buffer + filled, vector[i].iov_base, length);
            filled += length;
        }
        struct iovec piece = {buffer, bytes};
        done = offset < 0 ? real_write(fd, buffer, bytes) : real_pwritev2(fd, &piece, 1, offset, flags);
        if (done > 0) {
            if (offset < 0 || how & O_APPEND) from = offset < 0 ? lseek(fd, 0, SEEK_CUR) - done : from;
            record(E_WRITE, place->status.st_ino, from, place->name, NULL, &piece, 1, done);
        }
        free(buffer);
    }
    int synchronous = done > 0 && (how & (O_DSYNC | O_SYNC) || flags & (RWF_DSYNC | RWF_SYNC));
    uint64_t number = synchronous ? sync_begun(place) : 0;
    pthread_mutex_unlock(&lock);
    if (synchronous) synced(place, number, 0);
    end(verdict);
    return is_refused(verdict) ? -1 : done;
}

#define one(data, length) (&(struct iovec){(void *)(data), length}), 1
#define through(fd, ours, others)                                                                                      \
    do {                                                                                                               \
        struct place place;                                                                                            \
        start();                                                                                                       \
        return of_descriptor(fd, &place) ? ours : others;                                                              \
    } while (0)

ssize_t write(int fd, const void *data, size_t length) {
    through(fd, write_ours(fd, &place, one(data, length), -1, 0), real_write(fd, data, length));
}
ssize_t writev(int fd, const struct iovec *vector, int count) {
    through(fd, write_ours(fd, &place, vector, count, -1, 0), real_writev(fd, vector, count));
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    through(fd, write_ours(fd, &place, one(data, length), offset, 0), real_pwrite(fd, data, length, offset));
}
ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    through(fd, write_ours(fd, &place, vector, count, offset, flags), real_pwritev2(fd, vector, count, offset, flags));
}
ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t offset) {
    return pwritev2(fd, vector, count, offset, 0);
}

static int truncate_ours(int fd, struct place *place, off_t size) {
    struct verdict verdict = judge(TRUNCATE, place->name, size > place->status.st_size);
    if (is_refused(verdict)) return -1;
    pthread_mutex_lock(&lock);
    int failed = real_ftruncate(fd, size);
    if (!failed) record(E_SIZE, place->status.st_ino, size, place->name, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    end(verdict);
    return failed;
}
int ftruncate(int fd, off_t size) {
    through(fd, truncate_ours(fd, &place, size), real_ftruncate(fd, size));
}

static int sync_ours(int fd, struct place *place, int (*how)(int)) {
    int is_directory = S_ISDIR(place->status.st_mode);
    if (control && control->ignore_sync) {
        judge(is_directory ? SYNC_DIRECTORY : SYNC, place->name, 0);
        return 0;
    }
    pthread_mutex_lock(&lock);
    uint64_t number = sync_begun(place);
    pthread_mutex_unlock(&lock);
    struct verdict verdict = judge(is_directory ? SYNC_DIRECTORY : SYNC, place->name, 0);
    int failed = verdict.error ? -1 : how(fd);
    if (!failed || !is_directory) synced(place, number, failed);
    end(verdict);
    return is_refused(verdict) ? -1 : failed;
}
int fsync(int fd) {
    through(fd, sync_ours(fd, &place, real_fsync), real_fsync(fd));
}
int fdatasync(int fd) {
    through(fd, sync_ours(fd, &place, real_fdatasync), real_fdatasync(fd));
}

/* Reading */

static int is_unreadable(struct place *place) {
    return S_ISREG(place->status.st_mode) && is_refused(judge(READ, place->name, 0));
}
ssize_t read(int fd, void *data, size_t length) {
    through(fd, is_unreadable(&place) ? -1 : real_read(fd, data, length), real_read(fd, data, length));
}
ssize_t readv(int fd, const struct iovec *vector, int count) {
    through(fd, is_unreadable(&place) ? -1 : real_readv(fd, vector, count), real_readv(fd, vector, count));
}
ssize_t pread(int fd, void *data, size_t length, off_t offset) {
    through(fd, is_unreadable(&place) ? -1 : real_pread(fd, data, length, offset), real_pread(fd, data, length, offset));
}
ssize_t preadv2(int fd, const struct iovec *vector, int count, off_t offset, int flags) {
    through(fd, is_unreadable(&place) ? -1 : real_preadv2(fd, vector, count, offset, flags),
            real_preadv2(fd, vector, count, offset, flags));
}
ssize_t preadv(int fd, const struct iovec *vector, int count, off_t offset) {
    return preadv2(fd, vector, count, offset, 0);
}

/* Names */

static int create_ours(int at, const char *path, int flags, mode_t mode, struct place *place) {
    int is_new = !place->status.st_mode;
    struct verdict verdict = judge(is_new ? CREATE : flags & (O_ACCMODE | O_TRUNC) ? OPEN_TO_WRITE : OPEN, place->name, 0);
    if (is_refused(verdict)) return -1;
    pthread_mutex_lock(&lock);
    int fd = real_openat(at, path, flags, mode);
    struct stat status;
    if (fd >= 0 && !fstat(fd, &status) && S_ISREG(status.st_mode)) {
        record(is_new ? E_CREATE : E_OPEN, status.st_ino, status.st_size, place->name, NULL, NULL, 0, 0);
        if (!is_new && flags & O_TRUNC) record(E_SIZE, status.st_ino, 0, place->name, NULL, NULL, 0, 0);
    }
    pthread_mutex_unlock(&lock);
    end(verdict);
    return fd;
}

int openat(int at, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    struct place place;
    start();
    if (flags & (O_CREAT | O_TRUNC) && (flags & __O_TMPFILE) != __O_TMPFILE && of_path(at, path, &place))
        return create_ours(at, path, flags, mode, &place);
    int fd = real_openat(at, path, flags, mode);
    if (fd < 0 || !of_descriptor(fd, &place)) return fd;
    if ((flags & __O_TMPFILE) == __O_TMPFILE) not_modelled("O_TMPFILE", &place);
    if (is_refused(judge(flags & O_ACCMODE ? OPEN_TO_WRITE : OPEN, place.name, 0))) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    if (S_ISREG(place.status.st_mode) && (flags & O_ACCMODE) != O_RDONLY) {
        pthread_mutex_lock(&lock);
        record(E_OPEN, place.status.st_ino, place.status.st_size, place.name, NULL, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return fd;
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

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    struct place source, target;
    start();
    int is_source = of_path(from_at, from, &source), is_target = of_path(to_at, to, &target);
    if (!is_source && !is_target) return real_renameat2(from_at, from, to_at, to, flags);
    struct verdict verdict = judge(RENAME, is_target ? target.name : source.name, 0);
    if (is_refused(verdict)) return -1;
    if (flags || !is_source || !is_target || S_ISDIR(source.status.st_mode)) not_modelled("rename", is_source ? &source : &target);
    pthread_mutex_lock(&lock);
    int failed = real_renameat2(from_at, from, to_at, to, flags);
    if (!failed && is_source && is_target) record(E_RENAME, source.status.st_ino, 0, source.name, target.name, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    end(verdict);
    return failed;
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    struct place place;
    start();
    if (!of_path(at, path, &place)) return real_unlinkat(at, path, flags);
    struct verdict verdict = judge(UNLINK, place.name, 0);
    if (is_refused(verdict)) return -1;
    pthread_mutex_lock(&lock);
    int failed = real_unlinkat(at, path, flags);
    if (!failed) record(flags & AT_REMOVEDIR ? E_RMDIR : E_UNLINK, place.status.st_ino, 0, place.name, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    end(verdict);
    return failed;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int failed = unlinkat(AT_FDCWD, path, 0);
    return failed && errno == EISDIR ? unlinkat(AT_FDCWD, path, AT_REMOVEDIR) : failed;
}

int mkdirat(int at, const char *path, mode_t mode) {
    struct place place;
    start();
    if (!of_path(at, path, &place)) return real_mkdirat(at, path, mode);
    struct verdict verdict = judge(MKDIR, place.name, 0);
    if (is_refused(verdict)) return -1;
    pthread_mutex_lock(&lock);
    int failed = real_mkdirat(at, path, mode);
    if (!failed) record(E_MKDIR, 0, 0, place.name, NULL, NULL, 0, 0);
    pthread_mutex_unlock(&lock);
    end(verdict);
    return failed;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* What changes files in ways that the recorder does not follow: said, so that the trace is not believed. */

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    struct place place;
    start();
    if (of_path(to_at, to, &place)) not_modelled("link", &place);
    return real_linkat(from_at, from, to_at, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int truncate(const char *path, off_t size) {
    struct place place;
    start();
    if (of_path(AT_FDCWD, path, &place)) not_modelled("truncate", &place);
    return real_truncate(path, size);
}
static int is_full(struct place *place, const char *call, off_t end_at) {
    if (is_refused(judge(WRITE, place->name, end_at > place->status.st_size))) return 1;
    not_modelled(call, place);
    return 0;
}
int fallocate(int fd, int mode, off_t offset, off_t length) {
    struct place place;
    start();
    if (of_descriptor(fd, &place) && is_full(&place, "fallocate", offset + length)) return -1;
    return real_fallocate(fd, mode, offset, length);
}
int posix_fallocate(int fd, off_t offset, off_t length) {
    struct place place;
    start();
    if (of_descriptor(fd, &place) && is_full(&place, "posix_fallocate", offset + length)) return errno;
    return real_posix_fallocate(fd, offset, length);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t length) {
    struct place place;
    start();
    if (of_descriptor(to, &place) && is_full(&place, "sendfile", place.status.st_size + length)) return -1;
    return real_sendfile(to, from, offset, length);
}
ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, unsigned flags) {
    struct place place;
    start();
    if (of_descriptor(to, &place) && is_full(&place, "copy_file_range", place.status.st_size + length)) return -1;
    return real_copy_file_range(from, from_offset, to, to_offset, length, flags);
}
ssize_t splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t length, unsigned flags) {
    struct place place;
    start();
    if (of_descriptor(to, &place) && is_full(&place, "splice", place.status.st_size + length)) return -1;
    return real_splice(from, from_offset, to, to_offset, length, flags);
}
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    struct place place;
    start();
    if (fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && of_descriptor(fd, &place) && fnmatch("*-shm", place.name, 0))
        not_modelled("mmap", &place);
    return real_mmap(address, length, protection, flags, fd, offset);
}

/* The same under the names of programs that are compiled for large files. */

#define same(name) __attribute__((alias(#name)))
ssize_t pwrite64(int, const void *, size_t, off_t) same(pwrite);
ssize_t pwritev64(int, const struct iovec *, int, off_t) same(pwritev);
ssize_t pwritev64v2(int, const struct iovec *, int, off_t, int) same(pwritev2);
ssize_t pread64(int, void *, size_t, off_t) same(pread);
ssize_t preadv64(int, const struct iovec *, int, off_t) same(preadv);
ssize_t preadv64v2(int, const struct iovec *, int, off_t, int) same(preadv2);
int ftruncate64(int, off_t) same(ftruncate);
int truncate64(const char *, off_t) same(truncate);
int fallocate64(int, int, off_t, off_t) same(fallocate);
int posix_fallocate64(int, off_t, off_t) same(posix_fallocate);
ssize_t sendfile64(int, int, off_t *, size_t) same(sendfile);
void *mmap64(void *, size_t, int, int, int, off_t) same(mmap);
int open64(const char *, int, ...) same(open);
int openat64(int, const char *, int, ...) same(openat);
int creat64(const char *, mode_t) same(creat);
int __open_2(const char *path, int flags) { return openat(AT_FDCWD, path, flags); }
int __open64_2(const char *path, int flags) { return openat(AT_FDCWD, path, flags); }
