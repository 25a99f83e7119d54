/* Devices: by which name, through which ancestor, within which limits. All of that is resolved once, when the device is
 * opened; an allocation only looks at the result. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

#define NAME_MAX_LENGTH 63
#define ANCESTORS_MAX 16

/* ---- what the configuration says ---- */

static struct template *template_find(struct broker *broker, const char *name) {
        struct template *template;

        HASH_FIND_STR(broker->templates, name, template);
        return template;
}

void template_free(struct template *template) {
        free((char *)template->options.parent);
        free(template->allow);
        free(template);
}

int broker_define_device(struct broker *broker, const struct device_options *options, bool dma, const char *allow) {
        struct template *template = template_find(broker, options->name);
        size_t length = strlen(options->name) + 1;
        char *parent = options->parent ? strdup(options->parent) : NULL, *allowed = allow ? strdup(allow) : NULL;

        if ((options->parent && !parent) || (allow && !allowed)) {
                free(parent);
                free(allowed);
                return -ENOMEM;
        }
        if (!template) {
                template = calloc(1, sizeof(*template) + length);
                if (!template) {
                        free(parent);
                        free(allowed);
                        return -ENOMEM;
                }
                memcpy(template->name, options->name, length);
                for (int kind = 0; kind < QUOTA_KINDS; kind++)
                        template->limits.of[kind] = QUOTA_UNLIMITED;
                HASH_ADD_STR(broker->templates, name, template);
                if (!template->hh.tbl) {
                        free(parent);
                        free(allowed);
                        free(template);
                        return -ENOMEM;
                }
        }
        free((char *)template->options.parent);
        free(template->allow);
        template->allow = allowed;
        template->options = *options;
        template->options.name = template->name;
        template->options.parent = parent;
        template->dma = dma;
        return 0;
}

void broker_forget_device(struct broker *broker, const char *name) {
        struct template *template = template_find(broker, name);

        broker_limit_device(broker, name, NULL);
        if (!template)
                return;
        free(template->allow);
        template->allow = NULL;
}

/* ---- checks ---- */

static int name_check(const char *name, const char *param, struct failure *failure) {
        const char *c = name;

        while (*c && (isalnum((unsigned char)*c) || strchr("_.:/-@+", *c)))
                c++;
        if (*name && !*c && c - name <= NAME_MAX_LENGTH)
                return 0;
        failure_set(failure, REASON_bad_param,
                    "A device's name has 1 to %d letters, digits or any of _ . : / - @ +", NAME_MAX_LENGTH);
        failure_add_text(failure, "param", param);
        return -EINVAL;
}

static int options_check(const struct device_options *options, struct failure *failure) {
        int r;

        r = name_check(options->name ? options->name : "", "name", failure);
        if (r == 0 && options->parent)
                r = name_check(options->parent, "parent", failure);
        if (r == 0 && options->mask)
                r = mask_check(options->mask, failure);
        if (r == 0 && options->coherent_mask)
                r = mask_check(options->coherent_mask, failure);
        if (r < 0)
                return r;
        if (options->boundary && (!power_of_two(options->boundary) || options->boundary < PAGE)) {
                failure_set(failure, REASON_boundary, "A device's boundary is a power of two of at least %llu",
                            (unsigned long long)PAGE);
                failure_add_number(failure, "asked", options->boundary);
                return -reason_errno(REASON_boundary);
        }
        if (options->min_align_mask & (options->min_align_mask + 1) || options->min_align_mask == UINT64_MAX) {
                failure_set(failure, REASON_bad_param, "min_align_mask must be 2^n-1, with n below 64");
                failure_add_text(failure, "param", "min_align_mask");
                return -EINVAL;
        }
        return 0;
}

/* ---- resolving ---- */

struct resolved {
        const char *via;
        char via_buffer[sizeof(((struct translator_facts *)NULL)->name)];
        const struct translator_ops *translator;
        struct translation *translation;
        struct translator_facts facts;
        uint64_t reach, coherent_reach;
        const struct template *template; /* what the configuration says of the device, or NULL */
};

/* Whether the configuration lets them have the device for themselves; an administrator needs no leave. */
static bool is_allowed(const struct caller *caller, const char *name) {
        static const char between[] = " \t,";
        const struct owner *owner = caller->session->owner;
        const struct template *template = template_find(owner->broker, name);
        const char *at = template && template->allow ? template->allow : "";
        size_t length;

        for (at += strspn(at, between); *at; at += length, at += strspn(at, between)) {
                length = strcspn(at, between);
                if (strlen(owner->name) == length && memcmp(at, owner->name, length) == 0)
                        return true;
        }
        return caller->admin;
}

