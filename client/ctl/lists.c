#include "client/ctl/lists.h"

#include <stdio.h>
#include <string.h>

#include "client/ctl/devices.h"

enum ctl_status lists_filter(struct ctl *ctl, json_t *params) {
        const char *device = ctl_value(ctl, "--device");
        enum ctl_status status = CTL_OK;
        uint64_t handle;

        ctl_param_text(ctl, "--owner", params, "owner");
        if (device)
                status = devices_resolve(ctl, device, &handle);
        if (status == CTL_OK && device)
                json_object_set_new(params, "device", json_integer((json_int_t)handle));
        if (status != CTL_OK)
                json_decref(params);
        return status;
}

enum ctl_status lists_print(const struct ctl *ctl, json_t *result, const char *member, const struct show_column *columns,
                            size_t n_columns) {
        int r = 0;

        if (ctl->json)
                ctl_print_json(result);
        else if (member)
                r = show_table(json_object_get(result, member), columns, n_columns);
        else
                show_pairs(result);
        json_decref(result);
        return r ? CTL_FAILURE : CTL_OK;
}

enum ctl_status lists_show(struct ctl *ctl, const struct list *list, json_t *params) {
        json_t *result, *row;
        enum ctl_status status = ctl_list(ctl, list->method, params, list->items, list->handle, &result);
        size_t i;

        if (status != CTL_OK)
                return status;
        if (list->add && !ctl->json) {
                json_array_foreach(json_object_get(result, list->items), i, row)
                        list->add(row);
        }
        return lists_print(ctl, result, list->items, list->columns, list->n_columns);
}

static enum ctl_status find(struct ctl *ctl, const struct list *list, const char *text, uint64_t *ret) {
        json_t *result, *row;
        enum ctl_status status = ctl_list(ctl, list->method, NULL, list->items, list->handle, &result);
        size_t i, found = 0;

        if (status != CTL_OK)
                return status;
        json_array_foreach(json_object_get(result, list->items), i, row) {
                const char *name = json_string_value(json_object_get(row, list->name));

                if (name && !strcmp(name, text)) {
                        *ret = show_uint(row, list->handle);
                        found++;
                }
        }
        json_decref(result);
        if (found == 1)
                return CTL_OK;
        if (found)
                fprintf(stderr, "dmabrokerctl: there is more than one %s %s: give the number of one of the %zu\n", list->called,
                        text, found);
        else
                fprintf(stderr, "dmabrokerctl: there is no %s %s\n", list->called, text);
        return CTL_FAILURE;
}

enum ctl_status lists_resolve(struct ctl *ctl, const struct list *list, const char *text, uint64_t *ret) {
        uint64_t handle = 0;
        enum ctl_status status;

        if (!list->name || (*text && !text[strspn(text, "0123456789")]))
                return ctl_parse_uint(ctl, list->handle, text, ret);
        status = find(ctl, list, text, &handle);
        if (status == CTL_OK)
                *ret = handle;
        return status;
}

void lists_print_refusal(const struct ctl *ctl, const char *member, const struct show_column *columns, size_t n_columns) {
        json_t *error = dmab_last_error_json() ? json_loads(dmab_last_error_json(), 0, NULL) : NULL;
        json_t *rows = json_object_get(json_object_get(error, "data"), member);

        if (!ctl->json && json_array_size(rows))
                show_table(rows, columns, n_columns);
        json_decref(error);
}
