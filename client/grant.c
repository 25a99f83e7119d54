/* Grants of Xen's: what the daemon lists of them, and those by which this process shares memory with a guest. It maps them by
 * devices of its own: the daemon only says that it may, and counts. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/error.h"
#include "client/fork.h"
#include "client/params.h"
#include "client/result.h"
#include "client/session.h"
#include "client/xen-device.h"
#include "proto/methods.h"

enum { MESSAGE_REST = 256 }; /* of a message, beside the parameters */

/* ---- listing ---- */

typedef int (*grant_visit_fn)(const struct dmab_grant_info *info, void *userdata);

static const char *text_of(json_t *item, const char *name) {
        const char *text = json_string_value(json_object_get(item, name));

        return text ? text : "";
}

static uint64_t number_of(json_t *item, const char *name, uint64_t otherwise) {
        json_t *value = json_object_get(item, name);

        return json_is_integer(value) ? (uint64_t)json_integer_value(value) : otherwise;
}

static enum dmab_direction direction_of(const char *word) {
        return strcmp(word, "to_device") == 0     ? DMAB_TO_DEVICE
               : strcmp(word, "from_device") == 0 ? DMAB_FROM_DEVICE
                                                  : DMAB_BIDIRECTIONAL;
}

static struct dmab_grant_run *read_runs(json_t *refs) {
        struct dmab_grant_run *runs = calloc(json_array_size(refs) + 1, sizeof(*runs));
        json_t *run;
        size_t i;

        if (runs)
                json_array_foreach(refs, i, run)
                        runs[i] = (struct dmab_grant_run){ .domain = (uint32_t)number_of(run, "domain", 0),
                                                           .first = (uint32_t)number_of(run, "first", 0),
                                                           .count = (uint32_t)number_of(run, "count", 0) };
        return runs;
}

static int visit_one(json_t *item, grant_visit_fn fn, void *userdata) {
        struct dmab_grant_run *runs = read_runs(json_object_get(item, "refs"));
        const struct dmab_grant_info info = {
                .grant = number_of(item, "grant", 0),
                .owner = text_of(item, "owner"),
                .guest = text_of(item, "guest"),
                .domain = (uint32_t)number_of(item, "domain", 0),
                .kind = text_of(item, "kind"),
                .state = text_of(item, "state"),
                .direction = direction_of(text_of(item, "direction")),
                .pages = number_of(item, "pages", 0),
                .in_use = number_of(item, "in_use", UINT64_MAX),
                .age_ms = number_of(item, "age_ms", 0),
                .runs = runs,
                .n_runs = json_array_size(json_object_get(item, "refs")),
        };
        int r = runs ? fn(&info, userdata) : error_set(ENOMEM, "there is not enough memory");

        free(runs);
        return r;
}

/* *after: the last one that was told; *ret_more: there are others behind it. */
static int visit_page(struct dmab *dmab, const char *guest, uint64_t *after, bool *ret_more, grant_visit_fn fn, void *userdata) {
        json_t *params = json_pack("{s:I,s:s*}", "after", (json_int_t)*after, "guest", guest), *item;
        struct link_request request = { .method = "grant.list", .repeat = LINK_AGAIN };
        struct link_reply reply = { 0 };
        char *text = params ? json_dumps(params, JSON_COMPACT) : NULL;
        size_t i;
        int r;

        json_decref(params);
        request.params = text;
        r = text ? link_call(dmab->link, &request, &reply) : error_set(EINVAL, "the name of a guest must be UTF-8");
        free(text);
        *ret_more = !r && json_is_true(json_object_get(reply.result, "more"));
        json_array_foreach(r ? NULL : json_object_get(reply.result, "grants"), i, item) {
                *after = number_of(item, "grant", UINT64_MAX);
                r = visit_one(item, fn, userdata);
                if (r)
                        break;
        }
        link_reply_release(&reply);
        return r;
}

int dmab_grant_visit(dmab_t *dmab, const char *guest, grant_visit_fn fn, void *userdata) {
        uint64_t after = 0;
        bool more = true;
        int r = session_check(dmab);

        while (!r && more)
                r = visit_page(dmab, guest, &after, &more, fn, userdata);
        return r;
}

/* ---- mapping ---- */

struct dmab_grant {
        struct dmab *dmab;
        struct dmab_grant *next, **pprev; /* in dmab->grants */
        uint64_t handle;
        void *memory;
        size_t size;
        struct dmab_grant_run *runs;
        size_t n_runs;
};

