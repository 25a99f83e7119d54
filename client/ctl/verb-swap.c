/* swap: move what is in an allocation out to ordinary memory, or in again. */
#include "client/ctl/actions.h"
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

/* params: consumed. */
static enum ctl_status swap(struct ctl *ctl, const char *method, json_t *params) {
        enum ctl_status status;
        uint64_t handle;
        json_t *result;

        status = ctl_parse_uint(ctl, "ALLOC", ctl->operands[1], &handle);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        json_object_set_new(params, "alloc", json_integer((json_int_t)handle));
        status = ctl_call(ctl, method, params, &result);
        return status == CTL_OK ? lists_print(ctl, result, NULL, NULL, 0) : status;
}

static enum ctl_status swap_out(struct ctl *ctl) {
        return swap(ctl, "coherent.swap_out", json_object());
}

static enum ctl_status swap_in(struct ctl *ctl) {
        json_t *params = json_object();
        enum ctl_status status = ctl_param_mask(ctl, "--mask", params, "mask");

        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--align", params, "align");
        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--boundary", params, "boundary");
        if (status == CTL_OK)
                status = ctl_param_waiting(ctl, params);
        if (status == CTL_OK)
                return swap(ctl, "coherent.swap_in", params);
        json_decref(params);
        return status;
}

static const struct ctl_option options[] = {
        { "--mask", "BITS|0xMASK", "in: the addresses that it may have: 32, or 0xffffffff; all that its device reaches "
                                   "unless given" },
        { "--align", "SIZE", "in: a power of two; a page unless given" },
        { "--boundary", "SIZE", "in: a power of two that must not be crossed" },
        { "--wait", "SECONDS", "in: how long to wait for memory; not at all unless given" },
        { "--high", NULL, "in: use the emergency reserve if need be" },
        { NULL },
};

static const struct ctl_action actions[] = {
        { "out", "an allocation", 1, 1, swap_out, "" },
        { "in", "an allocation", 1, 1, swap_in, "--mask --align --boundary --wait --high " },
};

static enum ctl_status run_swap(struct ctl *ctl) {
        return actions_run(ctl, actions, N(actions), NULL, "");
}

const struct ctl_verb verb_swap = {
        .name = "swap",
        .operands = "out|in ALLOC",
        .summary = "move what is in an allocation out to ordinary memory, or in again",
        .doc = "ALLOC is a number that \"dmabrokerctl alloc\" or \"dmabrokerctl allocs\" printed, of an allocation of yours. out "
               "frees its device memory; what is in it stays, in ordinary memory, and it has no address until in brings it back, "
               "to another place. Its device must not use it meanwhile, nor must the program that it belongs to. Prints where it "
               "is now.",
        .words = "in out",
        .options = options,
        .min_operands = 2,
        .max_operands = 2,
        .run = run_swap,
};
