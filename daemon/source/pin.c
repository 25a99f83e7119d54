#include "daemon/source/pin.h"

#include "config.h"

#include <errno.h>

#ifdef HAVE_URING

#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The kernel takes at most this much as one buffer, and so many buffers in one ring. */
#define BUFFER_SIZE_MAX ((size_t)1 << 30)
#define BUFFERS_MAX ((size_t)1 << 14)

/* A ring for each pin: a slot emptied in a shared table is released by some kernels (6.1) only a second later, by a
 * worker of theirs, while unregistering all buffers of a ring returns when their pages are free. */
struct pin {
        struct io_uring ring;
};

int pin_new(void *at, size_t size, struct pin **ret) {
        const size_t n = (size + BUFFER_SIZE_MAX - 1) / BUFFER_SIZE_MAX;
        struct iovec *buffers;
        struct pin *pin;
        size_t i;
        int r;

        if (n == 0 || n > BUFFERS_MAX)
                return -EINVAL;
        buffers = calloc(n, sizeof(*buffers));
        pin = malloc(sizeof(*pin));
        if (!buffers || !pin) {
                r = -ENOMEM;
                goto fail;
        }
        for (i = 0; i < n; i++) {
                buffers[i].iov_base = (char *)at + i * BUFFER_SIZE_MAX;
                buffers[i].iov_len = i + 1 < n ? BUFFER_SIZE_MAX : size - i * BUFFER_SIZE_MAX;
        }
        r = io_uring_queue_init(1, &pin->ring, 0);
        if (r < 0)
                goto fail;
        r = io_uring_register_buffers(&pin->ring, buffers, (unsigned)n);
        if (r < 0)
                goto fail_ring;
        free(buffers);
        *ret = pin;
        return 0;

fail_ring:
        io_uring_queue_exit(&pin->ring);
fail:
        free(pin);
        free(buffers);
        return r;
}

struct pin *pin_free(struct pin *pin) {
        if (!pin)
                return NULL;
        /* Closing the ring would do it too, but later and by a worker of the kernel. */
        io_uring_unregister_buffers(&pin->ring);
        io_uring_queue_exit(&pin->ring);
        free(pin);
        return NULL;
}

int pin_probe(void) {
        const size_t size = (size_t)sysconf(_SC_PAGESIZE);
        struct pin *pin;
        void *page;
        int r;

        page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
                return -errno;
        r = pin_new(page, size, &pin);
        if (r == 0)
                pin_free(pin);
        munmap(page, size);
        return r;
}

#else

int pin_probe(void) {
        return -EOPNOTSUPP;
}

int pin_new(void *at, size_t size, struct pin **ret) {
        return -EOPNOTSUPP;
}

struct pin *pin_free(struct pin *pin) {
        return NULL;
}

#endif
