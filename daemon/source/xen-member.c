#include "daemon/source/xen-member.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int member_add(struct xen_members *members, const struct xen_domain *domain, struct xen_member **ret) {
        struct xen_member **all = realloc(members->all, (members->n + 1) * sizeof(*all)), *member;
        size_t at = 0;
        int r;

        if (!all)
                return -ENOMEM;
        members->all = all;
        member = calloc(1, sizeof(*member));
        if (!member)
                return -ENOMEM;
        member->domain = *domain;
        member->table.n = domain->grant_frames * XEN_ENTRIES_PER_FRAME;
        r = xen_domain_map_table(members->host, domain, &member->table.entries, &member->handle);
        if (r < 0) {
                free(member);
                return r;
        }
        member->seat = (struct xen_seat){ .domid = domain->domid, .table = &member->table };
        xen_grants_enter_table(&member->seat);
        while (at < members->n && all[at]->domain.number < domain->number)
                at++;
        memmove(&all[at + 1], &all[at], (members->n - at) * sizeof(*all));
        all[at] = member;
        members->n++;
        *ret = member;
        return 0;
}

static void member_free(struct xen_members *members, struct xen_member *member) {
        xen_grants_leave_table(&member->seat);
        xen_domain_unmap_table(members->host, member->handle);
        free(member);
}

int xen_members_find(struct xen_members *members) {
        struct xen_domain *domains = NULL;
        struct xen_member *member;
        size_t n = 0;
        int r = xen_domains_find(members->host, members->identity, &domains, &n);

        for (size_t i = 0; i < n && r == 0; i++) {
                if (domains[i].is_dying)
                        continue;
                r = xen_domain_limit(members->host, &domains[i]);
                if (r == 0)
                        r = member_add(members, &domains[i], &member);
        }
        free(domains);
        return r;
}

void xen_members_deinit(struct xen_members *members, bool give) {
        for (size_t i = 0; i < members->n; i++) {
                if (give && !members->all[i]->is_gone)
                        xen_domain_destroy(members->host, &members->all[i]->domain);
                member_free(members, members->all[i]);
        }
        free(members->all);
        members->all = NULL;
        members->n = 0;
}

static bool is_listed(const struct xen_member *member, const struct xen_domain *domains, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (domains[i].domid == member->domain.domid && domains[i].number == member->domain.number)
                        return !domains[i].is_dying;
        return false;
}

/* *ret: all that Xen lists, also those that are dying; malloc()ed. */
static int list(struct xen_members *members, struct xen_domain **ret, size_t *ret_n) {
        int r = xen_domains_find(members->host, members->identity, ret, ret_n);

        for (size_t i = 0; i < members->n && r == 0; i++)
                members->all[i]->is_gone |= !is_listed(members->all[i], *ret, *ret_n);
        return r;
}

int xen_members_look(struct xen_members *members) {
        struct xen_domain *domains = NULL;
        size_t n = 0;
        int r = list(members, &domains, &n);

        free(domains);
        return r;
}

void xen_members_sweep(struct xen_members *members) {
        size_t n = 0;

        for (size_t i = 0; i < members->n; i++) {
                struct xen_member *member = members->all[i];

                if (member->n_grains || (!member->is_gone && xen_domain_destroy(members->host, &member->domain) < 0))
                        members->all[n++] = member;
                else
                        member_free(members, member);
        }
        members->n = n;
}

struct xen_member *xen_members_of(const struct xen_members *members, uint32_t number) {
        for (size_t i = 0; i < members->n; i++)
                if (members->all[i]->domain.number == number)
                        return members->all[i];
        return NULL;
}

/* ---- room ---- */

static uint64_t room_of(const struct xen_domain *domain) {
        const uint64_t capacity = xen_domain_capacity(domain);

        return capacity > domain->pages ? (capacity - domain->pages) / XEN_GRAIN_PAGES : 0;
}

uint64_t xen_member_room(const struct xen_member *member) {
        return member->is_gone ? 0 : room_of(&member->domain);
}

static struct xen_domain another(const struct xen_members *members) {
        return (struct xen_domain){ .grant_frames = (uint32_t)members->options->grant_frames };
}

uint64_t xen_members_capacity(const struct xen_members *members) {
        const struct xen_domain domain = another(members);

        return xen_domain_capacity(&domain);
}

uint64_t xen_members_room(const struct xen_members *members) {
        const struct xen_domain domain = another(members);
        uint64_t room = 0;

        for (size_t i = 0; i < members->n; i++)
                room += xen_member_room(members->all[i]);
        if (members->n < members->options->domains)
                room += (members->options->domains - members->n) * room_of(&domain);
        return room * XEN_GRAIN;
}

/* The number of one that is dying still is in use. By number. */
static uint32_t free_number(const struct xen_domain *domains, size_t n) {
        uint32_t number = 0;

        for (size_t i = 0; i < n; i++)
                number += domains[i].number == number;
        return number;
}

static int member_make(struct xen_members *members, struct xen_member **ret, struct failure *failure) {
        struct xen_domain *domains = NULL, made;
        size_t n = 0;
        uint32_t number;
        int r;

        r = list(members, &domains, &n);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r, "Xen does not list its domains: %s",
                                         strerror(-r));
        number = free_number(domains, n);
        free(domains);
        if (n >= members->options->domains || number >= XEN_DOMAINS_MAX)
                return failure_set(failure, REASON_limit,
                                   "there are %zu domains for memory already: raise domains or grant_frames in [source "
                                   "xen]", n);
        r = xen_domain_create(members->host, members->identity, number, (uint32_t)members->options->grant_frames, &made,
                              failure);
        if (r < 0)
                return r;
        r = member_add(members, &made, ret);
        if (r < 0) {
                xen_domain_destroy(members->host, &made);
                return failure_set_errno(failure, REASON_source_unavailable, -r,
                                         "the grant table of a domain for memory cannot be mapped: %s", strerror(-r));
        }
        return 0;
}

int xen_members_pick(struct xen_members *members, uint64_t pages, struct xen_member **ret, struct failure *failure) {
        struct xen_member *most = NULL;
        struct failure why = { 0 };
        int r;

        for (size_t i = 0; i < members->n; i++) {
                struct xen_member *member = members->all[i];

                if (xen_member_room(member) > (most ? xen_member_room(most) : 0))
                        most = member;
                if (xen_member_room(member) * XEN_GRAIN_PAGES >= pages) {
                        *ret = member;
                        return 0;
                }
        }
        r = member_make(members, ret, &why);
        if (r < 0 && most) {
                *ret = most;
                return 0;
        }
        if (r < 0 && failure)
                *failure = why;
        return r;
}
