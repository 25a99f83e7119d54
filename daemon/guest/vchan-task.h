/* What a vchan has to do with xenstore, which may never answer: each time a thread of its own does it, which is left to itself
 * when nobody waits for it any more. */
#ifndef DMAB_GUEST_VCHAN_TASK_H
#define DMAB_GUEST_VCHAN_TASK_H

#include <stdint.h>
#include <uv.h>

struct vchan_library;
struct vchan_server;
struct vchan_task;

/* Nothing of the task is on the loop any more. server: that was made, and is the callee's; NULL: none was, and why is a sentence,
 * or it was left. */
typedef void (*vchan_task_over_fn)(void *userdata, struct vchan_server *server, const char *why);

/* Make one for the domain, if Xen says that it is the guest of that UUID, before and after. 0 or -errno. */
int vchan_task_make(uv_loop_t *loop, const struct vchan_library *library, uint32_t domid, const char *uuid,
                    vchan_task_over_fn over, void *userdata, struct vchan_task **ret);
/* End one. Consumes server, on success. */
int vchan_task_end(uv_loop_t *loop, struct vchan_server *server, vchan_task_over_fn over, void *userdata,
                   struct vchan_task **ret);
/* Whatever it comes to is nobody's: one that is made all the same is ended. */
void vchan_task_leave(struct vchan_task *task);

#endif
