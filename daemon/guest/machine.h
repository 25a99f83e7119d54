/* Which machine a process is in. libvirt has systemd-machined keep a machine for each QEMU, which is a cgroup that no process of
 * QEMU's user can leave, whatever becomes of it. */
#ifndef DMAB_GUEST_MACHINE_H
#define DMAB_GUEST_MACHINE_H

#include <stdbool.h>
#include <sys/types.h>

enum {
        MACHINE_NAME_SIZE = 256,
        LIBVIRT_MACHINE_SIZE = 64 + 1, /* of what libvirt calls one */
};

/* Who is asked. */
struct machine_ops {
        /* Whether machines are kept on this host at all; if not, every process is in none. */
        bool (*are_kept)(void);
        /* 0: in this one; -ENODATA: in none; -ESRCH: there is no such process; or another -errno. */
        int (*of_process)(pid_t pid, char ret_name[MACHINE_NAME_SIZE]);
        /* Whether there is a machine whose name begins like this. 0, 1 or -errno. */
        int (*is_there)(const char *prefix);
};

extern const struct machine_ops machine_systemd_ops;

/* What of a guest's name is in that of its machine: what may be in a host's name. */
void machine_clean(const char *name, char ret_name[LIBVIRT_MACHINE_SIZE]);

/* What libvirtd calls the machine of a guest in this run of it: qemu-RUN-NAME. The libvirt of a user has that before RUN. */
void machine_name(unsigned run, const char *cleaned, char ret_name[LIBVIRT_MACHINE_SIZE]);

/* The run of this guest whose machine this is, or 0: it is none of its. */
unsigned machine_run(const char *machine, const char *cleaned);

/* NULL if systemd can be asked for all that it knows, else a sentence. */
const char *machine_unavailable(void);

/* As of_process(), of the process that has connected this socket and has this number. -ESRCH also when it has ended since: who
 * has its number now is another. */
int machine_of_peer(const struct machine_ops *ops, int fd, pid_t pid, char ret_name[MACHINE_NAME_SIZE]);

#endif
