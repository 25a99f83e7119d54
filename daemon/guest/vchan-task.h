/* What a vchan has to do with xenstore, which may never answer: each time a thread of its own does it, which is left to itself
 * when nobody waits for it any more. */
#ifndef DMAB_GUEST_VCHAN_TASK_H
#define DMAB_GUEST_VCHAN_TASK_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct libxenvchan;
struct vchan_library;
struct vchan_task;

/* Nothing of the task is on the loop any more. vchan: that was made, and is the callee's; NULL: none was, or it was left.
 * is_early: whoever makes the domain has not told xenstore of it yet, and would remove what is there before. */
typedef void (*vchan_task_over_fn)(void *userdata, struct libxenvchan *vchan, bool is_early);

/* Make one for the domain, and tell it of that by xenstore. 0 or -errno. */
int vchan_task_make(uv_loop_t *loop, const struct vchan_library *library, uint32_t domid, vchan_task_over_fn over,
                    void *userdata, struct vchan_task **ret);
/* End one, and what xenstore tells of it. Consumes vchan, on success. */
int vchan_task_end(uv_loop_t *loop, const struct vchan_library *library, struct libxenvchan *vchan, vchan_task_over_fn over,
                   void *userdata, struct vchan_task **ret);
/* Whatever it comes to is nobody's: a vchan that is made all the same is ended. */
void vchan_task_leave(struct vchan_task *task);

#endif
