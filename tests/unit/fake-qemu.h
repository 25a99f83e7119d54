/* A QEMU that does what a test says: a monitor's socket in the test's own thread, whose loop runs while something is
 * waited for. It is for what a real QEMU does not do when it is asked to: tests/vm/ivshmem.sh has the real one. */
#ifndef DMAB_TESTS_UNIT_FAKE_QEMU_H
#define DMAB_TESTS_UNIT_FAKE_QEMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct fake_qemu {
        uv_loop_t *loop;
        char path[100];
        int listener, client; /* -1: none */
        bool deaf;            /* reads nothing */
        unsigned n_accepted, n_ended; /* connections */
        char in[1 << 16];
        size_t used;
};

void fake_init(struct fake_qemu *fake, uv_loop_t *loop, const char *path);
void fake_listen(struct fake_qemu *fake);
/* Closes everything and removes the socket. */
void fake_deinit(struct fake_qemu *fake);
void fake_hang_up(struct fake_qemu *fake);

/* Waits until something happens, to the loop or to the fake, and lets it happen. */
void fake_step(struct fake_qemu *fake);

/* The next line from the client, without its LF; it is waited for. Good until the next call. */
const char *fake_next_line(struct fake_qemu *fake);
/* As above, and the line must begin so. Returns the number of the command. */
uint64_t fake_expect(struct fake_qemu *fake, const char *beginning);
bool fake_has_line(struct fake_qemu *fake);

void fake_say_bytes(struct fake_qemu *fake, const void *bytes, size_t size);
void fake_say(struct fake_qemu *fake, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* {"return": {}}, or {"error": {...}} of a class. */
void fake_return(struct fake_qemu *fake, uint64_t id);
void fake_refuse(struct fake_qemu *fake, uint64_t id, const char *class, const char *desc);
/* The connection is waited for, and led up to where commands are accepted. */
void fake_greet(struct fake_qemu *fake);

#endif
