/* A QEMU that does what a test says, for what a real one does not do when it is asked to (tests/vm/kvm.sh has the real one).
 *
 * It is a process of its own, whose death the daemon sees; but all that this process does is to open sockets, and to pass them
 * to the test, which speaks for it: the other side sees that process's number at the other end. So a test is told from its
 * beginning to its end in one place. Whatever does not come as it should fails the test at the line that waited for it. */
#ifndef DMAB_TESTS_RPC_QEMU_H
#define DMAB_TESTS_RPC_QEMU_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/lib/client.h"

struct qemu {
        pid_t pid; /* 0: it has ended */
        int control, listener;
        struct test_client *monitor; /* NULL: nobody has connected */
        const char *leftovers; /* a JSON array: what it tells of its devices when it is asked for all of them, which nobody need
                                * expect; NULL: it has none */
};

/* An ivshmem device's connection, once it was told all it needs. */
struct qemu_window {
        char id[64], connection[64], socket[108];
        int fd;     /* the connection */
        int memory; /* or -1: it was refused */
};

/* Its monitor is at path. Nobody has connected yet. */
struct qemu *qemu_start(const char *path);
/* SIGKILL, and waits until it is gone. NULL is fine; returns NULL. */
struct qemu *qemu_kill(struct qemu *qemu);
/* Closes the monitor's connection, or ends the whole monitor. */
void qemu_hang_up(struct qemu *qemu);
/* -errno, or a socket that its process has connected to path. */
int qemu_connect(struct qemu *qemu, const char *path);

/* Waits for the daemon to come, and leads it to where it may send commands. */
void qemu_greet(struct qemu *qemu);
/* The next command must be this one: its arguments, NULL if it has none. The caller's. */
json_t *qemu_expect(struct qemu *qemu, const char *command, uint64_t *ret_id);
void qemu_say(struct qemu *qemu, const char *format, ...) __attribute__((format(printf, 2, 3))); /* ' is " */
void qemu_return(struct qemu *qemu, uint64_t id);
void qemu_refuse(struct qemu *qemu, uint64_t id, const char *class);
void qemu_event(struct qemu *qemu, const char *event);
void qemu_deleted(struct qemu *qemu, const char *device);
/* The next command is this one, and is answered well, or refused with this class. */
void qemu_obey(struct qemu *qemu, const char *command);
void qemu_reject(struct qemu *qemu, const char *command, const char *class);
/* It greets, and says whether it runs. */
void qemu_serve(struct qemu *qemu, bool running);

/* Does as it is told by an attachment, up to where it is to answer device_add, which it has not yet. */
uint64_t qemu_plug_begin(struct qemu *qemu, struct qemu_window *window);
/* All of it. */
void qemu_plug(struct qemu *qemu, struct qemu_window *window);
/* The connection to the window's server: the next number it says; *ret_fd: what came with it, or -1. */
int64_t qemu_hear(const struct qemu_window *window, int *ret_fd);
/* Closes what it has. */
void qemu_drop(struct qemu_window *window);

#endif
