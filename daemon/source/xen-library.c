#include <config.h>

#include "daemon/source/xen-library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#define CONTROL "libxenctrl.so." XEN_RELEASE
#define MEMORY "libxenforeignmemory.so.1"
#define STORE "libxenstore.so.4"
#define CALL "libxencall.so.1"

static struct {
        pthread_once_t once;
        bool usable;
        struct xen_library library;
        char why[256];
} found = { .once = PTHREAD_ONCE_INIT };

static void *open_library(const char *name) {
        void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);

        if (!handle)
                snprintf(found.why, sizeof(found.why), "the libraries of Xen " XEN_RELEASE ", for which this program "
                         "was built, are not installed: %s", dlerror());
        return handle;
}

static bool take_symbols(void *control, void *memory) {
#define TAKE(handle, file, name) \
        found.library.name = (__typeof__(name) *)dlsym(handle, #name); \
        if (!found.library.name) { \
                snprintf(found.why, sizeof(found.why), "%s is not as it should be: it has no %s()", file, #name); \
                return false; \
        }
#define TAKE_CONTROL(name) TAKE(control, CONTROL, name)
#define TAKE_MEMORY(name) TAKE(memory, MEMORY, name)
        XEN_LIBRARY_CONTROL(TAKE_CONTROL)
        XEN_LIBRARY_MEMORY(TAKE_MEMORY)
#undef TAKE_MEMORY
#undef TAKE_CONTROL
#undef TAKE
        return true;
}

#define TAKE_OPTIONAL(name) \
        found.library.name = (__typeof__(name) *)dlsym(handle, #name); \
        if (!found.library.name) \
                return false;

/* Xenstore only hurries what is found out without it. */
static bool take_store(void) {
        void *handle = dlopen(STORE, RTLD_NOW | RTLD_LOCAL);

        if (!handle)
                return false;
        XEN_LIBRARY_STORE(TAKE_OPTIONAL)
        return true;
}

static bool take_call(void) {
        void *handle = dlopen(CALL, RTLD_NOW | RTLD_LOCAL);

        if (!handle)
                return false;
        XEN_LIBRARY_CALL(TAKE_OPTIONAL)
        return true;
}

#undef TAKE_OPTIONAL

/* Where there is no Xen its libraries are none of our business. */
static void load(void) {
        void *control, *memory;

        if (access("/dev/xen/privcmd", F_OK) < 0 && access("/proc/xen/privcmd", F_OK) < 0) {
                snprintf(found.why, sizeof(found.why), "this machine is no dom0 of Xen: it has no /dev/xen/privcmd (in "
                         "a dom0: modprobe xen_privcmd)");
                return;
        }
        control = open_library(CONTROL);
        memory = control ? open_library(MEMORY) : NULL;
        found.usable = memory && take_symbols(control, memory);
        found.library.has_store = found.usable && take_store();
        found.library.has_call = found.usable && take_call();
}

const struct xen_library *xen_library(const char **ret_why) {
        pthread_once(&found.once, load);
        if (!found.usable && ret_why)
                *ret_why = found.why;
        return found.usable ? &found.library : NULL;
}

static void say_nothing(xentoollog_logger *logger, xentoollog_level level, int error, const char *context, const char *format,
                        va_list arguments) {
}

xentoollog_logger xen_library_silence = { .vmessage = say_nothing };

int xen_library_failed(void) {
        return errno > 0 ? -errno : -EIO;
}
