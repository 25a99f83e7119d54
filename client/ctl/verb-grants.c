/* grants: pages that guests of Xen's may map, and pages of theirs that dom0 may. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl/actions.h"
#include "client/ctl/hold.h"
#include "client/ctl/lists.h"
#include "client/ctl/verbs.h"
#include "proto/methods.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct show_column columns[] = {
        { "GRANT", "grant", SHOW_NUMBER },
        { "KIND", "kind" },
        { "GUEST", "guest" },
        { "DOMAIN", "domain", SHOW_NUMBER },
        { "OWNER", "owner", SHOW_NAME },
        { "DIRECTION", "direction" },
        { "PAGES", "pages", SHOW_NUMBER },
        { "IN-USE", "in_use", SHOW_NUMBER },
        { "STATE", "state" },
        { "AGE", "age_ms", SHOW_MS },
        { "REFS", "runs", SHOW_TEXT },
};

/* Their references, each run as DOMAIN:FIRST+COUNT; of many only the first. */
static void add_runs(json_t *row) {
        enum { RUNS_MAX = 8 };
        json_t *refs = json_object_get(row, "refs"), *run;
        char text[64 * RUNS_MAX] = "";
        size_t i, used = 0;

        json_array_foreach(refs, i, run) {
                if (i == RUNS_MAX - 1 && json_array_size(refs) > RUNS_MAX) {
                        snprintf(text + used, sizeof(text) - used, ",...%zu-more", json_array_size(refs) - i);
                        break;
                }
                used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%llu:%llu+%llu", i ? "," : "",
                                         (unsigned long long)show_uint(run, "domain"),
                                         (unsigned long long)show_uint(run, "first"),
                                         (unsigned long long)show_uint(run, "count"));
        }
        if (*text)
                json_object_set_new(row, "runs", json_string(text));
}

static const struct list grants = {
        .method = "grant.list",
        .items = "grants",
        .handle = "grant",
        .columns = columns,
        .n_columns = N(columns),
        .add = add_runs,
};

static enum ctl_status list_grants(struct ctl *ctl) {
        json_t *params = json_object();

        ctl_param_text(ctl, "--guest", params, "guest");
        ctl_param_text(ctl, "--owner", params, "owner");
        return lists_show(ctl, &grants, params);
}

/* ---- taking ---- */

/* "8,9,20+100": references, and how many follow on one. */
static enum ctl_status read_refs(const struct ctl *ctl, const char *text, json_t *refs) {
        unsigned long long first, count;
        int length;

        for (const char *at = text; *at;) {
                count = 1;
                if (*at < '0' || *at > '9' || sscanf(at, "%llu%n", &first, &length) != 1)
                        return ctl_misuse(ctl, "REFS must be numbers between commas, such as 8,9,20+100, not \"%s\"", text);
                at += length;
                if (*at == '+') {
                        if (at[1] < '0' || at[1] > '9' || sscanf(at + 1, "%llu%n", &count, &length) != 1 || !count)
                                return ctl_misuse(ctl, "REFS has no number of pages after a +: \"%s\"", text);
                        at += 1 + length;
                }
                if (*at && (*at != ',' || !at[1]))
                        return ctl_misuse(ctl, "REFS must be numbers between commas, such as 8,9,20+100, not \"%s\"", text);
                at += *at == ',';
                if (count > PROTOCOL_REFS_MAX - json_array_size(refs))
                        return ctl_misuse(ctl, "REFS has too many pages for one grant, which has at most %d: \"%s\"",
                                          PROTOCOL_REFS_MAX, text);
                if (first > UINT32_MAX)
                        return ctl_misuse(ctl, "REFS has too great a number: \"%s\"", text);
                for (unsigned long long i = 0; i < count; i++)
                        json_array_append_new(refs, json_integer((json_int_t)(first + i)));
        }
        return json_array_size(refs) ? CTL_OK : ctl_misuse(ctl, "REFS is empty");
}

/* NULL after complaining. */
static json_t *params_for(const struct ctl *ctl) {
        json_t *params = json_object(), *guest = json_string(ctl->operands[1]);

        if (!guest) {
                ctl_misuse(ctl, "the name of a guest must be UTF-8");
                json_decref(params);
                return NULL;
        }
        json_object_set_new(params, "guest", guest);
        json_object_set_new(params, "direction", json_string("bidirectional"));
        ctl_param_text(ctl, "--direction", params, "direction");
        return params;
}

static enum ctl_status map(struct ctl *ctl) {
        static const struct holding holding = { .method = "grant.map", .of = "refs", .undo = "grant.unmap", .handle = "grant",
                                                .command = 3 };
        json_t *params = params_for(ctl), *refs = json_array(), *result;
        enum ctl_status status = params ? read_refs(ctl, ctl->operands[2], refs) : CTL_USAGE;

