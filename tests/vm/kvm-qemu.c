/* Guests in QEMUs of our own. Their device is emulated, or passed through: then it is one of this machine's,
 * bound to vfio-pci, and what it is told to do it does through this machine's IOMMU. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/vm/kvm-bed.h"

static void configure(const struct kvm_place *place, char *text, size_t size) {
        *text = '\0';
}

static void configure_guest(const struct kvm_place *place, const struct kvm_guest *guest, char *text, size_t size) {
        snprintf(text, size, "qmp = %s/%s.qmp\nports = rp0 rp1\n", place->directory, guest->name);
}

/* The channel is as advised; of ports there are two. */
static void start_with(const struct kvm_place *place, struct kvm_guest *guest, const char *advice, const char *device) {
        static char channel[256], serial[128], qmp[128], monitor[128], root[2][64];
        const char *arguments[] = {
                "qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-machine", "q35", "-m", "256", "-smp", "1",
                "-nodefaults", "-display", "none", "-uuid", guest->uuid, "-serial", serial, "-qmp", qmp, "-qmp", monitor,
                "-device", "virtio-serial-pci", "-chardev", channel,
                "-device", "virtserialport,chardev=dmabroker,name=org.dmabroker.0",
                "-device", device,
                "-device", root[0], "-device", root[1],
                "-kernel", place->kernel, "-initrd", place->initrd, "-append", KVM_CMDLINE, NULL,
        };
        const char *at = strstr(advice, "-chardev "), *end;

        kvm_check(at && strstr(advice, "-device virtserialport,chardev=dmabroker,name=org.dmabroker.0"), "a channel is advised");
        at += strlen("-chardev ");
        end = at + strcspn(at, " \\\n");
        snprintf(channel, sizeof(channel), "%.*s", (int)(end - at), at);
        snprintf(serial, sizeof(serial), "unix:%s/%s.serial", place->directory, guest->name);
        snprintf(qmp, sizeof(qmp), "unix:%s/%s.qmp,server=on,wait=off", place->directory, guest->name);
        snprintf(monitor, sizeof(monitor), "unix:%s/%s.ours,server=on,wait=off", place->directory, guest->name);
        for (int i = 0; i < 2; i++)
                snprintf(root[i], sizeof(root[i]), "pcie-root-port,id=rp%d,chassis=%d,slot=%d,pref64-reserve=64M", i, i + 1,
                         i + 1);
        guest->qemu = fork();
        if (guest->qemu < 0)
                kvm_give_up("fork: %s", strerror(errno));
        if (guest->qemu == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                execvp(arguments[0], (char *const *)arguments);
                _exit(127);
        }
}

static void start(const struct kvm_place *place, struct kvm_guest *guest, const char *advice) {
        start_with(place, guest, advice, "edu,addr=" KVM_EDU_SLOT ",dma_mask=0xffffffffffff");
}

static void start_passed_through(const struct kvm_place *place, struct kvm_guest *guest, const char *advice) {
        start_with(place, guest, advice, "vfio-pci,host=0000:00:02.0,addr=" KVM_EDU_SLOT);
}

static void await_end(struct kvm_guest *guest) {
        waitpid(guest->qemu, NULL, 0);
        guest->qemu = 0;
        close(guest->monitor);
        guest->monitor = -1;
}

static void end(struct kvm_guest *guest) {
        if (guest->qemu <= 0)
                return;
        kill(guest->qemu, SIGKILL);
        await_end(guest);
}

static pid_t pid(const struct kvm_guest *guest) {
        return guest->qemu;
}

/* ---- a monitor of our own: the other one is the daemon's ---- */

/* Until this was said; events come in between. */
static void monitor_hear(struct kvm_guest *guest, const char *text) {
        struct pollfd poll_for = { .fd = guest->monitor, .events = POLLIN };
        char heard[4096] = "";
        size_t used = 0;
        ssize_t n;

        while (!strstr(heard, text)) {
                if (used == sizeof(heard) - 1)
                        used = 0;
                n = poll(&poll_for, 1, KVM_PATIENCE_MS) > 0 ? read(guest->monitor, heard + used, sizeof(heard) - 1 - used) : 0;
                if (n <= 0)
                        kvm_give_up("the monitor of %s does not say %s", guest->name, text);
                used += (size_t)n;
                heard[used] = '\0';
        }
}

static void monitor_say(struct kvm_guest *guest, const char *command) {
        char line[128];
        int n = snprintf(line, sizeof(line), "{\"execute\":\"%s\"}\n", command);

        if (write(guest->monitor, line, (size_t)n) != n)
                kvm_give_up("the monitor of %s: %s", guest->name, strerror(errno));
        monitor_hear(guest, "\"return\"");
}

static void monitor_do(struct kvm_guest *guest, const char *command) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (guest->monitor < 0) {
                snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s.ours", kvm_host.place.directory, guest->name);
                guest->monitor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
                if (connect(guest->monitor, (struct sockaddr *)&address, sizeof(address)) < 0)
                        kvm_give_up("%s: %s", address.sun_path, strerror(errno));
                monitor_hear(guest, "QMP");
                monitor_say(guest, "qmp_capabilities");
        }
        monitor_say(guest, command);
}

static void reset(struct kvm_guest *guest) {
        monitor_do(guest, "system_reset");
}

static void pause_guest(struct kvm_guest *guest) {
        monitor_do(guest, "stop");
}

static void resume(struct kvm_guest *guest) {
        monitor_do(guest, "cont");
}

const struct kvm_bed kvm_bed_qemu = {
        .configure = configure, .configure_guest = configure_guest, .start = start, .kill = end, .await_end = await_end,
        .pid = pid, .reset = reset, .pause = pause_guest, .resume = resume,
};
const struct kvm_bed kvm_bed_passed_through = {
        .configure = configure, .configure_guest = configure_guest, .start = start_passed_through, .kill = end, .pid = pid,
        .is_slow = true,
};
