#include "daemon/guest/qmp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/loop.h"
#include "proto/fdpass.h"
#include "proto/frame.h"
#include "proto/qmp-message.h"

enum {
        TIMEOUT_MS = 10000,
        RETRY_MS = 1000,
        RETRY_MAX_MS = 30000,
        COMMANDS_MAX = 64,
        LINE_MAX_BYTES = 1 << 20,
        OUT_MAX_BYTES = 1 << 20,
        OUT_KEPT_BYTES = 64 << 10,
        READ_BYTES = 16 << 10,
        LAST_READS = 64, /* of what QEMU said before its end */
        SENTENCE_MAX = 256,
};

/* From one connect() to the end of that connection. What is read into and written from stays until its handle is
 * closed, so that a callback in the middle of a line may end it. */
struct link {
        struct qmp *qmp;
        int fd;
        uv_poll_t poll;
        int polled;
        pid_t pid;
        struct frame_reader reader;
        struct json_writer out;
        size_t sent;
};

struct command {
        struct command *prev, *next;
        uint64_t id;
        uint64_t deadline_ms;
        qmp_done_fn done;
        void *userdata;
        char *device; /* it is done when this is gone, or NULL: when it is answered */
};

enum state { AWAY, GREETING, NEGOTIATING, READY };

struct qmp {
        uv_loop_t *loop;
        struct sockaddr_un address;
        struct qmp_options options;
        const struct qmp_listener *listener;
        void *userdata;
        void (*closed)(void *userdata);
        bool closing;
        unsigned n_handles;

        enum state state;
        struct link *link; /* NULL when AWAY */
        uv_timer_t retry, deadline;
        uint64_t retry_ms;    /* until the next attempt */
        uint64_t greeting_ms; /* when it must have come */
        char why[SENTENCE_MAX];

        struct command *commands;
        size_t n_commands;
        uint64_t last_id;
};

/* ---- sentences ---- */

static void copy_sentence(char *buffer, const char *text) {
        snprintf(buffer, SENTENCE_MAX, "%s", *text ? text : "no reason is given");
        for (char *at = buffer; *at; at++)
                if ((unsigned char)*at < ' ' || *at == 0x7f)
                        *at = ' ';
}

/* ---- commands ---- */

/* Consumes command. */
static void command_done(struct qmp *qmp, struct command *command, const struct qmp_answer *answer) {
        DL_DELETE(qmp->commands, command);
        qmp->n_commands--;
        command->done(command->userdata, answer);
        free(command->device);
        free(command);
}

static void command_fail(struct qmp *qmp, struct command *command, int error, const char *sentence) {
        command_done(qmp, command, &(struct qmp_answer){ .error = error, .sentence = sentence });
}

/* None is added meanwhile, for the client is not ready. */
static void fail_all(struct qmp *qmp, int error, const char *sentence) {
        while (qmp->commands)
                command_fail(qmp, qmp->commands, error, sentence);
}

static void on_deadline(uv_timer_t *timer);

static void watch_deadlines(struct qmp *qmp) {
        uint64_t first = qmp->state == GREETING ? qmp->greeting_ms : UINT64_MAX, now = uv_now(qmp->loop);
        struct command *command;

        if (qmp->closing)
                return;
        DL_FOREACH(qmp->commands, command) {
                if (command->deadline_ms < first)
                        first = command->deadline_ms;
        }
        if (first == UINT64_MAX)
                uv_timer_stop(&qmp->deadline);
        else
                uv_timer_start(&qmp->deadline, on_deadline, first > now ? first - now : 0, 0);
}

static struct command *find_command(struct qmp *qmp, uint64_t id) {
        struct command *command;

        DL_FOREACH(qmp->commands, command) {
                if (command->id == id)
                        return command;
        }
        return NULL;
}

static struct command *find_expired(struct qmp *qmp) {
        struct command *command;

        DL_FOREACH(qmp->commands, command) {
                if (command->deadline_ms <= uv_now(qmp->loop))
                        return command;
        }
        return NULL;
}

static struct command *find_unplugging(struct qmp *qmp, const char *device) {
        struct command *command;

        DL_FOREACH(qmp->commands, command) {
                if (command->device && strcmp(command->device, device) == 0)
                        return command;
        }
        return NULL;
}

