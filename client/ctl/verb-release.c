/* release: give memory back to the host. */
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

static const struct ctl_option options[] = {
        { "--wait", "SECONDS", "how long clients may take to return what they have leased and do not use; 1 unless given" },
        { NULL },
};

static enum ctl_status run_release(struct ctl *ctl) {
        json_t *params = json_object(), *result;
        enum ctl_status status = CTL_OK;
        uint64_t bytes;

        if (ctl->n_operands) {
                status = ctl_parse_size(ctl, "SIZE", ctl->operands[0], &bytes);
                json_object_set_new(params, "bytes", json_integer((json_int_t)bytes));
        }
        if (status == CTL_OK)
                status = ctl_param_seconds(ctl, "--wait", params, "wait_ms");
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        status = ctl_call(ctl, "memory.release", params, &result);
        return status == CTL_OK ? lists_print(ctl, result, NULL, NULL, 0) : status;
}

const struct ctl_verb verb_release = {
        .name = "release",
        .operands = "[SIZE]",
        .summary = "give memory that nobody needs back to the system",
        .doc = "SIZE is how much; all that can be spared unless given. What costs others least goes first: free memory, then "
               "regions in which nothing is allocated, then what pools keep without using it, then what clients have leased "
               "and do not use. The reserves of the sources stay, and the minimum, and what was guaranteed to owners. Prints "
               "how much went back, and how much the sources hold still. For administrators.",
        .options = options,
        .max_operands = 1,
        .run = run_release,
};