static const char *const direction_words[] = {
        [DMAB_BIDIRECTIONAL] = "bidirectional", [DMAB_TO_DEVICE] = "to_device", [DMAB_FROM_DEVICE] = "from_device",
};

static int no_memory(void) {
        return error_set(ENOMEM, "there is not enough memory");
}

static int check_arguments(const struct dmab *dmab, const char *guest, size_t size, enum dmab_direction direction,
                           const struct dmab_grant_options *given, struct dmab_grant_options *ret) {
        int r = session_check(dmab);

        *ret = (struct dmab_grant_options)DMAB_GRANT_OPTIONS_INIT;
        if (!r && given)
                r = session_copy_struct(ret, sizeof(*ret), given, "struct dmab_grant_options");
        if (r)
                return r;
        if (!guest || !size || (unsigned)direction > DMAB_FROM_DEVICE)
                return error_set(EINVAL, "a guest, at least one page and a direction are needed");
        if (ret->notify != DMAB_NO_NOTIFY && ret->notify >= size)
                return error_set(EINVAL, "notify is %" PRIu64 ", beyond the %zu bytes", ret->notify, size);
        return 0;
}

/* More than the daemon takes is told here, and not sent: messages have an end. */
static int check_pages(size_t n) {
        if (n <= PROTOCOL_REFS_MAX)
                return 0;
        return error_set_reason(E2BIG, "limit", "%zu pages are too many for one grant, which has at most %d", n,
                                PROTOCOL_REFS_MAX);
}

static int check_length(const struct dmab *dmab, const char *text) {
        if (strlen(text) + MESSAGE_REST <= link_limits(dmab->link).message_bytes)
                return 0;
        return error_set_reason(E2BIG, "limit", "the parameters have %zu bytes, too many for a message to this daemon: ask for "
                                "fewer pages at a time", strlen(text));
}

/* Consumes params, which may be NULL. */
static int call_with(struct dmab *dmab, const char *method, json_t *params, struct link_reply *reply) {
        struct link_request request = { .method = method, .repeat = LINK_KEYED };
        char key[LINK_KEY_SIZE], *text = NULL;
        int r;

        link_make_key(dmab->link, key);
        if (params && !json_object_set_new(params, "request_key", json_string(key)))
                text = json_dumps(params, JSON_COMPACT);
        json_decref(params);
        request.params = text;
        r = text ? check_length(dmab, text) : error_set(EINVAL, "the name of a guest must be UTF-8, and there must be memory");
        if (!r)
                r = link_call(dmab->link, &request, reply);
        free(text);
        return r;
}

static int tell_unmapped(struct dmab *dmab, uint64_t handle) {
        struct link_request request = { .method = "grant.unmap", .repeat = LINK_RELEASE };
        struct link_reply reply = { 0 };
        struct params params;
        int r;

        params_begin(&params);
        params_uint(&params, "grant", handle);
        params_end(&params);
        request.params = params.text;
        r = link_call(dmab->link, &request, &reply);
        link_reply_release(&reply);
        return r;
}

/* The first failure is what is told. */
static void take_back(struct dmab *dmab, uint64_t handle) {
        struct error_state *saved = error_save();

        tell_unmapped(dmab, handle);
        error_restore(saved);
}

static int map_at(int fd, size_t size, bool is_readonly, void **ret) {
        int r = fork_map(fd, 0, size, is_readonly ? PROT_READ : PROT_READ | PROT_WRITE, ret);

        return r ? error_set_reason(-r, "source_unavailable", "%zu bytes of granted pages cannot be mapped: %s", size,
                                    strerrordesc_np(-r))
                 : 0;
}

static int set_notify(int fd, uint64_t at) {
        struct ioctl_gntdev_unmap_notify notify = { .index = at, .action = UNMAP_NOTIFY_CLEAR_BYTE };

        if (at != DMAB_NO_NOTIFY && ioctl(fd, IOCTL_GNTDEV_SET_UNMAP_NOTIFY, &notify) < 0)
                return error_set(errno, "the byte at %" PRIu64 " cannot be made one that the kernel clears: %s", at,
                                 strerrordesc_np(errno));
        return 0;
}

