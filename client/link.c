#include "client/link.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "client/address.h"
#include "client/clock.h"
#include "client/error.h"
#include "client/port.h"
#include "client/port-device.h"
#include "include/dmabroker.h"

enum {
        HELLO_MS = 5000,   /* for a daemon to say hello: one that takes longer to begin is asked again */
        BUSY_PAUSE_MS = 5, /* until the daemon has noticed that the connection is lost */
        RETRY_PAUSE_MAX_MS = 100,
        ATTEMPTS_MAX = 16, /* of one call: a call that ends every connection must not be repeated for ever */
};

/* Between attempts: most restarts are over soon, and many clients may wait for the long ones. */
static const unsigned pauses_ms[] = { 1, 2, 5, 10, 20, 50, 100 };

/* A call that waits for its reply; lives on the stack of its thread. */
struct call {
        uint64_t id;
        TAILQ_ENTRY(call) entry;
        pthread_cond_t wake; /* done, lost, or the reader's role is free */
        bool done, lost;
        json_t *message;
        int fds[CHANNEL_FDS_MAX];
        size_t n_fds;
};
TAILQ_HEAD(call_list, call);

struct link {
        char *path;
        struct port *port;       /* NULL: path is a socket */
        pthread_mutex_t lock;    /* guards all below */
        pthread_cond_t changed;  /* the channel, a place for one more call */
        struct channel *channel; /* NULL: lost, or never there */
        bool reading;            /* a thread has the reader's role on `channel` */
        bool unclear;            /* an answer came that may be any call's; the reader's own */
        bool connecting;         /* a thread is making a new channel */
        unsigned connects;       /* attempts that have ended */
        unsigned channels;       /* that have been made */
        int connect_status;      /* of the last one; its sentence is in connect_sentence */
        char connect_sentence[512];
        int lost_status;  /* why the last channel was lost */
        uint64_t lost_ms; /* clock_ms() when it was */
        int dead;         /* -ESTALE: the session is over; every call answers this */
        unsigned timeout_ms;
        bool hurry; /* atomic */
        pthread_mutex_t look_lock; /* whoever takes something waits until distrusted windows have been looked at */
        bool distrusts_windows; /* atomic */
        struct call_list calls; /* sent on `channel`, not answered yet */
        size_t n_calls;
        uint64_t next_id, next_key, random;

        const struct link_events *events;
        void *userdata;
        char *session, *owner, *role, *version;
        struct link_limits limits;
};

/* ---- replies ---- */

static void close_all(const int *fds, size_t n_fds) {
        for (size_t i = 0; i < n_fds; i++)
                close(fds[i]);
}

void link_reply_release(struct link_reply *reply) {
        json_decref(reply->result);
        close_all(reply->fds, reply->n_fds);
        *reply = (struct link_reply){ 0 };
}

/* Off the list: its thread no longer waits for `channel`. */
static void call_remove(struct link *link, struct call *call) {
        TAILQ_REMOVE(&link->calls, call, entry);
        link->n_calls--;
        pthread_cond_signal(&link->changed);
}

/* Which call a message is the answer to, if any. An error without an id is about a request that the daemon could not
 * read, such as one beyond a limit that was lowered since: if there are several, nobody knows whose it is. */
static struct call *find_call(struct link *link, json_t *message) {
        json_t *id = json_object_get(message, "id");
        struct call *call;

        if (json_is_null(id) && json_object_get(message, "error")) {
                link->unclear |= link->n_calls > 1;
                return link->n_calls == 1 ? TAILQ_FIRST(&link->calls) : NULL;
        }
        TAILQ_FOREACH(call, &link->calls, entry)
                if (json_is_integer(id) && (uint64_t)json_integer_value(id) == call->id)
                        break;
        return call;
}

static void take_message(json_t *message, const int *fds, size_t n_fds, void *userdata) {
        struct link *link = userdata;
        struct call *call;

        pthread_mutex_lock(&link->lock);
        call = find_call(link, message);
        if (call) {
                call_remove(link, call);
                call->message = message;
                call->n_fds = n_fds;
                memcpy(call->fds, fds, n_fds * sizeof(int));
                call->done = true;
                pthread_cond_signal(&call->wake);
        }
        pthread_mutex_unlock(&link->lock);
        if (!call) { /* a notification, or a reply that nobody waits for any more */
                json_decref(message);
                close_all(fds, n_fds);
        }
}