static int resolved_attach(const struct caller *caller, const char *name, struct resolved *resolved, struct failure *failure) {
        const bool permitted = is_allowed(caller, name);
        const struct broker *broker = caller->session->owner->broker;
        const struct translator_ops *const *translator;
        int r;

        for (translator = broker->options.translators; *translator; translator++) {
                r = (*translator)->attach(name, caller->session->owner->name, permitted, &resolved->translation, &resolved->facts,
                                          failure);
                if (r == -ENODEV)
                        continue;
                if (r < 0)
                        return r;
                if (resolved->facts.blocked) {
                        (*translator)->detach(resolved->translation);
                        return failure_set(failure, REASON_unsupported, "Device %s is behind an IOMMU, which does not let it "
                                           "have machine addresses: bind it to the driver vfio-pci, so that memory can be "
                                           "mapped for it", name);
                }
                resolved->translator = *translator;
                resolved->reach = smaller(resolved->reach, resolved->facts.mask);
                memcpy(resolved->via_buffer, resolved->facts.name, sizeof(resolved->via_buffer));
                resolved->via = resolved->via_buffer;
                return 0;
        }
        return failure_set(failure, REASON_unsupported, "No translator serves device %s", name);
}

static void resolved_detach(struct resolved *resolved) {
        if (resolved->translator)
                resolved->translator->detach(resolved->translation);
}

static struct device *open_by_name(struct owner *owner, const char *name) {
        struct device *device, *found = NULL;

        DL_FOREACH(owner->devices, device)
                if (!device->closed && strcmp(device->name, name) == 0)
                        found = device;
        return found;
}

static int unknown_parent(const char *name, const char *parent, struct failure *failure) {
        failure_set(failure, REASON_unknown_device,
                    "The parent %s of %s is neither an open device of yours, nor in the configuration, nor on the host's bus",
                    parent, name);
        failure_add_text(failure, "parent", parent);
        return -reason_errno(REASON_unknown_device);
}

static void template_restrict(const struct template *template, struct resolved *resolved) {
        if (template && template->options.mask)
                resolved->reach = smaller(resolved->reach, template->options.mask);
        if (template && template->options.coherent_mask)
                resolved->coherent_reach = smaller(resolved->coherent_reach, template->options.coherent_mask);
}

static int resolve(const struct caller *caller, const struct device_options *options, struct resolved *ret,
                   struct failure *failure);

/* The configuration knows the device that was attached, by its canonical name only. */
static int resolve_canonical(const struct caller *caller, const struct device_options *options, const char *name,
                             struct resolved *ret, struct failure *failure) {
        const struct template *template = template_find(caller->session->owner->broker, ret->facts.name);
        struct device_options again = *options;

        if (name == options->name)
                again.name = template->name;
        else if (name == options->parent)
                again.parent = template->name;
        else {
                template_restrict(template, ret);
                return 0;
        }
        resolved_detach(ret);
        return resolve(caller, &again, ret, failure);
}

/* Walk from a device that has no DMA of its own to the nearest ancestor that has it. */
static int resolve(const struct caller *caller, const struct device_options *options, struct resolved *ret,
                   struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct template *template = template_find(owner->broker, options->name);
        const char *name = options->name, *parent = options->parent;
        struct device *open;
        bool dma = template ? template->dma : !parent;
        int r, depth;

        *ret = (struct resolved){ .reach = UINT64_MAX, .coherent_reach = UINT64_MAX, .template = template };
        if (!parent && template)
                parent = template->options.parent;
        for (depth = 0; !dma; depth++) {
                template_restrict(template, ret);
                if (!parent || depth == ANCESTORS_MAX)
                        return failure_set(failure, REASON_unsupported,
                                           "%s has no DMA of its own, and no ancestor of it has", options->name);
                name = parent;
                open = open_by_name(owner, name);
                template = template_find(owner->broker, name);
                if (open) {
                        ret->reach = smaller(ret->reach, smaller(open->reach, open->coherent_mask));
                        return resolved_attach(caller, open->via, ret, failure);
                }
                dma = !template || template->dma;
                parent = template ? template->options.parent : NULL;
        }
        template_restrict(template, ret);
        r = resolved_attach(caller, name, ret, failure);
        if (r == 0 && !template && template_find(owner->broker, ret->facts.name))
                return resolve_canonical(caller, options, name, ret, failure);
        if (r == 0 && name != options->name && !template && !ret->facts.present) {
                resolved_detach(ret);
                return unknown_parent(options->name, name, failure);
        }
        return r;
}

/* ---- whether a mask can be served ---- */

/* Where there is memory, or may be: what a source may still get lies anywhere in the low 4 GiB or above. What only guests can
 * map is for those that are granted it. */