/* With an opened gntdev, of which nothing was mapped yet. */
static int map_refs(int fd, uint32_t domain, const uint32_t *refs, size_t n, bool is_readonly, uint64_t notify, void **ret) {
        struct ioctl_gntdev_map_grant_ref *request = calloc(1, sizeof(*request) + n * sizeof(request->refs[0]));
        int r = 0;

        if (!request)
                return no_memory();
        request->count = (uint32_t)n;
        for (size_t i = 0; i < n; i++)
                request->refs[i] = (struct ioctl_gntdev_grant_ref){ .domid = domain, .ref = refs[i] };
        if (ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, request) < 0)
                r = error_set_reason(errno, "source_unavailable", XEN_GRANTS " does not take %zu pages: %s; see the parameter "
                                     "`limit` of xen_gntdev", n, strerrordesc_np(errno));
        free(request);
        if (!r)
                r = set_notify(fd, notify);
        return r ? r : map_at(fd, n * XEN_PAGE, is_readonly, ret);
}

static int map_own(uint32_t domain, const uint32_t *refs, size_t n, bool is_readonly, uint64_t notify, void **ret) {
        struct fork_file file = { .fd = -1 };
        int r = fork_file_open(&file, XEN_GRANTS, O_RDWR | O_CLOEXEC);

        if (r)
                return error_set_reason(-r, "source_unavailable", XEN_GRANTS " cannot be opened: %s; is xen_gntdev "
                                        "loaded, and may this user open it?", strerrordesc_np(-r));
        r = map_refs(file.fd, domain, refs, n, is_readonly, notify, ret);
        fork_file_close(&file);
        return r;
}

static struct dmab_grant *grant_new(struct dmab *dmab, size_t size, size_t n_runs) {
        struct dmab_grant *grant = calloc(1, sizeof(*grant));

        if (grant)
                grant->runs = calloc(n_runs + 1, sizeof(*grant->runs));
        if (!grant || !grant->runs) {
                free(grant);
                return NULL;
        }
        grant->dmab = dmab;
        grant->size = size;
        return grant;
}

static void grant_enter(struct dmab_grant *grant) {
        struct dmab *dmab = grant->dmab;

        pthread_mutex_lock(&dmab->lock);
        grant->next = dmab->grants;
        grant->pprev = &dmab->grants;
        if (grant->next)
                grant->next->pprev = &grant->next;
        dmab->grants = grant;
        pthread_mutex_unlock(&dmab->lock);
}

static void grant_free(struct dmab_grant *grant) {
        free(grant->runs);
        free(grant);
}

static void note_ref(struct dmab_grant *grant, uint32_t domain, uint32_t ref) {
        struct dmab_grant_run *last = grant->n_runs ? &grant->runs[grant->n_runs - 1] : NULL;

        if (last && last->first + last->count == ref)
                last->count++;
        else
                grant->runs[grant->n_runs++] = (struct dmab_grant_run){ .domain = domain, .first = ref, .count = 1 };
}

/* They are not mapped yet. */
static int ask_to_map(struct dmab *dmab, const char *guest, const uint32_t *refs, size_t n, enum dmab_direction direction,
                      uint64_t *ret_handle, uint64_t *ret_domain) {
        json_t *params = json_pack("{s:s,s:s}", "guest", guest, "direction", direction_words[direction]), *list = json_array();
        struct link_reply reply = { 0 };
        bool failed = !params || !list;
        int r;

        for (size_t i = 0; i < n && !failed; i++)
                failed = json_array_append_new(list, json_integer(refs[i])) != 0;
        if (failed) {
                json_decref(params);
                json_decref(list);
                return error_set(EINVAL, "the name of a guest must be UTF-8, and there must be memory");
        }
        json_object_set_new(params, "refs", list);
        r = call_with(dmab, "grant.map", params, &reply);
        if (!r)
                r = result_uint(reply.result, "grant", ret_handle);
        if (!r)
                r = result_uint(reply.result, "domain", ret_domain);
        link_reply_release(&reply);
        return r;
}

int dmab_grant_map(dmab_t *dmab, const char *guest, const uint32_t *refs, size_t n, enum dmab_direction direction,
                   const struct dmab_grant_options *options, void **ret_vaddr, dmab_grant_t **ret) {
        struct dmab_grant_options known;
        struct dmab_grant *grant;
        uint64_t domain = 0;
        int r = check_pages(n);

        if (!r)
                r = check_arguments(dmab, guest, refs ? n * XEN_PAGE : 0, direction, options, &known);
        if (!r && direction == DMAB_TO_DEVICE && known.notify != DMAB_NO_NOTIFY)
                r = error_set(EINVAL, "in pages that are only read the kernel clears no byte");
        if (r)
                return r;
        grant = grant_new(dmab, n * XEN_PAGE, n);
        if (!grant)
                return no_memory();
        r = ask_to_map(dmab, guest, refs, n, direction, &grant->handle, &domain);
        if (!r) {
                r = map_own((uint32_t)domain, refs, n, direction == DMAB_TO_DEVICE, known.notify, &grant->memory);
                if (r)
                        take_back(dmab, grant->handle);
        }
        if (r) {
                grant_free(grant);
                return r;
        }
        for (size_t i = 0; i < n; i++)
                note_ref(grant, (uint32_t)domain, refs[i]);
        grant_enter(grant);
        *ret_vaddr = grant->memory;
        *ret = grant;
        return 0;
}