/* What a reply says, for the caller of the call. Consumes message and fds. */
int link_judge(json_t *message, const int *fds, size_t n_fds, struct link_reply *ret) {
        json_t *error = json_object_get(message, "error"), *result = json_object_get(message, "result");
        int r;

        if (error || !result) {
                r = error ? error_set_reply(error)
                          : error_set(EPROTO, "the daemon's reply has neither a result nor an error");
                json_decref(message);
                close_all(fds, n_fds);
                return r;
        }
        ret->result = json_incref(result);
        if (n_fds > 0)
                memcpy(ret->fds, fds, n_fds * sizeof(int));
        ret->n_fds = n_fds;
        json_decref(message);
        return 0;
}

int link_send(struct channel *channel, uint64_t id, const char *method, const char *params) {
        const char *prefix = channel_prefix(channel), *quote = *prefix ? "\"" : "";
        char head[192];
        int length = snprintf(head, sizeof(head), "{\"jsonrpc\":\"2.0\",\"id\":%s%s%llu%s,\"method\":\"%s\"%s", quote, prefix,
                              (unsigned long long)id, quote, method, params ? ",\"params\":" : "");
        struct iovec pieces[] = {
                { .iov_base = head, .iov_len = length },
                { .iov_base = (char *)(params ? params : ""), .iov_len = params ? strlen(params) : 0 },
                { .iov_base = "}\n", .iov_len = 2 },
        };

        return channel_send(channel, pieces, sizeof(pieces) / sizeof(*pieces));
}

/* ---- connecting ---- */

/* Note who one is. */
static int keep_names(struct link *link, const struct hello *hello) {
        link->session = strdup(hello->session);
        link->owner = strdup(hello->owner);
        link->role = strdup(hello->role);
        link->version = strdup(hello->version);
        return link->session && link->owner && link->role && link->version
                       ? 0
                       : error_set(ENOMEM, "there is not enough memory");
}

/* Another session has nothing of what this one has. */
static int check_names(const struct link *link, const struct hello *hello) {
        if (!strcmp(hello->session, link->session) && !strcmp(hello->owner, link->owner))
                return 0;
        return error_set_reason(ESTALE, "gone",
                                "the daemon at %s was asked for a session of %s, and came with another one of %s: what "
                                "the session held is not to be had any more. Disconnect and connect again",
                                link->path, link->owner, hello->owner);
}

/* listens: it is the agent's. */
static int make_channel(struct link *link, bool listens, struct channel **ret) {
        char prefix[PORT_PREFIX_SIZE];
        int r, fd = -1;

        if (!link->port)
                return channel_connect(link->path, ret);
        r = port_join(link->port, listens, &fd, prefix);
        return r ? r : channel_adopt(fd, prefix, ret);
}

/* Its answer may still come, or half of it. */
static int port_timed_out(struct link *link) {
        port_distrust(link->port);
        return error_set(ETIMEDOUT,
                         "whoever is at the host's end of the %s %s does not answer: dmabrokerd is stopped or "
                         "overloaded, or it is somebody else", port_kind(link->port), link->path);
}

static void keep_limits(struct link *link, const struct link_limits *limits) {
        pthread_mutex_lock(&link->lock);
        link->limits = *limits;
        /* For the daemon, the agent's calls come over the same connection. */
        if (link->port)
                link->limits.calls_in_flight -= limits->calls_in_flight / 4;
        pthread_mutex_unlock(&link->lock);
}

static int establish_once(struct link *link, bool listens, uint64_t deadline_ms, struct channel **ret) {
        struct channel *channel;
        struct hello hello;
        int r;

        r = make_channel(link, listens, &channel);
        if (r)
                return r;
        r = hello_say(channel, link->path, link->session, deadline_ms, &hello);
        if (r == -ETIMEDOUT && link->port)
                r = port_timed_out(link);
        if (!r) {
                r = link->session ? check_names(link, &hello) : keep_names(link, &hello);
                keep_limits(link, &hello.limits);
                json_decref(hello.result);
        }
        if (r) {
                channel_unref(channel);
                return r;
        }
        *ret = channel;
        return 0;
}

/* With the lock held. The last error says why. */
static void set_dead(struct link *link, int status) {
        link->dead = status;
        snprintf(link->connect_sentence, sizeof(link->connect_sentence), "%s", dmab_last_error());
}

int link_join(struct link *link, struct channel **ret) {
        int r = establish_once(link, true, clock_ms() + HELLO_MS, ret);

        if (r == -ESTALE) {
                pthread_mutex_lock(&link->lock);
                set_dead(link, r);
                pthread_mutex_unlock(&link->lock);
        }
        return r;
}

