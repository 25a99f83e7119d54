/* Where a daemon is: what the uri of dmab_connect() means. */
#ifndef DMAB_CLIENT_ADDRESS_H
#define DMAB_CLIENT_ADDRESS_H

#include <stdbool.h>

struct address {
        bool port;  /* path is a virtio port in a guest, else a socket */
        char *path; /* the caller's to free */
};

/* -EINVAL, -EOPNOTSUPP, -ENAMETOOLONG, -ENOMEM, or -ENOENT (auto: and there is nothing to try) and a sentence. */
int address_parse(const char *uri, struct address *ret);

#endif
