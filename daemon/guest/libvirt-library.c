#include <config.h>

#include "daemon/guest/libvirt-library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#include "daemon/guest/libvirt-loop.h"

static struct {
        pthread_once_t once;
        bool usable;
        struct libvirt_library library;
        char why[256];
} found = { .once = PTHREAD_ONCE_INIT };

/* libvirt would print every error. */
static void say_nothing(void *userdata, virErrorPtr error) {
}

static bool take_symbols(void *handle) {
#define TAKE(name) \
        found.library.name = (__typeof__(name) *)dlsym(handle, #name); \
        if (!found.library.name) { \
                snprintf(found.why, sizeof(found.why), "libvirt.so.0 is too old: it has no %s()", #name); \
                return false; \
        }
        LIBVIRT_LIBRARY_SYMBOLS(TAKE)
#undef TAKE
        return true;
}

/* The event loop comes first: what libvirt initialises, and every connection, keeps what it finds. */
static void load(void) {
        const struct libvirt_loop_table *loop = &libvirt_loop_table;
        void *handle = dlopen("libvirt.so.0", RTLD_NOW | RTLD_LOCAL);

        if (!handle) {
                snprintf(found.why, sizeof(found.why), "libvirt is not installed: %s", dlerror());
                return;
        }
        if (!take_symbols(handle))
                return;
        found.library.virSetErrorFunc(NULL, say_nothing);
        found.library.virEventRegisterImpl(loop->add_handle, loop->update_handle, loop->remove_handle, loop->add_timeout,
                                           loop->update_timeout, loop->remove_timeout);
        if (found.library.virInitialize() < 0) {
                snprintf(found.why, sizeof(found.why), "libvirt does not initialise");
                return;
        }
        found.usable = true;
}

const struct libvirt_library *libvirt_library(const char **ret_why) {
        pthread_once(&found.once, load);
        if (!found.usable && ret_why)
                *ret_why = found.why;
        return found.usable ? &found.library : NULL;
}
