#include "proto/qmp-message.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>

#include "proto/scan.h"

enum { NESTING = 64 };

/* What the library prints lies in memory of its own kind; a writer's text is anybody's. */
static int print_piece(const char *text, size_t length, void *writer) {
        json_write_bytes(writer, text, length);
        return 0;
}

static void print(struct json_writer *writer, const json_t *value) {
        if (json_dump_callback(value, print_piece, writer, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
                writer->failed = true;
}

/* ---- in ---- */

static int check_depth(const char *text, size_t length) {
        struct scan scan = { 0 };
        enum scan_verdict verdict = scan_text(&scan, text, length, NESTING, 1);

        free(scan.ids);
        if (verdict == SCAN_NO_MEMORY)
                return -ENOMEM;
        return verdict == SCAN_FINE ? 0 : -EBADMSG;
}

/* Some of what QEMU counts has all 64 bits, which no integer of the parser's has: such a message is read with floating point
 * instead of not at all. Our own numbers are far below where that loses anything. */
static int load(const char *text, size_t length, json_t **ret) {
        json_error_t error;
        int r = check_depth(text, length);

        if (r < 0)
                return r;
        *ret = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
        if (!*ret && json_error_code(&error) == json_error_numeric_overflow)
                *ret = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
        if (*ret)
                return 0;
        return json_error_code(&error) == json_error_out_of_memory ? -ENOMEM : -EBADMSG;
}

static const char *get_text(const json_t *object, const char *key) {
        return json_string_value(json_object_get(object, key));
}

static void read_id(const json_t *root, struct qmp_message *message) {
        const json_t *id = json_object_get(root, "id");
        double number = json_is_number(id) ? json_number_value(id) : -1;

        message->has_id = number >= 0 && number < 9007199254740992.0; /* 2^53: exact also when read with floating point */
        if (message->has_id)
                message->id = (uint64_t)number;
}

static int read_return(const json_t *value, struct qmp_message *message) {
        struct json_writer writer = { 0 };

        message->kind = QMP_MESSAGE_RETURN;
        print(&writer, value);
        json_write_bytes(&writer, "", 1);
        if (!writer.failed) {
                message->value = writer.text;
                return 0;
        }
        json_writer_deinit(&writer);
        return -ENOMEM;
}

static int read_error(const json_t *error, struct qmp_message *message) {
        message->kind = QMP_MESSAGE_ERROR;
        message->error_class = get_text(error, "class");
        message->desc = get_text(error, "desc");
        return message->desc ? 0 : -EBADMSG;
}

static int read_event(const json_t *root, const json_t *event, struct qmp_message *message) {
        const json_t *data = json_object_get(root, "data");

        message->kind = QMP_MESSAGE_EVENT;
        message->event = json_string_value(event);
        message->device = get_text(data, "device");
        message->path = get_text(data, "path");
        message->reason = get_text(data, "reason");
        return message->event ? 0 : -EBADMSG;
}

static int read_message(const json_t *root, struct qmp_message *message) {
        const json_t *found;

        read_id(root, message);
        if ((found = json_object_get(root, "event")))
                return read_event(root, found, message);
        if ((found = json_object_get(root, "error")))
                return read_error(found, message);
        if ((found = json_object_get(root, "return")))
                return read_return(found, message);
        message->kind = QMP_MESSAGE_GREETING;
        return json_is_object(json_object_get(root, "QMP")) ? 0 : -EBADMSG;
}

int qmp_message_parse(const char *text, size_t length, struct qmp_message *ret) {
        struct qmp_message message = { 0 };
        json_t *root;
        int r = load(text, length, &root);

        if (r < 0)
                return r;
        message.root = root;
        r = read_message(root, &message);
        if (r < 0)
                qmp_message_deinit(&message);
        else
                *ret = message;
        return r;
}

void qmp_message_deinit(struct qmp_message *message) {
        json_decref(message->root);
        free(message->value);
        *message = (struct qmp_message){ 0 };
}

/* ---- out ---- */

/* They are written anew, so that they are one object on one line whatever they looked like. */
static int write_arguments(struct json_writer *writer, const char *arguments) {
        json_error_t error;
        json_t *object = json_loads(arguments, JSON_REJECT_DUPLICATES, &error);
        int r = json_is_object(object) ? 0 : -EINVAL;

        if (!object)
                return json_error_code(&error) == json_error_out_of_memory ? -ENOMEM : -EINVAL;
        json_write_literal(writer, ",\"arguments\":");
        print(writer, object);
        json_decref(object);
        return r;
}

int qmp_message_compose(struct json_writer *writer, uint64_t id, const char *command, const char *arguments) {
        size_t before = writer->length;
        int r = 0;

        json_write_literal(writer, "{\"execute\":");
        json_write_text(writer, command);
        if (arguments)
                r = write_arguments(writer, arguments);
        json_write_literal(writer, ",\"id\":");
        json_write_unsigned(writer, id);
        json_write_literal(writer, "}\n");
        if (r == 0 && !writer->failed)
                return 0;
        writer->length = before;
        r = writer->failed ? -ENOMEM : r;
        writer->failed = false;
        return r;
}

/* ---- what commands return ---- */

int qmp_status_read(const char *value, struct qmp_status *ret) {
        json_t *root = json_loads(value, JSON_REJECT_DUPLICATES, NULL);
        const char *name = get_text(root, "status");
        const json_t *running = json_object_get(root, "running");
        int r = -EBADMSG;

        if (name && strlen(name) < sizeof(ret->name) && json_is_boolean(running)) {
                strcpy(ret->name, name);
                ret->running = json_is_true(running);
                r = 0;
        }
        json_decref(root);
        return r;
}
