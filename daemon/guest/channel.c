#include "daemon/guest/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/rpc/listener.h"

enum { ACCEPTS_AT_ONCE = 8, PAUSE_MS = 500, TELL_MS = 1000 };

struct channel {
        uv_loop_t *loop;
        struct channel_options options;
        char *path;
        ino_t inode;
        int fd;
        uv_poll_t poll;
        uv_timer_t pause;
        unsigned n_handles;
        uint64_t tell_ms; /* when the next refusal is worth a warning: whoever knocks often shall not fill the log */
        void (*closed)(void *userdata);
};

static void on_readable(uv_poll_t *handle, int status, int events);

static void on_pause_over(uv_timer_t *timer);

static void pause_accepting(struct channel *channel) {
        uv_poll_stop(&channel->poll);
        uv_timer_start(&channel->pause, on_pause_over, PAUSE_MS, 0);
}

static void resume_accepting(struct channel *channel) {
        if (loop_watch(&channel->poll, UV_READABLE, on_readable) < 0)
                pause_accepting(channel);
}

static void on_pause_over(uv_timer_t *timer) {
        resume_accepting(timer->data);
}

void channel_refuse(struct channel *channel, int fd, pid_t pid, const char *why) {
        if (uv_now(channel->loop) >= channel->tell_ms)
                log_warning("a process (pid %ld) that is not the guest's QEMU was hung up on at %s: %s", (long)pid, channel->path,
                            why);
        channel->tell_ms = uv_now(channel->loop) + TELL_MS;
        close(fd);
}

/* Consumes fd. */
static void take(struct channel *channel, int fd) {
        struct ucred who = { 0 };
        socklen_t length = sizeof(who);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) < 0)
                channel_refuse(channel, fd, 0, strerror(errno));
        else
                channel->options.connected(channel->options.userdata, fd, &who);
}

static void on_readable(uv_poll_t *handle, int status, int events) {
        struct channel *channel = handle->data;
        int fd;

        for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
                fd = accept4(channel->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fd >= 0)
                        take(channel, fd);
                else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                        pause_accepting(channel);
                        return;
                } else if (errno != ECONNABORTED && errno != EINTR)
                        return;
        }
}

static void on_closed(uv_handle_t *handle) {
        struct channel *channel = handle->data;

        if (--channel->n_handles)
                return;
        close(channel->fd);
        if (channel->closed)
                channel->closed(channel->options.userdata);
        free(channel->path);
        free(channel);
}

void channel_close(struct channel *channel, void (*closed)(void *userdata)) {
        channel->closed = closed;
        listener_unlink(channel->path, channel->inode);
        uv_close((uv_handle_t *)&channel->poll, on_closed);
        uv_close((uv_handle_t *)&channel->pause, on_closed);
}

const char *channel_path(const struct channel *channel) {
        return channel->path;
}

int channel_new(uv_loop_t *loop, const char *path, const struct channel_options *options, struct channel **ret,
                struct failure *failure) {
        struct channel *channel = calloc(1, sizeof(*channel));
        int r;

        if (!channel)
                return failure_set(failure, REASON_no_memory, "there is no memory for a channel");
        *channel = (struct channel){ .loop = loop, .options = *options, .fd = -1, .n_handles = 2 };
        channel->path = strdup(path);
        r = channel->path ? listener_bind(path, options->is_open ? 0666 : 0600, "directory in [guests]", &channel->fd,
                                          &channel->inode, failure)
                          : failure_set(failure, REASON_no_memory, "there is no memory for a channel");
        if (r < 0)
                goto fail;
        r = uv_poll_init(loop, &channel->poll, channel->fd);
        if (r < 0) {
                failure_set_errno(failure, REASON_source_unavailable, -r, "%s cannot be watched: %s", path, uv_strerror(r));
                goto fail_bound;
        }
        uv_timer_init(loop, &channel->pause);
        channel->poll.data = channel->pause.data = channel;
        resume_accepting(channel);
        *ret = channel;
        return 0;

fail_bound:
        listener_unlink(path, channel->inode);
        close(channel->fd);
fail:
        free(channel->path);
        free(channel);
        return r;
}
