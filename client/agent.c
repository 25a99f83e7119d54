#include "client/agent.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client/clock.h"
#include "client/error.h"
#include "client/pool.h"
#include "client/session.h"
#include "client/window.h"

enum { BACKOFF_FIRST_MS = 1, BACKOFF_LAST_MS = 200, BUSY_PAUSE_MS = 5, LOOK_AGAIN_MS = 1000 };
enum { ID_SUBSCRIBE = 1, ID_SUBSCRIBE_GUEST, ID_FIRST };

TAILQ_HEAD(watch_list, watch);
TAILQ_HEAD(agent_call_list, agent_call);

struct agent {
        struct dmab *dmab;
        pthread_t thread;
        int wake; /* eventfd: something below has changed */
        pthread_mutex_t lock; /* guards all below */
        pthread_cond_t idle;  /* no callback runs */
        bool stop;
        bool hang_up; /* a request must not be answered any more */
        struct watch_list watches;
        struct agent_call_list calls; /* not answered yet */
        const void *running;          /* the watch or call of which a callback runs */
        uint64_t next_id;

        /* The thread's own: */
        struct channel *channel; /* NULL: lost, or not there yet */
        unsigned backoff_ms;
        bool again; /* calls are to be sent again soon */
        uint64_t look_ms; /* when to look at windows again, clock_ms(); 0: when that is asked for */
        uint64_t last_event; /* the number of the last one that was heard of; 0: none */
};

/* No function of the library is a cancellation point: locks are held here. */
static void wake_up(struct agent *agent) {
        uint64_t one = 1;
        int old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        while (write(agent->wake, &one, sizeof(one)) < 0 && errno == EINTR)
                ;
        pthread_setcancelstate(old_state, NULL);
}

/* ---- callbacks ---- */

/* Both with the lock held. */
static void callback_begin(struct agent *agent, const void *of) {
        agent->running = of;
        pthread_mutex_unlock(&agent->lock);
}

static void callback_end(struct agent *agent) {
        pthread_mutex_lock(&agent->lock);
        agent->running = NULL;
        pthread_cond_broadcast(&agent->idle);
}

static void call_finish(struct agent *agent, struct agent_call *call, int status, struct link_reply *reply) {
        TAILQ_REMOVE(&agent->calls, call, entry);
        callback_begin(agent, call);
        call->done(call, status, reply);
        callback_end(agent);
}

/* Will the same question get another answer? While the daemon is still at work on the one that came over the connection that
 * was lost, or hears too many calls, when what is asked for may have been given already; and from the next daemon, when this one
 * refuses whoever waits because it ends. If what was asked of has ended, it says so the second time, too. */
static bool is_to_ask_again(struct agent_call *call, int status) {
        bool first = !call->refused;

        if (call->repeated && ((status == -EBUSY && error_is("busy")) || (status == -EDQUOT && error_retry_ms())))
                return true;
        call->refused = status == -ESTALE && error_is("gone");
        return call->refused && first;
}

/* With the lock held. Consumes message and descriptors. */
static void take_reply(struct agent *agent, json_t *message, const int *fds, size_t n_fds) {
        json_t *id = json_object_get(message, "id");
        struct link_reply reply = { 0 };
        struct agent_call *call;
        int status;

        TAILQ_FOREACH(call, &agent->calls, entry)
                if (call->sent && json_is_integer(id) && (uint64_t)json_integer_value(id) == call->id)
                        break;
        status = link_judge(message, fds, n_fds, &reply);
        if (call && is_to_ask_again(call, status)) {
                call->sent = false;
                agent->again = true;
        } else if (call) {
                call_finish(agent, call, status, &reply);
        }
        link_reply_release(&reply);
}

/* One pool or bounce pool, or, when the event names none, all. Grants are their holder's to give back. With the lock held. */
static void take_recall(struct agent *agent, json_t *params) {
        uint64_t bytes = json_integer_value(json_object_get(params, "bytes"));
        bool all = !json_object_get(params, "pool") && !json_object_get(params, "bounce") && !json_object_get(params, "grant");
        struct watch *watch, *next;

        for (watch = TAILQ_FIRST(&agent->watches); watch; watch = next) {
                json_t *number = json_object_get(params, watch->kind);

                next = TAILQ_NEXT(watch, entry);
                if (!all && (!json_is_integer(number) || (uint64_t)json_integer_value(number) != watch->number))
                        continue;
                callback_begin(agent, watch);
                watch->recalled(watch, bytes);
                callback_end(agent);
                /* The list may have changed meanwhile, but not this watch, whose end waits for its callback. */
                next = watch->on ? TAILQ_NEXT(watch, entry) : NULL;
        }
}

