/* In a build without libvirt. */
#include <errno.h>

#include "daemon/guest/libvirt.h"

/* No guest stops. */
const char *const libvirt_stop_names[LIBVIRT_STOP_OTHER + 1];

const char *libvirt_unavailable(void) {
        return "this build follows no guests of libvirt: it was made without it";
}

int libvirt_new(uv_loop_t *loop, const struct libvirt_options *options, const struct libvirt_listener *ops, void *userdata,
                struct libvirt **ret) {
        return -ENOPKG;
}

void libvirt_close(struct libvirt *libvirt, void (*closed)(void *userdata)) {
}

/* Nobody has a connection to ask these of. */

int libvirt_attach(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                   void *userdata) {
        return -ENOTCONN;
}

int libvirt_detach(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                   void *userdata) {
        return -ENOTCONN;
}

int libvirt_detach_alias(struct libvirt *libvirt, const char *uuid, const char *alias, bool persistent, libvirt_done_fn done,
                         void *userdata) {
        return -ENOTCONN;
}

int libvirt_set_metadata(struct libvirt *libvirt, const char *uuid, const char *xml, bool persistent, libvirt_done_fn done,
                         void *userdata) {
        return -ENOTCONN;
}

int libvirt_get_metadata(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata) {
        return -ENOTCONN;
}

int libvirt_get_xml(struct libvirt *libvirt, const char *uuid, libvirt_done_fn done, void *userdata) {
        return -ENOTCONN;
}

int libvirt_list(struct libvirt *libvirt, libvirt_done_fn done, void *userdata) {
        return -ENOTCONN;
}
