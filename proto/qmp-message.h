/* QEMU's machine protocol (QMP), as far as it is JSON: one line in, one line out. Nothing here is kept between two
 * lines, and nothing that comes in is trusted: how deep it may nest is limited, and so is whatever becomes of it by the
 * length of the line. */
#ifndef DMAB_PROTO_QMP_MESSAGE_H
#define DMAB_PROTO_QMP_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/writer.h"

enum qmp_message_kind {
        QMP_MESSAGE_GREETING,
        QMP_MESSAGE_RETURN,
        QMP_MESSAGE_ERROR,
        QMP_MESSAGE_EVENT,
};

/* Texts are NULL where the message has none; they are whatever QEMU says, and live as long as the message. */
struct qmp_message {
        enum qmp_message_kind kind;
        bool has_id; /* of a return or an error: the number that the command was given */
        uint64_t id;
        char *value;             /* of a return: its JSON text */
        const char *error_class; /* of an error: QEMU's own name for the kind of error, */
        const char *desc;        /* and its sentence; never NULL */
        const char *event;       /* of an event: its name; never NULL */
        const char *device;      /* and of its data: the id of a device, */
        const char *path;        /* the path of an object, */
        const char *reason;      /* the reason of a shutdown or reset */
        void *root;              /* what the texts lie in; for qmp-message.c alone */
};

/* 0; -EBADMSG: this is not one message of QMP; -ENOMEM. */
int qmp_message_parse(const char *text, size_t length, struct qmp_message *ret);
void qmp_message_deinit(struct qmp_message *message);

/* Append a command as one line, with its LF. arguments: the text of a JSON object, or NULL. 0; -EINVAL: they are none;
 * -ENOMEM. On failure nothing is appended. */
int qmp_message_compose(struct json_writer *writer, uint64_t id, const char *command, const char *arguments);

/* What query-status returns. */
struct qmp_status {
        char name[32]; /* "running", "paused", "prelaunch" … */
        bool running;
};

/* 0 or -EBADMSG. */
int qmp_status_read(const char *value, struct qmp_status *ret);

#endif
