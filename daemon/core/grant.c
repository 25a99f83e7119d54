/* Grants of Xen's between a guest and whoever serves it on this host: who may map which pages of the other. The core only keeps
 * the books of that, for as long as the session lives that asked for it; whoever watches does the rest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/core/objects.h"

static uint64_t count_pages(const struct grant_run *runs, size_t n) {
        uint64_t sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += runs[i].count;
        return sum;
}

static void grant_enter(struct grant *grant) {
        struct owner *owner = grant->session->owner;

        DL_APPEND(grant->session->grants, grant);
        DL_APPEND2(owner->broker->grants, grant, broker_prev, broker_next);
        owner->usage.of[QUOTA_grants] += grant->pages;
}

static int no_memory(struct failure *failure) {
        return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
}

/* ---- making ---- */

int grant_was_made(const struct caller *caller, const char *request_key, uint64_t request_digest, uint64_t *ret_handle,
                   struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct request_key *key;
        int r;

        if (!request_key)
                return 0;
        r = key_begin(owner, request_key, HANDLE_GRANT, request_digest, &key, failure);
        if (r == 1)
                *ret_handle = key->handle;
        else if (r == 0)
                key_forget(owner, key);
        return r;
}

int grant_may(const struct caller *caller, uint64_t pages, struct failure *failure) {
        return owner_check(caller->session->owner, QUOTA_grants, pages, failure);
}

static int grant_make(const struct caller *caller, const struct grant_request *ask, struct request_key *key,
                      struct grant **ret, struct failure *failure) {
        struct broker *broker = caller->session->owner->broker;
        struct grant *grant;

        /* The next daemon would take it for damage. */
        if (ask->pages == 0 || ask->pages > GRANT_PAGES_MAX || ask->n_runs > ask->pages)
                return failure_set(failure, REASON_bad_param, "A grant has 1 to %d pages", GRANT_PAGES_MAX);
        grant = calloc(1, sizeof(*grant) + ask->n_runs * sizeof(grant->runs[0]));
        if (!grant)
                return no_memory(failure);
        grant->session = caller->session;
        grant->kind = ask->kind;
        grant->direction = ask->direction;
        grant->domain = ask->domain;
        grant->pages = ask->pages;
        grant->n_runs = ask->n_runs;
        memcpy(grant->runs, ask->runs, ask->n_runs * sizeof(grant->runs[0]));
        grant->guest = strdup(ask->guest);
        if (!grant->guest || handle_new(&broker->handles, HANDLE_GRANT, grant, &grant->handle) < 0) {
                free(grant->guest);
                free(grant);
                return no_memory(failure);
        }
        grant->born_ms = now_ms(broker);
        grant->key = key;
        if (key)
                key->handle = grant->handle;
        *ret = grant;
        return 0;
}

int grant_new(const struct caller *caller, const struct grant_request *ask, uint64_t *ret_handle, struct failure *failure) {
        struct owner *owner = caller->session->owner;
        struct grant *grant = NULL;
        struct request_key *key;
        int r;

        r = key_begin(owner, ask->request_key, HANDLE_GRANT, ask->request_digest, &key, failure);
        if (r == 1)
                *ret_handle = key->handle;
        if (r != 0)
                return r;
        r = owner_check(owner, QUOTA_grants, ask->pages, failure);
        if (r == 0)
                r = grant_make(caller, ask, key, &grant, failure);
        if (r < 0) {
                key_forget(owner, key);
                return r;
        }
        grant_enter(grant);
        book_note(owner->broker, ROW_GRANT, grant->handle);
        *ret_handle = grant->handle;
        return 0;
}

/* ---- the ledger ---- */

void grant_save(struct row_writer *row, const struct grant *grant) {
        row_number(row, grant->session->id);
        row_text(row, grant->guest);
        row_number(row, grant->kind);
        row_number(row, grant->direction);
        row_number(row, grant->domain);
        row_number(row, grant->gone);
        row_number(row, grant->born_ms);
        row_number(row, grant->n_runs);
        for (size_t i = 0; i < grant->n_runs; i++) {
                row_number(row, grant->runs[i].first);
                row_number(row, grant->runs[i].count);
        }
        row_key(row, grant->key);
}

static int read_runs(struct load *load, struct grant *grant) {
        for (size_t i = 0; i < grant->n_runs; i++) {
                const uint64_t first = row_read_number(&load->row), count = row_read_number(&load->row);

                if (first > UINT32_MAX || count == 0 || count > GRANT_PAGES_MAX || count - 1 > UINT32_MAX - first)
                        return -EBADMSG;
                grant->runs[i] = (struct grant_run){ .first = (uint32_t)first, .count = (uint32_t)count };
        }
        grant->pages = count_pages(grant->runs, grant->n_runs);
        return load->row.failed || grant->pages == 0 || grant->pages > GRANT_PAGES_MAX ? -EBADMSG : 0;
}

static void grant_free(struct grant *grant) {
        if (grant)
                free(grant->guest);
        free(grant);
}

