#include "client/port.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/channel.h"
#include "client/clock.h"
#include "client/error.h"
#include "client/port-device.h"
#include "proto/frame.h"

enum {
        PIECE_SIZE = 64 << 10,
        MEMBERS_MAX = 8,      /* a link's, an agent's, and those that they have just given up */
        SYNC_AGAIN_MS = 2000, /* the first ping may have come to a daemon that ended over it */
        PROBE_MS = 2000,      /* of silence while calls wait */
        LOST_MS = 5000,       /* without an answer to that */
        EVENTS_MAX = 1 << 20, /* bytes that wait for a member that does not read */
};

/* Bytes on their way. */
struct bytes {
        char *at;
        size_t used, size;
};

/* One connection. */
struct member {
        struct member *next;
        char prefix[PORT_PREFIX_SIZE];
        int fd; /* our end */
        bool events;
        bool broken;     /* to be ended */
        size_t n_calls;  /* sent and not answered */
        struct bytes in; /* the beginning of a line of its own */
        struct bytes out;
};

struct port {
        const struct port_device_ops *ops;
        char *path;
        int wake; /* eventfd: something below has changed */
        pthread_mutex_t lock;   /* guards all below; not held while waiting */
        pthread_cond_t changed; /* what was distrusted is closed */
        pthread_t thread;
        bool running, stop, distrusted;
        struct member *members; /* others than the thread only add some */
        size_t n_members;

        struct port_device *device; /* NULL: closed. The thread closes it; others open it */
        bool synced;
        char sync_id[32];
        uint64_t sync_ms; /* when it was asked last */
        uint64_t heard_ms; /* when something came, or was waited for again */
        uint64_t probe_ms; /* when it was asked whether anybody is there; 0: since then something came */
        struct frame_reader reader;
        struct bytes out;
        char piece[PIECE_SIZE];
};

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

/* ---- bytes ---- */

static int bytes_add(struct bytes *bytes, const void *more, size_t n) {
        size_t size = bytes->size ? bytes->size : 1024;
        char *at;

        while (size - bytes->used < n)
                size *= 2;
        if (size != bytes->size) {
                at = realloc(bytes->at, size);
                if (!at)
                        return -ENOMEM;
                bytes->at = at;
                bytes->size = size;
        }
        if (n)
                memcpy(bytes->at + bytes->used, more, n);
        bytes->used += n;
        return 0;
}

static void bytes_clear(struct bytes *bytes) {
        free(bytes->at);
        *bytes = (struct bytes){ 0 };
}

/* The first n are done with. What is not needed is not kept. */
static void bytes_drop(struct bytes *bytes, size_t n) {
        bytes->used -= n;
        if (bytes->used)
                memmove(bytes->at, bytes->at + n, bytes->used);
        else
                bytes_clear(bytes);
}

/* ---- members ---- */

static void member_free(struct member *member) {
        close(member->fd);
        bytes_clear(&member->in);
        bytes_clear(&member->out);
        free(member);
}

static void member_flush(struct member *member) {
        ssize_t n = 1;

        while (member->out.used && n > 0) {
                n = send(member->fd, member->out.at, member->out.used, MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n > 0)
                        bytes_drop(&member->out, n);
                else if (n < 0 && errno != EAGAIN && errno != EINTR)
                        member->broken = true;
        }
}

/* One line, without its LF. */
static void member_tell(struct member *member, const char *line, size_t length) {
        if (member->broken)
                return;
        if (bytes_add(&member->out, line, length) || bytes_add(&member->out, "\n", 1))
                member->broken = true;
        else
                member_flush(member);
}

static size_t calls_waiting(const struct port *port) {
        size_t n = 0;

        for (const struct member *member = port->members; member; member = member->next)
                n += member->n_calls;
        return n;
}

/* Whole lines go on to the device; what has begun waits for its end, so that no line gets into another. */
static int member_pass_on(struct port *port, struct member *member, size_t n) {
        const char *end = memrchr(port->piece, '\n', n);
        size_t whole = end ? (size_t)(end + 1 - port->piece) : 0;
        int r = 0;

        if (whole) {
                if (!calls_waiting(port))
                        port->heard_ms = clock_ms();
                r = bytes_add(&port->out, member->in.at, member->in.used);
                if (!r)
                        r = bytes_add(&port->out, port->piece, whole);
                bytes_clear(&member->in);
                for (const char *at = port->piece; at <= end; at++)
                        member->n_calls += *at == '\n';
        }
        if (!r && whole < n)
                r = bytes_add(&member->in, port->piece + whole, n - whole);
        return r;
}

