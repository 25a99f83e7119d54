/* Budgets: what an owner may have and has of one device, in all the times that it has opened it. What is charged to a
 * device is charged to its owner too: whoever charges goes through here, so that the two never differ. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

static void limits_lift(struct quota *limits) {
        for (int kind = 0; kind < QUOTA_KINDS; kind++)
                limits->of[kind] = QUOTA_UNLIMITED;
}

static struct budget *budget_find(const struct owner *owner, const char *name) {
        struct budget *budget;

        DL_FOREACH(owner->budgets, budget)
                if (strcmp(budget->name, name) == 0)
                        return budget;
        return NULL;
}

int budget_get(struct owner *owner, const char *name, const struct quota *limits, struct budget **ret) {
        struct budget *budget = budget_find(owner, name);
        size_t length = strlen(name) + 1;

        if (!budget) {
                budget = calloc(1, sizeof(*budget) + length);
                if (!budget)
                        return -ENOMEM;
                memcpy(budget->name, name, length);
                if (limits)
                        budget->limits = *limits;
                else
                        limits_lift(&budget->limits);
                DL_APPEND(owner->budgets, budget);
        }
        budget->n_devices++;
        *ret = budget;
        return 0;
}

static void budget_free(struct owner *owner, struct budget *budget) {
        DL_DELETE(owner->budgets, budget);
        free(budget);
}

void budget_put(struct owner *owner, struct budget *budget) {
        if (!--budget->n_devices && !budget->limits_set)
                budget_free(owner, budget);
}

void budgets_free(struct owner *owner) {
        while (owner->budgets)
                budget_free(owner, owner->budgets);
}

int device_check(const struct device *device, enum quota_kind kind, uint64_t more, struct failure *failure) {
        const struct budget *budget = device->budget;
        uint64_t limit = budget->limits.of[kind], used = budget->usage.of[kind];
        int r = owner_check(device->owner, kind, more, failure);

        if (r < 0 || limit == QUOTA_UNLIMITED || (used <= limit && more <= limit - used))
                return r;
        failure_set(failure, REASON_quota, "%s may have %llu %s of device %s, with %llu in use: %llu more would exceed it",
                    device->owner->name, (unsigned long long)limit, quota_name(kind), budget->name,
                    (unsigned long long)used, (unsigned long long)more);
        failure_add_text(failure, "quota", quota_name(kind));
        failure_add_number(failure, "asked", more);
        failure_add_number(failure, "limit", limit);
        failure_add_number(failure, "in_use", used);
        failure_add_number(failure, "device", device->handle);
        return -reason_errno(REASON_quota);
}

void device_charge(struct device *device, enum quota_kind kind, uint64_t amount) {
        device->owner->usage.of[kind] += amount;
        device->budget->usage.of[kind] += amount;
}

void device_discharge(struct device *device, enum quota_kind kind, uint64_t amount) {
        device->owner->usage.of[kind] -= amount;
        device->budget->usage.of[kind] -= amount;
}

/* ---- the ledger ---- */

void budgets_save(struct row_writer *row, const struct owner *owner) {
        const struct budget *budget;
        int kind;

        DL_FOREACH(owner->budgets, budget) {
                if (!budget->limits_set)
                        continue;
                row_text(row, budget->name);
                row_number(row, QUOTA_KINDS);
                for (kind = 0; kind < QUOTA_KINDS; kind++)
                        row_number(row, budget->limits.of[kind]);
        }
        row_text(row, NULL);
}

int budgets_load(struct load *load, struct owner *owner) {
        struct budget *budget;
        const char *name;
        uint64_t kinds, kind, limit;
        int r;

        while ((name = row_read_text(&load->row))) {
                r = budget_get(owner, name, NULL, &budget);
                if (r < 0)
                        return r;
                budget->n_devices--;
                budget->limits_set = true;
                kinds = row_read_number(&load->row);
                /* Each takes a byte at least; what is not there reads as 0, without end. */
                if (kinds > (size_t)(load->row.end - load->row.at)) {
                        load->row.failed = true;
                        break;
                }
                for (kind = 0; kind < kinds && !load->row.failed; kind++) {
                        limit = row_read_number(&load->row);
                        if (kind < QUOTA_KINDS)
                                budget->limits.of[kind] = limit;
                }
        }
        return 0;
}

/* ---- what is said of a device ---- */

int broker_limit_device(struct broker *broker, const char *name, const struct quota *limits) {
        struct template *template = NULL;
        struct budget *budget;
        struct owner *owner;

        HASH_FIND_STR(broker->templates, name, template);
        if (!template)
                return -ENOENT;
        if (limits)
                template->limits = *limits;
        else
                limits_lift(&template->limits);
        for (owner = broker->owners; owner; owner = owner->hh.next) {
                budget = budget_find(owner, name);
                if (budget && !budget->limits_set)
                        budget->limits = template->limits;
        }
        requests_serve(broker);
        return 0;
}

static void budget_look(const struct device *device, struct owner_view *ret) {
        *ret = (struct owner_view){
                .name = device->owner->name,
                .device = device->handle,
                .device_name = device->budget->name,
                .limits = device->budget->limits,
                .usage = device->budget->usage,
        };
}

int quota_get_device(const struct caller *caller, uint64_t handle, struct owner_view *ret, struct failure *failure) {
        struct device *device = NULL;
        int r = device_find(caller, handle, &device, failure);

        if (r == 0)
                budget_look(device, ret);
        return r;
}

int quota_set_device(const struct caller *caller, uint64_t handle, unsigned mask, const struct quota *limits,
                     struct failure *failure) {
        struct device *device = NULL;
        int kind, r;

        if (!caller->admin)
                return failure_set(failure, REASON_not_permitted, "Only an administrator may change a quota");
        r = device_find(caller, handle, &device, failure);
        if (r < 0)
                return r;
        for (kind = 0; kind < QUOTA_KINDS; kind++)
                if (mask & ~QUOTA_OF_DEVICES & 1u << kind) {
                        failure_set(failure, REASON_bad_param, "%s is no limit of a device, only of an owner",
                                    quota_name(kind));
                        failure_add_text(failure, "quota", quota_name(kind));
                        return -reason_errno(REASON_bad_param);
                }
        for (kind = 0; kind < QUOTA_KINDS; kind++)
                if (mask & 1u << kind)
                        device->budget->limits.of[kind] = limits->of[kind];
        device->budget->limits_set = true;
        book_note(caller->session->owner->broker, ROW_OWNER, device->owner->id);
        requests_serve(caller->session->owner->broker);
        return 0;
}