/* ---- the connection ---- */

static void on_event(uv_poll_t *handle, int status, int events);
static void on_retry(uv_timer_t *timer);

static void handle_closed(struct qmp *qmp) {
        void (*closed)(void *) = qmp->closed;
        void *userdata = qmp->userdata;

        if (--qmp->n_handles)
                return;
        fail_all(qmp, -ECANCELED, "the connection to QEMU was given up");
        free(qmp);
        if (closed)
                closed(userdata);
}

static void on_link_closed(uv_handle_t *handle) {
        struct link *link = handle->data;
        struct qmp *qmp = link->qmp;

        close(link->fd);
        frame_reader_deinit(&link->reader);
        json_writer_deinit(&link->out);
        free(link);
        handle_closed(qmp);
}

static void hang_up(struct qmp *qmp) {
        qmp->state = AWAY;
        if (qmp->link)
                uv_close((uv_handle_t *)&qmp->link->poll, on_link_closed);
        qmp->link = NULL;
}

/* Whatever has happened: the connection is over, if there was one, and is tried again. */
static void lose(struct qmp *qmp, const char *why) {
        bool was_ready = qmp->state == READY;

        copy_sentence(qmp->why, why);
        hang_up(qmp);
        fail_all(qmp, -ECONNRESET, qmp->why);
        if (was_ready && !qmp->closing && qmp->listener->lost)
                qmp->listener->lost(qmp->userdata, qmp->why);
        if (qmp->closing)
                return;
        uv_timer_stop(&qmp->deadline);
        uv_timer_start(&qmp->retry, on_retry, qmp->retry_ms, 0);
        qmp->retry_ms *= 2;
        if (qmp->retry_ms > qmp->options.retry_max_ms)
                qmp->retry_ms = qmp->options.retry_max_ms;
}

static int watch(struct link *link, int events) {
        int r = 0;

        if (events != link->polled)
                r = loop_watch(&link->poll, events, on_event);
        link->polled = r < 0 ? 0 : events;
        return r;
}

/* Consumes fd, also on failure. */
static int link_new(struct qmp *qmp, int fd) {
        struct link *link = calloc(1, sizeof(*link));
        struct ucred who = { 0 };
        socklen_t length = sizeof(who);
        int r = link ? uv_poll_init(qmp->loop, &link->poll, fd) : -ENOMEM;

        if (r < 0) {
                close(fd);
                free(link);
                return r;
        }
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length);
        link->qmp = qmp;
        link->fd = fd;
        link->pid = who.pid;
        link->poll.data = link;
        frame_reader_init(&link->reader, qmp->options.line_max, false);
        qmp->link = link;
        qmp->n_handles++;
        return watch(link, UV_READABLE);
}

/* A UNIX socket is connected to at once, or not at all. */
static int connect_once(struct qmp *qmp) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)&qmp->address, sizeof(qmp->address)) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return link_new(qmp, fd);
}

static void on_retry(uv_timer_t *timer) {
        struct qmp *qmp = timer->data;
        char why[SENTENCE_MAX];
        int r = connect_once(qmp);

        if (r < 0) {
                snprintf(why, sizeof(why), "%s cannot be connected to: %s", qmp->address.sun_path, strerror(-r));
                lose(qmp, why);
                return;
        }
        qmp->state = GREETING;
        qmp->greeting_ms = uv_now(qmp->loop) + qmp->options.timeout_ms;
        watch_deadlines(qmp);
}

/* ---- what takes too long ---- */

static void expire(struct qmp *qmp, struct command *command) {
        char sentence[SENTENCE_MAX];

        if (command->device)
                snprintf(sentence, sizeof(sentence), "the guest has not let go of %s in time", command->device);
        else
                snprintf(sentence, sizeof(sentence), "QEMU has not answered in time");
        command_fail(qmp, command, -ETIMEDOUT, sentence);
}

static void on_deadline(uv_timer_t *timer) {
        struct qmp *qmp = timer->data;
        struct command *command;

        if (qmp->state == GREETING && qmp->greeting_ms <= uv_now(qmp->loop)) {
                lose(qmp, "QEMU does not greet; it may serve another monitor");
                return;
        }
        while (!qmp->closing && (command = find_expired(qmp)))
                expire(qmp, command);
        watch_deadlines(qmp);
}

