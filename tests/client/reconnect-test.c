/* What the library does with calls under way when the connection is lost, and how it comes back. The daemon is a script. */
#include <dmabroker.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/client/scripted.h"
#include "tests/client/task.h"

/* ---- what is made twice ---- */

static void test_whatever_gives_back_by_number_is_made_again(void **state) {
        static const struct {
                const char *method, *reason, *result;
        } releases[] = {
                { "coherent.free", "double_free", "{\"ok\":true}" },
                { "coherent.free", "unknown_handle", "{\"ok\":true}" },
                { "pool.return", "double_free", "{\"ok\":true}" },
                { "bounce.return", "unknown_handle", "{\"ok\":true}" },
                { "bounce.unmap", "double_free", "{\"ok\":true}" },
                { "mapping.unmap", "unknown_handle", "{\"ok\":true}" },
                { "device.unreserve", "unknown_handle", "{\"ok\":true}" },
                { "device.close", "unknown_device", "{\"leaked\":[]}" },
                { "pool.destroy", "unknown_handle", "{\"busy\":[],\"more\":false}" },
                { "bounce.destroy", "unknown_handle", "{\"busy\":[],\"more\":false}" },
        };
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);

        assert_null(*state);
        for (size_t i = 0; i < sizeof(releases) / sizeof(*releases); i++) {
                struct task task = { .dmab = dmab, .method = releases[i].method, .params = "{\"number\":7}" };

                task_start(&task, task_call);
                assert_string_equal(scripted_expect(scripted, releases[i].method), "{\"number\":7}");
                scripted_welcome(scripted);
                assert_string_equal(scripted_expect(scripted, releases[i].method), "{\"number\":7}");
                scripted_error(scripted, ENOENT, releases[i].reason, "it is not there");
                assert_int_equal(task_end(&task), 0);
                assert_string_equal(task.result, releases[i].result);
                free(task.result);
                /* The first time it means what it says. */
                task_start(&task, task_call);
                scripted_expect(scripted, releases[i].method);
                scripted_error(scripted, ENOENT, releases[i].reason, "it is not there");
                assert_int_equal(task_end(&task), -ENOENT);
        }
        task_end_session(scripted, dmab);
}

static void test_a_release_that_is_refused_the_second_time_is_refused(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);
        struct task task = { .dmab = dmab, .method = "pool.destroy", .params = "{\"pool\":7}" };

        assert_null(*state);
        task_start(&task, task_call);
        scripted_expect(scripted, "pool.destroy");
        scripted_welcome(scripted);
        scripted_expect(scripted, "pool.destroy");
        scripted_error(scripted, EBUSY, "busy", "blocks are in use");
        assert_int_equal(task_end(&task), -EBUSY);
        assert_string_equal(task.reason, "busy");
        task_end_session(scripted, dmab);
}

static void expect_unknown(struct scripted *scripted, dmab_t *dmab, const char *method) {
        struct task task = { .dmab = dmab, .method = method, .params = "{}" };

        task_start(&task, task_call);
        scripted_expect(scripted, method);
        scripted_hang_up(scripted);
        assert_int_equal(task_end(&task), -ECONNRESET);
        assert_string_equal(task.reason, "gone");
        assert_non_null(strstr(task.error, method));
        assert_non_null(strstr(task.error, "whether it was carried out is not known"));
        task_start(&task, task_call);
        scripted_welcome(scripted);
        scripted_expect(scripted, method);
        scripted_result(scripted, "{}");
        assert_int_equal(task_end(&task), 0);
        free(task.result);
}

/* Blocks are freed by address, and may be somebody else's the second time; of a later daemon's methods nothing is known. */
static void test_whatever_may_not_be_made_twice_is_told_as_failed(void **state) {
        struct scripted *scripted = scripted_new();
        dmab_t *dmab = task_session(scripted);

        assert_null(*state);
        expect_unknown(scripted, dmab, "pool.free");
        expect_unknown(scripted, dmab, "guest.evict");
        task_end_session(scripted, dmab);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_whatever_gives_back_by_number_is_made_again),
                cmocka_unit_test(test_a_release_that_is_refused_the_second_time_is_refused),
                cmocka_unit_test(test_whatever_may_not_be_made_twice_is_told_as_failed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
