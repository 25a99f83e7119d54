/* Swapping over lost connections: whatever becomes of the answer, no address is told that may be another's, and what was in the
 * memory can be had again. The daemon is the test's. */
#include <dmabroker.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/client/scripted.h"
#include "tests/client/task.h"

#define OUT_RESULT "{\"alloc\":9,\"region\":4,\"offset\":0,\"size\":4096,\"addressing\":\"none\"}"

struct scene {
        struct scripted *scripted;
        struct task task; /* its memory is in, or swapped out */
        dmab_swapped_t *swapped;
};

static struct scene *scene_of(struct task *task) {
        return (struct scene *)((char *)task - offsetof(struct scene, task));
}

static void swap_out(struct task *task) {
        task->status = dmab_swap_out_coherent(task->device, 100, task->vaddr, task->dma, &scene_of(task)->swapped);
}

static void swap_in(struct task *task) {
        task->status = dmab_swap_in_coherent(task->device, scene_of(task)->swapped, 0, &task->vaddr, &task->dma);
}

static void begin(struct scene *scene) {
        *scene = (struct scene){ .scripted = scripted_new() };
        scene->task.dmab = task_session(scene->scripted);
        scene->task.device = task_device(scene->scripted, scene->task.dmab);
        task_allocate(scene->scripted, &scene->task);
}

static void end(struct scene *scene) {
        task_end_session(scene->scripted, scene->task.dmab);
}

static bool is_told(const struct scene *scene) {
        dmab_addr_t dma;

        return dmab_dma_addr(scene->task.device, scene->task.vaddr, &dma) == 0;
}

/* The daemon has it where it was. */
static void answer_swap_in(struct scene *scene) {
        scripted_expect(scene->scripted, "coherent.swap_in");
        scripted_result(scene->scripted, ALLOC_RESULT);
        scripted_expect(scene->scripted, "region.get");
        task_give_region(scene->scripted, task_memory_file(8192));
        assert_int_equal(task_end(&scene->task), 0);
        assert_int_equal(scene->task.dma, 0x1000);
        assert_true(is_told(scene));
}

static void come_in(struct scene *scene) {
        task_start(&scene->task, swap_in);
        answer_swap_in(scene);
}

/* After a loss of the connection, so that the session is welcomed anew. */
static void come_in_again(struct scene *scene) {
        task_start(&scene->task, swap_in);
        scripted_welcome(scene->scripted);
        answer_swap_in(scene);
}

static void test_a_lost_answer_is_asked_for_again_however_often_that_is_refused(void **state) {
        struct scene scene;

        begin(&scene);
        task_start(&scene.task, swap_out);
        scripted_expect(scene.scripted, "coherent.swap_out");
        scripted_welcome(scene.scripted);
        scripted_expect(scene.scripted, "coherent.swap_out");
        scripted_too_often(scene.scripted);
        scripted_expect(scene.scripted, "coherent.swap_out");
        scripted_error(scene.scripted, EBUSY, "busy", "Allocation 9 is being moved");
        scripted_expect(scene.scripted, "coherent.swap_out");
        scripted_result(scene.scripted, OUT_RESULT);
        assert_int_equal(task_end(&scene.task), 0);
        assert_false(is_told(&scene));
        come_in(&scene);
        end(&scene);
}

static void test_what_is_refused_the_first_time_stays_as_it_was(void **state) {
        struct scene scene;

        begin(&scene);
        task_start(&scene.task, swap_out);
        scripted_expect(scene.scripted, "coherent.swap_out");
        scripted_error(scene.scripted, ENOMEM, "no_memory", "There is no room");
        assert_int_equal(task_end(&scene.task), -ENOMEM);
        assert_true(is_told(&scene));
        end(&scene);
}

static void test_no_address_is_told_of_what_may_have_been_swapped_out(void **state) {
        struct scene scene;

        begin(&scene);
        dmab_set_reconnect_timeout(scene.task.dmab, 50);
        task_start(&scene.task, swap_out);
        scripted_expect(scene.scripted, "coherent.swap_out");
        scripted_vanish(scene.scripted);
        scripted_hang_up(scene.scripted);
        assert_int_equal(task_end(&scene.task), -ECONNRESET);
        assert_string_equal(scene.task.reason, "gone");
        assert_false(is_told(&scene));
        assert_non_null(scene.swapped);

        /* It was not, as it turns out. */
        dmab_set_reconnect_timeout(scene.task.dmab, 60000);
        scripted_return(scene.scripted);
        come_in_again(&scene);
        end(&scene);
}

static void test_nor_when_the_answer_of_another_call_ends_the_connection(void **state) {
        struct rlimit before, low;
        struct scene scene;
        int fd, top;

        begin(&scene);
        fd = task_memory_file(4096);
        task_start(&scene.task, swap_out);
        scripted_expect(scene.scripted, "coherent.swap_out");
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        top = dup(fd);
        low = before;
        low.rlim_cur = (rlim_t)top;
        close(top);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        scripted_send(scene.scripted, "{\"jsonrpc\":\"2.0\",\"id\":999,\"result\":{}}\n", &fd, 1);
        assert_int_equal(task_end(&scene.task), -ECONNRESET);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        close(fd);
        assert_false(is_told(&scene));
        come_in_again(&scene);
        end(&scene);
}

static void test_what_could_not_be_swapped_in_can_be_asked_for_again(void **state) {
        struct scene scene;

        begin(&scene);
        task_start(&scene.task, swap_out);
        scripted_expect(scene.scripted, "coherent.swap_out");
        scripted_result(scene.scripted, OUT_RESULT);
        assert_int_equal(task_end(&scene.task), 0);
        task_start(&scene.task, swap_in);
        scripted_expect(scene.scripted, "coherent.swap_in");
        scripted_error(scene.scripted, ENOMEM, "no_memory", "There is not enough memory");
        assert_int_equal(task_end(&scene.task), -ENOMEM);
        dmab_set_reconnect_timeout(scene.task.dmab, 50);
        task_start(&scene.task, swap_in);
        scripted_expect(scene.scripted, "coherent.swap_in");
        scripted_vanish(scene.scripted);
        scripted_hang_up(scene.scripted);
        assert_int_equal(task_end(&scene.task), -ECONNRESET);
        dmab_set_reconnect_timeout(scene.task.dmab, 60000);
        scripted_return(scene.scripted);
        come_in_again(&scene);
        assert_int_equal(dmab_free_swapped(scene.task.device, scene.swapped), -EFAULT);
        end(&scene);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_lost_answer_is_asked_for_again_however_often_that_is_refused),
                cmocka_unit_test(test_what_is_refused_the_first_time_stays_as_it_was),
                cmocka_unit_test(test_no_address_is_told_of_what_may_have_been_swapped_out),
                cmocka_unit_test(test_nor_when_the_answer_of_another_call_ends_the_connection),
                cmocka_unit_test(test_what_could_not_be_swapped_in_can_be_asked_for_again),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
