#include <config.h>

#include "daemon/guest/libvirt-loop.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <uv.h>

#include "daemon/guest/thread.h"
#include "daemon/loop.h"

enum { PATIENCE_SECONDS = 1 };

/* Handles of libuv belong to the thread. All others only note in an item what is wanted, put it in the queue and wake the
 * thread, which then makes it so. */

/* libuv takes one handle for a descriptor: all watches on it share this. */
struct watched {
        uv_poll_t poll;
        int fd;
        struct item *items;
        struct watched *next;
};

/* A watch or a timeout. */
struct item {
        /* These do not change. */
        int id;
        bool is_timeout;
        int fd; /* -1: a timeout */
        union {
                virEventHandleCallback watch;
                virEventTimeoutCallback timeout;
        } callback;
        void *userdata;
        virFreeCallback free_userdata; /* or NULL */

        /* Under the mutex. */
        int wanted; /* VIR_EVENT_HANDLE_*, or milliseconds, or -1 */
        bool removed, queued;
        struct item *next, *next_queued;

        /* The thread's. */
        struct watched *watched; /* the descriptor's, once the watch is on it */
        struct watched *spare;   /* memory for it, if this is the first */
        struct item *next_watch;
        uv_timer_t timer;
        bool begun;  /* watched, or the timer initialised */
        bool broken; /* could not be watched, which was told */
};

static struct {
        pthread_mutex_t mutex;
        struct item *items; /* those not removed */
        struct item *queue, **queue_end;
        pthread_cond_t emptied; /* `items` is */
        int last_id;
        bool runs; /* `async` may be sent to */
        bool ending;

        pthread_mutex_t users_mutex; /* held while the thread starts or ends */
        unsigned n_users;
        pthread_t thread;

        /* The thread's. */
        uv_loop_t loop;
        uv_async_t async;
        struct watched *watched;
} events = {
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .emptied = PTHREAD_COND_INITIALIZER,
        .users_mutex = PTHREAD_MUTEX_INITIALIZER,
        .queue_end = &events.queue,
};

/* ---- what any thread does, with the mutex ---- */

static void enqueue(struct item *item) {
        if (!item->queued) {
                item->queued = true;
                item->next_queued = NULL;
                *events.queue_end = item;
                events.queue_end = &item->next_queued;
        }
        if (events.runs)
                uv_async_send(&events.async);
}

static struct item *dequeue(void) {
        struct item *item = events.queue;

        if (!item)
                return NULL;
        events.queue = item->next_queued;
        if (!events.queue)
                events.queue_end = &events.queue;
        item->queued = false;
        return item;
}

static struct item *find(int id) {
        struct item *item = events.items;

        while (item && item->id != id)
                item = item->next;
        return item;
}

static int add(struct item *item) {
        int id;

        pthread_mutex_lock(&events.mutex);
        do
                events.last_id = events.last_id == INT_MAX ? 1 : events.last_id + 1;
        while (find(events.last_id));
        id = item->id = events.last_id;
        item->next = events.items;
        events.items = item;
        enqueue(item);
        pthread_mutex_unlock(&events.mutex);
        return id;
}

static int add_handle(int fd, int wanted, virEventHandleCallback callback, void *userdata, virFreeCallback free_userdata) {
        struct item *item = calloc(1, sizeof(*item));
        struct watched *spare = calloc(1, sizeof(*spare));

        if (!item || !spare || fd < 0) {
                free(item);
                free(spare);
                return -1;
        }
        *item = (struct item){ .fd = fd, .callback.watch = callback, .userdata = userdata, .free_userdata = free_userdata,
                               .wanted = wanted, .spare = spare };
        return add(item);
}

static int add_timeout(int wanted, virEventTimeoutCallback callback, void *userdata, virFreeCallback free_userdata) {
        struct item *item = calloc(1, sizeof(*item));

        if (!item)
                return -1;
        *item = (struct item){ .is_timeout = true, .fd = -1, .callback.timeout = callback, .userdata = userdata,
                               .free_userdata = free_userdata, .wanted = wanted };
        return add(item);
}