/* ---- out ---- */

/* Consumes device, also on failure. */
static int add_command(struct qmp *qmp, const char *name, const char *arguments, char *device, uint64_t timeout_ms,
                       qmp_done_fn done, void *userdata) {
        struct link *link = qmp->link;
        struct command *command = malloc(sizeof(*command));
        int r = command ? 0 : -ENOMEM;

        if (r == 0 && link->out.length > OUT_MAX_BYTES)
                r = -ENOBUFS;
        if (r == 0)
                r = watch(link, UV_READABLE | UV_WRITABLE);
        if (r == 0)
                r = qmp_message_compose(&link->out, qmp->last_id + 1, name, arguments);
        if (r < 0) {
                free(device);
                free(command);
                return r;
        }
        *command = (struct command){
                .id = ++qmp->last_id,
                .deadline_ms = uv_now(qmp->loop) + timeout_ms,
                .done = done,
                .userdata = userdata,
                .device = device,
        };
        DL_APPEND(qmp->commands, command);
        qmp->n_commands++;
        watch_deadlines(qmp);
        return 0;
}

static int check_acceptance(const struct qmp *qmp) {
        if (qmp->state != READY)
                return -ENOTCONN;
        return qmp->n_commands < qmp->options.commands_max ? 0 : -EBUSY;
}

int qmp_execute(struct qmp *qmp, const char *command, const char *arguments, qmp_done_fn done, void *userdata) {
        int r = check_acceptance(qmp);

        return r < 0 ? r : add_command(qmp, command, arguments, NULL, qmp->options.timeout_ms, done, userdata);
}

int qmp_unplug(struct qmp *qmp, const char *device, uint64_t timeout_ms, qmp_done_fn done, void *userdata) {
        struct json_writer arguments = { 0 };
        char *copy;
        int r = check_acceptance(qmp);

        if (r < 0)
                return r;
        copy = strdup(device);
        json_write_literal(&arguments, "{\"id\":");
        json_write_text(&arguments, device);
        json_write_bytes(&arguments, "}", sizeof("}"));
        r = copy && !arguments.failed ? 0 : -ENOMEM;
        if (r == 0)
                r = add_command(qmp, "device_del", arguments.text, copy, timeout_ms, done, userdata);
        else
                free(copy);
        json_writer_deinit(&arguments);
        return r;
}

/* 0 or -errno. */
static int flush(struct link *link) {
        struct iovec rest = { link->out.text + link->sent, link->out.length - link->sent };
        ssize_t n;

        while (rest.iov_len) {
                n = fdpass_send(link->fd, &rest, 1, NULL, 0);
                if (n == -EAGAIN)
                        return 0;
                if (n < 0)
                        return (int)n;
                link->sent += (size_t)n;
                rest.iov_base = link->out.text + link->sent;
                rest.iov_len -= (size_t)n;
        }
        json_writer_clear(&link->out, OUT_KEPT_BYTES);
        link->sent = 0;
        return watch(link, UV_READABLE);
}

/* ---- in ---- */

static const struct {
        const char *name;
        enum qmp_event_kind kind;
} event_names[] = {
        { "SHUTDOWN", QMP_EVENT_SHUTDOWN },
        { "RESET", QMP_EVENT_RESET },
        { "STOP", QMP_EVENT_STOP },
        { "RESUME", QMP_EVENT_RESUME },
        { "DEVICE_DELETED", QMP_EVENT_DEVICE_DELETED },
        { "DEVICE_UNPLUG_GUEST_ERROR", QMP_EVENT_UNPLUG_REFUSED },
        { "GUEST_PANICKED", QMP_EVENT_GUEST_PANICKED },
};

/* QEMU's classes of errors; there are few, and most errors have the generic one. */
static int error_of_class(const char *name) {
        if (name && strcmp(name, "DeviceNotFound") == 0)
                return -ENODEV;
        if (name && strcmp(name, "CommandNotFound") == 0)
                return -EOPNOTSUPP;
        return -EREMOTEIO;
}