/* One was plugged in, and memory waits in it until the daemon knows where it is; or one is asked back. With the lock held. */
static void take_windows(struct agent *agent) {
        callback_begin(agent, agent);
        windows_look(agent->dmab); /* who needs one that is of no use is told why */
        agent->look_ms = regions_are_unheard_of(agent->dmab) ? clock_ms() + LOOK_AGAIN_MS : 0;
        callback_end(agent);
}

/* With the lock held. What the daemon forgot over a restart begins to count anew. */
static void take_event(struct agent *agent, json_t *params) {
        const char *topic = json_string_value(json_object_get(params, "topic"));
        json_t *number = json_object_get(params, "event");

        if (json_is_integer(number) && json_integer_value(number) > 0)
                agent->last_event = (uint64_t)json_integer_value(number);
        if (topic && !strcmp(topic, "recall"))
                take_recall(agent, params);
        else if (topic && !strcmp(topic, "guest") && !link_takes_fds(agent->dmab->link))
                take_windows(agent);
}

/* What happened while nobody listened. With the lock held. */
static void take_subscription(struct agent *agent, json_t *result) {
        json_t *last = json_object_get(result, "event"), *event;
        size_t i;

        json_array_foreach(json_object_get(result, "pending"), i, event)
                take_event(agent, event);
        if (json_is_integer(last) && json_integer_value(last) >= 0)
                agent->last_event = (uint64_t)json_integer_value(last);
}

static bool is_answer_to(json_t *message, json_int_t own) {
        json_t *id = json_object_get(message, "id");

        return json_is_integer(id) && json_integer_value(id) == own;
}

static void take_message(json_t *message, const int *fds, size_t n_fds, void *userdata) {
        struct agent *agent = userdata;
        const char *method = json_string_value(json_object_get(message, "method"));

        agent->backoff_ms = BACKOFF_FIRST_MS;
        pthread_mutex_lock(&agent->lock);
        if (method && !strcmp(method, "event")) {
                take_event(agent, json_object_get(message, "params"));
        } else if (!method && is_answer_to(message, ID_SUBSCRIBE)) {
                take_subscription(agent, json_object_get(message, "result"));
        } else if (!method && is_answer_to(message, ID_SUBSCRIBE_GUEST)) {
                /* Some may have been asked back while nobody listened. */
                if (regions_are_granted(agent->dmab))
                        take_windows(agent);
        } else if (!method) {
                take_reply(agent, message, fds, n_fds);
                message = NULL;
        }
        pthread_mutex_unlock(&agent->lock);
        for (size_t i = 0; message && i < n_fds; i++)
                close(fds[i]);
        json_decref(message);
}

/* ---- the connection ---- */

/* What was sent on it is sent again on the next one. */
static void lose_channel(struct agent *agent) {
        struct agent_call *call;

        agent->channel = channel_unref(agent->channel);
        pthread_mutex_lock(&agent->lock);
        TAILQ_FOREACH(call, &agent->calls, entry) {
                call->repeated |= call->sent;
                call->sent = call->refused = false;
        }
        pthread_mutex_unlock(&agent->lock);
}

/* Until something happens; at most timeout_ms. True: the channel is readable. */
static bool await(struct agent *agent, int timeout_ms) {
        struct pollfd fds[] = { { .fd = agent->wake, .events = POLLIN },
                                { .fd = agent->channel ? channel_fd(agent->channel) : -1, .events = POLLIN } };
        uint64_t count;

        if (poll(fds, 2, timeout_ms) <= 0)
                return false;
        if (fds[0].revents && read(agent->wake, &count, sizeof(count)) < 0)
                return false;
        return fds[1].revents;
}

