/* quota: what an owner may have. */
#include <stdio.h>
#include <string.h>

#include "client/ctl/show.h"
#include "client/ctl/verbs.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct ctl_option options[] = {
        { "--set", "NAME=VALUE|NAME=unlimited", "set a limit; may be repeated" },
        { "--guarantee", "SIZE", "memory that the owner can have whenever it asks" },
        { "--guarantee-low", "SIZE", "the same below 4 GiB, beside the other" },
        { "--device", "DEVICE", "only what its owner may have and has of this device, by its number, however often it is open" },
        { NULL },
};

static enum ctl_status add_limit(const struct ctl *ctl, const char *text, json_t *limits, json_t *unlimited) {
        const char *value = strchr(text, '=');
        uint64_t number;

        if (!value || value == text)
                return ctl_misuse(ctl, "--set must be NAME=VALUE or NAME=unlimited, not \"%s\"", text);
        if (!strcmp(value + 1, "unlimited")) {
                json_array_append_new(unlimited, json_stringn(text, value - text));
                return CTL_OK;
        }
        if (ctl_parse_size(ctl, "a limit", value + 1, &number) != CTL_OK)
                return CTL_USAGE;
        if (number > INT64_MAX)
                return ctl_misuse(ctl, "a limit is too large: %s", value + 1);
        json_object_setn_new(limits, text, value - text, json_integer(number));
        return CTL_OK;
}

/* Whose limits are meant, if that is said: an owner, which has a colon in it, or a guest, which has none. */
static enum ctl_status put_owner(struct ctl *ctl, json_t *params) {
        const char *text = ctl->n_operands ? ctl->operands[0] : NULL;
        json_t *name = json_string(text), *guest;
        enum ctl_status status;

        if (!text)
                return CTL_OK;
        if (!name)
                return ctl_misuse(ctl, "the name of an owner must be UTF-8");
        if (strchr(text, ':')) {
                json_object_set_new(params, "owner", name);
                return CTL_OK;
        }
        status = ctl_call(ctl, "guest.get", json_pack("{s:o}", "guest", name), &guest);
        if (status != CTL_OK)
                return status;
        /* Without an owner, one's own quota would be meant. */
        if (json_object_set(params, "owner", json_object_get(guest, "owner"))) {
                fprintf(stderr, "dmabrokerctl: the answer to guest.get cannot be read\n");
                status = CTL_FAILURE;
        }
        json_decref(guest);
        return status;
}

/* params is consumed. */
static enum ctl_status set(struct ctl *ctl, json_t *params, json_t **ret) {
        json_t *limits = json_object(), *unlimited = json_array(), *guaranteed = json_object();
        enum ctl_status status = ctl_param_size(ctl, "--guarantee", guaranteed, "bytes");

        if (status == CTL_OK)
                status = ctl_param_size(ctl, "--guarantee-low", guaranteed, "low_bytes");

        for (size_t i = 0; i < ctl->n_given && status == CTL_OK; i++)
                if (!strcmp(ctl->given[i].option->name, "--set"))
                        status = add_limit(ctl, ctl->given[i].value, limits, unlimited);
        if (status == CTL_OK)
                status = put_owner(ctl, params);
        if (status == CTL_OK && !json_object_size(params))
                status = ctl_connect(ctl);
        if (status == CTL_OK) {
                if (!json_object_size(params))
                        json_object_set_new(params, "owner", json_string(dmab_owner(ctl->dmab)));
                if (json_object_size(limits))
                        json_object_set(params, "limits", limits);
                if (json_array_size(unlimited))
                        json_object_set(params, "unlimited", unlimited);
                if (json_object_size(guaranteed))
                        json_object_set(params, "guaranteed", guaranteed);
                status = ctl_call(ctl, "quota.set", params, ret);
        } else
                json_decref(params);
        json_decref(limits);
        json_decref(unlimited);
        json_decref(guaranteed);
        return status;
}

static void show_guarantee(json_t *result) {
        static const struct {
                const char *name, *object, *member;
        } pairs[] = { { "guaranteed", "guaranteed", "bytes" },
                      { "guaranteed_low", "guaranteed", "low_bytes" },
                      { "unmet", "unmet", "bytes" },
                      { "unmet_low", "unmet", "low_bytes" } };
        char buffer[SHOW_SIZE];

        for (size_t i = 0; json_object_get(result, "guaranteed") && i < N(pairs); i++)
                show_pair(pairs[i].name, show_member_bytes(json_object_get(result, pairs[i].object), pairs[i].member, buffer));
}

static void show_quota(json_t *result) {
        static const struct show_column columns[] = { { "NAME", "name" },
                                                      { "LIMIT", "limit", SHOW_NUMBER },
                                                      { "USED", "used", SHOW_NUMBER } };
        json_t *limits = json_object_get(result, "limits"), *rows = json_array(), *used;
        char owner[SHOW_SIZE], bytes[SHOW_SIZE];
        const char *name;

        json_object_foreach(json_object_get(result, "usage"), name, used) {
                json_t *limit = json_object_get(limits, name);
                bool is_bytes = strstr(name, "bytes");
                json_t *row = json_pack("{s:s}", "name", name);

                if (json_is_integer(limit))
                        json_object_set_new(row, "limit",
                                            json_string(is_bytes ? show_member_bytes(limits, name, bytes)
                                                                 : show_member(limits, name, bytes)));
                else
                        json_object_set_new(row, "limit", json_string("unlimited"));
                json_object_set_new(row, "used",
                                    json_string(is_bytes ? show_bytes(json_integer_value(used), bytes)
                                                         : show_member(json_object_get(result, "usage"), name, bytes)));
                json_array_append_new(rows, row);
        }
        show_pair("owner", show_member(result, "owner", owner));
        if (json_object_get(result, "device"))
                show_pair("device", show_member(result, "device_name", owner));
        show_guarantee(result);
        putchar('\n');
        show_table(rows, columns, N(columns));
        json_decref(rows);
}

static enum ctl_status run_quota(struct ctl *ctl) {
        json_t *params = json_object(), *result;
        enum ctl_status status = ctl_param_uint(ctl, "--device", params, "device");
        bool sets = ctl_has(ctl, "--set") || ctl_has(ctl, "--guarantee") || ctl_has(ctl, "--guarantee-low");

        if (status == CTL_OK && !sets)
                status = put_owner(ctl, params);
        if (status != CTL_OK) {
                json_decref(params);
                return status;
        }
        status = sets ? set(ctl, params, &result) : ctl_call(ctl, "quota.get", params, &result);
        if (status != CTL_OK)
                return status;
        if (ctl->json)
                ctl_print_json(result);
        else
                show_quota(result);
        json_decref(result);
        return CTL_OK;
}

const struct ctl_verb verb_quota = {
        .name = "quota",
        .operands = "[OWNER|GUEST]",
        .summary = "show what an owner may have and has, or set the limits",
        .doc = "OWNER is user:UID, or kvm:UUID or xen:UUID for a guest, which GUEST is the name of; yourself unless given. "
               "Administrators may name anybody and set limits. A limit below what is in use takes nothing away; it only allows "
               "no more. What is guaranteed takes the place of what was guaranteed before, both parts of it; the part of it that "
               "the owner does not hold is unmet, and stays free for it.",
        .options = options,
        .max_operands = 1,
        .run = run_quota,
};
