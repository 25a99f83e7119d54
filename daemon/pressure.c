#include "daemon/pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/loop.h"

#define PRESSURE_PATH "/proc/pressure/memory"

struct watch {
        struct pressure *pressure; /* NULL: it closes */
        uv_poll_t poll;
        int fd;
};

struct pressure {
        uv_loop_t *loop;
        struct pressure_settings settings;
        pressure_fn fn;
        void *userdata;
        struct watch *watch; /* or NULL */
        uv_timer_t calm;     /* runs while the host is short */
        bool is_short, complained;
};

/* ---- while it is watched ---- */

static void on_watch_closed(uv_handle_t *handle) {
        struct watch *watch = handle->data;

        close(watch->fd);
        free(watch);
}

static void watch_end(struct pressure *pressure) {
        if (!pressure->watch)
                return;
        pressure->watch->pressure = NULL;
        uv_close((uv_handle_t *)&pressure->watch->poll, on_watch_closed);
        pressure->watch = NULL;
}

static void relieve(struct pressure *pressure) {
        uv_timer_stop(&pressure->calm);
        if (!pressure->is_short)
                return;
        pressure->is_short = false;
        pressure->fn(pressure->userdata, false);
}

static void on_calm(uv_timer_t *timer) {
        relieve(timer->data);
}

/* A trigger that the kernel has taken away is an error that never ends. */
static bool is_broken(const struct watch *watch) {
        struct pollfd fd = { .fd = watch->fd, .events = POLLPRI };

        return poll(&fd, 1, 0) > 0 && (fd.revents & (POLLERR | POLLNVAL));
}

static void on_pressure(uv_poll_t *handle, int status, int events) {
        struct watch *watch = handle->data;
        struct pressure *pressure = watch->pressure;

        if (!pressure)
                return;
        if (status < 0 || is_broken(watch)) {
                log_warning("the kernel tells no more of memory pressure: what is idle is given back only in time, or by "
                            "\"dmabrokerctl release\"");
                watch_end(pressure);
                relieve(pressure);
                return;
        }
        pressure->is_short = true;
        uv_timer_start(&pressure->calm, on_calm, 2 * pressure->settings.window_ms, 0);
        pressure->fn(pressure->userdata, true);
}

int pressure_watch_consume_fd(struct pressure *pressure, int fd) {
        struct watch *watch = calloc(1, sizeof(*watch));
        int r;

        if (!watch) {
                close(fd);
                return -ENOMEM;
        }
        watch->pressure = pressure;
        watch->fd = fd;
        watch->poll.data = watch;
        r = uv_poll_init(pressure->loop, &watch->poll, fd);
        if (r < 0) {
                close(fd);
                free(watch);
                return r;
        }
        watch_end(pressure);
        pressure->watch = watch;
        r = loop_watch(&watch->poll, UV_PRIORITIZED, on_pressure);
        if (r < 0)
                watch_end(pressure);
        return r;
}

bool pressure_is_watched(const struct pressure *pressure) {
        return pressure->watch;
}

/* ---- the kernel's ---- */

/* -errno. */
static int open_trigger(const struct pressure_settings *settings) {
        char text[64];
        int fd = open(PRESSURE_PATH, O_RDWR | O_NONBLOCK | O_CLOEXEC), n, r;

        if (fd < 0)
                return -errno;
        n = snprintf(text, sizeof(text), "some %llu %llu", (unsigned long long)settings->stall_ms * 1000,
                     (unsigned long long)settings->window_ms * 1000);
        if (write(fd, text, (size_t)n + 1) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

static const char *advice(int error) {
        switch (error) {
        case ENOENT:
        case EOPNOTSUPP:
                return "this kernel has no pressure stall information (psi=1)";
        case EPERM:
        case EACCES:
        case EINVAL:
                return "older kernels want CAP_SYS_RESOURCE for that, others without it a window that is a multiple of 2s";
        default:
                return "set pressure = off in [memory] if that is as it should be";
        }
}

static void watch_begin(struct pressure *pressure) {
        int fd, r;

        if (!pressure->settings.watch)
                return;
        fd = open_trigger(&pressure->settings);
        r = fd < 0 ? fd : pressure_watch_consume_fd(pressure, fd);
        if (r == 0)
                return;
        if (!pressure->complained)
                log_info("memory pressure of the host is not watched: %s: %s; %s", PRESSURE_PATH, strerror(-r), advice(-r));
        pressure->complained = true;
}

void pressure_set(struct pressure *pressure, const struct pressure_settings *settings) {
        const struct pressure_settings *old = &pressure->settings;

        if (old->watch == settings->watch && old->stall_ms == settings->stall_ms && old->window_ms == settings->window_ms)
                return;
        pressure->settings = *settings;
        watch_end(pressure);
        relieve(pressure);
        watch_begin(pressure);
}

/* ---- beginning and end ---- */

int pressure_new(uv_loop_t *loop, const struct pressure_settings *settings, pressure_fn fn, void *userdata,
                 struct pressure **ret) {
        struct pressure *pressure = calloc(1, sizeof(*pressure));

        if (!pressure)
                return -ENOMEM;
        *pressure = (struct pressure){ .loop = loop, .settings = *settings, .fn = fn, .userdata = userdata };
        uv_timer_init(loop, &pressure->calm);
        pressure->calm.data = pressure;
        watch_begin(pressure);
        *ret = pressure;
        return 0;
}

static void on_closed(uv_handle_t *handle) {
        free(handle->data);
}

void pressure_close(struct pressure *pressure) {
        if (!pressure)
                return;
        watch_end(pressure);
        uv_close((uv_handle_t *)&pressure->calm, on_closed);
}