        if (status != CTL_OK) {
                json_decref(refs);
                json_decref(params);
                return status;
        }
        json_object_set_new(params, "refs", refs);
        status = ctl_call(ctl, "grant.map", params, &result);
        if (status != CTL_OK)
                return status;
        json_object_set_new(result, "refs", json_string(ctl->operands[2]));
        return hold_taken(ctl, &holding, result);
}

/* A command finds the descriptor open, under its number. */
static enum ctl_status call_share(struct ctl *ctl, json_t *params, json_t **ret) {
        char *text = json_dumps(params, JSON_COMPACT), *answer = NULL;
        enum ctl_status status = ctl_connect(ctl);
        size_t n = 0;
        int fd = -1;

        json_decref(params);
        if (status == CTL_OK && dmab_call_fds(ctl->dmab, "grant.share", text, &answer, &fd, 1, &n))
                status = ctl_complain(ctl);
        free(text);
        if (status != CTL_OK)
                return status;
        *ret = json_loads(answer, 0, NULL);
        free(answer);
        if (!*ret) {
                fprintf(stderr, "dmabrokerctl: the answer to grant.share cannot be read\n");
                return CTL_FAILURE;
        }
        if (n && fcntl(fd, F_SETFD, 0) == 0)
                json_object_set_new(*ret, "fd", json_integer(fd));
        return CTL_OK;
}

static enum ctl_status share(struct ctl *ctl) {
        static const struct holding holding = { .method = "grant.share", .undo = "grant.unmap", .handle = "grant", .command = 3 };
        json_t *params, *result;
        enum ctl_status status;
        uint64_t size;

        status = ctl_parse_size(ctl, "SIZE", ctl->operands[2], &size);
        if (status != CTL_OK)
                return status;
        params = params_for(ctl);
        if (!params)
                return CTL_USAGE;
        json_object_set_new(params, "size", json_integer((json_int_t)size));
        status = call_share(ctl, params, &result);
        return status == CTL_OK ? hold_taken(ctl, &holding, result) : status;
}

static enum ctl_status unmap(struct ctl *ctl) {
        json_t *result = NULL;
        uint64_t grant;
        enum ctl_status status = ctl_parse_uint(ctl, "GRANT", ctl->operands[1], &grant);

        if (status == CTL_OK)
                status = ctl_call(ctl, "grant.unmap", json_pack("{s:I}", "grant", (json_int_t)grant), &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        json_decref(result);
        return CTL_OK;
}

static const struct ctl_option options[] = {
        { "--guest", "GUEST", "when listing: only what concerns this guest, by its name or UUID" },
        { "--owner", "OWNER", "when listing: only this owner's, such as user:1000" },
        { "--direction", "to_device|from_device|bidirectional",
          "map, share: which way data goes, where dom0 is the device; bidirectional unless given" },
        { NULL },
};

static const struct ctl_action actions[] = {
        { "map", "a guest, references, and perhaps a command to run meanwhile", 2, CTL_OPERANDS_MAX, map, "--direction " },
        { "share", "a guest, a size, and perhaps a command to run meanwhile", 2, CTL_OPERANDS_MAX, share, "--direction " },
        { "unmap", "one grant", 1, 1, unmap, "" },
};

static enum ctl_status run_grants(struct ctl *ctl) {
        return actions_run(ctl, actions, N(actions), list_grants, "--guest --owner ");
}

const struct ctl_verb verb_grants = {
        .name = "grants",
        .operands = "[map GUEST REFS [COMMAND…] | share GUEST SIZE [COMMAND…] | unmap GRANT]",
        .summary = "list pages that are granted to guests of Xen's, or by them, or take some",
        .doc = "KIND is window: memory of the daemon's that the guest may map; map: pages of the guest's that a service in dom0 "
               "maps; share: pages of dom0's for the guest. DOMAIN is the number that Xen has given the guest; PAGES are of 4096 "
               "bytes; IN-USE how many of them are mapped at this moment, by the grant table; STATE granted, mapped or shared, "
               "revoking while it is waited for the guest to unmap them, or gone where the guest has ended and it is to be given "
               "back. REFS are the references, each run as DOMAIN:FIRST+COUNT by the domain that grants. Everybody's for an "
               "administrator; in a guest, its own. On a host without Xen there are no grants, which is an error. map and share "
               "are for administrators: what is taken is there until dmabrokerctl is interrupted or COMMAND ends, which finds it "
               "in its environment, as DMABROKER_GRANT, DMABROKER_DOMAIN, DMABROKER_REFS and so on. map only has pages that the "
               "guest has granted listed and counted, of which REFS are the references, such as 8,9,20+100: COMMAND maps them by "
               "its own /dev/xen/gntdev. Of share COMMAND finds a descriptor open, to be mapped at 0, under the number in "
               "DMABROKER_FD. unmap gives one back.",
        .words = "map share unmap",
        .options = options,
        .max_operands = CTL_OPERANDS_MAX,
        .run = run_grants,
};
