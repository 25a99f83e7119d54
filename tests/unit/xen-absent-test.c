/* On hosts without Xen, or without its libraries. */
#include <config.h>

#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/source/sources.h"

#define CONTROL "libxenctrl.so." XEN_RELEASE

int __wrap_access(const char *path, int mode);
int __real_access(const char *path, int mode);
void *__wrap_dlopen(const char *path, int flags);
void *__real_dlopen(const char *path, int flags);
char *__wrap_dlerror(void);

static bool is_dom0, has_library;
static unsigned opened;

int __wrap_access(const char *path, int mode) {
        if (!strstr(path, "privcmd"))
                return __real_access(path, mode);
        errno = ENOENT;
        return is_dom0 ? 0 : -1;
}

/* There is another one in its place, which has nothing of Xen's. */
void *__wrap_dlopen(const char *path, int flags) {
        if (!strstr(path, "xen"))
                return __real_dlopen(path, flags);
        opened++;
        return has_library ? __real_dlopen("libm.so.6", flags) : NULL;
}

char *__wrap_dlerror(void) {
        return (char *)CONTROL ": cannot open shared object file";
}

/* What was found is so for the whole life of a process. */
static void in_a_process(void (*check)(void)) {
        int status;
        pid_t child = fork();

        assert_true(child >= 0);
        if (child == 0) {
                check();
                _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
}

static void expect(const char *sentence) {
        struct failure failure = { 0 };
        struct source *source = NULL;

        if (source_xen_ops.probe(&failure) != -ENODEV || strcmp(failure.sentence, sentence) != 0) {
                dprintf(2, "it says: %s\n", failure.sentence);
                _exit(1);
        }
        if (source_xen_ops.open(NULL, 0, NULL, &source, &failure) != -ENODEV || source || source_xen_ops.is_kept())
                _exit(2);
}

static void check_other_host(void) {
        expect("this machine is no dom0 of Xen: it has no /dev/xen/privcmd (in a dom0: modprobe xen_privcmd)");
        if (opened)
                _exit(3);
}

static void test_another_host_is_no_dom0_and_nothing_is_opened(void **state) {
        in_a_process(check_other_host);
}

static void check_no_library(void) {
        is_dom0 = true;
        expect("the libraries of Xen " XEN_RELEASE ", for which this program was built, are not installed: " CONTROL
               ": cannot open shared object file");
        if (opened != 1)
                _exit(3);
}

static void test_a_dom0_without_the_libraries_is_told_which_are_missing(void **state) {
        in_a_process(check_no_library);
}

static void check_other_library(void) {
        is_dom0 = has_library = true;
        expect(CONTROL " is not as it should be: it has no xc_domain_create()");
}

static void test_a_library_that_lacks_something_is_named(void **state) {
        in_a_process(check_other_library);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_another_host_is_no_dom0_and_nothing_is_opened),
                cmocka_unit_test(test_a_dom0_without_the_libraries_is_told_which_are_missing),
                cmocka_unit_test(test_a_library_that_lacks_something_is_named),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
