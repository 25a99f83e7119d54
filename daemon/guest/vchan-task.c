#include "daemon/guest/vchan-task.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/thread.h"
#include "daemon/guest/vchan-library.h"
#include "daemon/guest/xen.h"

/* A dom0 shares 1,024 pages, unless xen_gntalloc was told otherwise (`limit`): this takes 9 of them. */
enum { STREAM_SIZE = 16 << 10 };

#define PROTOCOL "1"

struct vchan_task {
        atomic_uint n_refs; /* one for the loop, one for the thread */
        const struct vchan_library *library;
        uint32_t domid;
        bool is_end;
        uv_async_t async;
        vchan_task_over_fn over;
        void *userdata;
        pthread_mutex_t mutex;
        /* Under the mutex. */
        bool is_left; /* `async` is closed, or about to be */
        bool is_early;
        struct libxenvchan *vchan;
};

static void unref(struct vchan_task *task) {
        if (atomic_fetch_sub(&task->n_refs, 1) > 1)
                return;
        pthread_mutex_destroy(&task->mutex);
        free(task);
}

/* ---- the thread ---- */

/* Xen lists a domain before xl has told xenstore of it, which it does at once, in place of whatever is there. */
static bool is_told_of(const struct vchan_task *task, struct xs_handle *store) {
        char path[64], *value;
        unsigned length;

        snprintf(path, sizeof(path), "/local/domain/%u/vm", (unsigned)task->domid);
        value = task->library->xs_read(store, XBT_NULL, path, &length);
        free(value);
        return value;
}

/* *ret_early: xenstore answers, and does not know the domain. */
static bool write_protocol(const struct vchan_task *task, bool *ret_early) {
        struct xs_permissions permissions[] = {
                { .id = 0, .perms = XS_PERM_NONE }, /* dom0 has it, and nobody else … */
                { .id = task->domid, .perms = XS_PERM_READ },
        };
        struct xs_handle *store = xen_store_is_dead() ? NULL : task->library->xs_open(0);
        char path[64];
        bool done;

        if (!store)
                return false;
        *ret_early = !is_told_of(task, store);
        snprintf(path, sizeof(path), "/local/domain/%u/dmabroker/protocol", (unsigned)task->domid);
        done = !*ret_early && task->library->xs_write(store, XBT_NULL, path, PROTOCOL, strlen(PROTOCOL)) &&
               task->library->xs_set_permissions(store, XBT_NULL, path, permissions, 2);
        task->library->xs_close(store);
        return done;
}

static struct libxenvchan *make(const struct vchan_task *task, bool *ret_early) {
        struct libxenvchan *vchan;
        char path[64];

        snprintf(path, sizeof(path), "/local/domain/%u/dmabroker/vchan", (unsigned)task->domid);
        vchan = write_protocol(task, ret_early)
                        ? task->library->libxenvchan_server_init(NULL, (int)task->domid, path, STREAM_SIZE, STREAM_SIZE)
                        : NULL;
        if (vchan) {
                vchan->server_persist = 1; /* programs of the guest come and go */
                vchan->blocking = 0;
        }
        return vchan;
}

static void *task_main(void *userdata) {
        struct vchan_task *task = userdata;
        struct libxenvchan *vchan = NULL;
        bool is_early = false;

        if (task->is_end)
                task->library->libxenvchan_close(task->vchan);
        else
                vchan = make(task, &is_early);
        pthread_mutex_lock(&task->mutex);
        task->vchan = vchan;
        task->is_early = is_early;
        if (!task->is_left) {
                uv_async_send(&task->async);
                vchan = NULL;
        }
        pthread_mutex_unlock(&task->mutex);
        if (vchan)
                task->library->libxenvchan_close(vchan);
        unref(task);
        return NULL;
}

/* ---- the loop ---- */

static void on_closed(uv_handle_t *handle) {
        struct vchan_task *task = handle->data;

        if (task->over)
                task->over(task->userdata, task->is_left ? NULL : task->vchan, !task->is_left && task->is_early);
        unref(task);
}

static void on_done(uv_async_t *async) {
        uv_close((uv_handle_t *)async, on_closed);
}

/* It may be done already, and that not be told of yet. */
void vchan_task_leave(struct vchan_task *task) {
        struct libxenvchan *vchan = NULL;
        struct vchan_task *end;

        if (uv_is_closing((uv_handle_t *)&task->async))
                return;
        pthread_mutex_lock(&task->mutex);
        task->is_left = true;
        if (!task->is_end)
                vchan = task->vchan;
        pthread_mutex_unlock(&task->mutex);
        uv_close((uv_handle_t *)&task->async, on_closed);
        if (vchan && vchan_task_end(task->async.loop, task->library, vchan, NULL, NULL, &end) == 0)
                vchan_task_leave(end);
}

static int begin(struct vchan_task *task, uv_loop_t *loop, struct vchan_task **ret) {
        pthread_t thread;
        int r = uv_async_init(loop, &task->async, on_done);

        atomic_init(&task->n_refs, 2);
        pthread_mutex_init(&task->mutex, NULL);
        task->async.data = task;
        if (r == 0)
                r = guest_thread_start(&thread, "xen-channel", task_main, task);
        if (r == 0) {
                pthread_detach(thread);
                *ret = task;
                return 0;
        }
        unref(task); /* the thread's, that there is none of */
        if (task->async.loop) {
                task->is_left = true;
                task->over = NULL;
                uv_close((uv_handle_t *)&task->async, on_closed);
        } else
                unref(task);
        return r;
}

int vchan_task_make(uv_loop_t *loop, const struct vchan_library *library, uint32_t domid, vchan_task_over_fn over,
                    void *userdata, struct vchan_task **ret) {
        struct vchan_task *task = calloc(1, sizeof(*task));

        if (!task)
                return -ENOMEM;
        task->library = library;
        task->domid = domid;
        task->over = over;
        task->userdata = userdata;
        return begin(task, loop, ret);
}

int vchan_task_end(uv_loop_t *loop, const struct vchan_library *library, struct libxenvchan *vchan, vchan_task_over_fn over,
                   void *userdata, struct vchan_task **ret) {
        struct vchan_task *task = calloc(1, sizeof(*task));

        if (!task)
                return -ENOMEM;
        task->library = library;
        task->is_end = true;
        task->vchan = vchan;
        task->over = over;
        task->userdata = userdata;
        return begin(task, loop, ret);
}
