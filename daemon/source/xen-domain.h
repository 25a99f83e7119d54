/* Memory domains: domains of Xen's that never run, and have memory of which this dom0 disposes. They are
 * paravirtualised, so that the numbers of their frames are those of the machine's. They outlive the daemon, and are
 * known by their UUID: whose they are (xen-identity.h), which one of them it is, and how large its grant table may
 * become.
 *
 * Which frames a domain has is not to be had from Xen. But Xen notes for every frame of the machine what its domain
 * calls it, and shows these notes to dom0; a memory domain calls its frames by names that nobody else uses. A
 * paravirtualised guest could write such a name to the note of a frame of its own, so what is found counts only when it
 * can be mapped as the memory domain's.
 *
 * All functions may block for as long as Xen takes, and none needs xenstore. A host belongs to one thread at a time; but
 * xen_domain_zero(), _read(), _write() and _owns() may be called from any. */
#ifndef DMAB_SOURCE_XEN_DOMAIN_H
#define DMAB_SOURCE_XEN_DOMAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

enum {
        XEN_PAGE = 4096,
        XEN_DOMAINS_MAX = 4096,         /* numbers of one daemon's */
        XEN_GRANT_FRAMES_MAX = 65535,
        XEN_ENTRIES_PER_FRAME = 512,    /* of the first version */
        XEN_ENTRIES_RESERVED = 8,       /* at the beginning of each table: Xen's own */
        XEN_ORDER_MAX = 18,             /* 1 GiB: what Xen gives a dom0 in one piece */
        XEN_MAP_PAGES = 16384,          /* mapped at a time: 64 MiB */
        XEN_BITS_MAX = 44,              /* of an address in an entry of the first version */
};

struct xen_host;

struct xen_domain {
        uint32_t domid;
        uint32_t number;       /* below XEN_DOMAINS_MAX */
        uint32_t grant_frames;
        uint64_t pages;        /* that it has */
        bool is_dying;
};

/* Any domain, whosever it is. */
struct xen_listed {
        uint32_t domid;
        uint8_t uuid[16];
        bool is_pv, is_paused;
        bool is_dying;     /* it has nothing any more; while it is being destroyed nothing tells */
        bool is_running;   /* at this moment */
        uint64_t ran_ns;   /* in all */
        bool is_down;      /* it has shut down, and is there until somebody destroys it */
        unsigned why_down; /* SHUTDOWN_... of Xen's */
};

/* The way to the hypervisor. *ret_about, unless it is NULL: "Xen 4.17", until it is closed. -errno with a sentence. */
int xen_host_open(struct xen_host **ret, const char **ret_about, struct failure *failure);
/* Returns NULL; NULL is fine. */
struct xen_host *xen_host_close(struct xen_host *host);
/* Bytes that no domain has (xen-free.h has them at hand). 0 if Xen does not tell. */
uint64_t xen_host_free(struct xen_host *host);

/* All that there are, dom0 and dying ones included: *ret is malloc()ed. -errno. */
int xen_host_list(struct xen_host *host, struct xen_listed **ret, size_t *ret_n);
/* This one. -ENOENT: there is none of that number; -errno. */
int xen_host_look(struct xen_host *host, uint32_t domid, struct xen_listed *ret);
/* Likewise if it has this UUID, in small letters; else -ENOENT, too. It may be dying, or down. */
int xen_host_look_guest(struct xen_host *host, uint32_t domid, const char *uuid, struct xen_listed *ret);
/* In small letters. */
void xen_write_uuid(const uint8_t uuid[16], char ret[37]);
/* Those of this identity that there are, dying ones included, by number: *ret is malloc()ed. -errno. */
int xen_domains_find(struct xen_host *host, uint64_t identity, struct xen_domain **ret, size_t *ret_n);
/* A new one without memory. -errno with a sentence. */
int xen_domain_create(struct xen_host *host, uint64_t identity, uint32_t number, uint32_t grant_frames,
                      struct xen_domain *ret,
                      struct failure *failure);
/* It and its memory, which Xen scrubs; what guests still have mapped stays until they have not. -errno. */
int xen_domain_destroy(struct xen_host *host, const struct xen_domain *domain);
/* How many pages it may have, so that each can be granted. */
uint64_t xen_domain_capacity(const struct xen_domain *domain);
/* Tell Xen so: whoever made one that is found may have been killed before that. -errno. */
int xen_domain_limit(struct xen_host *host, const struct xen_domain *domain);

/* 1 << order pages more, contiguous and aligned in the machine, with addresses of at most so many bits; not zeroed.
 * -ENOSPC: not so many in one piece; -errno. */
int xen_domain_populate(struct xen_host *host, struct xen_domain *domain, unsigned order, unsigned bits, uint64_t *ret_frame);
/* The reverse. Nobody may have them mapped. -errno: the domain has them still. */
int xen_domain_give_back(struct xen_host *host, struct xen_domain *domain, uint64_t frame, unsigned order);

/* Every frame that seems to be a memory domain's, in ascending order. -errno, also of visit(), which ends it. */
int xen_host_scan(struct xen_host *host, int (*visit)(void *userdata, uint32_t number, uint64_t frame), void *userdata);

/* What Xen notes of each of these frames, whosever it is: what its domain calls it. -ENXIO: the machine has not all of them;
 * -errno. */
int xen_host_names(struct xen_host *host, const uint64_t *frames, size_t n, uint64_t *ret);

/* Its grant table, mapped until xen_domain_unmap_table(). -errno. */
int xen_domain_map_table(struct xen_host *host, const struct xen_domain *domain, void **ret, void **ret_handle);
void xen_domain_unmap_table(struct xen_host *host, void *handle);

/* ---- memory of a domain's, in pieces that are mapped no longer than it takes ---- */

/* Whether all of these frames are the domain's. 0; -ENXIO: *ret_frame is not; -errno. */
int xen_domain_owns(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t count, uint64_t *ret_frame);
/* Which of these are: ret[i]. At most XEN_MAP_PAGES. -errno. */
int xen_domain_owns_each(const struct xen_host *host, uint32_t domid, const uint64_t *frames, uint64_t n, bool *ret);
/* Bytes from the beginning of a frame on. -errno. */
int xen_domain_zero(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t offset, uint64_t size);
int xen_domain_read(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t offset, void *buffer,
                    uint64_t size);
int xen_domain_write(const struct xen_host *host, uint32_t domid, uint64_t frame, uint64_t offset, const void *buffer,
                     uint64_t size);

#endif