static void update(int id, bool is_timeout, int wanted) {
        struct item *item;

        pthread_mutex_lock(&events.mutex);
        item = find(id);
        /* A timeout starts anew even if it is as long as before. */
        if (item && item->is_timeout == is_timeout && (is_timeout || item->wanted != wanted)) {
                item->wanted = wanted;
                enqueue(item);
        }
        pthread_mutex_unlock(&events.mutex);
}

static void update_handle(int id, int wanted) {
        update(id, false, wanted);
}

static void update_timeout(int id, int wanted) {
        update(id, true, wanted);
}

static int take_away(int id, bool is_timeout) {
        struct item **link = &events.items, *item;

        pthread_mutex_lock(&events.mutex);
        while (*link && (*link)->id != id)
                link = &(*link)->next;
        item = *link;
        if (item && item->is_timeout == is_timeout) {
                *link = item->next;
                item->removed = true;
                enqueue(item);
                if (!events.items)
                        pthread_cond_signal(&events.emptied);
        } else {
                item = NULL;
        }
        pthread_mutex_unlock(&events.mutex);
        return item ? 0 : -1;
}

static int remove_handle(int id) {
        return take_away(id, false);
}

static int remove_timeout(int id) {
        return take_away(id, true);
}

const struct libvirt_loop_table libvirt_loop_table = {
        .add_handle = add_handle,
        .update_handle = update_handle,
        .remove_handle = remove_handle,
        .add_timeout = add_timeout,
        .update_timeout = update_timeout,
        .remove_timeout = remove_timeout,
};

/* ---- calling back ---- */

/* What is wanted of the item now; -1 or 0 if nothing is. */
static int wanted_of(const struct item *item) {
        int wanted;

        pthread_mutex_lock(&events.mutex);
        wanted = item->removed ? item->is_timeout ? -1 : 0 : item->wanted;
        pthread_mutex_unlock(&events.mutex);
        return wanted;
}

static void on_timer(uv_timer_t *timer) {
        struct item *item = timer->data;

        if (wanted_of(item) >= 0)
                item->callback.timeout(item->id, item->userdata);
}

static int watched_mask(const struct watched *watched) {
        int mask = 0;

        for (struct item *item = watched->items; item; item = item->next_watch) {
                int wanted = wanted_of(item);

                mask |= wanted & VIR_EVENT_HANDLE_READABLE ? UV_READABLE : 0;
                mask |= wanted & VIR_EVENT_HANDLE_WRITABLE ? UV_WRITABLE : 0;
                /* An error is told of unasked, but only of what is watched at all. */
                mask |= wanted & (VIR_EVENT_HANDLE_HANGUP | VIR_EVENT_HANDLE_ERROR) ? UV_DISCONNECT : 0;
        }
        return mask;
}

static void watched_update(struct watched *watched);

/* Callbacks may remove and add: that changes the list of items only later, when the queue is looked at. */
static void on_poll(uv_poll_t *poll, int status, int ready) {
        struct watched *watched = poll->data;
        int told = 0;

        if (status < 0)
                told = VIR_EVENT_HANDLE_ERROR;
        told |= ready & UV_READABLE ? VIR_EVENT_HANDLE_READABLE : 0;
        told |= ready & UV_WRITABLE ? VIR_EVENT_HANDLE_WRITABLE : 0;
        told |= ready & UV_DISCONNECT ? VIR_EVENT_HANDLE_HANGUP : 0;
        for (struct item *item = watched->items; item; item = item->next_watch) {
                int wanted = wanted_of(item), its = told & (wanted | VIR_EVENT_HANDLE_ERROR | VIR_EVENT_HANDLE_HANGUP);

                if (wanted != 0 && its != 0)
                        item->callback.watch(item->id, item->fd, its, item->userdata);
        }
        /* libuv has stopped the handle. */
        if (status < 0)
                watched_update(watched);
}

static void tell_broken(struct item *item) {
        if (item->broken)
                return;
        item->broken = true;
        if (wanted_of(item) != 0)
                item->callback.watch(item->id, item->fd, VIR_EVENT_HANDLE_ERROR, item->userdata);
}

