/* What dom0 shares with a guest of Xen's: a ring (vchan-ring.h), to which xenstore shows the way, and an event channel by which
 * each end tells the other that something has changed.
 *
 * The host has one ring for the guest, and so one process at a time can have its end: the one that holds a lock on the device
 * by which grants are mapped, of which there is one in the guest. When it ends, however it does, the kernel clears the byte in
 * the page that says that it lives, and tells the host; for the host's end dom0's kernel does the same. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/error.h"
#include "client/port-device.h"
#include "client/vchan-ring.h"
#include "client/xen-device.h"
#include "client/xen-store.h"

enum { HOST = 0, PATH_SIZE = 256 };

struct vchan {
        struct port_device device; /* its file is that of events */
        struct fork_file grants;
        uint32_t event;            /* our number of it */
        struct vchan_page *page;
        char *to_host, *to_guest;  /* NULL: in the page */
        struct vchan_layout layout;
        struct vchan_ring ring;
};

static struct vchan *vchan_of(struct port_device *device) {
        return (struct vchan *)device;
}

/* ---- opening ---- */

static int device_error(const char *path, int error) {
        switch (error) {
        case ENOENT:
        case ENODEV:
        case ENXIO:
                return error_set(ENOENT, "there is no %s: this is no guest of Xen's, or its kernel lacks it (modprobe xen_gntdev "
                                 "xen_evtchn)", path);
        case EACCES:
        case EPERM:
                return error_set(EACCES, "this user may not use %s: run as root, or let a rule of udev give the devices in "
                                 "/dev/xen to a group", path);
        default:
                return error_set(error, "cannot open %s: %s", path, strerrordesc_np(error));
        }
}

static int store_error(const char *path, int error) {
        switch (error) {
        case ENOENT:
                if (access("/dev/xen/xenbus", F_OK))
                        return error_set(ENOENT, "there is no /dev/xen/xenbus: this is no guest of Xen's, or its kernel lacks it "
                                         "(modprobe xen_xenbus_frontend)");
                return error_set(ECONNREFUSED, "xenstore has no %s for this guest: dmabrokerd does not run in its dom0, or does "
                                 "not know this guest ([guest NAME] with hypervisor = xen)", path);
        case EACCES:
        case EPERM:
                return error_set(EACCES, "this user may not read %s from xenstore: run as root, or let a rule of udev give the "
                                 "devices in /dev/xen to a group", path);
        default:
                return error_set(error, "cannot read %s from xenstore: %s", path, strerrordesc_np(error));
        }
}

static int read_node(const char *path, const char *name, uint32_t *ret) {
        char whole[PATH_SIZE];
        int r;

        if (snprintf(whole, sizeof(whole), "%s/%s", path, name) >= (int)sizeof(whole))
                return error_set(ENAMETOOLONG, "the path in xenstore is too long: %s", path);
        r = xen_store_read_number(whole, ret);
        return r ? store_error(whole, -r) : 0;
}

/* dom0 has taken back what it had shared, and is about to share something else, if it lives. */
static int host_is_gone(const char *path) {
        return error_set(ECONNREFUSED, "nobody is at the host's end of the Xen channel %s: dmabrokerd does not run in dom0, or "
                         "begins just now", path);
}

/* Room for that many pages, at *ret. *ret_index: what the kernel calls them. A child that had a copy would seem to be us when we
 * have ended. */
static int map_grants(struct vchan *vchan, const uint32_t *refs, unsigned n, void **ret, uint64_t *ret_index) {
        struct ioctl_gntdev_map_grant_ref *request = calloc(1, sizeof(*request) + n * sizeof(request->refs[0]));
        int r = -ENOMEM;

        if (request) {
                request->count = n;
                for (unsigned i = 0; i < n; i++)
                        request->refs[i] = (struct ioctl_gntdev_grant_ref){ .domid = HOST, .ref = refs[i] };
                r = ioctl(vchan->grants.fd, IOCTL_GNTDEV_MAP_GRANT_REF, request) ? -errno : 0;
        }
        if (!r)
                r = fork_map(vchan->grants.fd, request->index, (size_t)n * XEN_PAGE, PROT_READ | PROT_WRITE, ret);
        if (!r)
                *ret_index = request->index;
        free(request);
        return r;
}