static void take_answer(struct qmp *qmp, const struct qmp_message *message) {
        struct command *command = message->has_id ? find_command(qmp, message->id) : NULL;
        struct qmp_answer answer = { .answered = true };
        char sentence[SENTENCE_MAX];

        /* None: it was told that it had taken too long. */
        if (!command)
                return;
        if (message->kind == QMP_MESSAGE_ERROR) {
                copy_sentence(sentence, message->desc);
                answer.error = error_of_class(message->error_class);
                answer.sentence = sentence;
        } else if (command->device)
                return; /* QEMU has asked the guest. */
        else
                answer.value = message->value;
        command_done(qmp, command, &answer);
}

/* The commands that wait for it come first. The listener is told unless one of them has closed the client. */
static void take_device_event(struct qmp *qmp, const struct qmp_event *event) {
        bool is_gone = event->kind == QMP_EVENT_DEVICE_DELETED;
        const struct qmp_answer answer = {
                .error = is_gone ? 0 : -EBUSY,
                .answered = true,
                .value = is_gone ? "{}" : NULL,
                .sentence = is_gone ? NULL : "the guest refuses to let go of the device",
        };
        const struct link *link = qmp->link;
        struct command *command;
        uint64_t last = qmp->last_id;

        /* Not those that are added meanwhile. */
        while (qmp->link == link && event->device && (command = find_unplugging(qmp, event->device)) && command->id <= last)
                command_done(qmp, command, &answer);
}

static void take_event(struct qmp *qmp, const struct qmp_message *message) {
        struct qmp_event event = { .device = message->device, .path = message->path, .reason = message->reason };
        const struct link *link = qmp->link;
        size_t i = 0;

        while (i < sizeof(event_names) / sizeof(*event_names) && strcmp(event_names[i].name, message->event) != 0)
                i++;
        if (i == sizeof(event_names) / sizeof(*event_names))
                return;
        event.kind = event_names[i].kind;
        if (event.kind == QMP_EVENT_DEVICE_DELETED || event.kind == QMP_EVENT_UNPLUG_REFUSED)
                take_device_event(qmp, &event);
        if (qmp->link == link && qmp->listener->event)
                qmp->listener->event(qmp->userdata, &event);
}

static void on_negotiated(void *userdata, const struct qmp_answer *answer) {
        struct qmp *qmp = userdata;

        /* When it was lost, that is being seen to already. */
        if (qmp->state != NEGOTIATING)
                return;
        if (answer->error < 0) {
                lose(qmp, answer->sentence);
                return;
        }
        qmp->state = READY;
        qmp->retry_ms = qmp->options.retry_ms;
        qmp->why[0] = '\0';
        if (qmp->listener->connected)
                qmp->listener->connected(qmp->userdata);
}

static void take_greeting(struct qmp *qmp) {
        int r = add_command(qmp, "qmp_capabilities", NULL, NULL, qmp->options.timeout_ms, on_negotiated, qmp);

        if (r < 0)
                lose(qmp, strerror(-r));
        else
                qmp->state = NEGOTIATING;
}

static void take_message(struct qmp *qmp, const struct qmp_message *message) {
        bool is_greeting = message->kind == QMP_MESSAGE_GREETING;

        if (is_greeting != (qmp->state == GREETING))
                lose(qmp, "what QEMU says is out of order");
        else if (is_greeting)
                take_greeting(qmp);
        else if (message->kind != QMP_MESSAGE_EVENT)
                take_answer(qmp, message);
        else if (qmp->state == READY)
                take_event(qmp, message);
}

static void take_line(struct qmp *qmp, const char *text, size_t length) {
        struct qmp_message message;
        int r = qmp_message_parse(text, length, &message);

        if (r < 0) {
                lose(qmp, r == -ENOMEM ? "there is no memory for what QEMU says" : "what QEMU says is no QMP");
                return;
        }
        take_message(qmp, &message);
        qmp_message_deinit(&message);
}

/* Any line may bring a callback that ends the connection; what is left of it is then forgotten. */
static void take_bytes(struct link *link, const char *bytes, size_t size) {
        struct qmp *qmp = link->qmp;
        enum frame_event event = FRAME_TEXT;
        const char *text;
        size_t length;

        while (qmp->link == link && event != FRAME_MORE) {
                event = frame_reader_next(&link->reader, &bytes, &size, &text, &length);
                if (event == FRAME_TEXT)
                        take_line(qmp, text, length);
                else if (event == FRAME_OVERSIZE)
                        lose(qmp, "what QEMU says is too long");
                else if (event == FRAME_NO_MEMORY)
                        lose(qmp, "there is no memory for what QEMU says");
        }
}

