/* What libuv takes for granted, and ends the process over when it is not so: memory for its table of descriptors, and room for
 * one more in the kernel's epoll set. Both are made sure of before libuv is asked, so that the lack of either is an error.
 * Any thread may have a loop, and is then the only one that uses it. */
#ifndef DMAB_LOOP_H
#define DMAB_LOOP_H

#include <uv.h>

/* Before everything else that is asked of libuv. 0 or -errno. */
int loop_init(uv_loop_t *loop);

/* When the first signal handle was made, if there is to be one, and before the loop runs: the loop's own descriptors. 0 or
 * -errno. */
int loop_prepare(uv_loop_t *loop);

/* As uv_poll_start(), for a handle that is initialised. On failure nothing is watched. */
int loop_watch(uv_poll_t *handle, int events, uv_poll_cb cb);

#endif