static bool mask_has_memory(const struct broker *broker, bool granted, uint64_t mask, uint64_t *ret_lowest,
                            bool *ret_others) {
        const struct supply *supply;
        uint64_t free_bytes, largest;
        bool any = false;

        *ret_lowest = UINT64_MAX;
        *ret_others = false;
        LL_FOREACH(broker->supplies, supply) {
                if (supply_is_granted(supply) != granted) {
                        *ret_others = true;
                        continue;
                }
                supply_usage(supply, mask, &free_bytes, &largest);
                any |= free_bytes > 0 || (supply->n_regions && supply->regions[0]->addr <= mask);
                any |= mask >= LOW_LIMIT && (supply->info.available || supply->pending);
                if (supply->n_regions)
                        *ret_lowest = smaller(*ret_lowest, supply->regions[0]->addr);
        }
        return any;
}

static int mask_serve(const struct broker *broker, const struct translator_ops *translator,
                      const struct translation *translation, uint64_t mask, struct failure *failure) {
        const bool granted = translator_grants(translator);
        uint64_t lowest;
        bool others;
        int r;

        r = mask_check(mask, failure);
        if (r == 0 && translator_translates(translator)) {
                if (translator->serves(translation, mask))
                        return 0;
                failure_set(failure, REASON_mask, "The IOMMU takes no address at or below 0x%llx", (unsigned long long)mask);
                failure_add_hex(failure, "asked", mask);
                return -reason_errno(REASON_mask);
        }
        if (r < 0 || mask_has_memory(broker, granted, mask, &lowest, &others))
                return r;
        failure_set(failure, REASON_mask, "No source has memory at or below 0x%llx%s", (unsigned long long)mask,
                    others && !granted ? ", but for what only guests can map" : "");
        failure_add_hex(failure, "asked", mask);
        return -reason_errno(REASON_mask);
}

/* ---- opening and closing ---- */

uint64_t tightest(uint64_t a, uint64_t b) {
        return !a ? b : !b ? a : smaller(a, b);
}

static void limits_set(struct device *device, const struct device_options *options, const struct template *template,
                       const struct resolved *resolved) {
        static const struct device_options nothing = { .node = -1 };
        const struct device_options *says = template ? &template->options : &nothing;

        device->reach = resolved->reach;
        device->coherent_reach = smaller(resolved->coherent_reach, device->reach);
        device->mask = smaller(options->mask ? options->mask : UINT64_MAX, device->reach);
        device->coherent_mask = smaller(options->coherent_mask ? options->coherent_mask : device->mask,
                                        device->coherent_reach);
        device->boundary = tightest(options->boundary, says->boundary);
        device->max_segment = tightest(options->max_segment, says->max_segment);
        device->min_align_mask = larger(options->min_align_mask, says->min_align_mask);
        device->timeout_ms = options->timeout_ms;
        device->node = options->node >= 0 ? options->node : says->node >= 0 ? says->node : resolved->facts.node;
}

static void device_enter(struct device *device) {
        struct owner *owner = device->owner;

        DL_APPEND(owner->devices, device);
        owner->usage.of[QUOTA_devices]++;
        owner->broker->counts.devices++;
        book_note(owner->broker, ROW_DEVICE, device->handle);
}

static int device_new(const struct caller *caller, const struct device_options *options, struct resolved *resolved,
                      struct request_key *key, uint64_t *ret_handle, struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct broker *broker = owner->broker;
        const struct template *template = resolved->template;
        const char *parent = options->parent ? options->parent : template ? template->options.parent : NULL;
        /* One name for each device, however it is called: the configuration's, or the bus's of what is on it. */
        const char *counted = template ? template->name : parent ? options->name : resolved->via;
        struct device *device = calloc(1, sizeof(*device));
        int r = -ENOMEM;

        if (!device)
                goto fail;
        device->owner = owner;
        device->name = strdup(options->name);
        device->parent = parent ? strdup(parent) : NULL;
        device->via = strdup(resolved->via);
        if (!device->name || (parent && !device->parent) || !device->via)
                goto fail;
        limits_set(device, options, template, resolved);
        r = mask_serve(broker, resolved->translator, resolved->translation, device->coherent_mask, failure);
        if (r < 0)
                goto fail;
        r = budget_get(owner, counted, template ? &template->limits : NULL, &device->budget);
        if (r < 0)
                goto fail;
        r = handle_new(&broker->handles, HANDLE_DEVICE, device, &device->handle);
        if (r < 0)
                goto fail;
        device->translator = resolved->translator;
        device->translation = resolved->translation;
        device->session = caller->session;
        device->key = key;
        if (key)
                key->handle = device->handle;
        device->is_commons = options->commons;
        if (device->is_commons)
                owner_set_commons(owner, device);
        device_enter(device);
        *ret_handle = device->handle;
        return 0;

fail:
        if (device) {
                if (device->budget)
                        budget_put(owner, device->budget);
                free(device->name);
                free(device->parent);
                free(device->via);
        }
        free(device);
        return r == -ENOMEM ? failure_set(failure, REASON_no_memory, "The daemon itself is out of memory") : r;
}