/* 0, or -ENOMEM: half a line may be in the queue. */
static int member_receive(struct port *port, struct member *member) {
        ssize_t n = recv(member->fd, port->piece, sizeof(port->piece), MSG_DONTWAIT);

        if (n > 0)
                return member_pass_on(port, member, n);
        if (!n || (errno != EAGAIN && errno != EINTR))
                member->broken = true;
        return 0;
}

static void end_broken(struct port *port) {
        struct member **place = &port->members, *member;

        while ((member = *place)) {
                if (!member->broken) {
                        place = &member->next;
                        continue;
                }
                *place = member->next;
                port->n_members--;
                member_free(member);
        }
}

/* ---- what comes from the host ---- */

static void tell_listeners(struct port *port, const char *line, size_t length) {
        for (struct member *member = port->members; member; member = member->next) {
                if (!member->events)
                        continue;
                /* It reads again, or it joins again and asks what it has missed. */
                if (member->out.used > EVENTS_MAX)
                        member->broken = true;
                member_tell(member, line, length);
        }
}

/* An error without an id is about a request that the daemon could not read: whose, is known if only one member waits. */
static int tell_asker(struct port *port, const char *line, size_t length) {
        struct member *asker = NULL;

        for (struct member *member = port->members; member; member = member->next) {
                if (member->n_calls && asker)
                        return -EPROTO;
                if (member->n_calls)
                        asker = member;
        }
        if (!asker)
                return 0;
        asker->n_calls--;
        member_tell(asker, line, length);
        return 0;
}

static void tell_owner(struct port *port, const char *id, const char *line, size_t length) {
        for (struct member *member = port->members; member; member = member->next)
                if (!strncmp(id, member->prefix, strlen(member->prefix))) {
                        member->n_calls -= member->n_calls > 0;
                        member_tell(member, line, length);
                }
}

/* -errno: this is no conversation any more. */
static int take_line(struct port *port, const char *line, size_t length) {
        json_t *message = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
        const char *id = json_string_value(json_object_get(message, "id"));
        bool is_request = json_object_get(message, "method");
        int r = 0;

        if (!port->synced)
                port->synced = id && !is_request && !strcmp(id, port->sync_id);
        else if (!json_is_object(message))
                r = -EPROTO;
        else if (is_request)
                tell_listeners(port, line, length);
        else if (id)
                tell_owner(port, id, line, length);
        else if (json_object_get(message, "error"))
                r = tell_asker(port, line, length);
        json_decref(message);
        return r;
}

static int take_piece(struct port *port, size_t size) {
        const char *piece = port->piece, *line;
        size_t length;
        int r = 0;

        port->heard_ms = clock_ms();
        port->probe_ms = 0;
        while (!r) {
                enum frame_event event = frame_reader_next(&port->reader, &piece, &size, &line, &length);

                if (event == FRAME_MORE)
                        break;
                if (event == FRAME_TEXT)
                        r = take_line(port, line, length);
                else if (port->synced)
                        r = event == FRAME_RESET ? -ECONNRESET : event == FRAME_OVERSIZE ? -EMSGSIZE : -ENOMEM;
        }
        return r;
}

/* A device need not tell a second time of what is left after a piece that was full. */
static int receive(struct port *port) {
        ssize_t n;
        int r;

        do {
                n = port->ops->read(port->device, port->piece, sizeof(port->piece));
                if (n < 0)
                        return n == -EAGAIN || n == -EINTR ? 0 : (int)n;
                r = n ? take_piece(port, n) : -ECONNRESET;
        } while (!r && n == sizeof(port->piece));
        return r;
}

/* ---- what goes to the host ---- */

static int flush(struct port *port) {
        ssize_t n = 1;

        while (port->out.used && n > 0) {
                n = port->ops->write(port->device, port->out.at, port->out.used);
                if (n > 0)
                        bytes_drop(&port->out, n);
                else if (n < 0 && n != -EAGAIN && n != -EINTR)
                        return (int)n;
        }
        return 0;
}

static int add_ping(struct port *port, const char *before, const char *id) {
        char text[128];
        int length = snprintf(text, sizeof(text), "%s{\"jsonrpc\":\"2.0\",\"id\":\"%s\",\"method\":\"broker.ping\"}\n", before,
                              id);

        return bytes_add(&port->out, text, length);
}

static int sync_ask(struct port *port) {
        port->sync_ms = clock_ms();
        return port->out.used ? 0 : add_ping(port, "\xff", port->sync_id);
}

/* ---- time ---- */

