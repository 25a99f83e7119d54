#include "daemon/source/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* Pages in one pipe. Without CAP_SYS_RESOURCE a pipe may have no more, as /proc/sys/fs/pipe-max-size is shipped. */
enum { PIPE_PAGES = 256 };

/* Reading ends: what is in a pipe stays there when nobody has its other end. */
struct pin {
        size_t n;
        int pipes[];
};

/* A pipe for up to n pages; *ret_n: for how many really. */
static int make_pipe(size_t n, int ends[2], size_t *ret_n) {
        const int page = (int)sysconf(_SC_PAGESIZE);
        int r;

        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        do
                r = fcntl(ends[1], F_SETPIPE_SZ, (int)n * page);
        while (r < 0 && errno == EPERM && (n /= 2) > 0);
        if (r < 0)
                r = fcntl(ends[1], F_GETPIPE_SZ);
        if (r < page) {
                r = r < 0 ? -errno : -EIO;
                close(ends[0]);
                close(ends[1]);
                return r;
        }
        *ret_n = (size_t)(r / page);
        return 0;
}

static int fill_pipe(int end, char *at, size_t n, uint64_t page_size) {
        struct iovec parts[PIPE_PAGES];
        ssize_t done;
        size_t i;

        for (i = 0; i < n; i++)
                parts[i] = (struct iovec){ .iov_base = at + i * page_size, .iov_len = 1 };
        do
                done = vmsplice(end, parts, n, SPLICE_F_NONBLOCK);
        while (done < 0 && errno == EINTR);
        if (done < 0)
                return -errno;
        return (size_t)done == n ? 0 : -EFAULT;
}

/* One pipe's worth of the pages from `at` on. */
static int add_pipe(struct pin *pin, char *at, size_t n, uint64_t page_size, size_t *ret_n) {
        int ends[2], r;
        size_t room = 0;

        if (n > PIPE_PAGES)
                n = PIPE_PAGES;
        r = make_pipe(n, ends, &room);
        if (r < 0)
                return r;
        if (n > room)
                n = room;
        r = fill_pipe(ends[1], at, n, page_size);
        close(ends[1]);
        if (r < 0) {
                close(ends[0]);
                return r;
        }
        pin->pipes[pin->n++] = ends[0];
        *ret_n = n;
        return 0;
}

static struct pin *pin_alloc(struct pin *pin, size_t room) {
        struct pin *grown = realloc(pin, sizeof(*pin) + room * sizeof(pin->pipes[0]));

        if (grown && !pin)
                grown->n = 0;
        return grown;
}

int pin_new(void *at, uint64_t size, uint64_t page_size, struct pin **ret) {
        const size_t n = (size_t)(size / page_size);
        struct pin *pin = NULL, *grown;
        size_t done = 0, got = 0;
        int r = 0;

        if (n == 0)
                return -EINVAL;
        while (done < n && r == 0) {
                grown = pin_alloc(pin, pin ? pin->n + 1 : 1);
                if (!grown) {
                        r = -ENOMEM;
                        break;
                }
                pin = grown;
                r = add_pipe(pin, (char *)at + done * page_size, n - done, page_size, &got);
                done += got;
        }
        if (r < 0) {
                pin_free(pin);
                return r;
        }
        *ret = pin;
        return 0;
}

struct pin *pin_leave(struct pin *pin) {
        size_t i;

        if (!pin)
                return NULL;
        for (i = 0; i < pin->n; i++)
                close(pin->pipes[i]);
        free(pin);
        return NULL;
}

struct pin *pin_free(struct pin *pin) {
        char bytes[PIPE_PAGES];
        ssize_t n;
        size_t i;

        if (!pin)
                return NULL;
        for (i = 0; i < pin->n; i++)
                do
                        n = read(pin->pipes[i], bytes, sizeof(bytes));
                while (n > 0 || (n < 0 && errno == EINTR));
        return pin_leave(pin);
}

/* ---- beyond the daemon's end ---- */

/* Pipe i of a region: hugetlb-pin-17, and hugetlb-pin1-17 and so on, where one pipe does not do. */
static const char *what_is(size_t i, char text[static 16]) {
        snprintf(text, 16, i ? "pin%u" : "pin", (unsigned)i);
        return text;
}

static void drop_pipes(size_t n, const struct kept *kept, uint64_t id) {
        char what[16];

        /* The last one first: what is there without all of it is without its end. */
        while (n > 0)
                kept_drop(kept, what_is(--n, what), id);
}

int pin_keep(const struct pin *pin, const struct kept *kept, uint64_t id) {
        char what[16];
        size_t i;
        int r;

        for (i = 0; i < pin->n; i++) {
                r = kept_put(kept, what_is(i, what), id, pin->pipes[i]);
                if (r < 0) {
                        drop_pipes(i, kept, id);
                        return r;
                }
        }
        return 0;
}

void pin_drop(const struct pin *pin, const struct kept *kept, uint64_t id) {
        if (pin)
                drop_pipes(pin->n, kept, id);
}

int pin_take(const struct kept *kept, uint64_t id, struct pin **ret) {
        char name[KEEP_NAME_MAX + 1], what[16];
        struct pin *pin = NULL, *grown;
        int r;

        for (;;) {
                grown = pin_alloc(pin, pin ? pin->n + 1 : 1);
                if (!grown) {
                        pin_leave(pin);
                        return -ENOMEM;
                }
                pin = grown;
                r = keep_take(kept->keep, kept_name(kept->source, what_is(pin->n, what), id, name), &pin->pipes[pin->n]);
                if (r < 0)
                        break;
                pin->n++;
        }
        if (pin->n == 0) {
                free(pin);
                return -ENOENT;
        }
        *ret = pin;
        return 0;
}

uint64_t pin_pages(const struct pin *pin) {
        uint64_t pages = 0;
        size_t i;
        int n;

        for (i = 0; i < pin->n; i++)
                if (ioctl(pin->pipes[i], FIONREAD, &n) == 0)
                        pages += (uint64_t)n;
        return pages;
}

/* ---- whether ---- */

int pin_probe(void) {
        const size_t size = (size_t)sysconf(_SC_PAGESIZE);
        struct pin *pin;
        void *page;
        int r;

        page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
                return -errno;
        r = pin_new(page, size, size, &pin);
        if (r == 0)
                pin_free(pin);
        munmap(page, size);
        return r;
}
