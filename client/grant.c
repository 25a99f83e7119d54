/* Grants of Xen's, as the daemon lists them. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/result.h"
#include "client/session.h"

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
