#include "daemon/guest/xen-channel.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/guest/vchan-library.h"
#include "daemon/guest/vchan-task.h"
#include "daemon/log.h"
#include "daemon/loop.h"

enum {
        PIECE_SIZE = 64 << 10,
        PIECES_AT_ONCE = 4, /* then it is others' turn */
        MAKE_AGAIN_MS = 5000,
        EARLY_MS = 100,      /* from one look whether xenstore knows the domain to the next, */
        EARLY_MAX = 100,     /* of which there are so many before it is told that it does not */
        TALK_AGAIN_MS = 100, /* from the beginning of one conversation to that of the next */
        REFUSED_MS = 1000,   /* likewise where it was not the guest that ended it */
        END_PATIENCE_MS = 2000,
};

/* Bytes on their way: no more are read before all of these are written. */
struct piece {
        size_t start, end;
        char bytes[PIECE_SIZE];
};

/* Frees itself when its handle is closed. */
struct talk {
        struct xen_channel *channel;
        uv_poll_t poll;
        int fd; /* our end */
};

struct xen_channel {
        uv_loop_t *loop;
        const struct vchan_library *library;
        const struct xen_channel_listener *ops;
        const char *name;
        void *userdata;
        uint32_t domid;
        struct vchan_task *task;   /* making it, or ending it; NULL: neither */
        struct libxenvchan *vchan; /* NULL: none yet, or being ended */
        uv_poll_t event;           /* as long as is_watched */
        bool is_watched;
        struct talk *talk;         /* NULL: nobody is there */
        uint64_t talk_at_ms;       /* before that no other one begins */
        struct piece to_daemon, to_guest;
        bool is_broken;     /* the other end of the socket is closed */
        bool is_unfinished; /* there may be more to be passed on than was */
        bool is_told;       /* that it cannot be made */
        unsigned n_early;
        uv_timer_t timer;
        unsigned n_parts; /* talks, task, event, that are on the loop */
        bool closing;
        void (*closed)(void *userdata);
        void *closed_userdata;
};

static void settle(struct xen_channel *channel);
static void pump(struct xen_channel *channel);
static void on_timer(uv_timer_t *timer);

static void part_over(struct xen_channel *channel) {
        channel->n_parts--;
        settle(channel);
}

/* ---- conversations ---- */

static void on_talk_closed(uv_handle_t *handle) {
        struct talk *talk = handle->data;
        struct xen_channel *channel = talk->channel;

        close(talk->fd);
        free(talk);
        part_over(channel);
}

static void hang_up(struct xen_channel *channel) {
        struct talk *talk = channel->talk;

        if (!talk)
                return;
        channel->talk = NULL;
        channel->is_broken = false;
        channel->to_daemon.start = channel->to_daemon.end = channel->to_guest.start = channel->to_guest.end = 0;
        /* What was said before is read still. */
        shutdown(talk->fd, SHUT_RDWR);
        uv_close((uv_handle_t *)&talk->poll, on_talk_closed);
}

static void on_socket(uv_poll_t *poll, int status, int events) {
        const struct talk *talk = poll->data;

        /* With room for what it was read for before, it is found out by reading. */
        if (status < 0 || (events & UV_DISCONNECT && !(events & UV_READABLE)))
                talk->channel->is_broken = true;
        pump(talk->channel);
}

static int talk_new(struct xen_channel *channel, int *ret_fd) {
        struct talk *talk = calloc(1, sizeof(*talk));
        int ends[2], r = 0;

        if (!talk)
                return -ENOMEM;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
                r = -errno;
                free(talk);
                return r;
        }
        r = uv_poll_init(channel->loop, &talk->poll, ends[0]);
        if (r < 0) {
                close(ends[0]);
                close(ends[1]);
                free(talk);
                return r;
        }
        talk->channel = channel;
        talk->fd = ends[0];
        talk->poll.data = talk;
        channel->talk = talk;
        channel->n_parts++;
        *ret_fd = ends[1];
        return 0;
}

static void begin_talk(struct xen_channel *channel) {
        const uint64_t now = uv_now(channel->loop);
        int fd = -1, r;

        if (now < channel->talk_at_ms) {
                uv_timer_start(&channel->timer, on_timer, channel->talk_at_ms - now, 0);
                return;
        }
        channel->talk_at_ms = now + TALK_AGAIN_MS;
        r = talk_new(channel, &fd);
        if (r == 0) {
                channel->ops->connected(channel->userdata, fd);
                return;
        }
        log_warning("the guest %s is not talked to: %s", channel->name, strerror(-r));
        channel->talk_at_ms = now + MAKE_AGAIN_MS;
        uv_timer_start(&channel->timer, on_timer, MAKE_AGAIN_MS, 0);
}