int device_open(const struct caller *caller, const struct device_options *options, uint64_t *ret_handle,
                struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct request_key *key;
        struct resolved resolved;
        int r;

        r = options_check(options, failure);
        if (r == 0)
                r = key_begin(owner, options->request_key, HANDLE_DEVICE, options->request_digest, &key, failure);
        if (r < 0)
                return r;
        if (r == 1) {
                *ret_handle = key->handle;
                return 0;
        }
        r = owner_check(owner, QUOTA_devices, 1, failure);
        if (r == 0 && options->commons && owner->commons)
                r = failure_set(failure, REASON_busy, "%s has its windows already", owner->name);
        if (r == 0)
                r = resolve(caller, options, &resolved, failure);
        if (r == 0) {
                r = device_new(caller, options, &resolved, key, ret_handle, failure);
                if (r < 0)
                        resolved_detach(&resolved);
        }
        if (r < 0)
                key_forget(owner, key);
        return r;
}

/* ---- reaching memory ---- */

static struct translator_run run_of(const struct region *region, uint64_t addr, uint64_t size, enum dma_direction direction) {
        const struct source_ops *ops = region->supply->source->ops;
        char *memory = ops->backing_map ? ops->backing_map(region->backing) : NULL;

        return (struct translator_run){
                .addr = addr, .size = size, .memory = memory ? memory + (addr - region->addr) : NULL,
                .reads_only = direction == DMA_TO_DEVICE, .writes_only = direction == DMA_FROM_DEVICE,
        };
}

int device_map(const struct device *device, const struct region *region, uint64_t addr, uint64_t size,
               enum dma_direction direction, const struct arena_request *reach, uint64_t *ret_dma, struct failure *failure) {
        struct translator_run run = run_of(region, addr, size, direction);

        run.align = reach->align;
        run.boundary = reach->boundary;
        run.limit = reach->limit;
        return device->translator->map(device->translation, &run, ret_dma, failure);
}

int device_unmap(const struct device *device, uint64_t dma_addr, uint64_t size) {
        return device->translator->unmap(device->translation, dma_addr, size);
}

/* ---- devices that their translator does not have any more ---- */

/* Since an earlier daemon: unbound, unplugged, in somebody else's hands. What it could reach it may reach still, so none of that
 * is used again, and it gets nothing more. */
static int lost_map(struct translation *translation, const struct translator_run *run, uint64_t *ret_dma,
                    struct failure *failure) {
        return failure_set(failure, REASON_gone, "The device was taken away from the broker: close it, and open it again");
}

static int lost_unmap(struct translation *translation, uint64_t dma_addr, uint64_t size) {
        return -ENODEV;
}

static void lost_detach(struct translation *translation) {
}

static bool lost_serves(const struct translation *translation, uint64_t mask) {
        return false;
}

static int lost_restore(struct translation *translation, const struct translator_run *run, uint64_t dma_addr,
                        struct failure *failure) {
        return 0;
}

static int lost_device_fd(struct translation *translation) {
        return -1;
}

/* By the name of the one that has lost it, which the next daemon tries again. */
static const struct translator_ops lost_ops = {
        .struct_size = sizeof(struct translator_ops),
        .version = TRANSLATOR_OPS_VERSION,
        .name = "iommu",
        .detach = lost_detach,
        .map = lost_map,
        .unmap = lost_unmap,
        .flags = TRANSLATOR_TRANSLATES,
        .serves = lost_serves,
        .restore = lost_restore,
        .device_fd = lost_device_fd,
};

int broker_visit_translators(const struct broker *broker, translator_visit_fn visit, void *userdata) {
        const struct translator_ops *const *translator;
        const struct device *device;
        const struct owner *owner;
        uint64_t n;
        int r = 0;

        for (translator = broker->options.translators; *translator && r == 0; translator++) {
                n = 0;
                for (owner = broker->owners; owner; owner = owner->hh.next)
                        DL_FOREACH(owner->devices, device)
                                n += !device->closed && device->translator == *translator;
                r = visit((*translator)->name, n, userdata);
        }
        return r;
}

static void device_lose(struct device *device, const struct failure *why) {
        struct book *book = &device->owner->broker->book;

        device->translator = &lost_ops;
        book->lost_devices++;
        book->lost_why = *why;
}