/* Might another attempt end otherwise? A daemon that restarts is missing, refuses, or hangs up in between; its socket is
 * there for a moment before its group may use it; and for a moment it may still count the connection that was lost. */
static bool worth_another_attempt(int r) {
        static const int passing[] = { -ENOENT, -ECONNREFUSED, -ECONNRESET, -EPIPE, -ETIMEDOUT, -EBUSY, -EACCES, -EPERM,
                                       -ENODEV, -ENXIO };

        for (size_t i = 0; i < sizeof(passing) / sizeof(*passing); i++)
                if (r == passing[i])
                        return true;
        return error_is("limit") || error_is("quota");
}

/* Once at least. */
static int establish(struct link *link, uint64_t deadline_ms, struct channel **ret) {
        const size_t n_pauses = sizeof(pauses_ms) / sizeof(*pauses_ms);
        uint64_t now = clock_ms(), hello_ms, pause;
        int r;

        for (size_t i = 0;; i++) {
                hello_ms = now + HELLO_MS;
                r = establish_once(link, false, now < deadline_ms && deadline_ms < hello_ms ? deadline_ms : hello_ms, ret);
                now = clock_ms();
                if (!r || !worth_another_attempt(r) || now >= deadline_ms ||
                    __atomic_load_n(&link->hurry, __ATOMIC_RELAXED))
                        return r;
                pause = pauses_ms[i < n_pauses ? i : n_pauses - 1];
                if (pause > deadline_ms - now)
                        pause = deadline_ms - now;
                nanosleep(&(struct timespec){ .tv_nsec = (long)pause * 1000000 }, NULL);
                now = clock_ms();
        }
}

/* Called with the lock held, which is let go meanwhile. */
static int reconnect(struct link *link) {
        uint64_t deadline_ms = link->lost_ms + link->timeout_ms;
        struct channel *channel;
        int r;

        link->connecting = true;
        pthread_mutex_unlock(&link->lock);
        r = establish(link, deadline_ms, &channel);
        pthread_mutex_lock(&link->lock);
        link->connecting = false;
        link->connects++;
        link->connect_status = r;
        link->channels += !r;
        if (!r)
                link->channel = channel;
        else
                snprintf(link->connect_sentence, sizeof(link->connect_sentence), "%s", dmab_last_error());
        if (r == -ESTALE)
                set_dead(link, r);
        pthread_cond_broadcast(&link->changed);
        return r;
}

/* A channel to send on, made anew if it has to be; the caller gets a reference. Called with the lock held. Those who
 * find somebody else reconnecting wait for that attempt and share its end. */
static int get_channel(struct link *link, struct channel **ret) {
        while (!link->channel && !link->dead) {
                unsigned attempt = link->connects;
                int r;

                if (!link->connecting) {
                        r = reconnect(link);
                        if (r)
                                return r;
                        continue;
                }
                while (link->connecting && attempt == link->connects)
                        pthread_cond_wait(&link->changed, &link->lock);
                if (!link->channel && !link->dead && link->connect_status)
                        return error_set(-link->connect_status, "%s", link->connect_sentence);
        }
        if (link->dead)
                return error_set_reason(-link->dead, "gone", "%s", link->connect_sentence);
        *ret = channel_ref(link->channel);
        return 0;
}

/* The connection is of no use any more: whoever waits for it is told. Called with the lock held. */
static void lose_channel(struct link *link, struct channel *channel, int status) {
        struct call *call;

        channel_shutdown(channel);
        if (link->channel != channel)
                return;
        if (status == -ETIMEDOUT && link->port)
                port_distrust(link->port);
        link->channel = channel_unref(channel);
        link->reading = false;
        link->lost_status = status;
        link->lost_ms = clock_ms();
        while ((call = TAILQ_FIRST(&link->calls))) {
                call_remove(link, call);
                call->lost = true;
                pthread_cond_signal(&call->wake);
        }
        pthread_cond_broadcast(&link->changed);
}

/* ---- calls ---- */

/* Wait for the reply, and read for the others if nobody does. Called with the lock held. */
static void await(struct link *link, struct channel *channel, struct call *call, unsigned timeout_ms) {
        struct call *next;

        while (!call->done && !call->lost) {
                int r;

                if (link->reading) {
                        pthread_cond_wait(&call->wake, &link->lock);
                        continue;
                }
                link->reading = true;
                pthread_mutex_unlock(&link->lock);
                r = channel_receive(channel, timeout_ms ? (int)timeout_ms : -1, take_message, link);
                pthread_mutex_lock(&link->lock);
                if (link->channel == channel)
                        link->reading = false;
                /* One of the calls would wait for ever. */
                if (!r && link->unclear)
                        r = -EPROTO;
                link->unclear = false;
                if (r)
                        lose_channel(link, channel, r);
        }
        next = TAILQ_FIRST(&link->calls);
        if (!link->reading && next)
                pthread_cond_signal(&next->wake);
}

