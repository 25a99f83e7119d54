#include "client/address.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/error.h"
#include "client/xen-store.h"

#define DEFAULT_SOCKET "/run/dmabroker/dmabroker.sock"
#define DEFAULT_PORT "/dev/virtio-ports/org.dmabroker.0"
#define DEFAULT_XEN "dmabroker/vchan"

/* By kind. */
static const struct {
        const char *what;
        size_t size; /* of the longest path, with its NUL */
} kinds[] = {
        [ADDRESS_SOCKET] = { "socket", sizeof(((struct sockaddr_un *)0)->sun_path) },
        [ADDRESS_VIRTIO] = { "port", PATH_MAX },
        [ADDRESS_XEN] = { "Xen channel", 200 },
};

static int copy_path(const char *path, enum address_kind kind, struct address *ret) {
        char *copy;

        if (!*path)
                return error_set(EINVAL, "the path of the socket is empty; write unix:PATH");
        if (strlen(path) >= kinds[kind].size)
                return error_set(ENAMETOOLONG, "the path of the %s has %zu bytes, and at most %zu can be used: %s",
                                 kinds[kind].what, strlen(path), kinds[kind].size - 1, path);
        copy = strdup(path);
        if (!copy)
                return error_set(ENOMEM, "there is not enough memory");
        *ret = (struct address){ .kind = kind, .path = copy };
        return 0;
}

/* On a host there is a socket, in a guest a port. In a guest that is a host itself, the nearer daemon is meant. */
static int find_usual(struct address *ret) {
        const char *path = secure_getenv("DMABROKER_SOCKET");
        uint32_t ref;

        if (path && *path)
                return copy_path(path, ADDRESS_SOCKET, ret);
        if (!access(DEFAULT_SOCKET, F_OK))
                return copy_path(DEFAULT_SOCKET, ADDRESS_SOCKET, ret);
        if (!access(DEFAULT_PORT, F_OK))
                return copy_path(DEFAULT_PORT, ADDRESS_VIRTIO, ret);
        if (!xen_store_read_number(DEFAULT_XEN "/ring-ref", &ref))
                return copy_path(DEFAULT_XEN, ADDRESS_XEN, ret);
        return error_set(ENOENT,
                         "there is neither a socket at %s nor a virtio port at %s, nor a channel of Xen's: on a host, is "
                         "dmabrokerd running? In a guest, has it got a channel of that name, or does dmabrokerd in dom0 know it? "
                         "(DMABROKER_SOCKET, unix:PATH, virtio:PATH or xen: name another one)",
                         DEFAULT_SOCKET, DEFAULT_PORT);
}

int address_parse(const char *uri, struct address *ret) {
        if (!uri || !*uri || !strcmp(uri, "auto:"))
                return find_usual(ret);
        if (!strncmp(uri, "unix:", 5))
                return copy_path(uri + 5, ADDRESS_SOCKET, ret);
        if (!strncmp(uri, "virtio:", 7))
                return copy_path(uri[7] ? uri + 7 : DEFAULT_PORT, ADDRESS_VIRTIO, ret);
        if (!strncmp(uri, "xen:", 4))
                return copy_path(uri[4] ? uri + 4 : DEFAULT_XEN, ADDRESS_XEN, ret);
        return error_set(EINVAL,
                         "%s is not an address of a daemon; write unix:PATH, virtio:PATH, xen:, or auto: for the usual one", uri);
}
