/* Faults of disk and clock for a process under test, and a record of what it has written: a library for LD_PRELOAD.
 *
 * tests/faults/shim.py builds it and gives the names below to it; `Control` there writes the control file. Linux on a 64-bit machine.
 *
 * Environment (without FAULT_DIR and FAULT_CONTROL the library does nothing):
 *   FAULT_DIR      the folder (real path, no slash at its end) under which files are recorded and made to fail
 *   FAULT_RECORD   the file to which every change under FAULT_DIR is appended, from all processes that name it
 *   FAULT_CONTROL  the control file; it is mapped, so that a change takes effect at the next call of a running process
 *
 * Control file: 512 bytes, signed 64-bit integers of the machine's order at these offsets.
 *     0  the eight characters FAULTS01
 *     8  clock: nanoseconds added to CLOCK_REALTIME, gettimeofday and time (CLOCK_MONOTONIC and file times stay)
 *    16  sync delay: nanoseconds that each fsync and fdatasync under FAULT_DIR takes longer
 *    24  error: the errno of calls that fail (ENOSPC 28, EROFS 30, EIO 5); 0 for none
 *    32  room: bytes that files may still grow before the growing write fails (a write that fits in part is a short write); it
 *        counts down. Only for bit 1 below
 *    40  what fails, a sum: 1 writes that grow a file beyond `room`; 2 every write and truncation; 4 fsync and fdatasync;
 *        8 names: creating, opening for writing, renaming, linking, removing, making folders
 *    48  calls that failed by this (counted here, by all processes)
 *    56  fsync and fdatasync calls under FAULT_DIR (counted here)
 *   128  a text, ended by NUL, at most 255 bytes: only paths that contain it fail or are slow; empty: all under FAULT_DIR
 * A full disk is (ENOSPC, room 0, what 1): what is on the disk may be overwritten, as on a real one. A read-only file system is
 * (EROFS, what 2 + 8); a broken disk (EIO, what 2 + 4).
 *
 * Record: one entry for each change, in the order of the changes, each appended by one write (see struct entry). Changes are
 * entered after they are done, the begin of a sync before it: what a sync covers is never overstated. `fault_mark(text)` enters a text.
 *
 * Covered: open, openat, creat, fopen (as a stream of our own, since stdio's writes are not seen from outside), write, writev,
 * pwrite, pwritev and their 64-bit names, (f)truncate, fallocate, fsync, fdatasync, rename, link, symlink, unlink, rmdir, mkdir. sync_file_range,
 * sync and syncfs give no durability here. sendfile and copy_file_range to a recorded file are refused: callers fall back to write. A
 * writable shared mapping is entered, and the model refuses it (SQLite's -shm files excepted: they mean nothing after a power cut).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The order of `Op` in power.py. */
enum op { CREATE = 1, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, UNLINK, RENAME, MKDIR, RMDIR, LINK, SYMLINK, MAP, MARK };

struct entry { /* followed by the path, the second path, and the data */
    uint32_t magic;
    uint8_t op;
    uint8_t unused;
    uint16_t path;   /* bytes */
    uint16_t second; /* bytes */
    uint16_t unused2;
    uint32_t data; /* bytes */
    int32_t pid;
    int32_t tid;
    int64_t at;     /* ns since the epoch by the machine's own clock */
    uint64_t inode; /* of the file, or of the folder that is synced or made */
    int64_t offset; /* of the data; the size for a truncation; the number of the sync */
};
_Static_assert(sizeof(struct entry) == 48, "power.py reads 48 bytes");

struct control {
    char magic[8];
    _Atomic int64_t clock, sync_delay, error, room, what, failed, syncs;
    char unused[64];
    char match[256];
    char rest[128];
};
_Static_assert(sizeof(struct control) == 512 && offsetof(struct control, match) == 128, "the layout above");

enum { GROWTH = 1, WRITES = 2, SYNCS = 4, NAMES = 8 };

static const char *folder;
static size_t folder_length;
static int record = -1;
static struct control *control;
static _Atomic int64_t sync_number;

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_gettimeofday)(struct timeval *, void *);
static FILE *(*real_fopen)(const char *, const char *);
static int (*real_fileno)(FILE *);
static int (*real_close)(int);
static char *(*real_realpath)(const char *, char *);

static void die(const char *why) {
    dprintf(2, "shim.c: %s (errno %d)\n", why, errno);
    _exit(99);
}

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) die(name);
    return found;
}

