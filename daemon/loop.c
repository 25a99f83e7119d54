#include "daemon/loop.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

/* ---- memory for the table of descriptors ---- */

/* Set aside for the next realloc(). Each loop has a thread of its own, and so has this. */
static _Thread_local void *spare;
static _Thread_local size_t spare_size;

static void *spare_realloc(void *old, size_t size) {
        void *block = realloc(old, size);

        if (block || !size || !spare || size > spare_size)
                return block;
        block = spare;
        spare = NULL;
        if (old)
                memcpy(block, old, malloc_usable_size(old) < size ? malloc_usable_size(old) : size);
        free(old);
        return block;
}

/* What the table takes that has room for fd: libuv doubles it, and has two entries of its own at the end. */
static int spare_make(unsigned fd) {
        size_t entries = 16;

        while (entries < (size_t)fd + 3)
                entries *= 2;
        spare_size = entries * sizeof(void *);
        spare = malloc(spare_size);
        return spare ? 0 : -ENOMEM;
}

static void spare_free(void) {
        free(spare);
        spare = NULL;
}

static void replace_allocator(void) {
        uv_replace_allocator(malloc, spare_realloc, calloc, free);
}

int loop_init(uv_loop_t *loop) {
        /* Not again while another thread's loop allocates. */
        static uv_once_t once = UV_ONCE_INIT;
        int r;

        uv_once(&once, replace_allocator);
        r = spare_make(61);
        if (r < 0)
                return r;
        r = uv_loop_init(loop);
        spare_free();
        return r;
}

/* ---- room in the epoll set ---- */

/* With no events yet. libuv finds that it is there, and changes it, which takes nothing. */
static int epoll_add(const uv_loop_t *loop, int fd) {
        struct epoll_event event = { .data.fd = fd };

        if (epoll_ctl(uv_backend_fd(loop), EPOLL_CTL_ADD, fd, &event) < 0 && errno != EEXIST)
                return -errno;
        return 0;
}

int loop_prepare(uv_loop_t *loop) {
        int r = loop->signal_pipefd[0] < 0 ? 0 : epoll_add(loop, loop->signal_pipefd[0]);

        return r < 0 ? r : epoll_add(loop, loop->async_io_watcher.fd);
}

int loop_watch(uv_poll_t *handle, int events, uv_poll_cb cb) {
        uv_os_fd_t fd;
        int r = uv_fileno((uv_handle_t *)handle, &fd);

        if (r == 0 && (unsigned)fd >= handle->loop->nwatchers)
                r = spare_make((unsigned)fd);
        if (r < 0)
                return r;
        r = uv_poll_start(handle, events, cb);
        spare_free();
        if (r == 0)
                r = epoll_add(handle->loop, fd);
        if (r < 0)
                uv_poll_stop(handle);
        return r;
}