/* When there is something to do though nothing happens; UINT64_MAX: never. */
static uint64_t next_ms(const struct port *port) {
        if (!port->device)
                return UINT64_MAX;
        if (!port->synced)
                return port->sync_ms + SYNC_AGAIN_MS;
        if (!calls_waiting(port))
                return UINT64_MAX;
        return port->probe_ms ? port->probe_ms + LOST_MS : port->heard_ms + PROBE_MS;
}

static int timeout_of(const struct port *port) {
        uint64_t next = next_ms(port), now = clock_ms();

        return next == UINT64_MAX ? -1 : next <= now ? 0 : (int)(next - now);
}

/* A daemon that was restarted behind the port has not heard of the calls that wait. */
static int watch_time(struct port *port) {
        if (clock_ms() < next_ms(port))
                return 0;
        if (!port->synced)
                return sync_ask(port);
        if (port->probe_ms)
                return -ETIMEDOUT;
        port->probe_ms = clock_ms();
        return add_ping(port, "", "probe");
}

/* ---- the thread ---- */

static void close_device(struct port *port) {
        if (port->device)
                port->ops->close(port->device);
        port->device = NULL;
        frame_reader_deinit(&port->reader);
        bytes_clear(&port->out);
}

/* Back to where nothing is open. */
static void lose(struct port *port) {
        for (struct member *member = port->members; member; member = member->next)
                member->broken = true;
        end_broken(port);
        close_device(port);
        port->distrusted = false;
        pthread_cond_broadcast(&port->changed);
}

struct polled {
        struct pollfd fds[2 + MEMBERS_MAX];
        struct member *members[MEMBERS_MAX];
        size_t n;
};

/* Members are read when what they have said before has gone, and not before it is known that somebody listens. */
static void prepare(const struct port *port, struct polled *polled) {
        short listen = port->synced && port->out.used < PIECE_SIZE ? POLLIN : 0;
        struct member *member = port->members;

        polled->fds[0] = (struct pollfd){ .fd = port->wake, .events = POLLIN };
        polled->fds[1] = (struct pollfd){ .fd = -1 };
        if (port->device)
                polled->fds[1] = (struct pollfd){ .fd = port->device->file.fd,
                                                  .events = port->ops->events(port->device, port->out.used) };
        for (polled->n = 0; member && polled->n < MEMBERS_MAX; member = member->next) {
                polled->fds[2 + polled->n] = (struct pollfd){
                        .fd = member->fd, .events = member->out.used ? (short)(listen | POLLOUT) : listen };
                polled->members[polled->n++] = member;
        }
}

static int serve_member(struct port *port, struct member *member, short events) {
        if (events & POLLOUT)
                member_flush(member);
        if (events & POLLIN)
                return member_receive(port, member);
        member->broken |= events & (POLLHUP | POLLERR);
        return 0;
}

/* -errno: the port is lost. */
static int serve(struct port *port, const struct polled *polled) {
        uint64_t count;
        int r = 0;

        if (polled->fds[0].revents && read(port->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
                r = -errno;
        if (!port->device || r)
                return r;
        /* It may have been opened since. */
        r = port->ops->woken(port->device, polled->fds[1].fd == port->device->file.fd ? polled->fds[1].revents : 0);
        if (r > 0)
                r = receive(port);
        for (size_t i = 0; i < polled->n && !r; i++)
                if (polled->fds[2 + i].revents)
                        r = serve_member(port, polled->members[i], polled->fds[2 + i].revents);
        if (!r)
                r = watch_time(port);
        return r ? r : flush(port);
}

static void *run(void *pointer) {
        struct port *port = pointer;
        struct polled polled;
        int timeout_ms, r;

        pthread_mutex_lock(&port->lock);
        while (!port->stop) {
                prepare(port, &polled);
                timeout_ms = timeout_of(port);
                pthread_mutex_unlock(&port->lock);
                r = poll(polled.fds, 2 + polled.n, timeout_ms);
                pthread_mutex_lock(&port->lock);
                for (size_t i = 0; r <= 0 && i < 2 + polled.n; i++)
                        polled.fds[i].revents = 0;
                r = serve(port, &polled);
                end_broken(port);
                /* Who does not use it leaves it to others. */
                if (r || port->distrusted || !port->members)
                        lose(port);
        }
        lose(port);
        pthread_mutex_unlock(&port->lock);
        return NULL;
}

static void wake_up(struct port *port) {
        uint64_t one = 1;

        while (write(port->wake, &one, sizeof(one)) < 0 && errno == EINTR)
                ;
}

/* No signal of the program is delivered to a thread that it does not know of. */
static int start(struct port *port) {
        sigset_t all, old;
        int error;

        if (port->running)
                return 0;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        error = pthread_create(&port->thread, NULL, run, port);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (error)
                return error_set(error, "cannot start the thread that serves %s: %s", port->path, strerrordesc_np(error));
        pthread_setname_np(port->thread, "dmabroker-port");
        port->running = true;
        return 0;
}

/* ---- the device ---- */

/* With the lock held. */
static int open_device(struct port *port) {
        uint64_t random;
        int r;

        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
                return error_set(EIO, "the kernel gives no random numbers");
        r = port->ops->open(port->path, &port->device);
        if (r)
                return r;
        port->synced = false;
        port->probe_ms = 0;
        snprintf(port->sync_id, sizeof(port->sync_id), "sync-%016llx", (unsigned long long)random);
        frame_reader_init(&port->reader, CHANNEL_MESSAGE_MAX, true);
        if (!sync_ask(port))
                return 0;
        port->ops->close(port->device);
        port->device = NULL;
        return no_memory();
}

/* ---- joining ---- */

static int member_new(bool events, int *ret_fd, struct member **ret) {
        struct member *member = calloc(1, sizeof(*member));
        uint64_t random;
        int ends[2];

        if (!member)
                return no_memory();
        if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
                free(member);
                return error_set(EIO, "the kernel gives no random numbers");
        }
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
                free(member);
                return error_set(errno, "cannot make a socket: %s", strerrordesc_np(errno));
        }
        member->fd = ends[0];
        member->events = events;
        snprintf(member->prefix, sizeof(member->prefix), "%016llx-", (unsigned long long)random);
        *ret_fd = ends[1];
        *ret = member;
        return 0;
}

