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

#include "client/error.h"
#include "include/dmabroker.h"

enum {
        RECONNECT_MS = 5000, /* dmab_set_reconnect_timeout()'s default */
        HELLO_MS = 5000,     /* a daemon that is there says hello within this */
        BACKOFF_FIRST_MS = 10,
        BACKOFF_LAST_MS = 500,
        ATTEMPTS_MAX = 16, /* of one call: a call that ends every connection must not be repeated for ever */
        IN_FLIGHT_DEFAULT = 256,
};

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
        pthread_mutex_t lock;    /* guards all below */
        pthread_cond_t changed;  /* the channel, a place for one more call */
        struct channel *channel; /* NULL: lost, or never there */
        bool reading;            /* a thread has the reader's role on `channel` */
        bool unclear;            /* an answer came that may be any call's; the reader's own */
        bool connecting;         /* a thread is making a new channel */
        unsigned connects;       /* attempts that have ended */
        int connect_status;      /* of the last one; its sentence is in connect_sentence */
        char connect_sentence[512];
        int lost_status; /* why the last channel was lost */
        int dead;        /* -ESTALE: the session is over; every call answers this */
        unsigned timeout_ms;
        struct call_list calls; /* sent on `channel`, not answered yet */
        size_t n_calls;
        uint64_t next_id, next_key, random;

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
        char head[192];
        int length = snprintf(head, sizeof(head), "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"method\":\"%s\"%s",
                              (unsigned long long)id, method, params ? ",\"params\":" : "");
        struct iovec pieces[] = {
                { .iov_base = head, .iov_len = length },
                { .iov_base = (char *)(params ? params : ""), .iov_len = params ? strlen(params) : 0 },
                { .iov_base = "}\n", .iov_len = 2 },
        };

        return channel_send(channel, pieces, sizeof(pieces) / sizeof(*pieces));
}

/* ---- connecting ---- */

struct hello {
        bool done;
        json_t *message;
};

static void take_hello(json_t *message, const int *fds, size_t n_fds, void *userdata) {
        struct hello *hello = userdata;

        close_all(fds, n_fds);
        /* An error without an id is about the connection itself: the daemon will have no more of them. */
        if (hello->done || (!json_is_integer(json_object_get(message, "id")) && !json_object_get(message, "error"))) {
                json_decref(message);
                return;
        }
        hello->message = message;
        hello->done = true;
}

static int protocol_error(const char *path, int r) {
        switch (r) {
        case -ETIMEDOUT:
                return error_set(ETIMEDOUT, "the daemon at %s accepted the connection, but does not answer", path);
        case -EPROTO:
        case -EMSGSIZE:
                return error_set(EPROTO, "whoever listens at %s does not speak dmabroker's protocol", path);
        default:
                return error_set(-r, "the connection to %s was lost: %s", path, strerrordesc_np(-r));
        }
}

static uint64_t limit_value(json_t *limits, const char *name, uint64_t otherwise) {
        json_t *value = json_object_get(limits, name);

        return json_is_integer(value) && json_integer_value(value) > 0 ? (uint64_t)json_integer_value(value)
                                                                       : otherwise;
}

/* Note what the first hello said; later ones only resume. */
static int keep_hello(struct link *link, json_t *result) {
        const char *session = NULL, *owner = NULL, *role = NULL, *version = NULL;
        json_t *limits = json_object_get(result, "limits");

        if (json_unpack(result, "{s:s, s:s, s:s, s:s}", "session", &session, "owner", &owner, "role", &role, "version",
                        &version))
                return protocol_error(link->path, -EPROTO);
        if (link->session)
                return 0;
        link->session = strdup(session);
        link->owner = strdup(owner);
        link->role = strdup(role);
        link->version = strdup(version);
        if (!link->session || !link->owner || !link->role || !link->version)
                return error_set(ENOMEM, "there is not enough memory");
        link->limits = (struct link_limits){
                .message_bytes = limit_value(limits, "message_bytes", 1 << 20),
                .nesting = limit_value(limits, "nesting", 64),
                .calls_in_flight = limit_value(limits, "calls_in_flight", IN_FLIGHT_DEFAULT),
                .wait_ms = limit_value(limits, "wait_ms", UINT64_MAX),
        };
        return 0;
}

