#include "client/address.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/error.h"

#define DEFAULT_SOCKET "/run/dmabroker/dmabroker.sock"
#define DEFAULT_PORT "/dev/virtio-ports/org.dmabroker.0"

static int copy_path(const char *path, bool port, struct address *ret) {
        size_t size = port ? PATH_MAX : sizeof(((struct sockaddr_un *)0)->sun_path);
        char *copy;

        if (!*path)
                return error_set(EINVAL, "the path of the socket is empty; write unix:PATH");
        if (strlen(path) >= size)
                return error_set(ENAMETOOLONG, "the path of the %s has %zu bytes, and at most %zu can be used: %s",
                                 port ? "port" : "socket", strlen(path), size - 1, path);
        copy = strdup(path);
        if (!copy)
                return error_set(ENOMEM, "there is not enough memory");
        *ret = (struct address){ .port = port, .path = copy };
        return 0;
}

/* On a host there is a socket, in a guest a port. In a guest that is a host itself, the nearer daemon is meant. */
static int find_usual(struct address *ret) {
        const char *path = secure_getenv("DMABROKER_SOCKET");

        if (path && *path)
                return copy_path(path, false, ret);
        if (!access(DEFAULT_SOCKET, F_OK))
                return copy_path(DEFAULT_SOCKET, false, ret);
        if (!access(DEFAULT_PORT, F_OK))
                return copy_path(DEFAULT_PORT, true, ret);
        return error_set(ENOENT,
                         "there is neither a socket at %s nor a virtio port at %s: on a host, is dmabrokerd running? In a guest, "
                         "has it got a channel of that name? (DMABROKER_SOCKET, unix:PATH or virtio:PATH name another one)",
                         DEFAULT_SOCKET, DEFAULT_PORT);
}

int address_parse(const char *uri, struct address *ret) {
        if (!uri || !*uri || !strcmp(uri, "auto:"))
                return find_usual(ret);
        if (!strncmp(uri, "unix:", 5))
                return copy_path(uri + 5, false, ret);
        if (!strncmp(uri, "virtio:", 7))
                return copy_path(uri[7] ? uri + 7 : DEFAULT_PORT, true, ret);
        if (!strncmp(uri, "xen:", 4))
                return error_set(EOPNOTSUPP,
                                 "%s is for use inside a Xen guest, which this release of the library does not know yet; "
                                 "use unix:PATH on the host", uri);
        return error_set(EINVAL,
                         "%s is not an address of a daemon; write unix:PATH, virtio:PATH, or auto: for the usual one", uri);
}
