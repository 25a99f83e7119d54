/* The device over which a guest's programs talk with its host: one stream of bytes each way. port.h is what is made of that. */
#ifndef DMAB_CLIENT_PORT_DEVICE_H
#define DMAB_CLIENT_PORT_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "client/fork.h"

struct port_device_ops;

/* The first member of each kind's own. */
struct port_device {
        const struct port_device_ops *ops;
        struct fork_file file; /* to be polled */
};

/* Nothing but open() waits. What a call cannot do now, the descriptor tells of when it can. */
struct port_device_ops {
        const char *kind; /* "virtio port": what it is called in sentences, before its path */
        /* -ECONNREFUSED: nobody is at the host's end; -ENOENT, -EACCES, -EINVAL; -EBUSY: another process has it open. With a
         * sentence. */
        int (*open)(const char *path, struct port_device **ret);
        /* What to poll the descriptor for. */
        short (*events)(const struct port_device *device, bool has_bytes);
        /* poll() has said this. true: it is worth reading; -errno: it is lost. */
        int (*woken)(struct port_device *device, short events);
        /* As read() and write() do; but a read of fewer than n bytes means that the descriptor tells of more. -errno. */
        ssize_t (*read)(struct port_device *device, void *buffer, size_t n);
        ssize_t (*write)(struct port_device *device, const void *bytes, size_t n);
        void (*close)(struct port_device *device);
        /* In the child of a fork, where its files are closed: the other process has it still. */
        void (*abandon)(struct port_device *device);
};

extern const struct port_device_ops port_virtio_ops; /* path: of the character device */
extern const struct port_device_ops port_vchan_ops;  /* path: in xenstore, below what is this domain's */

#endif