/* One read at a time, so that a QEMU which never stops talking leaves the others their time. */
static void receive(struct link *link) {
        char bytes[READ_BYTES];
        bool refused;
        ssize_t n = fdpass_receive_none(link->fd, bytes, sizeof(bytes), &refused);

        if (n > 0)
                take_bytes(link, bytes, (size_t)n);
        else if (n == 0)
                lose(link->qmp, "QEMU has hung up");
        else if (n != -EAGAIN)
                lose(link->qmp, strerror((int)-n));
}

/* It has ended without reading all that it was told; what it has said itself can still be read. */
static void receive_last(struct link *link) {
        struct qmp *qmp = link->qmp;

        for (int i = 0; i < LAST_READS && qmp->link == link; i++)
                receive(link);
        if (qmp->link == link)
                lose(qmp, "QEMU has hung up");
}

static void on_event(uv_poll_t *handle, int status, int events) {
        struct link *link = handle->data;
        struct qmp *qmp = link->qmp;
        int r = 0;

        if (status < 0) {
                receive_last(link);
                return;
        }
        if (events & UV_READABLE)
                receive(link);
        if (qmp->link == link && (events & UV_WRITABLE))
                r = flush(link);
        if (r < 0 && qmp->link == link)
                receive_last(link);
}

/* ---- beginning and end ---- */

static uint64_t or_default(uint64_t value, uint64_t otherwise) {
        return value ? value : otherwise;
}

static void set_options(struct qmp *qmp, const struct qmp_options *options) {
        const struct qmp_options none = { 0 };

        if (!options)
                options = &none;
        qmp->options = (struct qmp_options){
                .timeout_ms = or_default(options->timeout_ms, TIMEOUT_MS),
                .retry_ms = or_default(options->retry_ms, RETRY_MS),
                .retry_max_ms = or_default(options->retry_max_ms, RETRY_MAX_MS),
                .commands_max = or_default(options->commands_max, COMMANDS_MAX),
                .line_max = or_default(options->line_max, LINE_MAX_BYTES),
        };
        qmp->retry_ms = qmp->options.retry_ms;
}

int qmp_new(uv_loop_t *loop, const char *path, const struct qmp_options *options, const struct qmp_listener *listener,
            void *userdata, struct qmp **ret) {
        struct qmp *qmp;

        if (strlen(path) >= sizeof(qmp->address.sun_path))
                return -ENAMETOOLONG;
        qmp = calloc(1, sizeof(*qmp));
        if (!qmp)
                return -ENOMEM;
        qmp->loop = loop;
        qmp->address.sun_family = AF_UNIX;
        strcpy(qmp->address.sun_path, path);
        set_options(qmp, options);
        qmp->listener = listener;
        qmp->userdata = userdata;
        uv_timer_init(loop, &qmp->retry);
        uv_timer_init(loop, &qmp->deadline);
        qmp->retry.data = qmp->deadline.data = qmp;
        qmp->n_handles = 2;
        uv_timer_start(&qmp->retry, on_retry, 0, 0);
        *ret = qmp;
        return 0;
}

static void on_timer_closed(uv_handle_t *handle) {
        handle_closed(handle->data);
}

void qmp_close(struct qmp *qmp, void (*closed)(void *userdata)) {
        if (qmp->closing)
                return;
        qmp->closing = true;
        qmp->closed = closed;
        hang_up(qmp);
        uv_close((uv_handle_t *)&qmp->retry, on_timer_closed);
        uv_close((uv_handle_t *)&qmp->deadline, on_timer_closed);
}

void qmp_refuse(struct qmp *qmp, const char *why) {
        if (qmp->link && !qmp->closing)
                lose(qmp, why);
}

void qmp_hurry(struct qmp *qmp) {
        if (!qmp->link && !qmp->closing)
                uv_timer_start(&qmp->retry, on_retry, 0, 0);
}

bool qmp_is_ready(const struct qmp *qmp) {
        return qmp->state == READY;
}

pid_t qmp_pid(const struct qmp *qmp) {
        return qmp->link ? qmp->link->pid : 0;
}

const char *qmp_why_away(const struct qmp *qmp) {
        return qmp->why;
}