__attribute__((constructor)) static void begin(void) {
    if (real_close != NULL) return;
    real_clock_gettime = next("clock_gettime");
    real_gettimeofday = next("gettimeofday");
    real_fopen = next("fopen");
    real_fileno = next("fileno");
    real_realpath = next("realpath");
    real_close = next("close");
    const char *path = getenv("FAULT_CONTROL");
    if (path != NULL && *path) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
        if (fd < 0) die("FAULT_CONTROL cannot be opened");
        void *at = (void *)syscall(SYS_mmap, NULL, 512, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED) die("FAULT_CONTROL cannot be mapped");
        syscall(SYS_close, fd);
        control = at;
        if (memcmp(control->magic, "FAULTS01", 8) != 0) die("FAULT_CONTROL is no control file");
    }
    folder = getenv("FAULT_DIR");
    folder = folder != NULL && *folder ? strdup(folder) : NULL; /* PostgreSQL writes its titles over the environment */
    if (folder != NULL) folder_length = strlen(folder);
    path = getenv("FAULT_RECORD");
    if (path != NULL && *path) {
        int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0) die("FAULT_RECORD cannot be opened");
        /* high, where no program looks: some close every number that they do not know */
        record = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
        if (record < 0) record = fd;
        else syscall(SYS_close, fd);
    }
}

#define BEGIN                                \
    do {                                     \
        if (real_close == NULL) begin();     \
    } while (0)

/* ------------------------------------------------------------------------------------------------------- whose */

