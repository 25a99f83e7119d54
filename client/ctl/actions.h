/* Verbs that list things unless their first operand is an action: "devices", "devices open NAME". */
#ifndef DMAB_CTL_ACTIONS_H
#define DMAB_CTL_ACTIONS_H

#include "client/ctl/ctl.h"

struct ctl_action {
        const char *name;
        const char *operands; /* as in the synopsis */
        size_t least, most;   /* of them */
        enum ctl_status (*run)(struct ctl *ctl); /* its operands are ctl's from the second on */
        const char *options;  /* those that it takes, each followed by a blank */
};

/* Run the action that the first operand names, or without operands the list, which takes `list_options`. An option that
 * only another action takes is misuse: it would be ignored, and its user deceived. */
enum ctl_status actions_run(struct ctl *ctl, const struct ctl_action *actions, size_t n,
                            enum ctl_status (*list)(struct ctl *ctl), const char *list_options);

#endif
