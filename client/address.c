#include "client/address.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "client/error.h"

#define DEFAULT_SOCKET "/run/dmabroker/dmabroker.sock"

static int copy_path(const char *path, char **ret) {
        char *copy;

        if (!*path)
                return error_set(EINVAL, "the path of the socket is empty; write unix:PATH");
        if (strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
                return error_set(ENAMETOOLONG, "the path of the socket has %zu bytes, and at most %zu can be used: %s",
                                 strlen(path), sizeof(((struct sockaddr_un *)0)->sun_path) - 1, path);
        copy = strdup(path);
        if (!copy)
                return error_set(ENOMEM, "there is not enough memory");
        *ret = copy;
        return 0;
}

static int default_path(char **ret) {
        const char *path = secure_getenv("DMABROKER_SOCKET");

        return copy_path(path && *path ? path : DEFAULT_SOCKET, ret);
}

int address_parse(const char *uri, char **ret_path) {
        if (!uri || !*uri || !strcmp(uri, "auto:"))
                return default_path(ret_path);
        if (!strncmp(uri, "unix:", 5))
                return copy_path(uri + 5, ret_path);
        if (!strncmp(uri, "virtio:", 7) || !strncmp(uri, "xen:", 4))
                return error_set(EOPNOTSUPP,
                                 "%s is for use inside a guest, which this release of the library does not know yet; "
                                 "use unix:PATH on the host",
                                 uri);
        return error_set(EINVAL, "%s is not an address of a daemon; write unix:PATH, or auto: for the usual socket",
                         uri);
}
