#include "tests/vm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void machine_load_modules(const char *options) {
        char path[256], name[128];
        FILE *order = fopen("/modules/order", "re");
        int fd;

        while (order && fscanf(order, "%127s", name) == 1) {
                snprintf(path, sizeof(path), "/modules/%s", name);
                fd = open(path, O_RDONLY | O_CLOEXEC);
                if (fd < 0 || syscall(SYS_finit_module, fd, options, 0) < 0)
                        printf("%s: %s\n", name, strerror(errno));
                if (fd >= 0)
                        close(fd);
        }
        if (order)
                fclose(order);
}

bool machine_write_file(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        bool good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

        if (!good)
                printf("%s: %s\n", path, strerror(errno));
        if (fd >= 0)
                close(fd);
        return good;
}