void device_remap(struct device *device, const struct region *region, uint64_t addr, uint64_t size,
                  enum dma_direction direction, uint64_t dma_addr) {
        struct translator_run run = run_of(region, addr, size, direction);
        struct failure why = {};

        /* What is mapped for it already stays so. */
        if (translator_translates(device->translator) &&
            device->translator->restore(device->translation, &run, dma_addr, &why) < 0)
                device_lose(device, &why);
}

bool device_is_lost(const struct device *device) {
        return device->translator == &lost_ops;
}

int device_fd(const struct caller *caller, uint64_t handle, int *ret_fd, struct failure *failure) {
        struct device *device = device_of(caller, handle, failure);

        if (!device)
                return -ENOENT;
        *ret_fd = translator_has_device(device->translator) ? device->translator->device_fd(device->translation) : -1;
        return 0;
}

/* ---- the ledger ---- */

void device_save(struct row_writer *row, const struct device *device) {
        row_number(row, device->owner->id);
        row_number(row, device->session ? device->session->id : 0);
        row_text(row, device->name);
        row_text(row, device->parent);
        row_text(row, device->via);
        row_text(row, device->translator->name);
        row_number(row, device->reach);
        row_number(row, device->coherent_reach);
        row_number(row, device->mask);
        row_number(row, device->coherent_mask);
        row_number(row, device->boundary);
        row_number(row, device->max_segment);
        row_number(row, device->min_align_mask);
        row_number(row, device->timeout_ms);
        row_number(row, (uint64_t)(device->node + 1));
        row_text(row, device->budget->name);
        row_key(row, device->key);
        row_number(row, device->is_commons);
}

static char *read_copy(struct load *load, bool *failed) {
        const char *text = row_read_text(&load->row);
        char *copy = text ? strdup(text) : NULL;

        *failed |= text && !copy;
        return copy;
}

/* By the same translator: what was mapped there is there. */
static int reattach(struct load *load, struct device *device, const char *name) {
        const struct translator_ops *const *translator;
        struct translator_facts facts;
        struct failure why = {};
        int r;

        for (translator = load->broker->options.translators; *translator; translator++) {
                if (!name || strcmp((*translator)->name, name) != 0)
                        continue;
                device->translator = *translator;
                r = (*translator)->attach(device->via, device->owner->name, true, &device->translation, &facts, &why);
                if (r == -ENODEV)
                        failure_set(&why, REASON_gone, "device %s is not bound to the driver that it had", device->via);
                if (r < 0 && r != -ENOMEM && translator_translates(*translator)) {
                        device_lose(device, &why);
                        r = 0;
                }
                if (r < 0)
                        *load->failure = why;
                return r;
        }
        return failure_set(load->failure, REASON_unsupported, "the ledger knows of device %s with the translation `%s`, which "
                           "this daemon does not have", device->name, name ? name : "?");
}

static void device_delete(struct device *device) {
        free(device->name);
        free(device->parent);
        free(device->via);
        free(device);
}

static int budget_load(struct load *load, struct device *device) {
        const char *name = row_read_text(&load->row);
        struct template *template;

        if (load->row.failed || !name)
                return -EBADMSG;
        template = template_find(load->broker, name);
        return budget_get(device->owner, name, template ? &template->limits : NULL, &device->budget);
}

static int device_read(struct load *load, struct device *device) {
        bool failed = false;
        int r;

        device->session = load_session(load);
        device->name = read_copy(load, &failed);
        device->parent = read_copy(load, &failed);
        device->via = read_copy(load, &failed);
        if (failed)
                return -ENOMEM;
        if (!device->owner || !device->name || !device->via)
                return -ENOENT;
        r = reattach(load, device, row_read_text(&load->row));
        if (r < 0)
                return r;
        device->reach = row_read_number(&load->row);
        device->coherent_reach = row_read_number(&load->row);
        device->mask = row_read_number(&load->row);
        device->coherent_mask = row_read_number(&load->row);
        device->boundary = row_read_number(&load->row);
        device->max_segment = row_read_number(&load->row);
        device->min_align_mask = row_read_number(&load->row);
        device->timeout_ms = row_read_number(&load->row);
        device->node = (int)row_read_number(&load->row) - 1;
        r = budget_load(load, device);
        if (r == 0)
                r = handle_restore(&load->broker->handles, HANDLE_DEVICE, device, load->id);
        if (r < 0)
                device->translator->detach(device->translation);
        if (r < 0 && device->budget)
                budget_put(device->owner, device->budget);
        return r;
}

