/* The first process of a virtual machine that is itself a host: it has huge pages and an IOMMU, hands its edu device to
 * vfio-pci, and runs kvm-host with a guest of its own, to which that device is passed through. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void write_file(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
                printf("%s: %s\n", path, strerror(errno));
        close(fd);
}

static void load_modules(void) {
        char path[256], name[128];
        FILE *order = fopen("/modules/order", "re");
        int fd;

        while (order && fscanf(order, "%127s", name) == 1) {
                snprintf(path, sizeof(path), "/modules/%s", name);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
                        printf("%s: %s\n", name, strerror(errno));
                close(fd);
        }
        if (order)
                fclose(order);
}

int main(void) {
        int status = -1;
        pid_t pid;

        setvbuf(stdout, NULL, _IOLBF, 0);
        mkdir("/proc", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
        mount("sysfs", "/sys", "sysfs", 0, NULL);
        mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
        mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
        load_modules();
        write_file("/sys/bus/pci/drivers/vfio-pci/new_id", "1234 11e8");
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
