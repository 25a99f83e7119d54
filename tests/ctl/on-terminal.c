/* on-terminal COLUMNS [--when WORD ACTION]... COMMAND [ARGUMENTS]
 * Runs COMMAND with a terminal that wide for its input and output, and copies what it writes, without carriage returns.
 * When WORD has been written, and not before the action before it, does ACTION: types it, for resize=COLUMNS makes the
 * terminal that wide, for run=COMMAND runs another command. Ends with COMMAND's status, 99 after a minute. */
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ACTIONS_MAX = 32, SEEN_MAX = 1 << 20, PATIENCE_S = 60 };

struct action {
        const char *word, *text;
};

static pid_t child;

static void give_up(int number) {
        kill(child, SIGKILL);
        _exit(99);
}

static void act(int master, const struct action *action) {
        struct winsize size = { .ws_row = 24 };

        if (!strncmp(action->text, "run=", 4)) {
                if (system(action->text + 4))
                        fprintf(stderr, "on-terminal: \"%s\" fails\n", action->text + 4);
                return;
        }
        if (strncmp(action->text, "resize=", 7)) {
                if (write(master, action->text, strlen(action->text)) < 0)
                        perror("write");
                return;
        }
        size.ws_col = (unsigned short)atoi(action->text + 7);
        ioctl(master, TIOCSWINSZ, &size);
}

/* The terminal's end is told as an error, after all that was written. */
static void copy(int master, const struct action *actions, size_t n) {
        char *seen = calloc(1, SEEN_MAX + 1), bytes[4096];
        size_t length = 0, next = 0;
        ssize_t got;

        while (seen && (got = read(master, bytes, sizeof(bytes))) > 0) {
                for (ssize_t i = 0; i < got; i++) {
                        if (bytes[i] != '\r')
                                putchar(bytes[i]);
                        if (bytes[i] && length < SEEN_MAX)
                                seen[length++] = bytes[i];
                }
                seen[length] = '\0';
                if (next == n || !strstr(seen, actions[next].word))
                        continue;
                length = 0;
                act(master, &actions[next++]);
        }
        free(seen);
        if (next < n)
                fprintf(stderr, "on-terminal: \"%s\" was not written\n", actions[next].word);
}

int main(int n, char **words) {
        struct winsize size = { .ws_row = 24, .ws_col = n > 1 ? (unsigned short)atoi(words[1]) : 0 };
        struct action actions[ACTIONS_MAX];
        size_t n_actions = 0;
        int master, status;
        char **command;

        for (command = words + 2; n >= 3 && *command && !strcmp(*command, "--when") && command[1] && command[2]; command += 3)
                if (n_actions < ACTIONS_MAX)
                        actions[n_actions++] = (struct action){ .word = command[1], .text = command[2] };
        if (n < 3 || !size.ws_col || !*command) {
                fprintf(stderr, "usage: on-terminal COLUMNS [--when WORD ACTION]... COMMAND [ARGUMENTS]\n");
                return 2;
        }
        child = forkpty(&master, NULL, NULL, &size);
        if (child < 0) {
                perror("forkpty");
                return 77;
        }
        if (!child) {
                setenv("TERM", "xterm", 1);
                execvp(*command, command);
                _exit(127);
        }
        signal(SIGALRM, give_up);
        alarm(PATIENCE_S);
        copy(master, actions, n_actions);
        if (waitpid(child, &status, 0) != child)
                return 99;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}