static int say_hello(struct link *link, struct channel *channel) {
        struct hello hello = { 0 };
        struct link_reply reply = { 0 };
        json_t *params =
                json_pack("{s:s#, s:i, s:s*}", "client", program_invocation_short_name,
                          (int)strnlen(program_invocation_short_name, 64), "protocol", 1, "session", link->session);
        char *text = params ? json_dumps(params, JSON_COMPACT) : NULL;
        int r = text ? link_send(channel, 0, "broker.hello", text) : -ENOMEM;

        /* A daemon that refuses a connection says why and hangs up, whether it was asked already or not. */
        if (r == -EPIPE)
                r = 0;
        while (!r && !hello.done)
                r = channel_receive(channel, HELLO_MS, take_hello, &hello);
        if (hello.done)
                r = link_judge(hello.message, NULL, 0, &reply);
        else
                r = protocol_error(link->path, r);
        if (!r)
                r = keep_hello(link, reply.result);
        link_reply_release(&reply);
        json_decref(params);
        free(text);
        return r;
}

/* Has the daemon answered that there is no session to resume? */
static bool session_is_gone(const struct link *link) {
        return link->session && (error_is("gone") || error_is("unknown_handle"));
}

static int establish_once(struct link *link, struct channel **ret) {
        struct channel *channel;
        int r;

        r = channel_connect(link->path, &channel);
        if (r)
                return r;
        r = say_hello(link, channel);
        if (r && session_is_gone(link))
                r = error_set_reason(ESTALE, "gone",
                                     "the daemon at %s no longer knows this session: it was started anew, or the "
                                     "connection was gone for too long; what the session held is freed. Disconnect and "
                                     "connect again",
                                     link->path);
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
        int r = establish_once(link, ret);

        if (r == -ESTALE) {
                pthread_mutex_lock(&link->lock);
                set_dead(link, r);
                pthread_mutex_unlock(&link->lock);
        }
        return r;
}

static uint64_t now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Might another attempt end otherwise? A daemon that restarts is missing, refuses, or hangs up in between. */
static bool worth_another_attempt(int r) {
        return r == -ENOENT || r == -ECONNREFUSED || r == -ECONNRESET || r == -EPIPE || r == -ETIMEDOUT || r == -EBUSY;
}

/* With the backoff of a client among many that all lost the same daemon. */
static int establish(struct link *link, unsigned timeout_ms, struct channel **ret) {
        uint64_t deadline = now_ms() + timeout_ms, pause = BACKOFF_FIRST_MS, now;
        int r;

        for (;;) {
                r = establish_once(link, ret);
                now = now_ms();
                if (!r || !worth_another_attempt(r) || now >= deadline)
                        return r;
                if (pause > deadline - now)
                        pause = deadline - now;
                nanosleep(&(struct timespec){ .tv_sec = pause / 1000, .tv_nsec = pause % 1000 * 1000000 }, NULL);
                pause = pause * 2 < BACKOFF_LAST_MS ? pause * 2 : BACKOFF_LAST_MS;
        }
}

/* Called with the lock held, which is let go meanwhile. */
static int reconnect(struct link *link) {
        struct channel *channel;
        unsigned timeout_ms = link->timeout_ms;
        int r;

        link->connecting = true;
        pthread_mutex_unlock(&link->lock);
        r = establish(link, timeout_ms, &channel);
        pthread_mutex_lock(&link->lock);
        link->connecting = false;
        link->connects++;
        link->connect_status = r;
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
        link->channel = channel_unref(channel);
        link->reading = false;
        link->lost_status = status;
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
        if (r)
                lose_channel(link, channel, r);
        await(link, channel, call, request->timeout_ms);
        return call->done ? EXCHANGE_DONE : EXCHANGE_LOST;
}

static int lost_error(const struct link *link, const struct link_request *request) {
        if (link->lost_status == -EMFILE)
                return error_set(EMFILE,
                                 "this process may not open the descriptors that came with the answer to %s: close "
                                 "some, or raise RLIMIT_NOFILE",
                                 request->method);
        return error_set_reason(ECONNRESET, "gone",
                                "the connection to %s was lost before the answer to %s came; whether it was carried out "
                                "is not known",
                                link->path, request->method);
}