enum exchange { EXCHANGE_DONE, EXCHANGE_UNSENT, EXCHANGE_LOST };

static enum exchange exchange(struct link *link, struct channel *channel, const struct link_request *request,
                              struct call *call) {
        int r;

        while (link->channel == channel && link->n_calls >= link->limits.calls_in_flight)
                pthread_cond_wait(&link->changed, &link->lock);
        if (link->channel != channel)
                return EXCHANGE_UNSENT;
        call->id = ++link->next_id;
        call->done = call->lost = false;
        TAILQ_INSERT_TAIL(&link->calls, call, entry);
        link->n_calls++;
        pthread_mutex_unlock(&link->lock);
        r = link_send(channel, call->id, request->method, request->params);
        pthread_mutex_lock(&link->lock);
        /* What a daemon that hung up had answered before is still there to be read. */
        if (r && r != -EPIPE && r != -ECONNRESET)
                lose_channel(link, channel, r);
        await(link, channel, call, request->timeout_ms);
        /* A part of a request is none. */
        return call->done ? EXCHANGE_DONE : r ? EXCHANGE_UNSENT : EXCHANGE_LOST;
}

static int lost_error(const struct link *link, const struct link_request *request, bool lost) {
        if (link->lost_status == -EMFILE)
                return error_set(EMFILE,
                                 "this process may not open the descriptors that came with the answer to %s: close "
                                 "some, or raise RLIMIT_NOFILE",
                                 request->method);
        if (!lost)
                return error_set(ECONNRESET,
                                 "the connection to %s was lost each time when %s was to be sent; it was not carried out",
                                 link->path, request->method);
        return error_set_reason(ECONNRESET, "gone",
                                "the connection to %s was lost before the answer to %s came; whether it was carried out "
                                "is not known",
                                link->path, request->method);
}

/* The connection cannot be made again: the last error says why. */
static int away_error(const struct link *link, const struct link_request *request) {
        char why[512];

        snprintf(why, sizeof(why), "%s", dmab_last_error());
        return error_set_reason(ECONNRESET, "gone",
                                "the connection to %s was lost before the answer to %s came, and whether it was carried "
                                "out is not known; %s",
                                link->path, request->method, why);
}

/* Is it to be tried again, having been lost so often? */
static bool may_try_again(const struct link *link, const struct link_request *request, unsigned lost, unsigned attempts) {
        if (lost && (request->repeat == LINK_ONCE || !link->timeout_ms))
                return false;
        return attempts < ATTEMPTS_MAX && link->lost_status != -EMFILE;
}

/* What has been done to have an answer. */
struct tries {
        unsigned lost;    /* times that it was sent and not answered */
        unsigned channel; /* the last one's number */
};

static int call_until_answered(struct link *link, const struct link_request *request, struct link_reply *ret,
                               struct tries *tries) {
        struct call call = { .wake = PTHREAD_COND_INITIALIZER };
        struct channel *channel = NULL;
        int r;

        pthread_mutex_lock(&link->lock);
        for (unsigned attempts = 1;; attempts++) {
                enum exchange end;

                r = get_channel(link, &channel);
                if (r) {
                        if (tries->lost && r != -ESTALE)
                                r = away_error(link, request);
                        break;
                }
                tries->channel = link->channels;
                end = exchange(link, channel, request, &call);
                channel_unref(channel);
                tries->lost += end == EXCHANGE_LOST;
                if (end == EXCHANGE_DONE)
                        break;
                if (!may_try_again(link, request, tries->lost, attempts)) {
                        r = lost_error(link, request, tries->lost);
                        break;
                }
        }
        pthread_mutex_unlock(&link->lock);
        if (!r)
                r = link_judge(call.message, call.fds, call.n_fds, ret);
        pthread_cond_destroy(&call.wake);
        return r;
}

static unsigned get_timeout(struct link *link) {
        unsigned timeout_ms;

        pthread_mutex_lock(&link->lock);
        timeout_ms = link->timeout_ms;
        pthread_mutex_unlock(&link->lock);
        return timeout_ms;
}

