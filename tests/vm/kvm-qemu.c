/* The guest of kvm-host.c in a QEMU of our own. Its device is emulated, or passed through: then it is one of this machine's,
 * bound to vfio-pci, and what it is told to do it does through this machine's IOMMU. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/vm/kvm-bed.h"

static pid_t qemu;

static void configure(const struct kvm_place *place, char *text, size_t size) {
        snprintf(text, size, "[guest vm]\nuuid = " KVM_UUID "\nqmp = %s/qmp\nports = rp0 rp1\n", place->directory);
}

/* The channel is as advised; of ports there are two. */
static void start_with(const struct kvm_place *place, const char *advice, const char *device) {
        static char channel[256], serial[128], qmp[128], root[2][64];
        const char *arguments[] = {
                "qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-machine", "q35", "-m", "256", "-smp", "1",
                "-nodefaults", "-display", "none", "-uuid", KVM_UUID, "-serial", serial, "-qmp", qmp,
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
        snprintf(serial, sizeof(serial), "unix:%s/serial", place->directory);
        snprintf(qmp, sizeof(qmp), "unix:%s/qmp,server=on,wait=off", place->directory);
        for (int i = 0; i < 2; i++)
                snprintf(root[i], sizeof(root[i]), "pcie-root-port,id=rp%d,chassis=%d,slot=%d,pref64-reserve=64M", i, i + 1,
                         i + 1);
        qemu = fork();
        if (qemu < 0)
                kvm_give_up("fork: %s", strerror(errno));
        if (qemu == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                execvp(arguments[0], (char *const *)arguments);
                _exit(127);
        }
}

static void start(const struct kvm_place *place, const char *advice) {
        start_with(place, advice, "edu,addr=" KVM_EDU_SLOT ",dma_mask=0xffffffffffff");
}

static void start_passed_through(const struct kvm_place *place, const char *advice) {
        start_with(place, advice, "vfio-pci,host=0000:00:02.0,addr=" KVM_EDU_SLOT);
}

static void end(void) {
        if (qemu <= 0)
                return;
        kill(qemu, SIGKILL);
        waitpid(qemu, NULL, 0);
        qemu = 0;
}

const struct kvm_bed kvm_bed_qemu = { .configure = configure, .start = start, .kill = end };
const struct kvm_bed kvm_bed_passed_through = {
        .configure = configure, .start = start_passed_through, .kill = end, .is_slow = true,
};