/* Until there is an answer. *sent counts how often it was sent. */
static int call_until_answered(struct link *link, const struct link_request *request, struct link_reply *ret,
                               unsigned *sent) {
        struct call call = { .wake = PTHREAD_COND_INITIALIZER };
        struct channel *channel = NULL;
        int r;

        pthread_mutex_lock(&link->lock);
        for (unsigned attempt = 1;; attempt++) {
                enum exchange end;

                r = get_channel(link, &channel);
                if (r)
                        break;
                end = exchange(link, channel, request, &call);
                channel_unref(channel);
                *sent += end != EXCHANGE_UNSENT;
                if (end == EXCHANGE_DONE)
                        break;
                if ((*sent && request->repeat == LINK_ONCE) || attempt == ATTEMPTS_MAX || !link->timeout_ms ||
                    link->lost_status == -EMFILE) {
                        r = lost_error(link, request);
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
static bool is_under_way(int r, const struct link_request *request, unsigned sent) {
        return r == -EBUSY && request->repeat == LINK_KEYED && sent > 1 && error_is("busy");
}

/* Has the first of two releases been carried out? */
static bool is_released(int r, const struct link_request *request, unsigned sent) {
        return r && request->repeat == LINK_RELEASE && sent > 1 &&
               (error_is("double_free") || error_is("unknown_handle") || error_is("unknown_device"));
}

int link_call(struct link *link, const struct link_request *request, struct link_reply *ret) {
        uint64_t deadline = 0, pause = 1;
        unsigned sent = 0;
        int r, old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        for (;;) {
                r = call_until_answered(link, request, ret, &sent);
                if (!is_under_way(r, request, sent))
                        break;
                if (!deadline)
                        deadline = now_ms() + get_timeout(link);
                else if (now_ms() >= deadline)
                        break;
                nanosleep(&(struct timespec){ .tv_nsec = pause * 1000000 }, NULL);
                pause = pause * 2 < BACKOFF_LAST_MS ? pause * 2 : BACKOFF_LAST_MS;
        }
        if (is_released(r, request, sent)) {
                ret->result = json_object();
                r = ret->result ? 0 : error_set(ENOMEM, "there is not enough memory");
        }
        pthread_setcancelstate(old_state, NULL);
        return r;
}

/* ---- the link ---- */

static void link_free(struct link *link) {
        free(link->path);
        free(link->session);
        free(link->owner);
        free(link->role);
        free(link->version);
        free(link);
}

int link_open(const char *path, struct link **ret) {
        struct link *link = calloc(1, sizeof(*link));
        int r, old_state;

        if (!link)
                return error_set(ENOMEM, "there is not enough memory");
        pthread_mutex_init(&link->lock, NULL);
        pthread_cond_init(&link->changed, NULL);
        TAILQ_INIT(&link->calls);
        link->timeout_ms = RECONNECT_MS;
        link->path = strdup(path);
        if (!link->path) {
                r = error_set(ENOMEM, "there is not enough memory");
                goto free_link;
        }
        if (getrandom(&link->random, sizeof(link->random), 0) != sizeof(link->random)) {
                r = error_set(EIO, "the kernel gives no random numbers");
                goto free_link;
        }
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        r = establish_once(link, &link->channel);
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
        link->timeout_ms = 0;
        if (!link->dead && !link_call(link, &bye, &reply))
                link_reply_release(&reply);
        error_restore(saved);
        channel_unref(link->channel);
        pthread_cond_destroy(&link->changed);
        pthread_mutex_destroy(&link->lock);
        link_free(link);
}

void link_abandon(struct link *link) {
        if (link->channel)
                channel_abandon(link->channel);
        link_free(link);
}

void link_end(struct link *link) {
        pthread_mutex_lock(&link->lock);
        link->dead = -ESTALE;
        snprintf(link->connect_sentence, sizeof(link->connect_sentence),
                 "the session was ended by broker.bye; disconnect and connect again");
        pthread_mutex_unlock(&link->lock);
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

void link_make_key(struct link *link, char key[LINK_KEY_SIZE]) {
        snprintf(key, LINK_KEY_SIZE, "%016llx-%llu", (unsigned long long)link->random,
                 (unsigned long long)__atomic_add_fetch(&link->next_key, 1, __ATOMIC_RELAXED));
}

const struct link_limits *link_limits(const struct link *link) {
        return &link->limits;
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
