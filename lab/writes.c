/* LD_PRELOAD: the n-th write, rename, link or sync of all processes together fails, and a failed write leaves its half.

   FAIL_UNDER  the folder whose regular files count, but for Python's bytecode
   FAIL_AT     n, from 1
   FAIL_ERRNO  such as 28 (ENOSPC) or 5 (EIO)
   FAIL_COUNT  a file for the count and the name of the file that failed, 8 + 1000 bytes */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum { NAME = 1000 };
static long *count, at;
static const char *under;
static pid_t reader;

/* Whether writes count in this process; a fork of test/warm.py has variables of its own, so each process reads them. */
static int counts(void) {
    if (count && reader == getpid()) return 1;
    const char *file = getenv("FAIL_COUNT"), *n = getenv("FAIL_AT");
    under = getenv("FAIL_UNDER");
    int fd = file && n && under ? open(file, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    void *shared = mmap(NULL, sizeof *count + NAME, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared == MAP_FAILED) return 0;
    count = shared, at = atol(n), reader = getpid();
    return 1;
}

/* Whether it is this call's turn to fail, of a file below the folder; errno then says so, and the path lies behind the
   count. */
static int due(const char *path) {
    size_t length = strlen(under);
    if (strncmp(path, under, length) || path[length] != '/' || strstr(path, "/__pycache__/")) return 0;
    if (__atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST) != at) return 0;
    snprintf((char *)(count + 1), NAME, "%s", path + length + 1);
    const char *error = getenv("FAIL_ERRNO");
    errno = error ? atoi(error) : ENOSPC;
    return 1;
}

static int fails(int fd) {
    char link[64], path[4096];
    struct stat s;
    int before = errno;
    if (!counts() || fstat(fd, &s) || !S_ISREG(s.st_mode)) return errno = before, 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return due(path);
}

static int fails_at(int folder, const char *path) {
    char whole[8192];
    if (!counts()) return 0;
    if (path[0] == '/') return due(path);
    if (folder != AT_FDCWD || !getcwd(whole, 4096)) return 0;
    strcat(strcat(whole, "/"), path);
    return due(whole);
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!fails(fd)) return NEXT(write)(fd, data, size);
    int error = errno;
    if (size > 1) (void)!NEXT(write)(fd, data, size / 2);
    return errno = error, -1;
}
ssize_t writev(int fd, const struct iovec *parts, int n) { return fails(fd) ? -1 : NEXT(writev)(fd, parts, n); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t to) {
    return fails(fd) ? -1 : NEXT(pwrite)(fd, data, size, to);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t to) {
    return fails(fd) ? -1 : NEXT(pwrite64)(fd, data, size, to);
}
int fsync(int fd) { return fails(fd) ? -1 : NEXT(fsync)(fd); }
int fdatasync(int fd) { return fails(fd) ? -1 : NEXT(fdatasync)(fd); }
/* glibc's own writes from a FILE's buffer call no write that could be taken over. */
int fflush(FILE *file) {
    if (!file || !fails(fileno(file))) return NEXT(fflush)(file);
    __fpurge(file);
    file->_flags |= 0x20;  /* glibc's _IO_ERR_SEEN, which ferror(3) tells */
    return EOF;
}
int rename(const char *from, const char *to) { return fails_at(AT_FDCWD, to) ? -1 : NEXT(rename)(from, to); }
int renameat(int a, const char *from, int b, const char *to) {
    return fails_at(b, to) ? -1 : NEXT(renameat)(a, from, b, to);
}
int link(const char *from, const char *to) { return fails_at(AT_FDCWD, to) ? -1 : NEXT(link)(from, to); }
