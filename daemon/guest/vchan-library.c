#include "daemon/guest/vchan-library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>

#define VCHAN "libxenvchan.so." XEN_RELEASE
#define GRANTS "libxengnttab.so.1"
#define EVENTS "libxenevtchn.so.1"
#define STORE "libxenstore.so.4"

static struct {
        pthread_once_t once;
        bool usable;
        struct vchan_library library;
        char why[256];
} found = { .once = PTHREAD_ONCE_INIT };

static void *open_library(const char *name) {
        void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);

        if (!handle)
                snprintf(found.why, sizeof(found.why), "a library of Xen " XEN_RELEASE " is not installed: %s", dlerror());
        return handle;
}

static bool take_symbols(void *vchan, void *grants, void *events, void *store) {
#define TAKE(handle, file, name) \
        found.library.name = (__typeof__(name) *)dlsym(handle, #name); \
        if (!found.library.name) { \
                snprintf(found.why, sizeof(found.why), "%s is not as it should be: it has no %s()", file, #name); \
                return false; \
        }
#define TAKE_VCHAN(name) TAKE(vchan, VCHAN, name)
#define TAKE_GRANTS(name) TAKE(grants, GRANTS, name)
#define TAKE_EVENTS(name) TAKE(events, EVENTS, name)
#define TAKE_STORE(name) TAKE(store, STORE, name)
        VCHAN_LIBRARY_VCHAN(TAKE_VCHAN)
        VCHAN_LIBRARY_GRANTS(TAKE_GRANTS)
        VCHAN_LIBRARY_EVENTS(TAKE_EVENTS)
        VCHAN_LIBRARY_STORE(TAKE_STORE)
#undef TAKE_STORE
#undef TAKE_EVENTS
#undef TAKE_GRANTS
#undef TAKE_VCHAN
#undef TAKE
        return true;
}

static void load(void) {
        void *vchan = open_library(VCHAN);
        void *grants = vchan ? open_library(GRANTS) : NULL;
        void *events = grants ? open_library(EVENTS) : NULL;
        void *store = events ? open_library(STORE) : NULL;

        found.usable = store && take_symbols(vchan, grants, events, store);
}

const struct vchan_library *vchan_library(const char **ret_why) {
        pthread_once(&found.once, load);
        if (!found.usable && ret_why)
                *ret_why = found.why;
        return found.usable ? &found.library : NULL;
}
