#include "daemon/guest/qmp-window.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/writer.h"

/* One attachment or detachment: commands one after the other, each sent when the one before is done. */
struct task {
        struct qmp *qmp;
        qmp_done_fn done;
        void *userdata;
        char *connection; /* the device's name with something behind it */
        char *connection_add, *device_add, *connection_remove; /* arguments */
        struct qmp_answer failure; /* what the end will tell, once the connection is taken back */
        char sentence[256];
};

/* ---- arguments ---- */

static void write_member(struct json_writer *writer, const char *before, const char *text) {
        json_write_bytes(writer, before, strlen(before));
        json_write_text(writer, text);
}

/* The caller's, or NULL without memory. */
static char *finish_text(struct json_writer *writer) {
        json_write_bytes(writer, "", 1);
        if (!writer->failed)
                return writer->text;
        json_writer_deinit(writer);
        return NULL;
}

static char *make_connection_add(const char *connection, const struct qmp_window *window) {
        struct json_writer writer = { 0 };

        write_member(&writer, "{\"id\":", connection);
        write_member(&writer, ",\"backend\":{\"type\":\"socket\",\"data\":{\"server\":false,\"addr\":{\"type\":\"unix\","
                              "\"data\":{\"path\":", window->socket);
        json_write_literal(&writer, "}}}}}");
        return finish_text(&writer);
}

static char *make_connection_remove(const char *connection) {
        struct json_writer writer = { 0 };

        write_member(&writer, "{\"id\":", connection);
        json_write_literal(&writer, "}");
        return finish_text(&writer);
}

static char *make_device_add(const char *connection, const struct qmp_window *window) {
        struct json_writer writer = { 0 };

        json_write_literal(&writer, "{\"driver\":\"ivshmem-doorbell\"");
        write_member(&writer, ",\"id\":", window->id);
        write_member(&writer, ",\"chardev\":", connection);
        json_write_literal(&writer, ",\"vectors\":");
        json_write_unsigned(&writer, window->vectors ? window->vectors : 1);
        if (window->bus)
                write_member(&writer, ",\"bus\":", window->bus);
        if (window->addr)
                write_member(&writer, ",\"addr\":", window->addr);
        json_write_literal(&writer, "}");
        return finish_text(&writer);
}

/* ---- steps ---- */

static void task_free(struct task *task) {
        free(task->connection);
        free(task->connection_add);
        free(task->device_add);
        free(task->connection_remove);
        free(task);
}

static void task_end(struct task *task, const struct qmp_answer *answer) {
        qmp_done_fn done = task->done;
        void *userdata = task->userdata;

        done(userdata, answer);
        task_free(task);
}

static void task_next(struct task *task, const char *command, const char *arguments, qmp_done_fn then) {
        int r = qmp_execute(task->qmp, command, arguments, then, task);

        if (r < 0)
                task_end(task, &(struct qmp_answer){ .error = r, .sentence = strerror(-r) });
}

static void on_taken_back(void *userdata, const struct qmp_answer *answer) {
        struct task *task = userdata;

        task_end(task, &task->failure);
}

/* The connection is of no use without the device; whether it can be taken back changes nothing about the failure. */
static void take_back(struct task *task, const struct qmp_answer *failure) {
        snprintf(task->sentence, sizeof(task->sentence), "%s", failure->sentence);
        task->failure = *failure;
        task->failure.sentence = task->sentence;
        if (qmp_execute(task->qmp, "chardev-remove", task->connection_remove, on_taken_back, task) < 0)
                task_end(task, &task->failure);
}

static void on_device_added(void *userdata, const struct qmp_answer *answer) {
        if (answer->error < 0 && answer->answered)
                take_back(userdata, answer);
        else
                task_end(userdata, answer);
}

static void on_connection_added(void *userdata, const struct qmp_answer *answer) {
        struct task *task = userdata;

        if (answer->error < 0)
                task_end(task, answer);
        else
                task_next(task, "device_add", task->device_add, on_device_added);
}

