/* Virtio ports: character devices that say themselves when there is nobody at the other end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/error.h"
#include "client/port-device.h"

static int open_error(const char *path, int error) {
        switch (error) {
        case ENOENT:
                return error_set(error,
                                 "there is no virtio port at %s: give this guest a channel of that name on its host, and "
                                 "load virtio_console (virtio:PATH names another port)", path);
        case EBUSY:
                return error_set(error,
                                 "the virtio port %s is in use: another process has it open, or another session of this one, and "
                                 "only one can; end it, or give this guest one more channel", path);
        case EACCES:
        case EPERM:
                return error_set(error,
                                 "this user may not use the virtio port %s: run as root, or let a rule of udev give the port to "
                                 "a group", path);
        case ENODEV:
        case ENXIO:
                return error_set(error, "the virtio port %s has been unplugged, or is a console", path);
        default:
                return error_set(error, "cannot open the virtio port %s: %s", path, strerrordesc_np(error));
        }
}

/* Is there anybody at the other end? Nothing that is sent would be kept for who comes later. */
static int check(const char *path, int fd) {
        struct pollfd poller = { .fd = fd, .events = POLLIN };
        struct stat about;

        if (fstat(fd, &about))
                return open_error(path, errno);
        if (!S_ISCHR(about.st_mode))
                return error_set(EINVAL, "%s is no virtio port, nor any other character device; write unix:PATH for a socket",
                                 path);
        if (poll(&poller, 1, 0) > 0 && poller.revents & (POLLHUP | POLLERR))
                return error_set(ECONNREFUSED,
                                 "nobody is at the host's end of the virtio port %s: dmabrokerd does not run there, or has not "
                                 "attached this guest", path);
        return 0;
}

static void virtio_close(struct port_device *device) {
        fork_file_close(&device->file);
        free(device);
}

static int virtio_open(const char *path, struct port_device **ret) {
        struct port_device *device = calloc(1, sizeof(*device));
        int r;

        if (!device)
                return error_set(ENOMEM, "there is not enough memory");
        device->ops = &port_virtio_ops;
        r = fork_file_open(&device->file, path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        r = r ? open_error(path, -r) : check(path, device->file.fd);
        if (r) {
                virtio_close(device);
                return r;
        }
        *ret = device;
        return 0;
}

static short virtio_events(const struct port_device *device, bool has_bytes) {
        return has_bytes ? POLLIN | POLLOUT : POLLIN;
}

static int virtio_woken(struct port_device *device, short events) {
        if (!(events & POLLIN) && events & (POLLHUP | POLLERR | POLLNVAL))
                return -ECONNRESET;
        return events & POLLIN;
}

static ssize_t virtio_read(struct port_device *device, void *buffer, size_t n) {
        ssize_t r = read(device->file.fd, buffer, n);

        return r < 0 ? -errno : r;
}

static ssize_t virtio_write(struct port_device *device, const void *bytes, size_t n) {
        ssize_t r = write(device->file.fd, bytes, n);

        return r < 0 ? -errno : r;
}

const struct port_device_ops port_virtio_ops = {
        .kind = "virtio port",
        .open = virtio_open,
        .events = virtio_events,
        .woken = virtio_woken,
        .read = virtio_read,
        .write = virtio_write,
        .close = virtio_close,
        .abandon = virtio_close,
};