/* ---- passing on ---- */

static bool is_guest_there(const struct xen_channel *channel) {
        return __atomic_load_n(&channel->vchan->ring->cli_live, __ATOMIC_ACQUIRE) == 1;
}

/* false: there is none now, and the event tells of more. */
static bool hear_guest(struct xen_channel *channel) {
        struct piece *piece = &channel->to_daemon;
        int n;

        if (piece->start < piece->end)
                return true;
        n = channel->library->libxenvchan_read(channel->vchan, piece->bytes, sizeof(piece->bytes));
        piece->start = 0;
        piece->end = n > 0 ? (size_t)n : 0;
        return n > 0;
}

/* false: it takes no more now. */
static bool tell_daemon(struct xen_channel *channel) {
        struct piece *piece = &channel->to_daemon;
        ssize_t n = send(channel->talk->fd, piece->bytes + piece->start, piece->end - piece->start, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN && errno != EINTR)
                channel->is_broken = true;
        piece->start += n > 0 ? (size_t)n : 0;
        return n > 0;
}

static bool hear_daemon(struct xen_channel *channel) {
        struct piece *piece = &channel->to_guest;
        ssize_t n;

        if (piece->start < piece->end)
                return true;
        n = recv(channel->talk->fd, piece->bytes, sizeof(piece->bytes), MSG_DONTWAIT);
        channel->is_broken |= n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
        piece->start = 0;
        piece->end = n > 0 ? (size_t)n : 0;
        return n > 0;
}

/* Where nobody is, it is nobody's. */
static bool tell_guest(struct xen_channel *channel, bool is_there) {
        struct piece *piece = &channel->to_guest;
        int n = (int)(piece->end - piece->start);

        if (is_there)
                n = channel->library->libxenvchan_write(channel->vchan, piece->bytes + piece->start, (size_t)n);
        piece->start += n > 0 ? (size_t)n : 0;
        return n > 0;
}

static void watch_socket(struct xen_channel *channel) {
        const bool is_heard = channel->to_guest.start == channel->to_guest.end;
        const bool has_bytes = channel->to_daemon.start < channel->to_daemon.end || channel->is_unfinished;
        const int events = (is_heard ? UV_READABLE : 0) | (has_bytes ? UV_WRITABLE : 0) | UV_DISCONNECT;

        channel->is_broken |= loop_watch(&channel->talk->poll, events, on_socket) < 0;
}

static void pass_on(struct xen_channel *channel, bool is_there) {
        unsigned i;

        for (i = 0; i < PIECES_AT_ONCE && hear_guest(channel) && tell_daemon(channel); i++)
                ;
        channel->is_unfinished = i == PIECES_AT_ONCE;
        for (i = 0; i < PIECES_AT_ONCE && hear_daemon(channel) && tell_guest(channel, is_there); i++)
                ;
        /* Its last words were heard, unless it had said more than anybody could: whoever comes next does not wait for that. */
        channel->is_broken |= !is_there;
}

static void pump(struct xen_channel *channel) {
        bool is_there;

        if (channel->closing || !channel->vchan)
                return;
        is_there = is_guest_there(channel);
        if (!channel->talk && is_there)
                begin_talk(channel);
        if (!channel->talk)
                return;
        if (!channel->is_broken)
                pass_on(channel, is_there);
        if (!channel->is_broken)
                watch_socket(channel);
        if (!channel->is_broken)
                return;
        hang_up(channel);
        /* The guest's program goes on, and begins anew. */
        if (is_there) {
                channel->talk_at_ms = uv_now(channel->loop) + REFUSED_MS;
                begin_talk(channel);
        }
}

static void on_event(uv_poll_t *poll, int status, int events) {
        struct xen_channel *channel = poll->data;

        channel->library->libxenvchan_wait(channel->vchan);
        pump(channel);
}

/* ---- making it ---- */

static void make(struct xen_channel *channel);

static void make_later(struct xen_channel *channel, const char *why) {
        if (!channel->is_told)
                log_warning("the guest %s has no channel yet: %s", channel->name, why);
        channel->is_told = true;
        uv_timer_start(&channel->timer, on_timer, MAKE_AGAIN_MS, 0);
}

