#include "tests/client/task.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static void *task_main(void *pointer) {
        struct task *task = pointer;

        task->run(task);
        if (task->status) {
                snprintf(task->error, sizeof(task->error), "%s", dmab_last_error());
                snprintf(task->reason, sizeof(task->reason), "%s", dmab_last_reason() ? dmab_last_reason() : "");
        }
        return NULL;
}

void task_start(struct task *task, void (*run)(struct task *)) {
        task->run = run;
        assert_int_equal(pthread_create(&task->thread, NULL, task_main, task), 0);
}

int task_end(struct task *task) {
        assert_int_equal(pthread_join(task->thread, NULL), 0);
        return task->status;
}

void task_connect(struct task *task) {
        task->status = dmab_connect(task->uri, &task->dmab);
}

void task_disconnect(struct task *task) {
        dmab_disconnect(task->dmab);
}

void task_call(struct task *task) {
        task->status = dmab_call_fds(task->dmab, task->method, task->params, &task->result, task->fds, 4, &task->n_fds);
}

void task_open(struct task *task) {
        task->status = dmab_device_open(task->dmab, "card", NULL, &task->device);
}

void task_alloc(struct task *task) {
        task->status = dmab_alloc_coherent(task->device, 100, DMAB_NOWAIT, &task->vaddr, &task->dma);
}

void task_free(struct task *task) {
        task->status = dmab_free_coherent(task->device, 100, task->vaddr, task->dma);
}

void task_close(struct task *task) {
        task->status = dmab_device_close(task->device);
}

dmab_t *task_session(struct scripted *scripted) {
        struct task task = { .uri = scripted_uri(scripted) };

        task_start(&task, task_connect);
        scripted_welcome(scripted);
        assert_int_equal(task_end(&task), 0);
        return task.dmab;
}

void task_end_session(struct scripted *scripted, dmab_t *dmab) {
        struct task task = { .dmab = dmab };

        task_start(&task, task_disconnect);
        scripted_bye(scripted);
        task_end(&task);
        scripted_free(scripted);
}

dmab_device_t *task_device(struct scripted *scripted, dmab_t *dmab) {
        struct task task = { .dmab = dmab };

        task_start(&task, task_open);
        scripted_expect(scripted, "device.open");
        scripted_result(scripted, "{\"device\":5,\"translation\":\"identity\",\"via\":\"card\",\"name\":\"card\","
                                  "\"mask\":\"0xffffffffffffffff\",\"coherent_mask\":\"0xffffffffffffffff\"}");
        assert_int_equal(task_end(&task), 0);
        return task.device;
}

int task_memory_file(size_t size) {
        int fd = memfd_create("region", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, size), 0);
        return fd;
}

void task_give_region(struct scripted *scripted, int fd) {
        char text[256];

        snprintf(text, sizeof(text),
                 "{\"jsonrpc\":\"2.0\",\"id\":%lld,\"result\":{\"region\":3,\"size\":8192,\"fds\":1}}\n",
                 scripted_id(scripted));
        scripted_send(scripted, text, &fd, 1);
        close(fd);
}

void task_allocate(struct scripted *scripted, struct task *task) {
        task_start(task, task_alloc);
        scripted_expect(scripted, "coherent.alloc");
        scripted_result(scripted, ALLOC_RESULT);
        scripted_expect(scripted, "region.get");
        task_give_region(scripted, task_memory_file(8192));
        assert_int_equal(task_end(task), 0);
}

void task_make_pool(struct task *task) {
        task->status = dmab_pool_create("blocks", task->device, 1024, 0, 0, NULL, &task->pool);
}

void task_pool_alloc(struct task *task) {
        task->status = dmab_pool_alloc(task->pool, DMAB_NOWAIT, &task->vaddr, &task->dma);
}

void task_pool_wait(struct task *task) {
        task->status = dmab_pool_alloc(task->pool, DMAB_WAIT, &task->vaddr, &task->dma);
}