int device_load(struct load *load) {
        struct device *device = calloc(1, sizeof(*device));
        int r;

        if (!device)
                return -ENOMEM;
        device->owner = load_owner(load);
        r = device_read(load, device);
        if (r < 0) {
                device_delete(device);
                return r;
        }
        device->handle = load->id;
        device->key = load_key(load, device->owner, HANDLE_DEVICE);
        device->is_commons = row_read_number(&load->row);
        if (device->is_commons)
                owner_set_commons(device->owner, device);
        device->n_requests = 1; /* until all is read */
        device_enter(device);
        return 0;
}

/* Whose allocations rest after its end: nobody can find it. Its name, its budget and its quarantine stay what they were. */
void device_save_hidden(struct row_writer *row, const struct device *device) {
        row_text(row, device->name);
        row_text(row, device->via);
        row_text(row, device->budget->name);
        row_text(row, device->translator->name);
}

static struct device *hidden_find(const struct device *like, const char *translator) {
        struct device *device;

        DL_FOREACH(like->owner->devices, device)
                if (device->closed && strcmp(device->name, like->name) == 0 && strcmp(device->via, like->via) == 0 &&
                    device->budget == like->budget && translator && strcmp(device->translator->name, translator) == 0)
                        return device;
        return NULL;
}

static int hidden_read(struct load *load, struct device *device) {
        bool failed = false;

        device->name = read_copy(load, &failed);
        device->via = read_copy(load, &failed);
        if (failed)
                return -ENOMEM;
        return device->name && device->via ? budget_load(load, device) : -EBADMSG;
}

static void device_quiet(const struct device *device) {
        if (translator_quiets(device->translator))
                device->translator->quiet(device->translation);
}

int device_load_hidden(struct load *load, struct owner *owner, struct device **ret) {
        struct device *device = calloc(1, sizeof(*device));
        const char *translator;
        int r;

        if (!device)
                return -ENOMEM;
        device->owner = owner;
        r = hidden_read(load, device);
        translator = r == 0 ? row_read_text(&load->row) : NULL;
        *ret = r == 0 ? hidden_find(device, translator) : NULL;
        if (r == 0 && !*ret)
                r = reattach(load, device, translator);
        if (r < 0 || *ret) {
                if (device->budget)
                        budget_put(owner, device->budget);
                device_delete(device);
                return r;
        }
        device->node = -1;
        device->closed = true;
        device_quiet(device);
        device->n_requests = 1; /* until all is read */
        DL_APPEND(owner->devices, device);
        *ret = device;
        return 0;
}

void device_hide(struct device *device) {
        struct owner *owner = device->owner;

        handle_release(&owner->broker->handles, device->handle, owner->id);
        book_note(owner->broker, ROW_DEVICE, device->handle);
        key_forget(owner, device->key);
        owner->usage.of[QUOTA_devices]--;
        owner->broker->counts.devices--;
        device->closed = true;
        device_quiet(device);
}

void device_free(struct device *device) {
        struct owner *owner = device->owner;
        struct region *region, *next;

        DL_FOREACH_SAFE(owner->regions, region, next)
                if (region->device == device)
                        region_restore(region);
        device->translator->detach(device->translation);
        DL_DELETE(owner->devices, device);
        if (owner->commons == device)
                owner_set_commons(owner, NULL);
        if (!device->closed)
                device_hide(device);
        budget_put(owner, device->budget);
        arena_free(device->reserve);
        free(device->name);
        free(device->parent);
        free(device->via);
        free(device);
        if (!owner->sessions && !owner->devices)
                owner_unbar_later(owner);
        owner_forget(owner);
}

void device_forget(struct device *device) {
        /* What only rests in it keeps it, but nobody can find it. */
        if (!device->session && !device->closed && !device->n_requests && device->resting && !device_holds(device))
                device_hide(device);
        if ((device->closed || !device->session) && !device_holds(device) && !device->resting && !device->n_requests &&
            !device_is_barred(device))
                device_free(device);
}

bool device_holds(const struct device *device) {
        return device->allocs || device->pools || device->bounces || device->mappings || device->n_lent;
}

bool device_is_hidden(const struct device *device, const struct caller *caller) {
        return device->is_commons && device->session != caller->session;
}

int device_find(const struct caller *caller, uint64_t handle, struct device **ret, struct failure *failure) {
        struct device *device = handle_find(&caller->session->owner->broker->handles, HANDLE_DEVICE, handle);

        if (!device || (device->owner != caller->session->owner && !caller->admin) || device_is_hidden(device, caller))
                return handle_not_found(caller, HANDLE_DEVICE, handle, failure);
        *ret = device;
        return 0;
}

/* ---- what is left at the end ---- */

struct leaks {
        leak_visit_fn visit; /* or NULL: nobody wants to know */
        void *userdata;
        int enough; /* visit has seen enough */
};