/* With the lock held. */
static int join(struct port *port, struct member *member) {
        int r;

        while (port->distrusted)
                pthread_cond_wait(&port->changed, &port->lock);
        if (port->n_members == MEMBERS_MAX)
                return error_set(EBUSY, "the %s %s is about to be closed", port->ops->kind, port->path);
        r = port->device ? 0 : open_device(port);
        if (!r)
                r = start(port);
        if (r) {
                if (!port->running)
                        close_device(port);
                return r;
        }
        member->next = port->members;
        port->members = member;
        port->n_members++;
        return 0;
}

int port_join(struct port *port, bool events, int *ret_fd, char prefix[PORT_PREFIX_SIZE]) {
        struct member *member = NULL;
        int fd = -1, r = member_new(events, &fd, &member);

        if (r)
                return r;
        memcpy(prefix, member->prefix, PORT_PREFIX_SIZE);
        pthread_mutex_lock(&port->lock);
        r = join(port, member);
        pthread_mutex_unlock(&port->lock);
        if (r) {
                member_free(member);
                close(fd);
                return r;
        }
        wake_up(port);
        *ret_fd = fd;
        return 0;
}

void port_distrust(struct port *port) {
        pthread_mutex_lock(&port->lock);
        port->distrusted = port->running;
        pthread_mutex_unlock(&port->lock);
        wake_up(port);
}

/* ---- the port ---- */

int port_new(const struct port_device_ops *ops, const char *path, struct port **ret) {
        struct port *port = calloc(1, sizeof(*port));
        int r;

        if (!port)
                return no_memory();
        port->ops = ops;
        port->path = strdup(path);
        if (!port->path) {
                free(port);
                return no_memory();
        }
        port->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (port->wake < 0) {
                r = error_set(errno, "cannot make an eventfd: %s", strerrordesc_np(errno));
                free(port->path);
                free(port);
                return r;
        }
        pthread_mutex_init(&port->lock, NULL);
        pthread_cond_init(&port->changed, NULL);
        *ret = port;
        return 0;
}

/* Not a cancellation point. */
static void stop(struct port *port) {
        int old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        pthread_mutex_lock(&port->lock);
        port->stop = true;
        pthread_mutex_unlock(&port->lock);
        wake_up(port);
        pthread_join(port->thread, NULL);
        pthread_setcancelstate(old_state, NULL);
}

struct port *port_free(struct port *port) {
        if (!port)
                return NULL;
        if (port->running)
                stop(port);
        pthread_cond_destroy(&port->changed);
        pthread_mutex_destroy(&port->lock);
        close(port->wake);
        free(port->path);
        free(port);
        return NULL;
}

/* The thread may have been at work on members and bytes when it was forked off: nothing of theirs is freed. */
void port_abandon(struct port *port) {
        for (const struct member *member = port->members; member; member = member->next)
                close(member->fd);
        if (port->device)
                port->ops->abandon(port->device);
        close(port->wake);
        free(port->path);
        free(port);
}

const char *port_kind(const struct port *port) {
        return port->ops->kind;
}
