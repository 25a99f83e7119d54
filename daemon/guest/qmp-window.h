/* What a guest's window takes of QEMU: a connection to the window's server (ivshmem.h), and a device that has it.
 *
 * Each of these is done exactly once, as commands are (qmp.h). That an attempt was cut short, by a lost connection or
 * because QEMU took too long, tells nothing of what has become of it: detach what may be there, or attach again, which
 * first clears away what is left. The connection is never one that QEMU would make anew by itself: QEMU 7.2 corrupts
 * its heap over that. */
#ifndef DMAB_GUEST_QMP_WINDOW_H
#define DMAB_GUEST_QMP_WINDOW_H

#include "daemon/guest/qmp.h"
#include "proto/qmp-message.h"

/* All texts are copied. A q35 machine takes a new device only in a free port of its own (a pcie-root-port), and its
 * BIOS or guest gives memory beyond 2 MiB an address only if the port has set aside about twice as much
 * (pref64-reserve); otherwise the device is there, and its memory is not. */
struct qmp_window {
        const char *id;     /* of the device, unique in this QEMU: a letter, then letters, digits, - . _ */
        const char *socket; /* where the window's server listens */
        unsigned vectors;   /* at least as many as the server's; 0: 1, which QEMU wants also where there are none */
        const char *bus;    /* a port, or NULL: where QEMU likes */
        const char *addr;   /* a slot on the bus, or NULL */
};

/* 0 when the guest can find the device. When QEMU refuses the device, the connection is taken back first. Returns as
 * qmp_execute(). */
int qmp_attach_window(struct qmp *qmp, const struct qmp_window *window, qmp_done_fn done, void *userdata);

/* id: the window's. 0 when the device is gone, -ENODEV if there was none; then the connection is taken away as well. As
 * qmp_unplug(): -ETIMEDOUT: the guest does not let go of it; when it does so later, the listener is told, and detaching
 * again clears the rest away, as does qmp_clear_window(). */
int qmp_detach_window(struct qmp *qmp, const char *id, uint64_t timeout_ms, qmp_done_fn done, void *userdata);

/* The device is gone, as the listener was told: its connection is taken away. Done without an error in any case. */
int qmp_clear_window(struct qmp *qmp, const char *id, qmp_done_fn done, void *userdata);

/* status: NULL unless answer->error is 0. -EBADMSG: QEMU's answer is none. */
typedef void (*qmp_status_fn)(void *userdata, const struct qmp_answer *answer, const struct qmp_status *status);
int qmp_query_status(struct qmp *qmp, qmp_status_fn done, void *userdata);

#endif
