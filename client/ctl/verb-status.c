/* status, version, check: how the daemon is. */
#include <stdio.h>
#include <string.h>

#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static void show_strings(const char *name, json_t *strings) {
        json_t *string;
        size_t i;

        json_array_foreach(strings, i, string)
                show_pair(name, json_string_value(string));
}

static void show_counts(json_t *counts) {
        char buffer[SHOW_SIZE];
        const char *name;
        json_t *count;

        json_object_foreach(counts, name, count)
                show_pair(name, show_member(counts, name, buffer));
}

static bool is_noted(json_t *status, const char *text) {
        json_t *note;
        size_t i;

        json_array_foreach(json_object_get(status, "notes"), i, note)
                if (!strcmp(json_string_value(note), text))
                        return true;
        return false;
}

/* Why each source serves, or does not; the notes may have said so already. */
static void show_reasons(json_t *status) {
        char line[1024], name[SHOW_SIZE];
        json_t *source;
        size_t i;

        json_array_foreach(json_object_get(status, "sources"), i, source) {
                const char *why = json_string_value(json_object_get(source, "why"));

                if (!why || !*why || is_noted(status, why))
                        continue;
                snprintf(line, sizeof(line), "%s: %s", show_member(source, "name", name), why);
                show_pair("source", line);
        }
}

static void show_guarantees(json_t *guarantees) {
        static const char *const members[][2] = { { "guaranteed", "bytes" }, { "guaranteed_low", "low_bytes" },
                                                  { "unmet", "unmet" },      { "unmet_low", "unmet_low" } };
        char buffer[SHOW_SIZE];

        for (size_t i = 0; i < N(members); i++)
                if (json_integer_value(json_object_get(guarantees, "bytes")) ||
                    json_integer_value(json_object_get(guarantees, "low_bytes")))
                        show_pair(members[i][0], show_member_bytes(guarantees, members[i][1], buffer));
}

static enum ctl_status run_status(struct ctl *ctl) {
        static const struct show_column columns[] = {
                { "SOURCE", "name" },
                { "STATE", "state" },
                { "ADDRESSING", "addressing" },
                { "TOTAL", "total", SHOW_BYTES },
                { "FREE", "free", SHOW_BYTES },
                { "REGIONS", "in_regions", SHOW_BYTES },
                { "USED", "used", SHOW_BYTES },
                { "LARGEST-FREE", "largest_free", SHOW_BYTES },
                { "LOW-TOTAL", "low_total", SHOW_BYTES },
                { "LOW-FREE", "low_free", SHOW_BYTES },
                { "LIMIT", "limit", SHOW_BYTES },
                { "AVAILABLE", "available", SHOW_BYTES },
                { "GRAIN", "grain", SHOW_BYTES },
                { "PINNED", "pinned" },
        };
        char buffer[SHOW_SIZE];
        enum ctl_status end;
        json_t *status;

        end = ctl_call(ctl, "broker.status", NULL, &status);
        if (end != CTL_OK)
                return end;
        if (ctl->json) {
                ctl_print_json(status);
                json_decref(status);
                return CTL_OK;
        }
        show_pair("server", show_member(status, "server", buffer));
        show_pair("version", show_member(status, "version", buffer));
        show_pair("uptime", show_member_ms(status, "uptime_ms", buffer));
        show_pair("addressing", show_member(status, "addressing", buffer));
        show_pair("owner", dmab_owner(ctl->dmab));
        show_pair("role", dmab_role(ctl->dmab));
        show_counts(json_object_get(status, "counts"));
        show_guarantees(json_object_get(status, "guarantees"));
        show_pair("swapped_out", show_member_bytes(json_object_get(status, "anonymous"), "used", buffer));
        show_pair("quarantined", show_member_bytes(status, "quarantined", buffer));
        show_strings("note", json_object_get(status, "notes"));
        show_reasons(status);
        putchar('\n');
        show_table(json_object_get(status, "sources"), columns, N(columns));
        json_decref(status);
        return CTL_OK;
}

const struct ctl_verb verb_status = {
        .name = "status",
        .operands = "",
        .summary = "show what the daemon serves, and how much of it is left",
        .doc = "Prints who the daemon takes you for, how much there is of everything, and a table of the sources that "
               "memory comes "
               "from. TOTAL is what a source has taken from the kernel so far; it takes up to AVAILABLE more when that is "
               "asked for. A source that does not serve says why.",
        .run = run_status,
};

static enum ctl_status run_version(struct ctl *ctl) {
        enum ctl_status status = ctl_connect(ctl);

        if (ctl->json && status == CTL_OK) {
                json_t *versions =
                        json_pack("{s:s, s:s}", "library", dmab_version(), "daemon", dmab_server_version(ctl->dmab));

                ctl_print_json(versions);
                json_decref(versions);
        } else if (!ctl->json) {
                show_pair("dmabrokerctl", dmab_version());
                show_pair("daemon", status == CTL_OK ? dmab_server_version(ctl->dmab) : "-");
        }
        return status;
}

const struct ctl_verb verb_version = {
        .name = "version",
        .operands = "",
        .summary = "print the releases of this program and of the daemon",
        .doc = "The exit status is 3 when there is no daemon; the first line is printed all the same.",
        .run = run_version,
};

static const struct ctl_option check_options[] = {
        { "--repair", NULL, "also put right what can be put right" },
        { NULL },
};

static void show_check(json_t *result) {
        static const struct show_column columns[] = {
                { "PROBLEM", "what" },
                { "HANDLE", "handle", SHOW_NUMBER },
                { "REPAIRED", "repaired" },
                { "TEXT", "text", SHOW_TEXT },
        };

        show_counts(json_object_get(result, "checked"));
        show_pair("clean", json_is_true(json_object_get(result, "clean")) ? "yes" : "no");
        if (json_array_size(json_object_get(result, "problems"))) {
                putchar('\n');
                show_table(json_object_get(result, "problems"), columns, N(columns));
        }
}

static enum ctl_status run_check(struct ctl *ctl) {
        json_t *params = json_object(), *result;
        enum ctl_status status;
        bool clean;

        ctl_param_flag(ctl, "--repair", params, "repair");
        status = ctl_call(ctl, "debug.check", params, &result);
        if (status != CTL_OK)
                return status;
        clean = json_is_true(json_object_get(result, "clean"));
        if (ctl->json)
                ctl_print_json(result);
        else
                show_check(result);
        json_decref(result);
        return clean ? CTL_OK : CTL_FAILURE;
}

const struct ctl_verb verb_check = {
        .name = "check",
        .operands = "",
        .summary = "have the daemon check its books against themselves and the kernel",
        .doc = "Every invariant, and every page's address against the kernel's page map. Prints how much was compared. "
               "The exit status "
               "is 1 when something does not agree. For administrators.",
        .options = check_options,
        .run = run_check,
};