/* Usually there was none, and QEMU says so. */
static void on_cleared(void *userdata, const struct qmp_answer *answer) {
        struct task *task = userdata;

        if (!answer->answered)
                task_end(task, answer);
        else
                task_next(task, "chardev-add", task->connection_add, on_connection_added);
}

/* The device is gone in any case, and that is what was asked for; a connection that is left is cleared away by the next
 * attachment. */
static void on_connection_removed(void *userdata, const struct qmp_answer *answer) {
        task_end(userdata, &(struct qmp_answer){ .answered = true, .value = "{}" });
}

static void on_unplugged(void *userdata, const struct qmp_answer *answer) {
        struct task *task = userdata;

        if (answer->error == -ENODEV)
                take_back(task, answer);
        else if (answer->error < 0)
                task_end(task, answer);
        else if (qmp_execute(task->qmp, "chardev-remove", task->connection_remove, on_connection_removed, task) < 0)
                on_connection_removed(task, NULL);
}

/* ---- beginnings ---- */

static struct task *task_new(struct qmp *qmp, const char *id, qmp_done_fn done, void *userdata) {
        struct task *task = calloc(1, sizeof(*task));

        if (!task)
                return NULL;
        task->qmp = qmp;
        task->done = done;
        task->userdata = userdata;
        if (asprintf(&task->connection, "%s-window", id) < 0)
                task->connection = NULL;
        if (task->connection)
                task->connection_remove = make_connection_remove(task->connection);
        if (task->connection_remove)
                return task;
        task_free(task);
        return NULL;
}

int qmp_attach_window(struct qmp *qmp, const struct qmp_window *window, qmp_done_fn done, void *userdata) {
        struct task *task = task_new(qmp, window->id, done, userdata);
        int r;

        if (!task)
                return -ENOMEM;
        task->connection_add = make_connection_add(task->connection, window);
        task->device_add = make_device_add(task->connection, window);
        r = task->connection_add && task->device_add ? 0 : -ENOMEM;
        if (r == 0)
                r = qmp_execute(qmp, "chardev-remove", task->connection_remove, on_cleared, task);
        if (r < 0)
                task_free(task);
        return r;
}

int qmp_detach_window(struct qmp *qmp, const char *id, uint64_t timeout_ms, qmp_done_fn done, void *userdata) {
        struct task *task = task_new(qmp, id, done, userdata);
        int r;

        if (!task)
                return -ENOMEM;
        r = qmp_unplug(qmp, id, timeout_ms, on_unplugged, task);
        if (r < 0)
                task_free(task);
        return r;
}

int qmp_clear_window(struct qmp *qmp, const char *id, qmp_done_fn done, void *userdata) {
        struct task *task = task_new(qmp, id, done, userdata);
        int r;

        if (!task)
                return -ENOMEM;
        r = qmp_execute(qmp, "chardev-remove", task->connection_remove, on_connection_removed, task);
        if (r < 0)
                task_free(task);
        return r;
}

/* ---- status ---- */

struct question {
        qmp_status_fn done;
        void *userdata;
};

static void on_status(void *userdata, const struct qmp_answer *answer) {
        static const struct qmp_answer no_status = {
                .error = -EBADMSG, .answered = true, .sentence = "QEMU's answer to query-status is none",
        };
        struct question *question = userdata;
        struct qmp_status status;

        if (answer->error == 0 && qmp_status_read(answer->value, &status) == 0)
                question->done(question->userdata, answer, &status);
        else
                question->done(question->userdata, answer->error < 0 ? answer : &no_status, NULL);
        free(question);
}

int qmp_query_status(struct qmp *qmp, qmp_status_fn done, void *userdata) {
        struct question *question = malloc(sizeof(*question));
        int r;

        if (!question)
                return -ENOMEM;
        *question = (struct question){ .done = done, .userdata = userdata };
        r = qmp_execute(qmp, "query-status", NULL, on_status, question);
        if (r < 0)
                free(question);
        return r;
}
