/* One call of the library on a thread of its own, beside a scripted daemon that the test plays. */
#ifndef DMAB_TESTS_CLIENT_TASK_H
#define DMAB_TESTS_CLIENT_TASK_H

#include <dmabroker.h>
#include <pthread.h>
#include <stddef.h>

#include "tests/client/scripted.h"

/* What is called with what, and how it ended. */
struct task {
        pthread_t thread;
        void (*run)(struct task *task);
        dmab_t *dmab;
        dmab_device_t *device;
        dmab_pool_t *pool;
        const char *uri, *method, *params;
        char *result;
        void *vaddr;
        dmab_addr_t dma;
        size_t n_fds;
        int fds[4], status;
        char error[512], reason[64];
};

void task_start(struct task *task, void (*run)(struct task *));
/* Waits for it; returns its status. */
int task_end(struct task *task);

/* For task_start(): each uses the members that it needs. Allocations have 100 bytes, pools blocks of 1024. */
void task_connect(struct task *task);
void task_disconnect(struct task *task);
void task_call(struct task *task);
void task_open(struct task *task);
void task_alloc(struct task *task);
void task_free(struct task *task);
void task_close(struct task *task);
void task_make_pool(struct task *task);
void task_pool_alloc(struct task *task);
void task_pool_wait(struct task *task);

/* Whole conversations, with the daemon's side of them. */
dmab_t *task_session(struct scripted *scripted);
dmab_device_t *task_device(struct scripted *scripted, dmab_t *dmab);
void task_allocate(struct scripted *scripted, struct task *task);
/* Ends scripted as well. */
void task_end_session(struct scripted *scripted, dmab_t *dmab);

int task_memory_file(size_t size);
/* region.get's answer: region 3, which has 8 KiB. fd is consumed. */
void task_give_region(struct scripted *scripted, int fd);

#define ALLOC_RESULT                                                                                                   \
        "{\"alloc\":9,\"region\":3,\"offset\":4096,\"size\":4096,\"dma_addr\":\"0x1000\",\"addressing\":"              \
        "\"simulated\"}"

/* In region 3. */
#define LEASE_RESULT(number, offset, dma, count)                                                                           \
        "{\"lease\":" #number ",\"region\":3,\"offset\":" #offset ",\"dma_addr\":\"" #dma "\",\"count\":" #count               \
        ",\"block_size\":1024,\"addressing\":\"simulated\"}"

#endif
