/* Loaded into the daemon before everything else: it lets one call fail when the test says so, and counts. */
#include "tests/survive/faulty.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static struct faulty nothing = { .hit = -1 }, *page = &nothing;

/* What the loader allocates while it looks up the real functions; never given back. */
static _Alignas(max_align_t) char first_memory[65536];
static size_t first_used;
static int resolving;

static struct {
        void *(*malloc)(size_t);
        void *(*calloc)(size_t, size_t);
        void *(*realloc)(void *, size_t);
        void (*free)(void *);
        int (*posix_memalign)(void **, size_t, size_t);
        void *(*aligned_alloc)(size_t, size_t);
        ssize_t (*read)(int, void *, size_t);
        ssize_t (*pread)(int, void *, size_t, off_t);
        ssize_t (*write)(int, const void *, size_t);
        ssize_t (*pwrite)(int, const void *, size_t, off_t);
        ssize_t (*sendmsg)(int, const struct msghdr *, int);
        ssize_t (*recvmsg)(int, struct msghdr *, int);
        int (*close)(int);
        int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
        int (*epoll_wait)(int, struct epoll_event *, int, int);
        int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
} real;

#define RESOLVE(name) *(void **)&real.name = dlsym(RTLD_NEXT, #name)

static void resolve(void) {
        resolving = 1;
        RESOLVE(free);
        RESOLVE(calloc);
        RESOLVE(realloc);
        RESOLVE(posix_memalign);
        RESOLVE(aligned_alloc);
        RESOLVE(read);
        RESOLVE(pread);
        RESOLVE(write);
        RESOLVE(pwrite);
        RESOLVE(sendmsg);
        RESOLVE(recvmsg);
        RESOLVE(close);
        RESOLVE(ppoll);
        RESOLVE(epoll_wait);
        RESOLVE(epoll_pwait);
        RESOLVE(malloc);
        resolving = 0;
}

static void *first_alloc(size_t size) {
        void *block = first_memory + first_used;

        size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
        if (size > sizeof(first_memory) - first_used)
                return NULL;
        first_used += size;
        return block;
}

static int is_first(const void *block) {
        return (const char *)block >= first_memory && (const char *)block < first_memory + sizeof(first_memory);
}

/* Whether the real functions are known; if not, this is called from where they are looked up. */
static int is_resolved(void) {
        if (!real.malloc && !resolving)
                resolve();
        return real.malloc != NULL;
}

static int fails(enum faulty_kind kind, enum faulty_function function) {
        atomic_fetch_add_explicit(&page->calls[function], 1, memory_order_relaxed);
        if (!faulty_fails(page, kind))
                return 0;
        atomic_fetch_add(&page->failed[function], 1);
        atomic_store(&page->hit, (int32_t)function);
        return 1;
}

/* glibc 2.36 does not outlive the lack of memory in here: it reads through a null pointer in
 * nss_database_check_reload_and_get(), or fails an assertion in nss_database_reload_1(). */
static _Thread_local int looking_up __attribute__((tls_model("initial-exec")));

struct group *getgrnam(const char *name) {
        struct group *(*lookup)(const char *) = (struct group * (*)(const char *)) dlsym(RTLD_NEXT, "getgrnam");
        struct group *group;

        looking_up++;
        group = lookup(name);
        looking_up--;
        return group;
}

static int has_no_memory(enum faulty_function function) {
        if (looking_up || !fails(FAULTY_MEMORY, function))
                return 0;
        errno = ENOMEM;
        return 1;
}

static void *counted(void *block) {
        if (block)
                atomic_fetch_add_explicit(&page->live, 1, memory_order_relaxed);
        return block;
}

void *malloc(size_t size) {
        if (!is_resolved())
                return first_alloc(size);
        return has_no_memory(FAULTY_MALLOC) ? NULL : counted(real.malloc(size));
}

void *calloc(size_t n, size_t size) {
        if (!is_resolved())
                return first_alloc(n * size);
        return has_no_memory(FAULTY_CALLOC) ? NULL : counted(real.calloc(n, size));
}

void *realloc(void *old, size_t size) {
        void *block;

        if (!is_resolved() || is_first(old)) {
                block = malloc(size);
                if (block && old)
                        memcpy(block, old, size);
                return block;
        }
        if (has_no_memory(FAULTY_REALLOC))
                return NULL;
        block = real.realloc(old, size);
        return old ? block : counted(block);
}

int posix_memalign(void **ret, size_t align, size_t size) {
        int r;

        if (!is_resolved() || has_no_memory(FAULTY_MEMALIGN))
                return ENOMEM;
        r = real.posix_memalign(ret, align, size);
        if (r == 0)
                counted(*ret);
        return r;
}

