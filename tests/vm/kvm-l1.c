/* The first process of a virtual machine that is itself a host: it has huge pages and an IOMMU, hands its edu device to
 * vfio-pci, and runs kvm-host with a guest of its own, to which that device is passed through. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/vm/machine.h"

int main(void) {
        int status = -1;
        pid_t pid;

        setvbuf(stdout, NULL, _IOLBF, 0);
        mkdir("/proc", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
        mount("sysfs", "/sys", "sysfs", 0, NULL);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
        machine_load_modules("");
        machine_write_file("/sys/bus/pci/drivers/vfio-pci/new_id", "1234 11e8");
        setenv("TOP_BUILDDIR", "/bin", 1);
        setenv("PATH", "/bin:/usr/bin", 1);
        setenv("TEST_TIMEOUT_MS", "120000", 1);
        pid = fork();
        if (pid == 0) {
                execl("/bin/kvm-host", "kvm-host", "/guest/kernel", "/guest/initrd", "vfio", (char *)NULL);
                _exit(127);
        }
        while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        printf(WIFEXITED(status) && WEXITSTATUS(status) == 0 ? "VM-TEST-PASSED\n" : "VM-TEST-FAILED\n");
        reboot(RB_POWER_OFF);
        return 0;
}
