/* A real daemon in dom0, and what its guests have of it: for the parts of xen_test_guests(). What goes wrong in here ends the
 * test. */
#ifndef DMAB_TESTS_VM_XEN_GUESTS_H
#define DMAB_TESTS_VM_XEN_GUESTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/vm/xen-bed.h"

/* One of a guest's windows, as the daemon tells. */
struct seen {
        bool is_there;
        uint64_t window, size, addr; /* of the machine's memory */
        uint64_t mapped;
        char cookie[40], state[16];
        bool is_bound_there; /* the guest sees it at that address */
        char runs[900];      /* for the guest */
};

/* With the daemon's log. */
void __attribute__((noreturn)) give_up(const char *what, const char *answer);
/* The answer is there until the next one. */
const char *ask(const char *method, const char *format, ...) __attribute__((format(printf, 2, 3)));
void expect(const char *what, const char *answer, const char *text);
/* The answer of the guest's. */
void tell(struct xen_guest *guest, const char *answer, const char *what, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
void await_state(const struct xen_guest *guest, const char *state, const char *what);
struct seen await_window(const struct xen_guest *guest, const char *state, const char *what); /* "": it has none */
struct seen look(const struct xen_guest *guest);
struct seen attach(struct xen_guest *guest, unsigned mib);
void check_books(void);
/* The daemon is killed, and begins anew. */
void restart(void);
pid_t daemon_pid(void);
const char *daemon_socket(void);

/* xen-library.c: what guests do by way of the library. The first has a window, and has it mapped in place 0; the second has
 * none, nor does any in the end. */
void xen_test_library(struct xen_guest *pv, struct xen_guest *pvh);
/* xen-exchange.c */
void xen_test_exchange(struct xen_guest *pv, struct xen_guest *pvh);
/* xen-storm.c: all of it befalls the second, which has its own window mapped, before and afterwards. The first has none. */
void xen_test_storm(struct xen_guest *working, struct xen_guest *dying);

/* xen-grant.c: what guests and services of dom0's share beside windows. The end: the second guest is destroyed in between. */
void xen_test_grants(struct xen_guest *pv, struct xen_guest *pvh);
void xen_test_grants_begin_end(struct xen_guest *guest);
void xen_test_grants_end(const struct xen_guest *guest);

#endif