/* Is it still at work on the one that was sent before with the same key, over the connection that was lost? */
static bool is_under_way(int r, const struct link_request *request, const struct tries *tries) {
        return r == -EBUSY && request->repeat == LINK_KEYED && tries->lost && error_is("busy");
}

/* Has the first of two releases been carried out? */
static bool is_released(int r, const struct link_request *request, const struct tries *tries) {
        return r && request->repeat == LINK_RELEASE && tries->lost &&
               (error_is("double_free") || error_is("unknown_handle") || error_is("unknown_device"));
}

/* After how long to ask again, because its owner calls too often: what is given back must not be lost for that, nor what may have
 * been taken already. 0: not. */
static unsigned must_retry_ms(int r, const struct link_request *request, const struct tries *tries) {
        bool must = request->repeat == LINK_RELEASE || (request->repeat == LINK_KEYED && tries->lost);

        return r == -EDQUOT && must ? error_retry_ms() : 0;
}

/* A daemon that ends refuses whoever waits, with the reason gone, as if what they wait for had ended. Then its connections end
 * as well, and the next daemon may have it still. true: ask again; else *r is what to answer. */
static bool is_ending(struct link *link, const struct link_request *request, const struct tries *tries, int *r) {
        struct link_request ping = { .method = "broker.ping", .repeat = LINK_AGAIN };
        struct link_reply reply = { 0 };
        struct tries pings = { 0 };
        struct error_state *saved;
        int answered;

        if (*r != -ESTALE || !error_is("gone") || request->repeat == LINK_ONCE || !get_timeout(link) || link_is_over(link))
                return false;
        saved = error_save();
        answered = call_until_answered(link, &ping, &reply, &pings);
        link_reply_release(&reply);
        error_restore(saved);
        if (!answered)
                return pings.channel != tries->channel;
        if (link_is_over(link))
                return true; /* to be told so */
        *r = error_set(ECONNRESET, "the daemon at %s has ended without carrying out %s, and is not back yet", link->path,
                       request->method);
        return false;
}

static int call_over_losses(struct link *link, const struct link_request *request, struct link_reply *ret) {
        struct tries tries = { 0 };
        uint64_t deadline_ms = 0, pause_ms = BUSY_PAUSE_MS;
        unsigned retry_ms;
        int r, old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        for (unsigned asked = 1;; asked++) {
                r = call_until_answered(link, request, ret, &tries);
                if (asked < ATTEMPTS_MAX && is_ending(link, request, &tries, &r))
                        continue;
                retry_ms = must_retry_ms(r, request, &tries);
                if (!retry_ms && !is_under_way(r, request, &tries))
                        break;
                if (!deadline_ms)
                        deadline_ms = clock_ms() + get_timeout(link);
                else if (clock_ms() >= deadline_ms)
                        break;
                if (retry_ms)
                        pause_ms = retry_ms < RETRY_PAUSE_MAX_MS ? retry_ms : RETRY_PAUSE_MAX_MS;
                nanosleep(&(struct timespec){ .tv_nsec = (long)pause_ms * 1000000 }, NULL);
        }
        if (is_released(r, request, &tries)) {
                ret->result = json_object();
                r = ret->result ? 0 : error_set(ENOMEM, "there is not enough memory");
        }
        ret->lost = tries.lost > 0;
        if (r == -ESTALE && link_is_over(link))
                link->events->over(link->userdata);
        pthread_setcancelstate(old_state, NULL);
        return r;
}

/* Nothing has been given then, also by its key. */
static bool is_unbound(const struct link *link, int r) {
        return r && link->port && error_is("source_unavailable") && error_has("unbound");
}

void link_distrust_windows(struct link *link) {
        __atomic_store_n(&link->distrusts_windows, true, __ATOMIC_RELAXED);
}

/* Where they could not be looked at, the call itself tells whether that matters. */
static int look_at_windows(struct link *link) {
        int r = 0;

        pthread_mutex_lock(&link->look_lock);
        if (__atomic_exchange_n(&link->distrusts_windows, false, __ATOMIC_RELAXED))
                r = link->events->distrusted(link->userdata);
        if (r)
                link_distrust_windows(link);
        pthread_mutex_unlock(&link->look_lock);
        return r < 0 ? r : 0;
}

int link_call(struct link *link, const struct link_request *request, struct link_reply *ret) {
        int r = request->repeat == LINK_KEYED && link->port ? look_at_windows(link) : 0;

        if (r)
                return r;
        r = call_over_losses(link, request, ret);
        if (!is_unbound(link, r))
                return r;
        r = link->events->unbound(link->userdata);
        return r ? r : call_over_losses(link, request, ret);
}