static void watched_update(struct watched *watched) {
        int mask = watched_mask(watched);

        if (mask == 0)
                uv_poll_stop(&watched->poll);
        else if (loop_watch(&watched->poll, mask, on_poll) < 0)
                for (struct item *item = watched->items; item; item = item->next_watch)
                        tell_broken(item);
}

/* ---- making it so ---- */

static void free_item(struct item *item) {
        if (item->free_userdata)
                item->free_userdata(item->userdata);
        free(item->spare);
        free(item);
}

static void on_timer_closed(uv_handle_t *handle) {
        free_item(handle->data);
}

static void on_watched_closed(uv_handle_t *handle) {
        struct watched *watched = handle->data;

        /* There is one if this was the last watch, which the handle's end frees. */
        if (watched->items)
                free_item(watched->items);
        free(watched);
}

static struct watched *watched_find(int fd) {
        struct watched *watched = events.watched;

        while (watched && watched->fd != fd)
                watched = watched->next;
        return watched;
}

/* The descriptor is no more in the epoll set when this returns, and its number may be used for another one. */
static void watched_close(struct watched *watched) {
        struct watched **link = &events.watched;

        while (*link != watched)
                link = &(*link)->next;
        *link = watched->next;
        uv_close((uv_handle_t *)&watched->poll, on_watched_closed);
}

/* Making the handle changes the descriptor, whose number is another one's soon after the watch is removed. */
static int watched_init(struct watched *watched, const struct item *item) {
        int r;

        pthread_mutex_lock(&events.mutex);
        r = item->removed ? UV_EBADF : uv_poll_init(&events.loop, &watched->poll, item->fd);
        pthread_mutex_unlock(&events.mutex);
        return r;
}

static void watch_begin(struct item *item) {
        struct watched *watched = watched_find(item->fd);

        if (!watched) {
                watched = item->spare;
                if (watched_init(watched, item) < 0) {
                        tell_broken(item);
                        return;
                }
                item->spare = NULL;
                watched->poll.data = watched;
                watched->fd = item->fd;
                watched->next = events.watched;
                events.watched = watched;
        }
        item->watched = watched;
        item->next_watch = watched->items;
        watched->items = item;
        item->begun = true;
}

static void watch_end(struct item *item) {
        struct watched *watched = item->watched;
        struct item **link = &watched->items;

        if (watched->items == item && !item->next_watch) {
                watched_close(watched);
                return;
        }
        while (*link != item)
                link = &(*link)->next_watch;
        *link = item->next_watch;
        watched_update(watched);
        free_item(item);
}

static void timeout_update(struct item *item, int wanted) {
        if (!item->begun) {
                uv_timer_init(&events.loop, &item->timer);
                item->timer.data = item;
                item->begun = true;
        }
        if (wanted < 0) {
                uv_timer_stop(&item->timer);
                return;
        }
        uv_update_time(&events.loop);
        uv_timer_start(&item->timer, on_timer, (uint64_t)wanted, wanted > 0 ? (uint64_t)wanted : 1);
}

static void make_so(struct item *item, bool removed, int wanted) {
        if (removed && !item->begun) {
                free_item(item);
        } else if (item->is_timeout) {
                if (removed)
                        uv_close((uv_handle_t *)&item->timer, on_timer_closed);
                else
                        timeout_update(item, wanted);
        } else if (removed) {
                watch_end(item);
        } else if (!item->broken) {
                if (!item->begun)
                        watch_begin(item);
                if (item->begun)
                        watched_update(item->watched);
        }
}

/* Under this there is no frame of libvirt's. Whether there was anything. */
static bool look_at_queue(void) {
        struct item *item;
        bool any = false;

        pthread_mutex_lock(&events.mutex);
        while ((item = dequeue())) {
                bool removed = item->removed;
                int wanted = item->wanted;

                any = true;
                pthread_mutex_unlock(&events.mutex);
                make_so(item, removed, wanted);
                pthread_mutex_lock(&events.mutex);
        }
        pthread_mutex_unlock(&events.mutex);
        return any;
}

