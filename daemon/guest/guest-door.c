/* Who comes in as a guest, through its channel or to its windows. The kernel says which process has connected, and of which user;
 * with a monitor, that it is the one which has it. All QEMUs of libvirt's are one user's. So there:
 *
 * - Whoever is in a machine of libvirt's (machine.h) must be in this guest's. Its name has libvirt's number for this run of the
 *   guest, and what is left of the guest's name: that two guests may have in common, and the number a guest of another libvirt.
 * - Who is in none is let in only where this guest has none either: libvirt does without systemd-machined.
 * - As long as the number is not told, nobody is let in; but QEMU connects before libvirt tells of the start, and need not come
 *   a second time. So who comes then is held, unread, until it is known. From each machine only the last one is: no guest can
 *   keep another one out. The process that is known to have this guest's memory need not wait for that. Who comes from a later
 *   run than is known is held likewise: libvirt has started the guest again and not told yet.
 * - When it ends, who was let in is hung up on: a QEMU that lives on is not the guest any more. */
#include "daemon/guest/guest.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/log.h"

enum { HELD_MAX = 64, TELL_MS = 1000, WHY_SIZE = 2 * MACHINE_NAME_SIZE };

#define LIBVIRTS "qemu-"

enum verdict { REFUSED, ADMITTED, HELD };

struct held {
        struct held *prev, *next;
        int fd;
        struct ucred who;
        char machine[MACHINE_NAME_SIZE]; /* or "" */
};

static const struct machine_ops *machines_of(const struct guest *guest) {
        return guest->guests->settings.machines;
}

/* Libvirt's number for the run of now, or 0. */
static unsigned run_of(const struct guest *guest) {
        return guest->state == GUEST_RUNNING || guest->state == GUEST_PAUSED ? guest->run : 0;
}

static bool is_of_user(const struct guest *guest, const struct ucred *who) {
        const struct guests_settings *settings = &guest->guests->settings;

        return who->uid == 0 || who->uid == geteuid() || (settings->has_user && who->uid == settings->uid);
}