static int tell_leak(struct leaks *leaks, const struct leak_view *leak) {
        if (!leaks->enough && leaks->visit)
                leaks->enough = leaks->visit(leak, leaks->userdata);
        return leaks->enough;
}

static int tell_pool(const struct pool_view *view, void *userdata) {
        return tell_leak(userdata, &(struct leak_view){ .pool = view->handle, .name = view->name, .size = view->bytes });
}

static int tell_bounce(const struct bounce_view *view, void *userdata) {
        return tell_leak(userdata, &(struct leak_view){ .bounce = view->handle, .size = view->size,
                                                        .dma_addr = view->dma_addr });
}

static int tell_mapping(const struct mapping_view *view, void *userdata) {
        return tell_leak(userdata, &(struct leak_view){ .mapping = view->handle, .bounce = view->bounce,
                                                        .size = view->size, .dma_addr = view->dma_addr });
}

/* The slabs of pools are told by their pools. */
static void tell_leaks(const struct caller *caller, const struct device *device, leak_visit_fn visit, void *userdata) {
        struct leaks leaks = { .visit = visit, .userdata = userdata };
        const char *owner = device->owner->name;
        const struct alloc *alloc;

        DL_FOREACH(device->allocs, alloc)
                if (!(alloc->flags & ALLOC_HELD))
                        tell_leak(&leaks, &(struct leak_view){ .alloc = alloc->handle, .size = alloc_size(alloc),
                                                               .dma_addr = alloc_dma_addr(alloc) });
        if (device->pools)
                pool_visit(caller, device->handle, owner, 0, tell_pool, &leaks, NULL);
        if (device->bounces)
                bounce_visit(caller, device->handle, owner, 0, tell_bounce, &leaks, NULL);
        if (device->bounces || device->mappings)
                mapping_visit(caller, device->handle, owner, 0, tell_mapping, &leaks, NULL);
}

/* The allocations that go with the device (session NULL), or with the session. */
static void tell_event(const struct device *device, const struct session *session) {
        const struct alloc *alloc;
        struct event event = {
                .topic = EVENT_LEAK,
                .session = session,
                .owner = device->owner->name,
                .device = device->handle,
                .name = device->name,
        };

        DL_FOREACH(device->allocs, alloc)
                if (session ? alloc_leaves(alloc, session) : !(alloc->flags & ALLOC_HELD)) {
                        event.count++;
                        event.bytes += alloc_size(alloc);
                }
        if (event.count)
                event_tell(device->owner->broker, &event);
}

void devices_tell_leaks(const struct session *session) {
        const struct device *device;

        DL_FOREACH(session->owner->devices, device)
                if (!device->session || device->session == session)
                        tell_event(device, session);
}

static int leak_failure(const struct device *device, struct failure *failure) {
        uint64_t allocs = 0, bytes = 0;
        const struct alloc *alloc;

        DL_FOREACH(device->allocs, alloc)
                if (!(alloc->flags & ALLOC_HELD)) {
                        allocs++;
                        bytes += alloc_size(alloc);
                }
        failure_set(failure, REASON_busy,
                    "Device %s still holds %llu allocations with %llu bytes, %u pools, %u bounce pools and %u mappings",
                    device->name, (unsigned long long)(allocs + device->n_lent), (unsigned long long)bytes, device->n_pools,
                    device->n_bounces, device->n_mappings);
        failure_add_number(failure, "allocs", allocs);
        failure_add_number(failure, "bytes", bytes);
        failure_add_number(failure, "pools", device->n_pools);
        failure_add_number(failure, "bounces", device->n_bounces);
        failure_add_number(failure, "mappings", device->n_mappings);
        return -reason_errno(REASON_busy);
}

int device_close(const struct caller *caller, uint64_t handle, bool force, leak_visit_fn visit, void *userdata,
                 struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct device *device = NULL;
        struct owner *owner;
        int r;

        r = device_find(caller, handle, &device, failure);
        if (r < 0)
                return r;
        owner = device->owner;
        tell_leaks(caller, device, visit, userdata);
        if (!force && device_holds(device))
                return leak_failure(device, failure);
        tell_event(device, NULL);
        device_hide(device);
        device->n_requests++; /* keeps it while its allocations go */
        requests_end(owner, device);
        mappings_end(device);
        pools_end(device);
        bounces_end(device);
        allocs_close(device);
        device_unbar(device);
        device->n_requests--;
        device_forget(device);
        requests_serve(broker);
        return 0;
}

