/* quarantine: memory that rests because a device may still write it. */
#include <string.h>

#include "client/ctl/actions.h"
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct show_column columns[] = {
        { "ITEM", "item", SHOW_NUMBER },
        { "OWNER", "owner" },
        { "DEVICE", "device_name", SHOW_NAME },
        { "WHAT", "what" },
        { "POOL", "pool", SHOW_NUMBER },
        { "BOUNCE", "bounce", SHOW_NUMBER },
        { "REGION", "region", SHOW_NUMBER },
        { "MACHINE-ADDR", "machine_addr" },
        { "SIZE", "size", SHOW_BYTES },
        { "COUNT", "count", SHOW_NUMBER },
        { "REASON", "reason" },
        { "ADDRESSING", "addressing" },
        { "AGE", "age_ms", SHOW_MS },
        { "LEFT", "left" },
};

/* What has no time left is not over at once, but when somebody says so. */
static void add_left(json_t *row) {
        char buffer[SHOW_SIZE];

        json_object_set_new(row, "left",
                            json_string(json_object_get(row, "left_ms") ? show_member_ms(row, "left_ms", buffer) : "admin"));
}

static const struct list items = {
        .method = "quarantine.list",
        .items = "items",
        .handle = "item",
        .columns = columns,
        .n_columns = N(columns),
        .add = add_left,
};

static enum ctl_status list_items(struct ctl *ctl) {
        json_t *params = json_object();

        ctl_param_text(ctl, "--owner", params, "owner");
        return lists_show(ctl, &items, params);
}

static enum ctl_status release(struct ctl *ctl) {
        const char *of = ctl->n_operands > 1 ? ctl->operands[1] : NULL;
        json_t *params = json_object(), *result;
        enum ctl_status status = CTL_OK;
        uint64_t addr;

        if (of && !strncmp(of, "0x", 2)) {
                status = ctl_parse_address(ctl, "ADDRESS", of, &addr);
                if (status == CTL_OK)
                        ctl_put_hex(params, "machine_addr", addr);
        } else if (of && strchr(of, ':')) {
                json_object_set_new(params, "owner", json_string(of));
        } else if (of) {
                status = ctl_misuse(ctl, "release takes an owner such as user:1000, or a machine address, not \"%s\"", of);
        }
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        status = ctl_call(ctl, "quarantine.release", params, &result);
        return status == CTL_OK ? lists_print(ctl, result, NULL, NULL, 0) : status;
}

static const struct ctl_option options[] = {
        { "--owner", "OWNER", "when listing: only what was this owner's, such as user:1000" },
        { NULL },
};

static const struct ctl_action actions[] = {
        { "list", "nothing more", 0, 0, list_items, "--owner " },
        { "release", "an owner, or an address, or nothing for all", 0, 1, release, "" },
};

static enum ctl_status run_quarantine(struct ctl *ctl) {
        return actions_run(ctl, actions, N(actions), list_items, "--owner ");
}

const struct ctl_verb verb_quarantine = {
        .name = "quarantine",
        .operands = "[list | release [OWNER|ADDRESS]]",
        .summary = "list memory that rests because a device may still write it, or say that it does not",
        .doc = "What a program had that vanished rests before it is used again, until its device is known to be quiet: LEFT is "
               "how long that is still, or admin, when only an administrator's word ends it. REASON damaged is what a damaged "
               "ledger has forgotten. Yours, or as an administrator everybody's. release is that word: once you have reset "
               "the devices, or know that they are quiet, all of it, or what was OWNER's, or what lies at the machine address "
               "ADDRESS, is used again at once. What a device writes there nonetheless, it writes into somebody else's memory. "
               "Prints how many bytes that is, and how many rest still.",
        .words = "list release",
        .options = options,
        .max_operands = 2,
        .run = run_quarantine,
};