bool link_is_unknown(int r) {
        return r == -ECONNRESET && error_is("gone");
}

/* ---- the link ---- */

static void link_free(struct link *link) {
        port_free(link->port);
        free(link->path);
        free(link->session);
        free(link->owner);
        free(link->role);
        free(link->version);
        free(link);
}

int link_open(const struct address *address, unsigned timeout_ms, const struct link_events *events, void *userdata,
              struct link **ret) {
        struct link *link = calloc(1, sizeof(*link));
        int r, old_state;

        if (!link)
                return error_set(ENOMEM, "there is not enough memory");
        pthread_mutex_init(&link->lock, NULL);
        pthread_mutex_init(&link->look_lock, NULL);
        pthread_cond_init(&link->changed, NULL);
        TAILQ_INIT(&link->calls);
        link->distrusts_windows = true;
        link->timeout_ms = timeout_ms;
        link->events = events;
        link->userdata = userdata;
        link->path = strdup(address->path);
        r = link->path ? 0 : error_set(ENOMEM, "there is not enough memory");
        if (!r && address->kind != ADDRESS_SOCKET)
                r = port_new(address->kind == ADDRESS_XEN ? &port_vchan_ops : &port_virtio_ops, link->path, &link->port);
        if (r)
                goto free_link;
        if (getrandom(&link->random, sizeof(link->random), 0) != sizeof(link->random)) {
                r = error_set(EIO, "the kernel gives no random numbers");
                goto free_link;
        }
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        r = establish_once(link, false, clock_ms() + HELLO_MS, &link->channel);
        pthread_setcancelstate(old_state, NULL);
        if (r)
                goto free_link;
        *ret = link;
        return 0;

free_link:
        link_free(link);
        return r;
}

void link_close(struct link *link) {
        struct link_request bye = { .method = "broker.bye", .timeout_ms = HELLO_MS };
        struct link_reply reply = { 0 };
        struct error_state *saved = error_save();

        /* A daemon that is gone is not waited for; one that is back frees the session's things at once. */
        link_hurry(link);
        if (!link->dead && !link_call(link, &bye, &reply))
                link_reply_release(&reply);
        error_restore(saved);
        channel_unref(link->channel);
        pthread_cond_destroy(&link->changed);
        pthread_mutex_destroy(&link->look_lock);
        pthread_mutex_destroy(&link->lock);
        link_free(link);
}

void link_abandon(struct link *link) {
        if (link->channel)
                channel_abandon(link->channel);
        if (link->port)
                port_abandon(link->port);
        link->port = NULL;
        link_free(link);
}

void link_end(struct link *link) {
        pthread_mutex_lock(&link->lock);
        link->dead = -ESTALE;
        snprintf(link->connect_sentence, sizeof(link->connect_sentence),
                 "the session was ended by broker.bye; disconnect and connect again");
        pthread_mutex_unlock(&link->lock);
        link->events->over(link->userdata);
}

bool link_is_over(struct link *link) {
        bool dead;

        pthread_mutex_lock(&link->lock);
        dead = link->dead;
        pthread_mutex_unlock(&link->lock);
        return dead;
}

void link_set_timeout(struct link *link, unsigned timeout_ms) {
        pthread_mutex_lock(&link->lock);
        link->timeout_ms = timeout_ms;
        pthread_mutex_unlock(&link->lock);
}

void link_hurry(struct link *link) {
        __atomic_store_n(&link->hurry, true, __ATOMIC_RELAXED);
        link_set_timeout(link, 0);
}

void link_make_key(struct link *link, char key[LINK_KEY_SIZE]) {
        snprintf(key, LINK_KEY_SIZE, "%016llx-%llu", (unsigned long long)link->random,
                 (unsigned long long)__atomic_add_fetch(&link->next_key, 1, __ATOMIC_RELAXED));
}

struct link_limits link_limits(struct link *link) {
        struct link_limits limits;

        pthread_mutex_lock(&link->lock);
        limits = link->limits;
        pthread_mutex_unlock(&link->lock);
        return limits;
}

bool link_takes_fds(const struct link *link) {
        return !link->port;
}

const char *link_session(const struct link *link) {
        return link->session;
}

const char *link_owner(const struct link *link) {
        return link->owner;
}

const char *link_role(const struct link *link) {
        return link->role;
}

const char *link_server_version(const struct link *link) {
        return link->version;
}