static int subscribe(struct agent *agent) {
        char params[96];
        int r;

        if (agent->last_event)
                snprintf(params, sizeof(params), "{\"topics\":[\"recall\"],\"since\":%llu}",
                         (unsigned long long)agent->last_event);
        else
                snprintf(params, sizeof(params), "{\"topics\":[\"recall\"]}");
        r = link_send(agent->channel, ID_SUBSCRIBE, "events.subscribe", params);
        /* By itself: a daemon that knows no such topic refuses it, and windows are found when they are missed. */
        if (!r && !link_takes_fds(agent->dmab->link))
                r = link_send(agent->channel, ID_SUBSCRIBE_GUEST, "events.subscribe", "{\"topics\":[\"guest\"]}");
        return r;
}

/* -ESTALE: there is nothing to connect to any more. */
static int join(struct agent *agent) {
        int r = link_join(agent->dmab->link, &agent->channel);

        if (!r)
                r = subscribe(agent);
        if (!r)
                return 0;
        lose_channel(agent);
        return r == -ESTALE ? r : 0;
}

/* Until the next attempt: longer each time, until something is heard of the daemon. */
static void back_off(struct agent *agent) {
        await(agent, (int)agent->backoff_ms);
        agent->backoff_ms = agent->backoff_ms * 2 < BACKOFF_LAST_MS ? agent->backoff_ms * 2 : BACKOFF_LAST_MS;
}

/* With the lock held, which a full socket may keep for a while. */
static int send_calls(struct agent *agent) {
        struct agent_call *call;
        int r = 0;

        TAILQ_FOREACH(call, &agent->calls, entry) {
                if (call->sent || r)
                        continue;
                call->sent = true;
                r = link_send(agent->channel, call->id, call->method, call->params.text);
        }
        return r;
}

static int timeout_of(const struct agent *agent) {
        const uint64_t now = clock_ms();

        if (agent->again)
                return BUSY_PAUSE_MS;
        return !agent->look_ms ? -1 : now < agent->look_ms ? (int)(agent->look_ms - now) : 0;
}

/* Until the connection is lost or the agent must end. */
static void serve(struct agent *agent) {
        int r = 0;

        while (!r) {
                bool readable = await(agent, timeout_of(agent));

                agent->again = false;
                pthread_mutex_lock(&agent->lock);
                if (agent->look_ms && clock_ms() >= agent->look_ms && !agent->stop)
                        take_windows(agent);
                r = agent->stop || agent->hang_up ? -EPIPE : send_calls(agent);
                agent->hang_up = false;
                pthread_mutex_unlock(&agent->lock);
                if (!r && readable)
                        r = channel_receive(agent->channel, -1, take_message, agent);
        }
        lose_channel(agent);
}

static bool is_stopped(struct agent *agent) {
        bool stop;

        pthread_mutex_lock(&agent->lock);
        stop = agent->stop;
        pthread_mutex_unlock(&agent->lock);
        return stop;
}

/* The session is over: whoever waits is told, and whoever asks from now on. */
static void mourn(struct agent *agent) {
        struct agent_call *call;

        session_lost(agent->dmab);
        pthread_mutex_lock(&agent->lock);
        while (!agent->stop) {
                while ((call = TAILQ_FIRST(&agent->calls)))
                        call_finish(agent, call, -ESTALE, NULL);
                pthread_mutex_unlock(&agent->lock);
                await(agent, -1);
                pthread_mutex_lock(&agent->lock);
        }
        pthread_mutex_unlock(&agent->lock);
}

static void *run(void *pointer) {
        struct agent *agent = pointer;
        int r = 0;

        while (!r && !is_stopped(agent)) {
                r = join(agent);
                if (!r && agent->channel) {
                        wake_up(agent); /* for what was asked before */
                        serve(agent);
                }
                if (!r && !is_stopped(agent))
                        back_off(agent);
        }
        if (r)
                mourn(agent);
        return NULL;
}

/* ---- starting and ending ---- */

/* No signal of the program is delivered to a thread that it does not know of. */
static int start_thread(struct agent *agent) {
        sigset_t all, old;
        int error;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        error = pthread_create(&agent->thread, NULL, run, agent);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (error)
                return error_set(error, "cannot start the thread that listens to the daemon: %s", strerrordesc_np(error));
        pthread_setname_np(agent->thread, "dmabroker");
        return 0;
}

