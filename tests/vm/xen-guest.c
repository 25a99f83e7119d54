/* The first process of a guest of Xen's (xen-bed.h): it does what it is told over the console. Each command is answered with one
 * line that begins with "= ". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "tests/vm/machine.h"

/* What Xen has told the guest's kernel of the guest. */
static void do_tell(const char *what) {
        char path[64], text[64] = "";
        FILE *file;

        snprintf(path, sizeof(path), "/sys/hypervisor/%s", what);
        file = fopen(path, "re");
        if (!file || !fgets(text, sizeof(text), file))
                printf("\n= error: %s cannot be read\n", path);
        else
                printf("\n= ok %.*s\n", (int)strcspn(text, "\n"), text);
        if (file)
                fclose(file);
}

static void obey(const char *line) {
        if (strcmp(line, "kind") == 0)
                do_tell("guest_type");
        else if (strcmp(line, "uuid") == 0)
                do_tell("uuid");
        else if (strcmp(line, "off") == 0)
                reboot(RB_POWER_OFF);
        else if (strcmp(line, "reboot") == 0)
                reboot(RB_AUTOBOOT);
        else if (strcmp(line, "crash") == 0)
                machine_write_file("/proc/sysrq-trigger", "c");
        else
                printf("\n= error: what is %s?\n", line);
}

int main(void) {
        struct termios terminal;
        char line[256];

        setvbuf(stdout, NULL, _IOLBF, 0);
        mkdir("/proc", 0755);
        mount("proc", "/proc", "proc", 0, NULL);
        mount("sysfs", "/sys", "sysfs", 0, NULL);
        if (tcgetattr(0, &terminal) == 0) {
                terminal.c_lflag &= ~(tcflag_t)ECHO;
                tcsetattr(0, TCSANOW, &terminal);
        }
        printf("\n= ready\n");
        while (fgets(line, sizeof(line), stdin)) {
                line[strcspn(line, "\r\n")] = '\0';
                if (*line)
                        obey(line);
        }
        reboot(RB_POWER_OFF);
        return 1;
}
