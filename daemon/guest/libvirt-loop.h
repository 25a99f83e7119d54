/* libvirt's event loop, on libuv, in a thread of its own. libvirt has one for the whole process, whatever the number of
 * connections; so has this. libvirt calls the functions of the table from any thread, callbacks included. */
#ifndef DMAB_GUEST_LIBVIRT_LOOP_H
#define DMAB_GUEST_LIBVIRT_LOOP_H

/* There is nothing of this in a build without libvirt. */
#include <config.h>
#ifdef HAVE_LIBVIRT

#include <libvirt/libvirt.h>

/* For virEventRegisterImpl(). They may be called whether the thread runs or not: what they are told is kept until it does.
 *
 * A callback is called in the thread, with no lock held, and is not begun any more when its removal has returned. What frees
 * its userdata is called there, too, never from within a removal or a callback, and when no callback runs any more. Several
 * watches may be on one descriptor. A descriptor that cannot be watched is told of as an error on it. A timeout of 0 comes
 * with every turn of the loop, of which there are then at most a thousand a second. */
struct libvirt_loop_table {
        virEventAddHandleFunc add_handle;
        virEventUpdateHandleFunc update_handle;
        virEventRemoveHandleFunc remove_handle;
        virEventAddTimeoutFunc add_timeout;
        virEventUpdateTimeoutFunc update_timeout;
        virEventRemoveTimeoutFunc remove_timeout;
};

extern const struct libvirt_loop_table libvirt_loop_table;

/* Start the thread, or count one more who needs it. 0 or -errno. */
int libvirt_loop_ref(void);
/* The last one to go waits until everything that was removed is freed and the thread has ended; hence not from there. */
void libvirt_loop_unref(void);

/* Wait until the thread has called whatever was due when this was called. Not from there, nor when nobody has a reference. 0 or
 * -ENOMEM. */
int libvirt_loop_wait_turn(void);

#endif
#endif
