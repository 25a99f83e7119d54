/* What every test with guests of KVM has: a real daemon with an administrator, and guests (kvm-guest.c) that are told what to
 * do over their serial lines. Who has them is a bed: a QEMU of our own, with an emulated device or with one that is passed
 * through; or libvirtd. Whatever goes wrong here ends the test. */
#ifndef DMAB_TESTS_VM_KVM_BED_H
#define DMAB_TESTS_VM_KVM_BED_H

#include <dmabroker.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/lib/client.h"
#include "tests/lib/daemon.h"

#define KVM_UUID "6f1c6f0e-3a55-4a8a-9d0e-0c6f0b8a2d11"
/* For the guest's kernel; the first process is told everything else over the serial line. */
#define KVM_CMDLINE "console=ttyS0 panic=1 nokaslr mitigations=off loglevel=1"
/* Where the guest looks for it. */
#define KVM_EDU_SLOT "0x10"

enum { KVM_PATIENCE_MS = 480000, KVM_HUGE_PAGES = 24 };

struct kvm_guest {
        const char *name, *uuid;
        int listener, line;
        char buffer[8192];
        size_t used;
        pid_t qemu; /* the bed's, if it has started QEMU itself */
        int monitor;
};

struct kvm_place {
        char directory[64]; /* for sockets; NAME.serial in it is listened at */
        const char *kernel, *initrd;
        const char *libvirtd, *run_directory; /* or NULL */
};

struct kvm_bed {
        /* Lines of the daemon's configuration: the rest of [guests]. */
        void (*configure)(const struct kvm_place *place, char *text, size_t size);
        /* The same: the rest of [guest NAME]. */
        void (*configure_guest)(const struct kvm_place *place, const struct kvm_guest *guest, char *text, size_t size);
        /* advice: what the daemon says that the guest must have. */
        void (*start)(const struct kvm_place *place, struct kvm_guest *guest, const char *advice);
        /* Its QEMU dies; nothing happens if there is none. */
        void (*kill)(struct kvm_guest *guest);
        void (*await_end)(struct kvm_guest *guest);  /* its QEMU ends by itself */
        pid_t (*pid)(const struct kvm_guest *guest); /* its QEMU's */
        void (*reset)(struct kvm_guest *guest);
        void (*pause)(struct kvm_guest *guest);
        void (*resume)(struct kvm_guest *guest);
        void (*destroy)(struct kvm_guest *guest); /* or NULL */
        bool (*save)(struct kvm_guest *guest);    /* to a file, and it ends; false: that is refused. Or NULL */
        void (*restore)(struct kvm_guest *guest); /* from that */
        pid_t (*manager)(void);                   /* libvirtd's process; or NULL */
        void (*start_manager)(void);              /* another one, when that was killed */
        /* Or NULL. Another one comes, which knows nothing of the guest; its QEMU, which goes on. */
        pid_t (*lose)(struct kvm_guest *guest);
        unsigned allocs; /* that the guest may have, as its domain's metadata says; or 0 */
        bool is_slow; /* a virtual machine in a virtual machine: only what is different there */
};

extern const struct kvm_bed kvm_bed_qemu, kvm_bed_passed_through;
extern const struct kvm_bed *const kvm_bed_libvirt; /* NULL: this build goes without */

void kvm_give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void kvm_check(bool right, const char *what);
int64_t kvm_now_ms(void);

/* ---- the daemon ---- */

struct kvm_host {
        const struct kvm_bed *bed;
        struct kvm_place place;
        struct kvm_guest *guests;
        size_t n_guests;
        uint64_t window; /* bytes that windows have */
        struct test_daemon *daemon;
        dmab_t *dmab;               /* an administrator's */
        struct test_client *client; /* likewise: is told of guests */
};
extern struct kvm_host kvm_host;

/* The arguments of a test: KERNEL INITRD, or KERNEL INITRD vfio, or KERNEL INITRD LIBVIRTD DIRECTORY. false: others. */
bool kvm_begin(int argc, char **argv, struct kvm_guest *guests, size_t n_guests);
/* With huge pages if they are to be had, and simulated memory if not, or where SOURCE says so. `config` and `guests`: further
 * lines, before and in [guests]; sim: those of [source sim]. */
void kvm_start_daemon(const char *config, const char *sim, const char *guests);

/* Guests are gone by then. */
void kvm_end(void);

/* What is not answered with a result ends the test. The caller's. */
json_t *kvm_ask(const char *method, const char *format, ...) __attribute__((format(printf, 2, 3)));
json_int_t kvm_number(const json_t *object, const char *name);
json_int_t kvm_count(const char *what);
/* Asked again until it is so, whenever something is told of guests, and now and then: not everything is told. */
void kvm_await(const char *what, bool (*is_so)(void));
bool kvm_guest_is(const struct kvm_guest *guest, const char *state, json_int_t windows);
/* Of kvm_host.window bytes. Its number. */
json_int_t kvm_attach(const struct kvm_guest *guest);

/* It is killed, and another one starts. */
void kvm_restart_daemon(void);
/* One whose answer can be awaited later: of this connection's requests one is on its way at most. */
void kvm_request(const char *method, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The whole message; the caller's. */
json_t *kvm_answer(void);

/* ---- guests ---- */

/* Until its first process says that it is ready, if it shall be waited for. */
void kvm_start(struct kvm_guest *guest);
void kvm_is_ready(struct kvm_guest *guest);
void kvm_say(struct kvm_guest *guest, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Its next answer, without what the kernel says in between. Until the next one. */
const char *kvm_hear(struct kvm_guest *guest);
/* A line that has this in it, whoever says it. */
void kvm_hear_line(struct kvm_guest *guest, const char *text);
#define kvm_tell(guest, ...) (kvm_say(guest, __VA_ARGS__), kvm_hear(guest))

#endif