void *aligned_alloc(size_t align, size_t size) {
        return !is_resolved() || has_no_memory(FAULTY_MEMALIGN) ? NULL : counted(real.aligned_alloc(align, size));
}

void free(void *block) {
        if (!block || is_first(block) || !is_resolved())
                return;
        atomic_fetch_sub_explicit(&page->live, 1, memory_order_relaxed);
        real.free(block);
}

/* ---- transfers ---- */

/* What is written to a pipe or added to a counter goes as a whole, as does a message of a datagram or a packet, and an entry
 * of a page map. */
static int can_be_short(int fd) {
        struct stat status;
        int type = 0;
        socklen_t size = sizeof(type);

        if (page->kind != FAULTY_TRANSFER || fstat(fd, &status) < 0)
                return 0;
        return S_ISREG(status.st_mode) || (S_ISSOCK(status.st_mode) &&
                                           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM);
}

static size_t length_of(int fd, enum faulty_function function, size_t size) {
        return size > 8 && is_resolved() && can_be_short(fd) && fails(FAULTY_TRANSFER, function) ? 1 : size;
}

ssize_t read(int fd, void *bytes, size_t size) {
        size = length_of(fd, FAULTY_READ, size);
        return is_resolved() ? real.read(fd, bytes, size) : -1;
}

ssize_t pread(int fd, void *bytes, size_t size, off_t offset) {
        size = length_of(fd, FAULTY_PREAD, size);
        return is_resolved() ? real.pread(fd, bytes, size, offset) : -1;
}

ssize_t pread64(int fd, void *bytes, size_t size, off_t offset) {
        return pread(fd, bytes, size, offset);
}

ssize_t write(int fd, const void *bytes, size_t size) {
        size = length_of(fd, FAULTY_WRITE, size);
        return is_resolved() ? real.write(fd, bytes, size) : -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
        size = length_of(fd, FAULTY_PWRITE, size);
        return is_resolved() ? real.pwrite(fd, bytes, size, offset) : -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t offset) {
        return pwrite(fd, bytes, size, offset);
}

static void shorten(int fd, enum faulty_function function, struct msghdr *message, struct iovec *part) {
        if (message->msg_iovlen == 0 || message->msg_iov[0].iov_len < 2 || !can_be_short(fd) ||
            !fails(FAULTY_TRANSFER, function))
                return;
        *part = message->msg_iov[0];
        part->iov_len = 1;
        message->msg_iov = part;
        message->msg_iovlen = 1;
}

ssize_t sendmsg(int fd, const struct msghdr *given, int flags) {
        struct msghdr message = *given;
        struct iovec part;

        if (!is_resolved())
                return -1;
        shorten(fd, FAULTY_SENDMSG, &message, &part);
        return real.sendmsg(fd, &message, flags);
}

ssize_t recvmsg(int fd, struct msghdr *given, int flags) {
        struct msghdr message = *given;
        struct iovec part;
        ssize_t n;

        if (!is_resolved())
                return -1;
        shorten(fd, FAULTY_RECVMSG, &message, &part);
        n = real.recvmsg(fd, &message, flags);
        given->msg_controllen = message.msg_controllen;
        given->msg_flags = message.msg_flags;
        given->msg_namelen = message.msg_namelen;
        return n;
}

/* Linux has closed the descriptor whatever close() returns. */
int close(int fd) {
        int r = is_resolved() ? real.close(fd) : -1;

        if (r == 0 && fails(FAULTY_CLOSE, FAULTY_CLOSING)) {
                errno = EIO;
                return -1;
        }
        return r;
}

/* ---- waiting ---- */

/* Nobody is there any more whom the filter could ask: the test was killed. Whatever waits in a loop would go on for ever. */
static int end_with_the_test(int r) {
        if (r < 0 && errno == ENOSYS)
                _exit(1);
        return r;
}

int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask) {
        return end_with_the_test(is_resolved() ? real.ppoll(fds, n, timeout, mask) : -1);
}

int epoll_wait(int fd, struct epoll_event *events, int n, int timeout) {
        return end_with_the_test(is_resolved() ? real.epoll_wait(fd, events, n, timeout) : -1);
}

int epoll_pwait(int fd, struct epoll_event *events, int n, int timeout, const sigset_t *mask) {
        return end_with_the_test(is_resolved() ? real.epoll_pwait(fd, events, n, timeout, mask) : -1);
}

__attribute__((constructor)) static void begin(void) {
        const char *path = getenv(FAULTY_PAGE);
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        void *map = MAP_FAILED;

        if (!is_resolved())
                abort();
        if (fd >= 0)
                map = mmap(NULL, sizeof(struct faulty), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
                return;
        real.close(fd);
        /* What it was when this process before was, is over. */
        atomic_store(&((struct faulty *)map)->live, page->live);
        page = map;
        atomic_store(&page->ready, 1);
}