static int below(const char *path) {
    return folder != NULL && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static int path_of(int fd, char *path) { /* PATH_MAX bytes; 0 when it is none */
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return 1;
}

/* What is known of a descriptor; looked at anew when another file has its number. */
static struct known {
    ino_t inode;
    dev_t device;
    char state; /* 1 ours, 2 not */
} known[4096];

/* True for a file or folder under FAULT_DIR; `now` gets its state. */
static int ours(int fd, struct stat *now) {
    BEGIN;
    if (folder == NULL || fd < 0) return 0;
    if (fstat(fd, now) != 0 || !(S_ISREG(now->st_mode) || S_ISDIR(now->st_mode))) return 0;
    struct known *k = fd < 4096 ? &known[fd] : NULL;
    if (k != NULL && k->state && k->inode == now->st_ino && k->device == now->st_dev) return k->state == 1;
    char path[PATH_MAX];
    int found = path_of(fd, path) && below(path);
    if (k != NULL) *k = (struct known){now->st_ino, now->st_dev, found ? 1 : 2};
    return found;
}

/* The real path of a name that need not exist; false when it is not under FAULT_DIR. */
static int real_name(int at, const char *name, char *path) {
    BEGIN;
    if (folder == NULL || name == NULL) return 0;
    char whole[PATH_MAX], parent[PATH_MAX];
    if (name[0] == '/') {
        if (snprintf(whole, sizeof whole, "%s", name) >= (int)sizeof whole) return 0;
    } else {
        if (at == AT_FDCWD ? getcwd(parent, sizeof parent) == NULL : !path_of(at, parent)) return 0;
        if (snprintf(whole, sizeof whole, "%s/%s", parent, name) >= (int)sizeof whole) return 0;
    }
    size_t length = strlen(whole);
    while (length > 1 && whole[length - 1] == '/') whole[--length] = 0;
    char *last = strrchr(whole, '/');
    if (last == NULL || last[1] == 0) return 0;
    *last = 0;
    if (real_realpath(*whole ? whole : "/", parent) == NULL) return 0;
    if (snprintf(path, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", last + 1) >= PATH_MAX) return 0;
    return below(path);
}

/* ------------------------------------------------------------------------------------------------------ record */

static void enter(enum op op, uint64_t inode, int64_t offset, const char *path, const char *second, const struct iovec *data,
                  int parts, size_t length) {
    if (record < 0) return;
    int kept = errno;
    struct timespec now;
    real_clock_gettime(CLOCK_REALTIME, &now);
    struct entry e = {.magic = 0x4c544146, .op = op, .pid = getpid(), .tid = syscall(SYS_gettid),
                      .at = now.tv_sec * 1000000000L + now.tv_nsec, .inode = inode, .offset = offset, .data = length,
                      .path = path ? strlen(path) : 0, .second = second ? strlen(second) : 0};
    struct iovec all[parts + 3];
    int n = 0;
    all[n++] = (struct iovec){&e, sizeof e};
    if (e.path) all[n++] = (struct iovec){(void *)path, e.path};
    if (e.second) all[n++] = (struct iovec){(void *)second, e.second};
    size_t rest = length;
    for (int i = 0; i < parts && rest > 0; i++) {
        size_t some = data[i].iov_len < rest ? data[i].iov_len : rest;
        all[n++] = (struct iovec){data[i].iov_base, some};
        rest -= some;
    }
    ssize_t whole = sizeof e + e.path + e.second + length;
    if (n > IOV_MAX || syscall(SYS_writev, record, all, n) != whole) die("FAULT_RECORD cannot be written");
    errno = kept;
}

void fault_mark(const char *text) {
    BEGIN;
    enter(MARK, 0, 0, text, NULL, NULL, 0, 0);
}

/* ----------------------------------------------------------------------------------------------------- failing */

static int matches(int fd, const char *path) {
    if (!control->match[0]) return 1;
    char found[PATH_MAX];
    if (path == NULL) path = path_of(fd, found) ? found : "";
    return strstr(path, control->match) != NULL;
}

static int fails(int what, int fd, const char *path) {
    if (control == NULL || control->error == 0 || !(control->what & what) || !matches(fd, path)) return 0;
    control->failed++;
    errno = control->error;
    return 1;
}

/* How many of `length` bytes may be written at `offset`; -1 with errno when none. */
static ssize_t allowed(int fd, int64_t size, int64_t offset, size_t length) {
    if (control == NULL || control->error == 0 || length == 0) return length;
    if (fails(WRITES, fd, NULL)) return -1;
    int64_t growth = offset + (int64_t)length - (size > offset ? size : offset);
    if (!(control->what & GROWTH) || growth <= 0 || !matches(fd, NULL)) return length;
    int64_t room = control->room;
    while (room > 0) {
        int64_t taken = room < growth ? room : growth;
        if (atomic_compare_exchange_weak(&control->room, &room, room - taken)) {
            if (taken < growth) control->failed++;
            return length - (growth - taken);
        }
    }
    if ((int64_t)length > growth) return length - growth;
    control->failed++;
    errno = control->error;
    return -1;
}

/* ------------------------------------------------------------------------------------------------------ writes */

static ssize_t write_parts(int fd, const struct iovec *parts, int count, int64_t offset, int flags) {
    struct stat now;
    if (!ours(fd, &now)) {
        if (offset < 0) return syscall(SYS_writev, fd, parts, count);
        return syscall(SYS_pwritev2, fd, parts, count, offset, 0L, flags);
    }
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    int mode = syscall(SYS_fcntl, fd, F_GETFL);
    int64_t place = mode & O_APPEND ? now.st_size : offset < 0 ? syscall(SYS_lseek, fd, 0L, SEEK_CUR) : offset;
    ssize_t may = allowed(fd, now.st_size, place, length);
    if (may < 0) return -1;
    struct iovec some[count];
    size_t rest = may;
    int n = 0;
    for (; n < count && (rest > 0 || n == 0); n++) {
        some[n] = parts[n];
        if (some[n].iov_len > rest) some[n].iov_len = rest;
        rest -= some[n].iov_len;
    }
    ssize_t done = offset < 0 ? syscall(SYS_writev, fd, some, n) : syscall(SYS_pwritev2, fd, some, n, offset, 0L, flags);
    if (done > 0) {
        if (mode & O_APPEND && offset < 0) place = syscall(SYS_lseek, fd, 0L, SEEK_CUR) - done;
        enter(WRITE, now.st_ino, place, NULL, NULL, some, n, done);
        if (mode & (O_DSYNC | O_SYNC)) { /* written through: durable when it returns */
            int64_t number = ((int64_t)getpid() << 32) + ++sync_number;
            enter(SYNC_BEGIN, now.st_ino, number, NULL, NULL, NULL, 0, 0);
            enter(SYNC_END, now.st_ino, number, NULL, NULL, NULL, 0, 0);
        }
    }
    return done;
}

ssize_t write(int fd, const void *data, size_t length) {
    struct stat now;
    if (!ours(fd, &now)) return syscall(SYS_write, fd, data, length);
    struct iovec part = {(void *)data, length};
    return write_parts(fd, &part, 1, -1, 0);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    struct stat now;
    if (!ours(fd, &now)) return syscall(SYS_pwrite64, fd, data, length, offset);
    struct iovec part = {(void *)data, length};
    return write_parts(fd, &part, 1, offset, 0);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) { return write_parts(fd, parts, count, -1, 0); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags) {
    return write_parts(fd, parts, count, offset, flags);
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags) {
    return write_parts(fd, parts, count, offset, flags);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    return write_parts(fd, parts, count, offset, 0);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return write_parts(fd, parts, count, offset, 0);
}

int ftruncate64(int fd, off64_t size) {
    struct stat now;
    int is = ours(fd, &now);
    if (is && fails(WRITES, fd, NULL)) return -1;
    int done = syscall(SYS_ftruncate, fd, size);
    if (is && done == 0) enter(TRUNCATE, now.st_ino, size, NULL, NULL, NULL, 0, 0);
    return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int truncate64(const char *name, off64_t size) {
    char path[PATH_MAX];
    struct stat now;
    int is = real_name(AT_FDCWD, name, path);
    if (is && fails(WRITES, -1, path)) return -1;
    int done = syscall(SYS_truncate, name, size);
    if (is && done == 0 && stat(name, &now) == 0) enter(TRUNCATE, now.st_ino, size, NULL, NULL, NULL, 0, 0);
    return done;
}
int truncate(const char *name, off_t size) { return truncate64(name, size); }

int fallocate64(int fd, int mode, off64_t offset, off64_t length) {
    struct stat now;
    if (!ours(fd, &now)) return syscall(SYS_fallocate, fd, mode, offset, length);
    if (mode != 0) { /* punching holes is not modelled: callers write zeros then */
        errno = EOPNOTSUPP;
        return -1;
    }
    if (fails(WRITES, fd, NULL)) return -1;
    if (offset + length > now.st_size) {
        ssize_t may = allowed(fd, now.st_size, now.st_size, offset + length - now.st_size);
        if (may < offset + length - now.st_size) {
            errno = control->error;
            return -1;
        }
    }
    int done = syscall(SYS_fallocate, fd, mode, offset, length);
    if (done == 0 && offset + length > now.st_size)
        enter(TRUNCATE, now.st_ino, offset + length, NULL, NULL, NULL, 0, 0);
    return done;
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }
int posix_fallocate64(int fd, off64_t offset, off64_t length) {
    int kept = errno, error = fallocate64(fd, 0, offset, length) == 0 ? 0 : errno;
    errno = kept;
    return error;
}
int posix_fallocate(int fd, off_t offset, off_t length) { return posix_fallocate64(fd, offset, length); }

ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) {
    struct stat now;
    if (!ours(out, &now)) return syscall(SYS_sendfile, out, in, offset, count);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile(int out, int in, off_t *offset, size_t count) { return sendfile64(out, in, offset, count); }

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
    struct stat now;
    if (!ours(out, &now)) return syscall(SYS_copy_file_range, in, from, out, to, length, flags);
    errno = EXDEV;
    return -1;
}

void *mmap64(void *where, size_t length, int access, int flags, int fd, off64_t offset) {
    struct stat now;
    char path[PATH_MAX];
    if (fd >= 0 && (access & PROT_WRITE) && (flags & MAP_SHARED) && ours(fd, &now) && path_of(fd, path)) {
        size_t end = strlen(path);
        if (end < 4 || strcmp(path + end - 4, "-shm") != 0) enter(MAP, now.st_ino, offset, path, NULL, NULL, 0, 0);
    }
    return (void *)syscall(SYS_mmap, where, length, access, flags, fd, offset);
}
void *mmap(void *where, size_t length, int access, int flags, int fd, off_t offset) {
    return mmap64(where, length, access, flags, fd, offset);
}

/* ------------------------------------------------------------------------------------------------------- syncs */

static int synced(long call, int fd) {
    struct stat now;
    if (!ours(fd, &now)) return syscall(call, fd);
    int64_t number = ((int64_t)getpid() << 32) + ++sync_number;
    if (control != NULL) {
        control->syncs++;
        int64_t delay = control->sync_delay;
        if (delay > 0 && matches(fd, NULL)) {
            struct timespec rest = {delay / 1000000000, delay % 1000000000};
            while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
            }
        }
        if (fails(SYNCS, fd, NULL)) return -1;
    }
    enter(SYNC_BEGIN, now.st_ino, number, NULL, NULL, NULL, 0, 0);
    /* The record is what counts: the machine under the test need not wait for its own disk. */
    int done = record >= 0 ? 0 : syscall(call, fd);
    if (done == 0) enter(SYNC_END, now.st_ino, number, NULL, NULL, NULL, 0, 0);
    return done;
}
int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }

/* ------------------------------------------------------------------------------------------------------- names */

static int open_at(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    BEGIN;
    if (folder == NULL || !(flags & (O_CREAT | O_TRUNC | O_WRONLY | O_RDWR)) || (flags & O_TMPFILE) == O_TMPFILE)
        return syscall(SYS_openat, at, name, flags, mode);
    if (!real_name(at, name, path)) return syscall(SYS_openat, at, name, flags, mode);
    if (fails(NAMES, -1, path)) return -1;
    struct stat now;
    int new = (flags & O_CREAT) && fstatat(at, name, &now, 0) != 0;
    int fd = syscall(SYS_openat, at, name, flags, mode);
    if (fd >= 0 && (new || (flags & O_TRUNC)) && fstat(fd, &now) == 0 && S_ISREG(now.st_mode)) {
        if (path_of(fd, path) && below(path)) { /* a link may have led elsewhere */
            if (new) enter(CREATE, now.st_ino, 0, path, NULL, NULL, 0, 0);
            else enter(TRUNCATE, now.st_ino, 0, NULL, NULL, NULL, 0, 0);
        }
    }
    return fd;
}

#define MODE(last)                                                          \
    mode_t mode = 0;                                                        \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {            \
        va_list rest;                                                       \
        va_start(rest, last);                                               \
        mode = va_arg(rest, mode_t);                                        \
        va_end(rest);                                                       \
    }

int open(const char *name, int flags, ...) {
    MODE(flags)
    return open_at(AT_FDCWD, name, flags, mode);
}
int open64(const char *name, int flags, ...) {
    MODE(flags)
    return open_at(AT_FDCWD, name, flags, mode);
}
int openat(int at, const char *name, int flags, ...) {
    MODE(flags)
    return open_at(at, name, flags, mode);
}
int openat64(int at, const char *name, int flags, ...) {
    MODE(flags)
    return open_at(at, name, flags, mode);
}
int __open_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return open_at(AT_FDCWD, name, flags, 0); }
int __openat_2(int at, const char *name, int flags) { return open_at(at, name, flags, 0); }
int __openat64_2(int at, const char *name, int flags) { return open_at(at, name, flags, 0); }
int creat(const char *name, mode_t mode) { return open_at(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

int close(int fd) {
    BEGIN;
    if (fd == record && fd >= 0) return 0;
    if (fd >= 0 && fd < 4096) known[fd].state = 0;
    return real_close(fd);
}

int renameat2(int at, const char *old, int to, const char *new, unsigned flags) {
    char from[PATH_MAX], path[PATH_MAX];
    int first = real_name(at, old, from), second = real_name(to, new, path);
    if ((first && fails(NAMES, -1, from)) || (second && fails(NAMES, -1, path))) return -1;
    int done = syscall(SYS_renameat2, at, old, to, new, flags);
    if (done == 0 && (first || second)) enter(RENAME, 0, flags, first ? from : "", second ? path : "", NULL, 0, 0);
    return done;
}
int renameat(int at, const char *old, int to, const char *new) { return renameat2(at, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int linkat(int at, const char *old, int to, const char *new, int flags) {
    char path[PATH_MAX];
    struct stat now;
    int is = real_name(to, new, path);
    if (is && fails(NAMES, -1, path)) return -1;
    int done = syscall(SYS_linkat, at, old, to, new, flags);
    if (is && done == 0 && fstatat(to, new, &now, 0) == 0) enter(LINK, now.st_ino, 0, path, NULL, NULL, 0, 0);
    return done;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int symlinkat(const char *target, int at, const char *name) {
    char path[PATH_MAX];
    int is = real_name(at, name, path);
    if (is && fails(NAMES, -1, path)) return -1;
    int done = syscall(SYS_symlinkat, target, at, name);
    if (is && done == 0) enter(SYMLINK, 0, 0, path, target, NULL, 0, 0);
    return done;
}
int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    int is = real_name(at, name, path);
    if (is && fails(NAMES, -1, path)) return -1;
    int done = syscall(SYS_unlinkat, at, name, flags);
    if (is && done == 0) enter(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, path, NULL, NULL, 0, 0);
    return done;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int remove(const char *name) {
    int done = unlinkat(AT_FDCWD, name, 0);
    return done != 0 && errno == EISDIR ? unlinkat(AT_FDCWD, name, AT_REMOVEDIR) : done;
}

int mkdirat(int at, const char *name, mode_t mode) {
    char path[PATH_MAX];
    struct stat now;
    int is = real_name(at, name, path);
    if (is && fails(NAMES, -1, path)) return -1;
    int done = syscall(SYS_mkdirat, at, name, mode);
    if (is && done == 0 && fstatat(at, name, &now, 0) == 0) enter(MKDIR, now.st_ino, 0, path, NULL, NULL, 0, 0);
    return done;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

/* ------------------------------------------------------------------------------------------------------- stdio */

static struct stream {
    _Atomic(FILE *) file;
    int fd;
} streams[64];

static ssize_t stream_read(void *at, char *data, size_t length) { return read(*(int *)at, data, length); }
static ssize_t stream_write(void *at, const char *data, size_t length) {
    ssize_t done = write(*(int *)at, data, length);
    return done < 0 ? 0 : done; /* stdio's word for an error; errno tells which */
}
static int stream_seek(void *at, off64_t *offset, int whence) {
    off64_t found = syscall(SYS_lseek, *(int *)at, *offset, whence);
    if (found < 0) return -1;
    *offset = found;
    return 0;
}
static int stream_close(void *at) {
    int fd = *(int *)at;
    for (int i = 0; i < 64; i++)
        if (streams[i].file != NULL && streams[i].fd == fd) {
            streams[i].fd = -1;
            streams[i].file = NULL;
        }
    free(at);
    return close(fd);
}

FILE *fopen64(const char *name, const char *how) {
    char path[PATH_MAX];
    BEGIN;
    int writes = strpbrk(how, "wa+") != NULL;
    if (folder == NULL || !writes || !real_name(AT_FDCWD, name, path)) return real_fopen(name, how);
    int flags = strchr(how, '+') ? O_RDWR : O_WRONLY;
    flags |= how[0] == 'w' ? O_CREAT | O_TRUNC : how[0] == 'a' ? O_CREAT | O_APPEND : 0;
    flags |= (strchr(how, 'x') ? O_EXCL : 0) | (strchr(how, 'e') ? O_CLOEXEC : 0);
    int fd = open(name, flags, 0666);
    if (fd < 0) return NULL;
    int *at = malloc(sizeof *at);
    if (at == NULL) die("no memory");
    *at = fd;
    cookie_io_functions_t way = {stream_read, stream_write, stream_seek, stream_close};
    FILE *file = fopencookie(at, how, way);
    if (file == NULL) die("fopencookie");
    for (int i = 0; i < 64; i++) {
        FILE *none = NULL;
        if (atomic_compare_exchange_strong(&streams[i].file, &none, file)) {
            streams[i].fd = fd;
            return file;
        }
    }
    die("more than 64 streams");
    return NULL;
}
FILE *fopen(const char *name, const char *how) { return fopen64(name, how); }

int fileno(FILE *file) {
    BEGIN;
    for (int i = 0; i < 64; i++)
        if (streams[i].file == file && file != NULL) return streams[i].fd;
    return real_fileno(file);
}
int fileno_unlocked(FILE *file) { return fileno(file); }

/* ------------------------------------------------------------------------------------------------------- clock */

static int64_t offset_ns(void) { return control == NULL ? 0 : control->clock; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    BEGIN;
    int done = real_clock_gettime(clock, now);
    int64_t offset = offset_ns();
    if (done == 0 && offset != 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI)) {
        int64_t ns = now->tv_sec * 1000000000L + now->tv_nsec + offset;
        now->tv_sec = ns / 1000000000;
        now->tv_nsec = ns % 1000000000;
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    BEGIN;
    int done = real_gettimeofday(now, zone);
    int64_t offset = offset_ns();
    if (done == 0 && offset != 0) {
        int64_t us = now->tv_sec * 1000000L + now->tv_usec + offset / 1000;
        now->tv_sec = us / 1000000;
        now->tv_usec = us % 1000000;
    }
    return done;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL) *at = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