/* What is not shared any more, or not yet, cannot be mapped; not all of it goes at once. */
static int map_error(const char *path, int error) {
        if (error == EINVAL)
                return host_is_gone(path);
        return error_set(error, "cannot map what dom0 shares: %s", strerrordesc_np(error));
}

static int map_page(struct vchan *vchan, const char *path, uint32_t ref, uint64_t *ret_index) {
        void *at;
        int r = map_grants(vchan, &ref, 1, &at, ret_index);

        if (r)
                return map_error(path, -r);
        vchan->page = at;
        /* It may be another page that is shared by that number meanwhile. */
        return vchan_layout_read(vchan->page, &vchan->layout) ? host_is_gone(path) : 0;
}

static int map_stream(struct vchan *vchan, const char *path, const uint32_t *refs, unsigned n, char **ret) {
        uint64_t index;
        void *at = NULL;
        int r = n ? map_grants(vchan, refs, n, &at, &index) : 0;

        if (r)
                return map_error(path, -r);
        *ret = at;
        return 0;
}

static int open_grants(struct vchan *vchan, const char *path) {
        int r = fork_file_open(&vchan->grants, XEN_GRANTS, O_RDWR | O_CLOEXEC);

        if (r)
                return device_error(XEN_GRANTS, -r);
        if (flock(vchan->grants.fd, LOCK_EX | LOCK_NB))
                return error_set(errno == EWOULDBLOCK ? EBUSY : errno,
                                 "the Xen channel %s is in use: another process has it open, or another session of this one, and "
                                 "only one can", path);
        return 0;
}

static int open_event(struct vchan *vchan, const char *path, uint32_t port) {
        struct ioctl_evtchn_bind_interdomain request = { .remote_domain = HOST, .remote_port = port };
        int r = fork_file_open(&vchan->device.file, XEN_EVENTS, O_RDWR | O_NONBLOCK | O_CLOEXEC);

        if (r)
                return device_error(XEN_EVENTS, -r);
        r = ioctl(vchan->device.file.fd, IOCTL_EVTCHN_BIND_INTERDOMAIN, &request);
        if (r < 0 && (errno == EINVAL || errno == ENOENT))
                return host_is_gone(path);
        if (r < 0)
                return error_set(errno, "cannot bind dom0's event channel: %s", strerrordesc_np(errno));
        vchan->event = (uint32_t)r;
        return 0;
}

static void notify(const struct vchan *vchan) {
        struct ioctl_evtchn_notify request = { .port = vchan->event };

        /* It fails when the host has gone, which is seen elsewhere. */
        ioctl(vchan->device.file.fd, IOCTL_EVTCHN_NOTIFY, &request);
}

/* From now on the host knows when we are no more. */
static int appear(struct vchan *vchan, const char *path, uint64_t index) {
        struct ioctl_gntdev_unmap_notify request = {
                .index = index + offsetof(struct vchan_page, guest_lives),
                .action = UNMAP_NOTIFY_CLEAR_BYTE | UNMAP_NOTIFY_SEND_EVENT,
                .event_channel_port = vchan->event,
        };

        if (ioctl(vchan->grants.fd, IOCTL_GNTDEV_SET_UNMAP_NOTIFY, &request))
                return error_set(errno, "the kernel is not to tell the host when this process ends: %s", strerrordesc_np(errno));
        if (__atomic_load_n(&vchan->page->host_lives, __ATOMIC_ACQUIRE) != 1)
                return host_is_gone(path);
        vchan_ring_init(&vchan->ring, vchan->page, &vchan->layout, vchan->to_host, vchan->to_guest);
        __atomic_store_n(&vchan->page->guest_lives, 1, __ATOMIC_RELEASE);
        __atomic_fetch_or(&vchan->page->tell_guest, VCHAN_WROTE, __ATOMIC_SEQ_CST);
        notify(vchan);
        return 0;
}

