#include "daemon/guest/vchan-task.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/guest/thread.h"
#include "daemon/guest/vchan-library.h"
#include "daemon/guest/vchan-server.h"
#include "daemon/guest/xen.h"

struct vchan_task {
        atomic_uint n_refs; /* one for the loop, one for the thread */
        const struct vchan_library *library;
        uint32_t domid;
        char uuid[XEN_UUID_SIZE];
        bool is_end;
        uv_async_t async;
        vchan_task_over_fn over;
        void *userdata;
        pthread_mutex_t mutex;
        /* Under the mutex. */
        bool is_left; /* `async` is closed, or about to be */
        struct vchan_server *server;
        struct failure failure; /* why there is none */
};

static void unref(struct vchan_task *task) {
        if (atomic_fetch_sub(&task->n_refs, 1) > 1)
                return;
        pthread_mutex_destroy(&task->mutex);
        free(task);
}

/* ---- the thread ---- */

static struct vchan_server *make(const struct vchan_task *task, struct failure *failure) {
        struct vchan_server *server = NULL;

        if (xen_check_guest(task->domid, task->uuid, failure) < 0 ||
            vchan_server_new(task->library, task->domid, &server, failure) < 0)
                return NULL;
        /* Somebody else may have got the number meanwhile, and with it what was shared: that would be the guest for us. */
        if (xen_check_guest(task->domid, task->uuid, failure) < 0)
                server = vchan_server_free(server);
        return server;
}

static void *task_main(void *userdata) {
        struct vchan_task *task = userdata;
        struct failure failure = { 0 };
        struct vchan_server *server;

        server = task->is_end ? vchan_server_free(task->server) : make(task, &failure);
        pthread_mutex_lock(&task->mutex);
        task->server = server;
        task->failure = failure;
        if (!task->is_left) {
                uv_async_send(&task->async);
                server = NULL;
        }
        pthread_mutex_unlock(&task->mutex);
        vchan_server_free(server);
        unref(task);
        return NULL;
}

/* ---- the loop ---- */

static void on_closed(uv_handle_t *handle) {
        struct vchan_task *task = handle->data;

        if (task->over)
                task->over(task->userdata, task->is_left ? NULL : task->server, task->failure.sentence);
        unref(task);
}

static void on_done(uv_async_t *async) {
        uv_close((uv_handle_t *)async, on_closed);
}

/* It may be done already, and that not be told of yet. */
void vchan_task_leave(struct vchan_task *task) {
        struct vchan_server *server = NULL;
        struct vchan_task *end;

        if (uv_is_closing((uv_handle_t *)&task->async))
                return;
        pthread_mutex_lock(&task->mutex);
        task->is_left = true;
        if (!task->is_end)
                server = task->server;
        pthread_mutex_unlock(&task->mutex);
        uv_close((uv_handle_t *)&task->async, on_closed);
        if (server && vchan_task_end(task->async.loop, server, NULL, NULL, &end) == 0)
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

int vchan_task_make(uv_loop_t *loop, const struct vchan_library *library, uint32_t domid, const char *uuid,
                    vchan_task_over_fn over, void *userdata, struct vchan_task **ret) {
        struct vchan_task *task = calloc(1, sizeof(*task));

        if (!task)
                return -ENOMEM;
        task->library = library;
        task->domid = domid;
        snprintf(task->uuid, sizeof(task->uuid), "%s", uuid);
        task->over = over;
        task->userdata = userdata;
        return begin(task, loop, ret);
}

int vchan_task_end(uv_loop_t *loop, struct vchan_server *server, vchan_task_over_fn over, void *userdata,
                   struct vchan_task **ret) {
        struct vchan_task *task = calloc(1, sizeof(*task));

        if (!task)
                return -ENOMEM;
        task->is_end = true;
        task->server = server;
        task->over = over;
        task->userdata = userdata;
        return begin(task, loop, ret);
}