static void on_not_made(struct xen_channel *channel, bool is_early) {
        if (is_early && ++channel->n_early < EARLY_MAX)
                uv_timer_start(&channel->timer, on_timer, EARLY_MS, 0);
        else
                make_later(channel, is_early ? "xenstore does not know the domain"
                                             : "it cannot be shared with it, or xenstore cannot tell it; is xen_gntalloc "
                                               "loaded, and xenstored running?");
}

static void on_made(void *userdata, struct libxenvchan *vchan, bool is_early) {
        struct xen_channel *channel = userdata;
        int r;

        channel->task = NULL;
        channel->vchan = vchan;
        if (channel->closing) {
                part_over(channel);
                return;
        }
        channel->n_parts--;
        if (!vchan) {
                on_not_made(channel, is_early);
                return;
        }
        r = uv_poll_init(channel->loop, &channel->event, channel->library->libxenvchan_fd_for_select(vchan));
        if (r == 0) {
                channel->event.data = channel;
                channel->is_watched = true;
                channel->n_parts++;
                r = loop_watch(&channel->event, UV_READABLE, on_event);
        }
        if (r < 0)
                log_error("the channel of the guest %s cannot be watched: %s", channel->name, strerror(-r));
        else if (channel->is_told)
                log_info("the guest %s has its channel", channel->name);
        pump(channel);
}

static void make(struct xen_channel *channel) {
        int r = vchan_task_make(channel->loop, channel->library, channel->domid, on_made, channel, &channel->task);

        if (r < 0)
                make_later(channel, strerror(-r));
        else
                channel->n_parts++;
}

static void on_timer(uv_timer_t *timer) {
        struct xen_channel *channel = timer->data;

        if (channel->closing) {
                if (channel->task)
                        vchan_task_leave(channel->task);
        } else if (!channel->vchan)
                make(channel);
        else
                pump(channel);
}

int xen_channel_new(uv_loop_t *loop, uint32_t domid, const char *name, const struct xen_channel_listener *ops, void *userdata,
                    struct xen_channel **ret) {
        const char *why = NULL;
        const struct vchan_library *library = vchan_library(&why);
        struct xen_channel *channel;

        if (!library) {
                log_warning("the guest %s gets no channel: %s", name, why);
                return -ENOPKG;
        }
        channel = calloc(1, sizeof(*channel));
        if (!channel)
                return -ENOMEM;
        channel->loop = loop;
        channel->library = library;
        channel->ops = ops;
        channel->name = name;
        channel->userdata = userdata;
        channel->domid = domid;
        uv_timer_init(loop, &channel->timer);
        channel->timer.data = channel;
        make(channel);
        *ret = channel;
        return 0;
}

/* ---- end ---- */

static void on_timer_closed(uv_handle_t *handle) {
        struct xen_channel *channel = handle->data;

        channel->closed(channel->closed_userdata);
        free(channel);
}

static void on_ended(void *userdata, struct libxenvchan *vchan, bool is_early) {
        struct xen_channel *channel = userdata;

        channel->task = NULL;
        part_over(channel);
}

/* What xenstore says of it goes with it. What it has cannot be given back otherwise: then it stays as long as the daemon. */
static void end_vchan(struct xen_channel *channel) {
        struct libxenvchan *vchan = channel->vchan;
        int r;

        channel->vchan = NULL;
        r = vchan_task_end(channel->loop, channel->library, vchan, on_ended, channel, &channel->task);
        if (r < 0)
                log_error("what was shared with the guest %s stays shared: %s", channel->name, strerror(-r));
        else
                channel->n_parts++;
}

static void settle(struct xen_channel *channel) {
        if (!channel->closing || channel->n_parts)
                return;
        if (channel->vchan)
                end_vchan(channel);
        if (!channel->n_parts && !uv_is_closing((uv_handle_t *)&channel->timer))
                uv_close((uv_handle_t *)&channel->timer, on_timer_closed);
}

static void on_event_closed(uv_handle_t *handle) {
        part_over(handle->data);
}

void xen_channel_close(struct xen_channel *channel, void (*closed)(void *userdata), void *userdata) {
        if (!channel)
                return;
        channel->closing = true;
        channel->closed = closed;
        channel->closed_userdata = userdata;
        hang_up(channel);
        if (channel->task)
                vchan_task_leave(channel->task);
        if (channel->is_watched)
                uv_close((uv_handle_t *)&channel->event, on_event_closed);
        uv_timer_start(&channel->timer, on_timer, END_PATIENCE_MS, 0);
        settle(channel);
}