/* ---- the thread ---- */

static void on_async(uv_async_t *async) {
        look_at_queue();
        pthread_mutex_lock(&events.mutex);
        if (events.ending)
                uv_stop(&events.loop);
        pthread_mutex_unlock(&events.mutex);
}

static void set_running(bool runs) {
        pthread_mutex_lock(&events.mutex);
        events.runs = runs;
        events.ending = false;
        pthread_mutex_unlock(&events.mutex);
}

/* When it shall end, nothing is left but what was removed. */
static void *thread_main(void *userdata) {
        uv_run(&events.loop, UV_RUN_DEFAULT);
        set_running(false);
        uv_close((uv_handle_t *)&events.async, NULL);
        /* What is freed may remove more. */
        while (look_at_queue())
                uv_run(&events.loop, UV_RUN_DEFAULT);
        uv_run(&events.loop, UV_RUN_DEFAULT);
        return NULL;
}

static int thread_begin(void) {
        int r = loop_init(&events.loop);

        if (r < 0)
                return r;
        r = uv_async_init(&events.loop, &events.async, on_async);
        if (r < 0)
                goto fail;
        r = loop_prepare(&events.loop);
        if (r < 0)
                goto fail_async;
        set_running(true);
        r = guest_thread_start(&events.thread, "libvirt-events", thread_main, NULL);
        if (r < 0)
                goto fail_running;
        /* For what was added while it did not run. */
        uv_async_send(&events.async);
        return 0;

fail_running:
        set_running(false);
fail_async:
        uv_close((uv_handle_t *)&events.async, NULL);
        uv_run(&events.loop, UV_RUN_DEFAULT);
fail:
        uv_loop_close(&events.loop);
        return r;
}

/* What libvirt still has to take away after the last connection's end, it takes away in the thread, soon. */
static bool wait_until_empty(void) {
        struct timespec until;
        int r = 0;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PATIENCE_SECONDS;
        pthread_mutex_lock(&events.mutex);
        while (events.items && r == 0)
                r = pthread_cond_timedwait(&events.emptied, &events.mutex, &until);
        events.ending = !events.items;
        if (events.ending)
                uv_async_send(&events.async);
        pthread_mutex_unlock(&events.mutex);
        return r == 0;
}

static void thread_end(void) {
        pthread_join(events.thread, NULL);
        uv_loop_close(&events.loop);
}

int libvirt_loop_ref(void) {
        int r = 0;

        pthread_mutex_lock(&events.users_mutex);
        if (events.n_users == 0 && !events.runs)
                r = thread_begin();
        if (r == 0)
                events.n_users++;
        pthread_mutex_unlock(&events.users_mutex);
        return r;
}

void libvirt_loop_unref(void) {
        pthread_mutex_lock(&events.users_mutex);
        /* If something is left, the thread goes on with it, and is there for who comes next. */
        if (--events.n_users == 0 && wait_until_empty())
                thread_end();
        pthread_mutex_unlock(&events.users_mutex);
}

struct turn {
        pthread_mutex_t mutex;
        pthread_cond_t came;
        bool is_over;
};

static void on_turn(int id, void *userdata) {
        remove_timeout(id);
}

static void on_turn_over(void *userdata) {
        struct turn *turn = userdata;

        pthread_mutex_lock(&turn->mutex);
        turn->is_over = true;
        pthread_cond_signal(&turn->came);
        pthread_mutex_unlock(&turn->mutex);
}

/* Timeouts that are due at the same time come in the order in which they were asked for. */
int libvirt_loop_wait_turn(void) {
        struct turn turn = { .mutex = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER };

        if (add_timeout(0, on_turn, &turn, on_turn_over) < 0)
                return -ENOMEM;
        pthread_mutex_lock(&turn.mutex);
        while (!turn.is_over)
                pthread_cond_wait(&turn.came, &turn.mutex);
        pthread_mutex_unlock(&turn.mutex);
        pthread_cond_destroy(&turn.came);
        pthread_mutex_destroy(&turn.mutex);
        return 0;
}