/* One that is reserved for this device. */
static int find_reserved(const struct caller *caller, uint64_t handle, uint64_t region_handle, struct region **ret,
                         struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct region *region = handle_find(&broker->handles, HANDLE_REGION, region_handle);
        struct device *device = NULL;
        int r;

        r = device_find(caller, handle, &device, failure);
        if (r < 0)
                return r;
        if (!region || region->owner != device->owner)
                return handle_not_found(caller, HANDLE_REGION, region_handle, failure);
        if (region->device != device)
                return failure_set(failure, REASON_wrong_device, "Region %llu is not reserved for device %s",
                                   (unsigned long long)region_handle, device->name);
        *ret = region;
        return 0;
}

static int check_vacant(const struct region *region, struct failure *failure) {
        if (!region->n_allocs)
                return 0;
        failure_set(failure, REASON_busy, "Region %llu still holds %llu allocations", (unsigned long long)region->handle,
                    (unsigned long long)region->n_allocs);
        failure_add_number(failure, "allocs", region->n_allocs);
        return -reason_errno(REASON_busy);
}

int device_unreserve(const struct caller *caller, uint64_t handle, uint64_t region_handle, struct failure *failure) {
        struct region *region;
        int r = find_reserved(caller, handle, region_handle, &region, failure);

        if (r == 0)
                r = check_vacant(region, failure);
        if (r < 0)
                return r;
        region_restore(region);
        requests_serve(caller->session->owner->broker);
        return 0;
}

int device_withdraw(const struct caller *caller, uint64_t handle, uint64_t region_handle, struct failure *failure) {
        struct region *region;
        int r = find_reserved(caller, handle, region_handle, &region, failure);

        if (r == 0 && region_withdraw(region) < 0)
                r = failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        return r;
}

int device_reinstate(const struct caller *caller, uint64_t handle, uint64_t region_handle, struct failure *failure) {
        struct region *region;
        int r = find_reserved(caller, handle, region_handle, &region, failure);

        if (r < 0)
                return r;
        region_reinstate(region);
        requests_serve(caller->session->owner->broker);
        return 0;
}

/* ---- masks ---- */

int device_set_mask(const struct caller *caller, uint64_t handle, uint64_t mask, bool coherent, struct failure *failure) {
        struct device *device = NULL;
        int r;

        r = device_find(caller, handle, &device, failure);
        if (r == 0)
                r = mask_serve(device->owner->broker, device->translator, device->translation,
                               smaller(mask, device->coherent_reach), failure);
        if (r == 0)
                r = mask_check(mask, failure);
        if (r < 0)
                return r;
        device->coherent_mask = smaller(mask, device->coherent_reach);
        if (!coherent)
                device->mask = smaller(mask, device->reach);
        book_note(device->owner->broker, ROW_DEVICE, device->handle);
        return 0;
}

int device_supported(const struct caller *caller, uint64_t handle, uint64_t mask, bool coherent, bool *ret,
                     struct failure *failure) {
        struct device *device = NULL;
        int r;

        r = device_find(caller, handle, &device, failure);
        if (r < 0)
                return r;
        *ret = mask_check(mask, NULL) == 0 && mask_serve(device->owner->broker, device->translator, device->translation,
                                                         smaller(mask, device->coherent_reach), NULL) == 0;
        return 0;
}

/* ---- the outside's view ---- */

static void device_look(const struct device *device, struct device_view *ret) {
        *ret = (struct device_view){
                .handle = device->handle,
                .name = device->name,
                .owner = device->owner->name,
                .parent = device->parent,
                .via = device->via,
                .translation = device->translator->name,
                .mask = device->mask,
                .coherent_mask = device->coherent_mask,
                .boundary = device->boundary,
                .max_segment = device->max_segment,
                .min_align_mask = device->min_align_mask,
                .node = device->node,
                .timeout_ms = device->timeout_ms,
                .allocs = device->n_allocs,
                .bytes = device->bytes,
                .reserved_bytes = device->reserved_bytes,
                .session_bound = device->session,
        };
}

int device_get(const struct caller *caller, uint64_t handle, struct device_view *ret, struct failure *failure) {
        struct device *device = NULL;
        int r;

        r = device_find(caller, handle, &device, failure);
        if (r == 0)
                device_look(device, ret);
        return r;
}

int device_visit(const struct caller *caller, const char *name, device_visit_fn visit, void *userdata,
                 struct failure *failure) {
        struct selection selection;
        struct device_view view;
        struct device *device;
        int r;

        r = selection_begin(&selection, caller, name, 0, 0, failure);
        if (r < 0)
                return r;
        while ((device = selection_next(&selection, HANDLE_DEVICE))) {
                if (!selection_has(&selection, device->owner, device) || device_is_hidden(device, caller))
                        continue;
                device_look(device, &view);
                if (visit(&view, userdata))
                        break;
        }
        return 0;
}
