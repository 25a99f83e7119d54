/* The libraries of Xen's that a channel needs, found when the program runs. */
#ifndef DMAB_GUEST_VCHAN_LIBRARY_H
#define DMAB_GUEST_VCHAN_LIBRARY_H

/* There is nothing of this in a build without Xen. */
#include <config.h>
#ifdef HAVE_XEN

#include <libxenvchan.h>
#include <xenstore.h>

#define VCHAN_LIBRARY_VCHAN(each) \
        each(libxenvchan_close) \
        each(libxenvchan_fd_for_select) \
        each(libxenvchan_read) \
        each(libxenvchan_server_init) \
        each(libxenvchan_wait) \
        each(libxenvchan_write)
#define VCHAN_LIBRARY_STORE(each) \
        each(xs_close) \
        each(xs_open) \
        each(xs_read) \
        each(xs_set_permissions) \
        each(xs_write)

struct vchan_library {
#define VCHAN_LIBRARY_MEMBER(name) __typeof__(name) *name;
        VCHAN_LIBRARY_VCHAN(VCHAN_LIBRARY_MEMBER)
        VCHAN_LIBRARY_STORE(VCHAN_LIBRARY_MEMBER)
#undef VCHAN_LIBRARY_MEMBER
};

/* Opened once for all; they stay. NULL if they are not there: *ret_why, unless it is NULL, is then a sentence that stays valid.
 * Any thread may ask. */
const struct vchan_library *vchan_library(const char **ret_why);

#endif
#endif
