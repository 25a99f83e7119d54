#include "client/ctl/hold.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/keeper.h"
#include "client/ctl/show.h"

static void block_signals(sigset_t *signals, sigset_t *before) {
        sigemptyset(signals);
        sigaddset(signals, SIGINT);
        sigaddset(signals, SIGTERM);
        sigaddset(signals, SIGHUP);
        sigprocmask(SIG_BLOCK, signals, before);
}

static enum ctl_status wait_for_signal(struct ctl *ctl) {
        struct keeper *keeper;
        sigset_t signals, before;
        int number;

        block_signals(&signals, &before);
        fflush(stdout);
        keeper = keeper_start(ctl, SIGTERM);
        sigwait(&signals, &number);
        return keeper_end(keeper) ? CTL_OK : CTL_FAILURE;
}

/* ---- a command ---- */

static void put_variable(const char *member, const char *value) {
        char name[64] = "DMABROKER_";
        size_t length = strlen(name);

        for (; *member && length + 1 < sizeof(name); member++)
                name[length++] = (char)toupper((unsigned char)*member);
        name[length] = '\0';
        setenv(name, value, 1);
}

/* Where something of a list is: its address, or the references by which it was granted. */
static json_t *place_of(json_t *element) {
        if (!json_object_get(element, "first"))
                return json_incref(json_object_get(element, "dma_addr"));
        return json_sprintf("%llu:%llu+%llu", (unsigned long long)show_uint(element, "domain"),
                            (unsigned long long)show_uint(element, "first"), (unsigned long long)show_uint(element, "count"));
}

/* The places of what is in a list, with blanks between them. */
static void put_addresses(const char *member, json_t *list) {
        json_t *text = json_string(""), *element;
        size_t i;

        json_array_foreach(list, i, element) {
                json_t *place = place_of(element);
                json_t *longer = json_sprintf("%s%s%s", json_string_value(text), i ? " " : "",
                                              place ? json_string_value(place) : "");

                json_decref(place);

                json_decref(text);
                text = longer;
        }
        put_variable(member, json_string_value(text));
        json_decref(text);
}

static void put_environment(const struct ctl *ctl, json_t *result) {
        char buffer[SHOW_SIZE];
        const char *name;
        json_t *value;

        json_object_foreach(result, name, value)
                if (json_is_string(value) || json_is_number(value))
                        put_variable(name, show_member(result, name, buffer));
                else if (json_is_array(value))
                        put_addresses(name, value);
        if (ctl->socket)
                put_variable("socket", strncmp(ctl->socket, "unix:", 5) ? ctl->socket : ctl->socket + 5);
}

/* Interrupting from the terminal reaches the command too, which decides what that means; what is meant for us alone is
 * handed on. */
static int wait_for_child(pid_t pid, const sigset_t *signals) {
        int status, number;

        for (;;) {
                pid_t ended = waitpid(pid, &status, WNOHANG);

                if (ended == pid)
                        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
                if (ended < 0)
                        return CTL_FAILURE;
                if (!sigwait(signals, &number) && (number == SIGTERM || number == SIGHUP))
                        kill(pid, number);
        }
}

static enum ctl_status run_command(struct ctl *ctl, json_t *result, size_t command) {
        char *words[CTL_OPERANDS_MAX + 1] = { NULL };
        enum ctl_status status;
        struct keeper *keeper;
        sigset_t signals, before;
        pid_t pid;

        for (size_t i = command; i < ctl->n_operands; i++)
                words[i - command] = (char *)ctl->operands[i];
        put_environment(ctl, result);
        fflush(NULL);
        block_signals(&signals, &before);
        sigaddset(&signals, SIGCHLD);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        pid = fork();
        if (!pid) {
                sigprocmask(SIG_SETMASK, &before, NULL);
                execvp(words[0], words);
                fprintf(stderr, "dmabrokerctl: cannot run %s: %s\n", words[0], strerror(errno));
                _exit(127);
        }
        if (pid < 0) {
                fprintf(stderr, "dmabrokerctl: cannot run %s: %s\n", words[0], strerror(errno));
                return CTL_FAILURE;
        }
        keeper = keeper_start(ctl, 0);
        status = (enum ctl_status)wait_for_child(pid, &signals);
        keeper_end(keeper);
        return status;
}

/* ---- the whole ---- */

static enum ctl_status keep(struct ctl *ctl, const struct holding *holding, json_t *result) {
        if (ctl->n_operands > holding->command)
                return run_command(ctl, result, holding->command);
        if (ctl->json)
                ctl_print_json(result);
        else
                (holding->show ? holding->show : show_pairs)(result);
        return wait_for_signal(ctl);
}

/* Somebody else may have done it already, or the daemon may be gone: then there is nothing to be said. */
static void give_back(struct ctl *ctl, const struct holding *holding, json_t *result) {
        json_t *params = json_object();
        char *text;

        if (!ctl->dmab) {
                json_decref(params);
                return;
        }
        json_object_set(params, holding->handle, json_object_get(result, holding->handle));
        if (strstr(holding->undo, ".destroy"))
                json_object_set_new(params, "force", json_true());
        text = json_dumps(params, JSON_COMPACT);
        dmab_set_reconnect_timeout(ctl->dmab, 0);
        if (text)
                dmab_call(ctl->dmab, holding->undo, text, NULL);
        free(text);
        json_decref(params);
}

enum ctl_status hold(struct ctl *ctl, const struct holding *holding, json_t *params) {
        json_t *known = json_incref(json_object_get(params, holding->of)), *result;
        enum ctl_status status = ctl_call(ctl, holding->method, params, &result);

        if (status == CTL_OK) {
                if (known)
                        json_object_set(result, holding->of, known);
                status = hold_taken(ctl, holding, result);
        }
        json_decref(known);
        return status;
}

enum ctl_status hold_taken(struct ctl *ctl, const struct holding *holding, json_t *result) {
        enum ctl_status status = keep(ctl, holding, result);

        if (holding->undo)
                give_back(ctl, holding, result);
        json_decref(result);
        return status;
}