static int grant_read(struct load *load, struct grant **ret) {
        struct grant like = { .session = load_session(load), .handle = load->id }, *grant;
        const char *guest = row_read_text(&load->row);
        uint64_t kind, domain, n;

        if (!like.session)
                return -ENOENT;
        like.guest = strdup(guest ? guest : "");
        kind = row_read_number(&load->row);
        like.kind = (enum grant_kind)kind;
        like.direction = load_direction(load);
        domain = row_read_number(&load->row);
        like.domain = (uint32_t)domain;
        like.gone = row_read_number(&load->row);
        like.born_ms = row_read_number(&load->row);
        n = row_read_number(&load->row);
        if (load->row.failed || kind > GRANT_SHARE || domain == 0 || domain > GRANT_DOMAIN_MAX || n > GRANT_PAGES_MAX) {
                free(like.guest);
                return -EBADMSG;
        }
        grant = like.guest ? malloc(sizeof(*grant) + n * sizeof(grant->runs[0])) : NULL;
        if (!grant) {
                free(like.guest);
                return -ENOMEM;
        }
        memcpy(grant, &like, sizeof(like));
        grant->n_runs = n;
        *ret = grant;
        return read_runs(load, grant);
}

int grant_load(struct load *load) {
        struct grant *grant = NULL;
        int r = grant_read(load, &grant);

        if (r == 0)
                r = handle_restore(&load->broker->handles, HANDLE_GRANT, grant, load->id);
        if (r < 0) {
                grant_free(grant);
                return r;
        }
        grant->key = load_key(load, grant->session->owner, HANDLE_GRANT);
        grant_enter(grant);
        return 0;
}

/* ---- ending ---- */

static void grant_finish(struct grant *grant) {
        struct owner *owner = grant->session->owner;
        struct broker *broker = owner->broker;
        const uint64_t handle = grant->handle;

        DL_DELETE(grant->session->grants, grant);
        DL_DELETE2(broker->grants, grant, broker_prev, broker_next);
        owner->usage.of[QUOTA_grants] -= grant->pages;
        key_forget(owner, grant->key);
        handle_release(&broker->handles, handle, owner->id);
        book_note(broker, ROW_GRANT, handle);
        grant_free(grant);
        if (broker->grant_ended)
                broker->grant_ended(broker->grant_userdata, handle);
}

static int grant_find(const struct caller *caller, uint64_t handle, struct grant **ret, struct failure *failure) {
        struct grant *grant = handle_find(&caller->session->owner->broker->handles, HANDLE_GRANT, handle);

        if (!grant || (grant->session->owner != caller->session->owner && !caller->admin))
                return handle_not_found(caller, HANDLE_GRANT, handle, failure);
        *ret = grant;
        return 0;
}

int grant_end(const struct caller *caller, uint64_t handle, struct failure *failure) {
        struct grant *grant = NULL;
        int r = grant_find(caller, handle, &grant, failure);

        if (r == 0)
                grant_finish(grant);
        return r;
}

void grants_end_session(struct session *session) {
        struct event event = { .topic = EVENT_LEAK, .session = session, .owner = session->owner->name };

        while (session->grants) {
                event.count++;
                event.bytes += session->grants->pages * PAGE;
                grant_finish(session->grants);
        }
        if (event.count)
                event_tell(session->owner->broker, &event);
}

void broker_watch_grants(struct broker *broker, grant_ended_fn ended, void *userdata) {
        broker->grant_ended = ended;
        broker->grant_userdata = userdata;
}

static void tell_gone(const struct grant *grant) {
        const struct event event = {
                .topic = EVENT_RECALL, .session = grant->session, .owner = grant->session->owner->name, .grant = grant->handle,
                .name = grant->guest, .bytes = grant->pages * PAGE, .count = 1,
        };

        event_tell(grant->session->owner->broker, &event);
}

void grants_orphan(struct broker *broker, const char *guest, uint32_t domain) {
        struct grant *grant;

        DL_FOREACH2(broker->grants, grant, broker_next) {
                if (grant->gone || strcmp(grant->guest, guest) != 0 || (domain && grant->domain == domain))
                        continue;
                grant->gone = true;
                book_note(broker, ROW_GRANT, grant->handle);
                tell_gone(grant);
        }
}

/* ---- the outside's view ---- */

static void grant_look(const struct grant *grant, struct grant_view *ret) {
        *ret = (struct grant_view){
                .handle = grant->handle,
                .owner = grant->session->owner->name,
                .guest = grant->guest,
                .kind = grant->kind,
                .direction = grant->direction,
                .domain = grant->domain,
                .pages = grant->pages,
                .runs = grant->runs,
                .n_runs = grant->n_runs,
                .gone = grant->gone,
                .age_ms = now_ms(grant->session->owner->broker) - grant->born_ms,
        };
}

int grant_get(const struct caller *caller, uint64_t handle, struct grant_view *ret, struct failure *failure) {
        struct grant *grant = NULL;
        int r = grant_find(caller, handle, &grant, failure);

        if (r == 0)
                grant_look(grant, ret);
        return r;
}

int broker_visit_grants(const struct broker *broker, const char *owner, grant_visit_fn visit, void *userdata) {
        const struct grant *grant;
        struct grant_view view;
        int r = 0;

        for (grant = broker->grants; grant && r == 0; grant = grant->broker_next) {
                if (owner && strcmp(owner, grant->session->owner->name) != 0)
                        continue;
                grant_look(grant, &view);
                r = visit(&view, userdata);
        }
        return r;
}

/* ---- the books ---- */

uint64_t grants_count_pages(const struct owner *owner) {
        const struct session *session;
        const struct grant *grant;
        uint64_t sum = 0;

        DL_FOREACH(owner->sessions, session)
                DL_FOREACH(session->grants, grant)
                        sum += count_pages(grant->runs, grant->n_runs);
        return sum;
}
