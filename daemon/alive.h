/* Whether a process lives: a program that a session belonged to before the daemon was restarted, which may have nothing to say
 * for hours while what it holds is in use even so; or a guest's QEMU. */
#ifndef DMAB_ALIVE_H
#define DMAB_ALIVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

/* When the process began, which no other of the same number has: in the kernel's own unit. 0: not to be found out. */
uint64_t alive_since(pid_t pid);

struct alive;

/* Calls ended() once, from the loop, when the process that began at this time (0: not known) has ended. NULL: it has, or that
 * cannot be watched for. */
struct alive *alive_watch(uv_loop_t *loop, pid_t pid, uint64_t since, void (*ended)(void *userdata), void *userdata);
/* Whether it is certain that it has ended. */
bool alive_is_over(pid_t pid, uint64_t since);
/* Its memory is freed by the loop. Also after ended(), and from within it. Returns NULL; NULL is fine. */
struct alive *alive_forget(struct alive *alive);

#endif
