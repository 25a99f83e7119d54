/* guests, windows: who of the configuration runs, and which memory they see as a PCI device. */
#include <stdio.h>

#include "client/ctl/actions.h"
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

/* ---- guests ---- */

/* The name is what other verbs take: where there is no room, the UUID is cut, which "show" tells whole. */
static const struct show_column guest_columns[] = {
        { "GUEST", "guest" },
        { "UUID", "uuid", SHOW_NAME },
        { "STATE", "state" },
        { "VIA", "via" },
        { "CONNECTED", "connected" },
        { "WINDOWS", "windows", SHOW_NUMBER },
        { "BYTES", "window_bytes", SHOW_BYTES },
        { "WHY", "why" },
};

/* A terminal has no room for sentences beside all that. */
static enum ctl_status show_guests(json_t *guests) {
        bool is_first = true;
        json_t *row;
        size_t i;

        if (show_table(guests, guest_columns, N(guest_columns) - 1))
                return CTL_FAILURE;
        json_array_foreach(guests, i, row) {
                if (!json_object_get(row, "why"))
                        continue;
                printf("%s%s: %s\n", is_first ? "\n" : "", json_string_value(json_object_get(row, "guest")),
                       json_string_value(json_object_get(row, "why")));
                is_first = false;
        }
        return CTL_OK;
}

static enum ctl_status list_guests(struct ctl *ctl) {
        json_t *result;
        enum ctl_status status = ctl_list(ctl, "guest.list", NULL, "items", "guest", &result);

        if (status != CTL_OK)
                return status;
        if (ctl->json || !show_terminal())
                return lists_print(ctl, result, "items", guest_columns, N(guest_columns));
        status = show_guests(json_object_get(result, "items"));
        json_decref(result);
        return status;
}

static enum ctl_status call_guest(struct ctl *ctl, const char *method, json_t **ret) {
        json_t *guest = json_string(ctl->operands[1]);

        if (!guest)
                return ctl_misuse(ctl, "the name of a guest must be UTF-8");
        return ctl_call(ctl, method, json_pack("{s:o}", "guest", guest), ret);
}

static enum ctl_status show_guest(struct ctl *ctl) {
        json_t *result;
        enum ctl_status status = call_guest(ctl, "guest.get", &result);

        return status == CTL_OK ? lists_print(ctl, result, NULL, NULL, 0) : status;
}

static enum ctl_status evict(struct ctl *ctl) {
        json_t *result;
        enum ctl_status status = call_guest(ctl, "guest.evict", &result);

        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

static const struct ctl_action guest_actions[] = {
        { "show", "one guest", 1, 1, show_guest, "" },
        { "evict", "one guest", 1, 1, evict, "" },
};

static enum ctl_status run_guests(struct ctl *ctl) {
        return actions_run(ctl, guest_actions, N(guest_actions), list_guests, "");
}

const struct ctl_verb verb_guests = {
        .name = "guests",
        .operands = "[show GUEST | evict GUEST]",
        .summary = "list the guests that may have memory, or free what one has",
        .doc = "Those of the daemon's configuration. STATE is whether one runs: running, paused, off or unknown; where it is "
               "unknown, WHY, or a line below the table, says why, as far as anybody can tell. VIA is who is asked, libvirt, "
               "qmp, its QEMU's monitor, or xen, or none, if it was taken out of the configuration; CONNECTED whether its QEMU, "
               "or under Xen a program in it, is connected to its channel; WINDOWS and BYTES how many windows it has, and their "
               "size. GUEST is a name from the list, or a UUID. show prints everything that is known "
               "of one, such as the path of its channel and its owner, by which everything else names it. evict ends its "
               "sessions and frees what it has, but for its windows, whether or not its devices still use it. For "
               "administrators.",
        .words = "show evict",
        .max_operands = 2,
        .run = run_guests,
};

/* ---- windows ---- */

static const struct show_column window_columns[] = {
        { "WINDOW", "window", SHOW_NUMBER },
        { "GUEST", "guest" },
        { "SIZE", "size", SHOW_BYTES },
        { "STATE", "state" },
        { "GUEST-ADDR", "guest_addr" },
};

static const struct list windows = {
        .method = "window.list",
        .items = "items",
        .handle = "window",
        .columns = window_columns,
        .n_columns = N(window_columns),
};

static const struct ctl_option windows_options[] = {
        { "--guest", "GUEST", "only this guest's, by its name or UUID" },
        { NULL },
};

static enum ctl_status run_windows(struct ctl *ctl) {
        json_t *params = json_object();

        ctl_param_text(ctl, "--guest", params, "guest");
        return lists_show(ctl, &windows, params);
}

const struct ctl_verb verb_windows = {
        .name = "windows",
        .operands = "",
        .summary = "list the memory that guests see as PCI devices, or are granted",
        .doc = "A window is a region that is reserved for a guest, by the same number. STATE is reserving or plugging while it "
               "comes, plugged when the guest can find it, leaving while the guest lets go of it; GUEST-ADDR where the guest "
               "sees it, as soon as it has told: of a paravirtualised guest of Xen's the machine's address, of another one of "
               "Xen's none. Everybody's for an administrator; in a guest, its own.",
        .options = windows_options,
        .run = run_windows,
};
