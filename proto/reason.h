/* Why a request was refused: the stable tokens of the protocol and the errno each one stands for unless whoever
 * refuses says otherwise. A pure list, so that the core may use it without knowing the protocol. */
#ifndef DMAB_PROTO_REASON_H
#define DMAB_PROTO_REASON_H

#include <errno.h>

/* REASON(symbol and token, default errno, what it means) */
#define REASON_LIST(REASON)                                                                                          \
        REASON(bad_param, EINVAL, "a parameter has a value that is never acceptable")                                \
        REASON(quota, EDQUOT, "the owner's quota does not allow it")                                                 \
        REASON(no_memory, ENOMEM, "there is not enough free memory")                                                 \
        REASON(no_contiguous, ENOMEM, "there is enough free memory, but not in one machine-contiguous piece")        \
        REASON(mask, ERANGE, "the address mask cannot be served")                                                    \
        REASON(boundary, EINVAL, "the size does not fit between two boundaries")                                     \
        REASON(busy, EBUSY, "something still uses it")                                                               \
        REASON(timeout, ETIMEDOUT, "the deadline passed before the request could be satisfied")                      \
        REASON(would_block, EAGAIN, "the request would have to wait, and was told not to")                           \
        REASON(bad_address, EFAULT, "nothing has been handed out at this address")                                   \
        REASON(double_free, EINVAL, "it has been freed already")                                                     \
        REASON(not_busy, EINVAL, "it is not in use")                                                                 \
        REASON(unknown_device, ENODEV, "there is no such device")                                                    \
        REASON(unknown_guest, ENOENT, "there is no such guest")                                                      \
        REASON(unknown_handle, ENOENT, "there is no such object")                                                    \
        REASON(wrong_device, EXDEV, "it belongs to another device")                                                  \
        REASON(wrong_size, EINVAL, "the size is not the one that was asked for")                                     \
        REASON(wrong_direction, EINVAL, "the direction is not the one that was asked for")                           \
        REASON(iova_exhausted, ENOSPC, "the device has no free I/O virtual addresses")                               \
        REASON(mapping_limit, ENOSPC, "the IOMMU takes no more mappings")                                            \
        REASON(unsupported, EOPNOTSUPP, "this is not possible here")                                                 \
        REASON(not_permitted, EPERM, "the caller may not do this")                                                   \
        REASON(limit, E2BIG, "a limit has been reached")                                                             \
        REASON(gone, ESTALE, "it existed, but has ended")                                                            \
        REASON(quarantined, EBUSY, "the memory may still be written by a device")                                    \
        REASON(source_unavailable, EIO, "the memory source cannot do its work")

enum reason {
        REASON_NONE,
#define REASON_ENUM(token, error, text) REASON_##token,
        REASON_LIST(REASON_ENUM)
#undef REASON_ENUM
        REASON_COUNT
};

static inline const char *reason_name(enum reason reason) {
        static const char *const names[] = {
                "none",
#define REASON_NAME(token, error, text) #token,
                REASON_LIST(REASON_NAME)
#undef REASON_NAME
        };
        return (unsigned)reason < REASON_COUNT ? names[reason] : names[0];
}

static inline int reason_errno(enum reason reason) {
        static const int errors[] = {
                0,
#define REASON_ERRNO(token, error, text) error,
                REASON_LIST(REASON_ERRNO)
#undef REASON_ERRNO
        };
        return (unsigned)reason < REASON_COUNT ? errors[reason] : EINVAL;
}

#endif