/* ---- sharing ---- */

static int take_shared(struct dmab *dmab, struct link_reply *reply, struct dmab_grant **ret) {
        json_t *refs = json_object_get(reply->result, "refs"), *run;
        uint64_t handle = 0, size = 0;
        struct dmab_grant *grant;
        size_t i;
        int r = result_uint(reply->result, "grant", &handle);

        if (!r)
                r = result_uint(reply->result, "size", &size);
        if (!r && !reply->n_fds)
                r = error_set(EPROTO, "no descriptor came with the pages");
        if (r)
                return r;
        grant = grant_new(dmab, size, json_array_size(refs));
        r = grant ? map_at(reply->fds[0], size, false, &grant->memory) : no_memory();
        if (r) {
                if (grant)
                        grant_free(grant);
                take_back(dmab, handle);
                return r;
        }
        grant->handle = handle;
        json_array_foreach(refs, i, run)
                grant->runs[grant->n_runs++] = (struct dmab_grant_run){ .domain = (uint32_t)number_of(run, "domain", 0),
                                                                        .first = (uint32_t)number_of(run, "first", 0),
                                                                        .count = (uint32_t)number_of(run, "count", 0) };
        *ret = grant;
        return 0;
}

int dmab_grant_share(dmab_t *dmab, const char *guest, size_t size, enum dmab_direction direction,
                     const struct dmab_grant_options *options, void **ret_vaddr, dmab_grant_t **ret) {
        struct dmab_grant_options known;
        struct dmab_grant *grant = NULL;
        struct link_reply reply = { 0 };
        int r = check_pages(size / XEN_PAGE + (size % XEN_PAGE != 0));

        if (!r)
                r = check_arguments(dmab, guest, size, direction, options, &known);
        /* The kernel would wait for whoever else has them, and that is the daemon, until the session has ended. */
        if (!r && known.notify != DMAB_NO_NOTIFY)
                r = error_set(EINVAL, "notify is for pages that are mapped: in those that are shared no byte tells when this "
                              "process ends");
        if (r)
                return r;
        if (!link_takes_fds(dmab->link))
                return error_set_reason(EOPNOTSUPP, "unsupported", "only dom0 shares pages with its guests");
        r = call_with(dmab, "grant.share", json_pack("{s:s,s:I,s:s}", "guest", guest, "size", (json_int_t)size, "direction",
                                                     direction_words[direction]), &reply);
        if (!r)
                r = take_shared(dmab, &reply, &grant);
        link_reply_release(&reply);
        if (r)
                return r;
        grant_enter(grant);
        *ret_vaddr = grant->memory;
        *ret = grant;
        return 0;
}

/* ---- ending ---- */

const struct dmab_grant_run *dmab_grant_runs(const dmab_grant_t *grant, size_t *ret_n) {
        *ret_n = grant->n_runs;
        return grant->runs;
}

uint64_t dmab_grant_handle(const dmab_grant_t *grant) {
        return grant->handle;
}

int dmab_grant_unmap(dmab_grant_t *grant) {
        struct dmab *dmab = grant->dmab;
        int r = session_check(dmab);

        if (r)
                return r;
        pthread_mutex_lock(&dmab->lock);
        *grant->pprev = grant->next;
        if (grant->next)
                grant->next->pprev = grant->pprev;
        pthread_mutex_unlock(&dmab->lock);
        munmap(grant->memory, grant->size);
        r = tell_unmapped(dmab, grant->handle);
        grant_free(grant);
        return r;
}

void grants_forget(struct dmab *dmab) {
        struct dmab_grant *grant, *next;

        for (grant = dmab->grants; grant; grant = next) {
                next = grant->next;
                /* A child of a fork has not inherited it. */
                if (!session_check(dmab))
                        munmap(grant->memory, grant->size);
                grant_free(grant);
        }
        dmab->grants = NULL;
}
