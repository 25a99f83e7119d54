/* on-terminal COLUMNS COMMAND [ARGUMENTS]
 * Runs COMMAND with a terminal that wide for its output, and copies what it writes, without carriage returns. Ends with
 * COMMAND's status. */
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int n, char **words) {
        struct winsize size = { .ws_row = 24, .ws_col = n > 1 ? atoi(words[1]) : 0 };
        char bytes[4096];
        int master, status;
        ssize_t length;
        pid_t pid;

        if (n < 3 || !size.ws_col) {
                fprintf(stderr, "usage: on-terminal COLUMNS COMMAND [ARGUMENTS]\n");
                return 2;
        }
        pid = forkpty(&master, NULL, NULL, &size);
        if (pid < 0) {
                perror("forkpty");
                return 77;
        }
        if (!pid) {
                setenv("TERM", "xterm", 1);
                execvp(words[2], words + 2);
                _exit(127);
        }
        /* The terminal's end is told as an error, after all that was written. */
        while ((length = read(master, bytes, sizeof(bytes))) > 0)
                for (ssize_t i = 0; i < length; i++)
                        if (bytes[i] != '\r')
                                putchar(bytes[i]);
        if (waitpid(pid, &status, 0) != pid)
                return 99;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}
