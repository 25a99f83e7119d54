/* Where a daemon is: what the uri of dmab_connect() means. */
#ifndef DMAB_CLIENT_ADDRESS_H
#define DMAB_CLIENT_ADDRESS_H

enum address_kind {
        ADDRESS_SOCKET,
        ADDRESS_VIRTIO, /* the path is a virtio port's, in a guest */
        ADDRESS_XEN,    /* it is one in xenstore, in a guest of Xen's */
};

struct address {
        enum address_kind kind;
        char *path; /* the caller's to free */
};

/* -EINVAL, -ENAMETOOLONG, -ENOMEM, or -ENOENT (auto: and there is nothing to try) and a sentence. */
int address_parse(const char *uri, struct address *ret);

#endif
