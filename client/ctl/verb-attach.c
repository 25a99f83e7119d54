/* attach, detach: windows of guests, given and taken back. */
#include <stdio.h>

#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct ctl_option attach_options[] = {
        { "--mask", "BITS|0xMASK", "of a guest of Xen's: the machine addresses that it may have: 32, or 0xffffffff" },
        { "--dry-run", NULL, "do nothing, and print what has to be added to the guest before" },
        { NULL },
};

static enum ctl_status attach_params(struct ctl *ctl, json_t *params) {
        uint64_t size;
        enum ctl_status status = ctl_parse_size(ctl, "SIZE", ctl->operands[1], &size);

        if (status == CTL_OK && size > INT64_MAX)
                status = ctl_misuse(ctl, "SIZE is too large: %s", ctl->operands[1]);
        if (status == CTL_OK && json_object_set_new(params, "guest", json_string(ctl->operands[0])))
                status = ctl_misuse(ctl, "the name of a guest must be UTF-8");
        if (status != CTL_OK)
                return status;
        json_object_set_new(params, "size", json_integer((json_int_t)size));
        ctl_param_flag(ctl, "--dry-run", params, "dry_run");
        return ctl_param_mask(ctl, "--mask", params, "mask");
}

static void show_attached(json_t *result) {
        static const char *const members[] = { "window", "size", "channel" };
        char buffer[SHOW_SIZE];

        for (size_t i = 0; i < N(members); i++)
                show_pair(members[i], show_member(result, members[i], buffer));
}

static enum ctl_status run_attach(struct ctl *ctl) {
        json_t *params = json_object(), *result, *advice;
        enum ctl_status status = attach_params(ctl, params);

        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        status = ctl_call(ctl, "guest.attach", params, &result);
        if (status != CTL_OK)
                return status;
        advice = json_object_get(result, "advice");
        if (ctl->json)
                ctl_print_json(result);
        else if (advice)
                fputs(json_string_value(advice), stdout);
        else
                show_attached(result);
        json_decref(result);
        return CTL_OK;
}

const struct ctl_verb verb_attach = {
        .name = "attach",
        .operands = "GUEST SIZE",
        .summary = "give a guest a window: memory that it sees as a PCI device, or is granted",
        .doc = "SIZE is a power of two, at least 1M, and may end with K, M or G; the last 4096 bytes of a window are not "
               "allocated. The guest must run. What it allocates from then on lies in its windows, which stay when it boots "
               "anew (but for a guest of Xen's), and go when it ends. GUEST is the name of one in the daemon's configuration, or "
               "its UUID. Prints the number that \"dmabrokerctl detach\" takes, and the path of the guest's channel. With "
               "--dry-run, prints the XML of the domain, the arguments of QEMU, or the lines of xl.cfg, with which the guest has "
               "a channel and a port that a window of this size fits into. For administrators.",
        .options = attach_options,
        .min_operands = 2,
        .max_operands = 2,
        .run = run_attach,
};

static const struct ctl_option detach_options[] = {
        { "--force", NULL, "end the sessions that have something in it, and free all that they have, before" },
        { NULL },
};

static enum ctl_status run_detach(struct ctl *ctl) {
        json_t *params, *result;
        uint64_t window;
        enum ctl_status status = ctl_parse_uint(ctl, "WINDOW", ctl->operands[0], &window);

        if (status == CTL_OK && window > INT64_MAX)
                status = ctl_misuse(ctl, "WINDOW is too large: %s", ctl->operands[0]);
        if (status != CTL_OK)
                return status;
        params = json_pack("{s:I}", "window", (json_int_t)window);
        ctl_param_flag(ctl, "--force", params, "force");
        status = ctl_call(ctl, "guest.detach", params, &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

const struct ctl_verb verb_detach = {
        .name = "detach",
        .operands = "WINDOW",
        .summary = "take a window back from its guest",
        .doc = "WINDOW is a number that \"dmabrokerctl attach\" or \"dmabrokerctl windows\" printed. Ends when the guest has let "
               "go of it. A window in which something is allocated stays, unless --force is given. A guest that does not let "
               "go in time makes this fail, and the window goes back whenever it does. For administrators.",
        .options = detach_options,
        .min_operands = 1,
        .max_operands = 1,
        .run = run_detach,
};