static int connect_to(struct vchan *vchan, const char *path) {
        uint32_t ref = 0, port = 0;
        uint64_t index = 0;
        int r = open_grants(vchan, path);

        if (!r)
                r = read_node(path, "ring-ref", &ref);
        if (!r)
                r = read_node(path, "event-channel", &port);
        if (!r)
                r = map_page(vchan, path, ref, &index);
        if (!r)
                r = map_stream(vchan, path, vchan->page->grants, vchan->layout.n_to_host, &vchan->to_host);
        if (!r)
                r = map_stream(vchan, path, vchan->page->grants + vchan->layout.n_to_host, vchan->layout.n_to_guest,
                               &vchan->to_guest);
        if (!r)
                r = open_event(vchan, path, port);
        return r ? r : appear(vchan, path, index);
}

static void vchan_abandon(struct port_device *device) {
        struct vchan *vchan = vchan_of(device);

        fork_file_close(&device->file);
        fork_file_close(&vchan->grants);
        free(vchan);
}

/* The kernel tells the host when the last of it is closed. */
static void vchan_close(struct port_device *device) {
        struct vchan *vchan = vchan_of(device);

        if (vchan->page)
                munmap(vchan->page, XEN_PAGE);
        if (vchan->to_host)
                munmap(vchan->to_host, vchan->layout.to_host_size);
        if (vchan->to_guest)
                munmap(vchan->to_guest, vchan->layout.to_guest_size);
        fork_file_close(&vchan->grants);
        vchan_abandon(device);
}

static int vchan_open(const char *path, struct port_device **ret) {
        struct vchan *vchan = calloc(1, sizeof(*vchan));
        int r;

        if (!vchan)
                return error_set(ENOMEM, "there is not enough memory");
        vchan->device = (struct port_device){ .ops = &port_vchan_ops, .file.fd = -1 };
        vchan->grants.fd = -1;
        r = connect_to(vchan, path);
        if (r) {
                vchan_close(&vchan->device);
                return r;
        }
        *ret = &vchan->device;
        return 0;
}

/* ---- afterwards ---- */

/* Whatever it is about, the descriptor becomes readable. */
static short vchan_events(const struct port_device *device, bool has_bytes) {
        return POLLIN;
}

/* The event comes again when we have said that we heard it. Looking at the ring costs nothing. */
static int vchan_woken(struct port_device *device, short events) {
        uint32_t port;
        ssize_t n;

        if (events & (POLLERR | POLLHUP | POLLNVAL))
                return -ECONNRESET;
        if (events & POLLIN) {
                n = read(device->file.fd, &port, sizeof(port));
                if (n == sizeof(port) && write(device->file.fd, &port, sizeof(port)) < 0)
                        return -errno;
        }
        return 1;
}

static ssize_t vchan_read(struct port_device *device, void *buffer, size_t n) {
        struct vchan *vchan = vchan_of(device);
        bool tells;
        ssize_t r = vchan_ring_read(&vchan->ring, buffer, n, &tells);

        if (tells)
                notify(vchan);
        return r;
}

static ssize_t vchan_write(struct port_device *device, const void *bytes, size_t n) {
        struct vchan *vchan = vchan_of(device);
        bool tells;
        ssize_t r = vchan_ring_write(&vchan->ring, bytes, n, &tells);

        if (tells)
                notify(vchan);
        return r;
}

const struct port_device_ops port_vchan_ops = {
        .kind = "Xen channel",
        .open = vchan_open,
        .events = vchan_events,
        .woken = vchan_woken,
        .read = vchan_read,
        .write = vchan_write,
        .close = vchan_close,
        .abandon = vchan_abandon,
};
