/* A guest of Xen's gives frames up and gets others for them. Xen may take its time, so that a thread of its own asks; when the
 * daemon ends, it is waited for. */
#include "daemon/guest/xen-exchange.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/thread.h"
#include "daemon/source/xen-frames.h"

struct xen_exchange_task {
        struct xen_exchange exchange; /* its lists are owned */
        pthread_t thread;
        uv_async_t async;
        int result;
        struct failure failure;
        xen_exchange_over_fn over;
        void *userdata;
};

static void task_free(struct xen_exchange_task *task) {
        free((uint64_t *)task->exchange.frames);
        free((uint64_t *)task->exchange.pfns);
        free(task->exchange.extents);
        free(task);
}

static void *task_main(void *userdata) {
        struct xen_exchange_task *task = userdata;

        task->result = xen_frames_exchange(&task->exchange, &task->failure);
        uv_async_send(&task->async);
        return NULL;
}

static void on_closed(uv_handle_t *handle) {
        struct xen_exchange_task *task = handle->data;
        const struct exchange_result result = {
                .extents = task->exchange.extents, .n_extents = task->exchange.n_extents,
                .why = task->exchange.why.error ? &task->exchange.why : NULL,
        };

        if (task->over)
                task->over(task->userdata, task->result < 0 ? &task->failure : NULL, &result);
        task_free(task);
}

static void on_done(uv_async_t *async) {
        struct xen_exchange_task *task = async->data;

        pthread_join(task->thread, NULL);
        uv_close((uv_handle_t *)async, on_closed);
}

static uint64_t *copy(const uint64_t *list, size_t n) {
        uint64_t *copied = calloc(n, sizeof(*copied));

        if (copied)
                memcpy(copied, list, n * sizeof(*copied));
        return copied;
}

static struct xen_exchange_task *task_new(const struct exchange_request *request, uint32_t domid, const char *uuid) {
        const size_t n_extents = request->n_frames >> request->order;
        struct xen_exchange_task *task = calloc(1, sizeof(*task));
        uint64_t *frames = copy(request->frames, request->n_frames);
        uint64_t *pfns = request->pfns ? copy(request->pfns, n_extents) : NULL;
        uint64_t *extents = calloc(n_extents, sizeof(*extents));

        if (!task || !frames || (request->pfns && !pfns) || !extents) {
                free(task);
                free(frames);
                free(pfns);
                free(extents);
                return NULL;
        }
        task->exchange = (struct xen_exchange){
                .domid = domid, .if_paused = !request->by_itself, .order = request->order, .mask = request->mask,
                .frames = frames, .n_frames = request->n_frames, .pfns = pfns, .extents = extents,
        };
        snprintf(task->exchange.uuid, sizeof(task->exchange.uuid), "%s", uuid);
        return task;
}

int xen_exchange_begin(uv_loop_t *loop, const struct exchange_request *request, uint32_t domid, const char *uuid,
                       xen_exchange_over_fn over, void *userdata) {
        struct xen_exchange_task *task = task_new(request, domid, uuid);
        int r;

        if (!task)
                return -ENOMEM;
        r = uv_async_init(loop, &task->async, on_done);
        if (r < 0) {
                task_free(task);
                return r;
        }
        task->async.data = task;
        task->userdata = userdata;
        r = guest_thread_start(&task->thread, "xen-exchange", task_main, task);
        if (r < 0)
                uv_close((uv_handle_t *)&task->async, on_closed);
        else
                task->over = over;
        return r;
}
