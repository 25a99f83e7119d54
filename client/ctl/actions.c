#include "client/ctl/actions.h"

#include <stdio.h>
#include <string.h>

static enum ctl_status check_options(const struct ctl *ctl, const char *what, const char *allowed) {
        char word[64];

        for (size_t i = 0; i < ctl->n_given; i++) {
                const char *name = ctl->given[i].option->name;
                bool common = !strcmp(name, "--socket") || !strcmp(name, "--json");
                const char *found;

                snprintf(word, sizeof(word), "%s ", name);
                found = strstr(allowed, word);
                if (!common && !(found && (found == allowed || found[-1] == ' ')))
                        return ctl_misuse(ctl, "%s has no option %s", what, name);
        }
        return CTL_OK;
}

static enum ctl_status run_action(struct ctl *ctl, const struct ctl_action *action) {
        size_t n = ctl->n_operands - 1;
        char what[64];

        snprintf(what, sizeof(what), "\"%s %s\"", ctl->verb->name, action->name);
        if (n < action->least || n > action->most)
                return ctl_misuse(ctl, "%s takes %s", what, action->operands);
        if (check_options(ctl, what, action->options) != CTL_OK)
                return CTL_USAGE;
        return action->run(ctl);
}

enum ctl_status actions_run(struct ctl *ctl, const struct ctl_action *actions, size_t n,
                            enum ctl_status (*list)(struct ctl *ctl), const char *list_options) {
        char what[64];

        if (!ctl->n_operands) {
                snprintf(what, sizeof(what), "the list of %s", ctl->verb->name);
                return check_options(ctl, what, list_options) == CTL_OK ? list(ctl) : CTL_USAGE;
        }
        for (size_t i = 0; i < n; i++)
                if (!strcmp(actions[i].name, ctl->operands[0]))
                        return run_action(ctl, &actions[i]);
        return ctl_misuse(ctl, "%s cannot be told to \"%s\"", ctl->verb->name, ctl->operands[0]);
}
