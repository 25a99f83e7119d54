/* On a host without libvirt. */
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <uv.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/libvirt.h"

void *__wrap_dlopen(const char *path, int flags);
char *__wrap_dlerror(void);

void *__wrap_dlopen(const char *path, int flags) {
        assert_string_equal(path, "libvirt.so.0");
        return NULL;
}

char *__wrap_dlerror(void) {
        return (char *)"libvirt.so.0: cannot open shared object file";
}

static void test_without_the_library_there_is_no_connection(void **state) {
        static const struct libvirt_listener listener = { .connected = NULL };
        struct libvirt *libvirt = NULL;
        uv_loop_t loop;

        assert_string_equal(libvirt_unavailable(),
                            "libvirt is not installed: libvirt.so.0: cannot open shared object file");
        assert_int_equal(uv_loop_init(&loop), 0);
        assert_int_equal(libvirt_new(&loop, &(struct libvirt_options){ .uri = "test:///default" }, &listener, NULL, &libvirt),
                         -ENOPKG);
        assert_null(libvirt);
        assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void) {
        const struct CMUnitTest tests[] = { cmocka_unit_test(test_without_the_library_there_is_no_connection) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
