/* Parts of the test that xen-host.c is. */
#ifndef DMAB_TESTS_VM_XEN_MEMORY_H
#define DMAB_TESTS_VM_XEN_MEMORY_H

#include "tests/vm/xen-bed.h"

/* Both run; of the second nothing is left. */
void xen_test_memory(struct xen_guest *pv, struct xen_guest *pvh);
/* The source is killed at many moments, without guests. */
void xen_test_kills(void);
/* A real daemon in dom0; and with guests. The second one runs; in the end none does, and xenstore's daemon neither. */
void xen_test_guests(struct xen_guest *pv, struct xen_guest *pvh);
void xen_test_daemon(void);

#endif
