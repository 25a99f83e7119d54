/* What the library asks for when frames are exchanged, and what it makes of the answers: of a daemon that is played. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "tests/client/task.h"

enum { MOST = 65536 };

static struct {
        uint64_t frames[MOST + 1], got[MOST];
        size_t n, n_got;
        unsigned order;
        struct dmab_exchange_options options;
        struct scripted *scripted;
        struct task task;
} run;

static void exchange(struct task *task) {
        task->status = dmab_exchange_frames(task->dmab, run.frames, run.n, run.order, &run.options, run.got, &run.n_got);
}

static int begin(void **state) {
        memset(&run, 0, sizeof(run));
        run.options = (struct dmab_exchange_options)DMAB_EXCHANGE_OPTIONS_INIT;
        run.scripted = scripted_new();
        run.task.dmab = task_session(run.scripted);
        run.n = 4;
        run.order = 1;
        for (size_t i = 0; i <= MOST; i++)
                run.frames[i] = 0x1f400 + 2 * i;
        return 0;
}

static int end(void **state) {
        task_end_session(run.scripted, run.task.dmab);
        return 0;
}

static const char *ask(void) {
        task_start(&run.task, exchange);
        return scripted_expect(run.scripted, "guest.exchange");
}

static void answered(const char *result, int status) {
        scripted_result(run.scripted, result);
        assert_int_equal(task_end(&run.task), status);
}

static void test_a_guest_asks_for_its_own_frames(void **state) {
        assert_string_equal(ask(), "{\"frames\":[\"0x1f400\",\"0x1f402\",\"0x1f404\",\"0x1f406\"],\"order\":1}");
        answered("{\"frames\":[\"0x3d400\",\"0x3d402\"],\"exchanged\":4}", 0);
        assert_int_equal(run.n_got, 2);
        assert_int_equal(run.got[0], 0x3d400);
        assert_int_equal(run.got[1], 0x3d402);
}

static void test_all_that_can_be_said_is_said(void **state) {
        static const uint64_t pfns[] = { 0x800, 0x10 };

        run.options.guest = "web \"1\"";
        run.options.mask = 0xffffffff;
        run.options.pfns = pfns;
        run.options.given_up = 1;
        assert_string_equal(ask(), "{\"guest\":\"web \\\"1\\\"\",\"frames\":[\"0x1f400\",\"0x1f402\",\"0x1f404\",\"0x1f406\"],"
                                   "\"order\":1,\"mask\":\"0xffffffff\",\"given_up\":true,\"pfns\":[\"0x800\",\"0x10\"]}");
        answered("{\"frames\":[\"0x3d400\",\"0x3d402\"],\"exchanged\":4}", 0);
}

static void test_fewer_than_all_are_told_by_their_number(void **state) {
        ask();
        answered("{\"frames\":[\"0x3d400\"],\"exchanged\":2,\"why\":\"Xen has no more\"}", 0);
        assert_int_equal(run.n_got, 1);
}

static void test_an_answer_that_cannot_be_is_not_believed(void **state) {
        ask();
        answered("{\"frames\":[\"0x1\",\"0x2\",\"0x3\"],\"exchanged\":4}", -EPROTO);
        ask();
        answered("{\"exchanged\":4}", -EPROTO);
        ask();
        answered("{\"frames\":[\"0x3d400\",77],\"exchanged\":4}", -EPROTO);
        assert_int_equal(run.n_got, 0);
}

static void test_it_is_never_asked_for_twice(void **state) {
        ask();
        scripted_hang_up(run.scripted);
        assert_int_equal(task_end(&run.task), -ECONNRESET);
        task_start(&run.task, exchange);
        scripted_welcome(run.scripted);
        scripted_expect(run.scripted, "guest.exchange");
        answered("{\"frames\":[\"0x3d400\",\"0x3d402\"],\"exchanged\":4}", 0);
}

static void not_sent(int status) {
        exchange(&run.task);
        assert_int_equal(run.task.status, status);
        assert_true(*dmab_last_error());
        assert_true(scripted_is_silent(run.scripted));
}

static void test_what_cannot_be_is_not_sent(void **state) {
        run.n = 3;
        not_sent(-EINVAL);
        run.n = 0;
        not_sent(-EINVAL);
        run.n = MOST + 1;
        not_sent(-E2BIG);
        run.n = MOST;
        run.order = 17;
        not_sent(-E2BIG);
        run.order = 0;
        run.options.pfns = run.frames;
        not_sent(-E2BIG); /* as a message */
        run.n = 4;
        run.options.struct_size = 1;
        not_sent(-EINVAL);
}

int main(void) {
#define T(test) cmocka_unit_test_setup_teardown(test_##test, begin, end)
        const struct CMUnitTest tests[] = {
                T(a_guest_asks_for_its_own_frames),
                T(all_that_can_be_said_is_said),
                T(fewer_than_all_are_told_by_their_number),
                T(an_answer_that_cannot_be_is_not_believed),
                T(it_is_never_asked_for_twice),
                T(what_cannot_be_is_not_sent),
        };
#undef T

        return cmocka_run_group_tests(tests, NULL, NULL);
}