static bool begins_with(const char *text, const char *prefix) {
        return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* run: not 0. */
static enum verdict judge(const struct guest *guest, unsigned run, const char *machine, char why[WHY_SIZE]) {
        unsigned its_run = machine_run(machine, guest->domain);
        char own[LIBVIRT_MACHINE_SIZE], numbered[sizeof(LIBVIRTS) + 16];
        int is_there;

        if (its_run == run)
                return ADMITTED;
        if (its_run > run) {
                snprintf(why, WHY_SIZE, "it is in the machine %s, of which libvirt has not told yet", machine);
                return HELD;
        }
        machine_name(run, guest->domain, own);
        /* By its number alone: a libvirt may make something else of a guest's name than is known here. */
        snprintf(numbered, sizeof(numbered), LIBVIRTS "%u%s", run, *guest->domain ? "-" : "");
        is_there = begins_with(machine, LIBVIRTS) ? 1 : machines_of(guest)->is_there(numbered);
        if (is_there == 0)
                return ADMITTED;
        if (is_there < 0) {
                snprintf(why, WHY_SIZE, "which machines there are cannot be found out: %s", strerror(-is_there));
                return REFUSED;
        }
        snprintf(why, WHY_SIZE, "it is in %s%s, and the guest in a machine %s", *machine ? "the machine " : "no machine",
                 machine, own);
        return REFUSED;
}

/* It has memory of this guest's, and hence is in the guest's machine. */
static bool is_its_process(const struct guest *guest, const struct ucred *who) {
        return guest->pid && guest->pid == who->pid && guest->pid_since && guest->pid_since == alive_since(who->pid);
}

/* run: libvirt's number, or 0: it is not known. */
static enum verdict look_at(const struct guest *guest, int fd, const struct ucred *who, unsigned run,
                            char machine[MACHINE_NAME_SIZE], char why[WHY_SIZE]) {
        int r;

        *machine = '\0';
        if (!is_of_user(guest, who)) {
                snprintf(why, WHY_SIZE, "its user is %lu", (unsigned long)who->uid);
                return REFUSED;
        }
        if (guest->qmp_path && guest->pid && who->pid != guest->pid) {
                snprintf(why, WHY_SIZE, "process %ld has the guest's monitor", (long)guest->pid);
                return REFUSED;
        }
        if (guest->qmp_path || !machines_of(guest)->are_kept())
                return ADMITTED;
        r = machine_of_peer(machines_of(guest), fd, who->pid, machine);
        if (r < 0 && r != -ENODATA) {
                snprintf(why, WHY_SIZE, "its machine cannot be found out: %s", strerror(-r));
                return REFUSED;
        }
        if (run)
                return judge(guest, run, machine, why);
        return is_its_process(guest, who) ? ADMITTED : HELD;
}

/* A window is its guest's of this run, even while libvirt is away. */
bool guest_admits(struct guest *guest, int fd, const struct ucred *who) {
        char machine[MACHINE_NAME_SIZE], why[WHY_SIZE] = "it is not known yet which is the guest's machine";

        if (look_at(guest, fd, who, guest->run, machine, why) == ADMITTED)
                return true;
        if (uv_now(guest->guests->loop) >= guest->tell_ms)
                log_warning("a process (pid %ld) is not the QEMU of the guest %s: %s", (long)who->pid, guest->name, why);
        guest->tell_ms = uv_now(guest->guests->loop) + TELL_MS;
        return false;
}

/* ---- the channel ---- */

static void admit(struct guest *guest, int fd, const struct ucred *who) {
        guest->is_judged = !guest->qmp_path && machines_of(guest)->are_kept();
        guest->guests->listener->channel(guest->guests->userdata, guest->owner, fd, who->pid, who->uid);
        guest_tell(guest, GUEST_CONNECTED);
}

/* The descriptor is whose it was. */
static void let_go(struct guest *guest, struct held *held) {
        DL_DELETE(guest->held, held);
        guest->n_held--;
        free(held);
}

static void drop(struct guest *guest, struct held *held) {
        close(held->fd);
        let_go(guest, held);
}

static struct held *find_held(const struct guest *guest, const char *machine) {
        struct held *held;

        DL_FOREACH(guest->held, held)
                if (strcmp(held->machine, machine) == 0)
                        return held;
        return NULL;
}

static void hold(struct guest *guest, int fd, const struct ucred *who, const char *machine) {
        struct held *held = find_held(guest, machine);

        if (!held && guest->n_held >= HELD_MAX)
                held = guest->held;
        if (held)
                drop(guest, held);
        held = calloc(1, sizeof(*held));
        if (!held) {
                channel_refuse(guest->channel, fd, who->pid, "there is no memory to let it wait");
                return;
        }
        held->fd = fd;
        held->who = *who;
        snprintf(held->machine, sizeof(held->machine), "%s", machine);
        DL_APPEND(guest->held, held);
        guest->n_held++;
}

void guest_knock(void *userdata, int fd, const struct ucred *who) {
        struct guest *guest = userdata;
        char machine[MACHINE_NAME_SIZE], why[WHY_SIZE];

        switch (look_at(guest, fd, who, run_of(guest), machine, why)) {
        case ADMITTED:
                admit(guest, fd, who);
                break;
        case HELD:
                hold(guest, fd, who, machine);
                break;
        default:
                channel_refuse(guest->channel, fd, who->pid, why);
        }
}

static bool has_hung_up(const struct held *held) {
        struct pollfd end = { .fd = held->fd, .events = POLLRDHUP };

        return poll(&end, 1, 0) > 0;
}

void guest_look_who_is_there(struct guest *guest) {
        unsigned run = run_of(guest), n = guest->n_held;
        char why[WHY_SIZE];

        if (!run)
                return;
        /* Who has to wait on takes its turn again, behind the others. */
        for (struct held *held; n && (held = guest->held); n--) {
                struct ucred who = held->who;
                int fd = held->fd;
                enum verdict verdict;

                if (has_hung_up(held)) {
                        drop(guest, held);
                        continue;
                }
                verdict = judge(guest, run, held->machine, why);
                if (verdict == HELD) {
                        DL_DELETE(guest->held, held);
                        DL_APPEND(guest->held, held);
                        continue;
                }
                let_go(guest, held);
                if (verdict == ADMITTED)
                        admit(guest, fd, &who);
                else
                        channel_refuse(guest->channel, fd, who.pid, why);
        }
}

void guest_hang_up(struct guest *guest) {
        if (guest->is_judged || guest->is_xen)
                guest->guests->listener->known(guest->guests->userdata, guest->owner, 0);
        guest->is_judged = false;
}

void guest_forget_held(struct guest *guest) {
        while (guest->held)
                drop(guest, guest->held);
}
