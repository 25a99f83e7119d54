/* What every test with guests of Xen's has: the dom0 of a real Xen, in which we are the first process, Xen's own
 * daemons, and guests (xen-guest.c) that are told what to do over their consoles. Whatever goes wrong here ends the
 * test, and the machine. */
#ifndef DMAB_TESTS_VM_XEN_BED_H
#define DMAB_TESTS_VM_XEN_BED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <xenctrl.h>
#include <xenstore.h>

enum {
        XEN_FIRST_COSTS = 1, /* pages, which stay in use from the first domain of a boot on */
        /* Of Xen's, in which it remembers what dom0 has mapped of guests, 256 in each: they stay as many as there once were.
         * A paravirtualised dom0 maps each page twice, for its kernel as well: those of xen-grant.c. */
        XEN_MAPPING_COSTS = 33,
};

struct xen_guest {
        const char *name, *uuid;
        const char *type; /* "pv" or "pvh" */
        uint32_t domid;   /* while it runs */
        int console;
        char buffer[8192];
        size_t used;
};

/* Open from xen_begin() on. */
extern xc_interface *xen_xc;
extern struct xs_handle *xen_store;

void xen_give_up(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void xen_check(bool right, const char *what);
int64_t xen_now_ms(void);

/* Kill all processes of this name. */
void xen_kill(const char *name);

/* The machine, and Xen's daemons in it. guests: that the test has, for xen_give_up(). */
void xen_begin(struct xen_guest *guests, size_t n_guests);
/* The test has passed: the machine ends. */
void xen_end(void) __attribute__((noreturn));

/* Asked again until it is so, whenever a domain comes or goes, and now and then: not everything is told. */
void xen_await(const char *what, bool (*is_so)(void *userdata), void *userdata);
/* Those that there are, dom0 and dying ones included. */
unsigned xen_count_domains(void);
uint64_t xen_free_pages(void);

/* Until its first process says that it is ready. */
void xen_start(struct xen_guest *guest);
/* It is a domain that does not run yet. */
void xen_create_paused(struct xen_guest *guest);
/* Until Xen has nothing left of the domain, and xenstore neither. */
void xen_await_end(struct xen_guest *guest);
/* Until Xen has nothing left of it. It was not xl that destroyed it, so that xenstore has something still. */
void xen_forget(struct xen_guest *guest);
/* The same, and it is another domain by then and ready. */
void xen_await_reboot(struct xen_guest *guest);
void xen_say(struct xen_guest *guest, const char *line);
/* Its next answer, without what the kernel says in between. Until the next one. */
const char *xen_hear(struct xen_guest *guest);
#define xen_tell(guest, line) (xen_say(guest, line), xen_hear(guest))

#endif
