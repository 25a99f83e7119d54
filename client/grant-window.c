#include "client/grant-window.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/xen-device.h"

enum { PAGES_MAX = 1 << 22 };

static const char *device = XEN_GRANTS;

void grant_window_set_device(const char *path) {
        device = path;
}

static int cannot_open(uint64_t window, int error) {
        if (error == EACCES || error == EPERM)
                return error_set_reason(EACCES, "source_unavailable",
                                        "this user may not map window %" PRIu64 " of the broker: run as root, or let a rule "
                                        "of udev give " XEN_GRANTS " to a group", window);
        return error_set_reason(error, "source_unavailable",
                                "window %" PRIu64 " of the broker is granted to this guest, and cannot be mapped by " XEN_GRANTS
                                ": %s; is xen_gntdev loaded?", window, strerrordesc_np(error));
}

/* It is only noted here; whether Xen lets us is known when it is mapped. */
static int take_note(uint64_t window, struct ioctl_gntdev_map_grant_ref *request, int fd) {
        if (!ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, request) && !request->index)
                return 0;
        if (errno == EINVAL)
                return error_set_reason(EINVAL, "source_unavailable",
                                        "window %" PRIu64 " of the broker has %" PRIu32 " pages, more than this kernel maps at "
                                        "once: see the parameter `limit` of xen_gntdev", window, request->count);
        return cannot_open(window, errno);
}

static void fill(struct ioctl_gntdev_map_grant_ref *request, const struct grant_run *runs, size_t n) {
        for (size_t i = 0; i < n; i++)
                for (uint32_t page = 0; page < runs[i].count; page++)
                        request->refs[request->count++] =
                                (struct ioctl_gntdev_grant_ref){ .domid = runs[i].domain, .ref = runs[i].first + page };
}

static uint64_t count_pages(const struct grant_run *runs, size_t n) {
        uint64_t sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += runs[i].count;
        return sum;
}

int grant_window_open(uint64_t window, const struct grant_run *runs, size_t n, uint64_t size, struct fork_file *file) {
        const uint64_t pages = count_pages(runs, n);
        struct ioctl_gntdev_map_grant_ref *request;
        int r;

        if (!pages || pages > PAGES_MAX || pages * XEN_PAGE != size)
                return error_set_reason(EPROTO, "source_unavailable",
                                        "window %" PRIu64 " of the broker has %" PRIu64 " bytes, and %" PRIu64 " pages of it are "
                                        "granted to this guest", window, size, pages);
        r = fork_file_open(file, device, O_RDWR | O_CLOEXEC);
        if (r)
                return cannot_open(window, -r);
        request = calloc(1, sizeof(*request) + pages * sizeof(request->refs[0]));
        if (request)
                fill(request, runs, n);
        r = request ? take_note(window, request, file->fd) : error_set(ENOMEM, "there is not enough memory");
        free(request);
        if (r)
                fork_file_close(file);
        return r;
}