static void agent_free(struct agent *agent) {
        close(agent->wake);
        free(agent);
}

static int agent_new(struct dmab *dmab, struct agent **ret) {
        struct agent *agent = calloc(1, sizeof(*agent));
        int r;

        if (!agent)
                return error_set(ENOMEM, "there is not enough memory");
        agent->dmab = dmab;
        agent->next_id = ID_FIRST;
        agent->backoff_ms = BACKOFF_FIRST_MS;
        TAILQ_INIT(&agent->watches);
        TAILQ_INIT(&agent->calls);
        pthread_mutex_init(&agent->lock, NULL);
        pthread_cond_init(&agent->idle, NULL);
        agent->wake = eventfd(0, EFD_CLOEXEC);
        if (agent->wake < 0) {
                r = error_set(errno, "cannot make an eventfd: %s", strerrordesc_np(errno));
                free(agent);
                return r;
        }
        r = start_thread(agent);
        if (r) {
                agent_free(agent);
                return r;
        }
        *ret = agent;
        return 0;
}

int agent_start(struct dmab *dmab) {
        struct agent *agent = NULL;
        int r = 0;

        if (__atomic_load_n(&dmab->agent, __ATOMIC_ACQUIRE))
                return 0;
        pthread_mutex_lock(&dmab->lock);
        if (!dmab->agent) {
                r = agent_new(dmab, &agent);
                if (!r)
                        __atomic_store_n(&dmab->agent, agent, __ATOMIC_RELEASE);
        }
        pthread_mutex_unlock(&dmab->lock);
        return r;
}

void agent_stop(struct agent *agent) {
        int old_state;

        if (!agent)
                return;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        pthread_mutex_lock(&agent->lock);
        agent->stop = true;
        pthread_mutex_unlock(&agent->lock);
        wake_up(agent);
        pthread_join(agent->thread, NULL);
        pthread_setcancelstate(old_state, NULL);
        pthread_cond_destroy(&agent->idle);
        pthread_mutex_destroy(&agent->lock);
        agent_free(agent);
}

void agent_abandon(struct agent *agent) {
        if (!agent)
                return;
        if (agent->channel)
                channel_abandon(agent->channel);
        agent_free(agent);
}

/* ---- what it does for others ---- */

void agent_watch(struct agent *agent, struct watch *watch, uint64_t number) {
        pthread_mutex_lock(&agent->lock);
        watch->number = number;
        if (!watch->on)
                TAILQ_INSERT_TAIL(&agent->watches, watch, entry);
        watch->on = true;
        pthread_mutex_unlock(&agent->lock);
}

/* Unless it is the callback that asks. With the lock held. */
static void await_callback(struct agent *agent, const void *of) {
        int old_state;

        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old_state);
        while (agent->running == of && !pthread_equal(pthread_self(), agent->thread))
                pthread_cond_wait(&agent->idle, &agent->lock);
        pthread_setcancelstate(old_state, NULL);
}

void agent_unwatch(struct agent *agent, struct watch *watch) {
        pthread_mutex_lock(&agent->lock);
        await_callback(agent, watch);
        if (watch->on)
                TAILQ_REMOVE(&agent->watches, watch, entry);
        watch->on = false;
        pthread_mutex_unlock(&agent->lock);
}

void agent_ask(struct agent *agent, struct agent_call *call) {
        pthread_mutex_lock(&agent->lock);
        call->id = agent->next_id++;
        call->sent = call->repeated = call->refused = false;
        TAILQ_INSERT_TAIL(&agent->calls, call, entry);
        pthread_mutex_unlock(&agent->lock);
        wake_up(agent);
}

bool agent_cancel(struct agent *agent, struct agent_call *call) {
        struct agent_call *asked;
        bool sent = false;

        pthread_mutex_lock(&agent->lock);
        await_callback(agent, call);
        TAILQ_FOREACH(asked, &agent->calls, entry)
                if (asked == call)
                        break;
        if (asked) {
                sent = call->sent;
                agent->hang_up |= sent;
                TAILQ_REMOVE(&agent->calls, call, entry);
        }
        pthread_mutex_unlock(&agent->lock);
        if (sent)
                wake_up(agent);
        return sent;
}

