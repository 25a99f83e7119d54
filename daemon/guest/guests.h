/* The guests that may have memory: who they are, whether they run, and what they see of it.
 *
 * Each guest of the configuration is an owner, kvm:UUID. It has a channel, at which its QEMU connects, and windows: each is one
 * region that is reserved for it, which our own ivshmem server gives to QEMU as a PCI device. They are plugged in through
 * libvirt, or through QEMU's monitor (QMP) where the configuration names one. The guest finds a window by the cookie in its
 * last page, which the daemon writes and never reads, and says where it sees it (guests_bind).
 *
 * A guest of Xen's is the owner xen:UUID. Its windows are granted to it: it maps them itself, by what window.list says. Where it
 * is told to let go of one, or has ended, the grants are revoked, and what it still has mapped is waited for.
 *
 * What can go wrong: the guest does not run, or nobody can be asked about it: then nothing is plugged in. It ends, however:
 * everything it has is released. It boots anew: its sessions end and its windows stay, to be bound again. It does not let go of a
 * window: that stays until it does. The daemon ends: the windows stay where they are, and the next daemon looks which of them
 * QEMU still has. It is not in the configuration any more: nobody is asked about it, and it is called by its UUID, until no
 * process has a window of it.
 *
 * All functions belong to the loop's thread. */
#ifndef DMAB_GUEST_GUESTS_H
#define DMAB_GUEST_GUESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "daemon/core/broker.h"
#include "daemon/source/xen-grants.h"

enum {
        GUEST_NAME_MAX = 63,
        GUEST_UUID_LENGTH = 36,
        /* At the end of each window: the cookie's. */
        WINDOW_TAIL = 4096,
        WINDOWS_MAX = 16, /* of one guest */
        EXCHANGE_FRAMES_MAX = 65536, /* at a time */
        EXCHANGE_ORDER_MAX = 16,
        /* What Xen gives a guest that asks it: with dom0's right alone it could have pieces that others need. */
        EXCHANGE_GUEST_ORDER_MAX = 9,
};
#define WINDOW_SIZE_MIN (UINT64_C(1) << 20)
#define WINDOW_SIZE_MAX (UINT64_C(1) << 40)

/* What the last page of a window begins with; the 16 bytes of the cookie follow. */
#define WINDOW_MAGIC "dmabroker-window"

struct guests;
struct keep;
struct machine_ops;

enum guest_state { GUEST_UNKNOWN, GUEST_OFF, GUEST_RUNNING, GUEST_PAUSED };
enum guest_via { GUEST_BY_LIBVIRT, GUEST_BY_QMP, GUEST_BY_XEN, GUEST_BY_NOBODY };
enum guest_change {
        GUEST_STARTED,
        GUEST_STOPPED,
        GUEST_REBOOTED,
        GUEST_ATTACHED,
        GUEST_DETACHED,
        GUEST_CONNECTED,
        GUEST_LEAVING, /* its programs are to let go of a window, where nobody else can take it from them */
};
/* Plugging: QEMU has been asked to take it in; leaving: the guest, to let go of it. */
enum window_state { WINDOW_RESERVING, WINDOW_PLUGGING, WINDOW_PLUGGED, WINDOW_LEAVING };

struct guest_view {
        const char *name, *uuid, *owner;
        enum guest_via via;  /* who is asked about it; nobody: it is not in the configuration */
        const char *channel; /* the path that QEMU connects to, or "" */
        enum guest_state state;
        const char *why; /* nobody can be asked about it: a sentence, or "" */
        uint64_t n_windows, window_bytes;
};

struct guest_window_view {
        const char *guest, *owner;
        uint64_t window, size; /* the handle of its region, and its bytes with the tail */
        const char *cookie;    /* 32 hexadecimal digits */
        const char *socket;    /* of its ivshmem server; NULL: QEMU has it from an earlier daemon */
        enum window_state state;
        bool is_bound;
        uint64_t guest_addr;
        bool is_xen;
        uint32_t domain; /* of Xen's: as which the guest was granted it; before that, as which it runs */
        uint64_t age_ms; /* of Xen's: since it was granted; 0: it has not been yet */
};

/* By what a guest of Xen's maps its window, in the order of its addresses, and how many bytes of it are mapped at this moment,
 * by whatever grants there were. */
struct guest_grants_view {
        const struct xen_grant_run *runs; /* until something else is done */
        size_t n;
        uint64_t mapped;
};

/* How much of a memory domain's grant table is used, in pages. */
struct guest_table_view {
        uint32_t domain;
        uint64_t entries;
        uint64_t granted;  /* to guests, which may map them */
        uint64_t mapped;   /* by guests at this moment */
        uint64_t revoking; /* which may not be mapped any more, but are still */
        uint64_t free;
};

/* What the configuration says of one guest; strings are copied. */
struct guest_definition {
        const char *name, *uuid;
        bool is_xen;           /* it is a domain of Xen's, which says itself what becomes of it */
        const char *qmp;       /* the monitor's socket, or NULL: libvirt is asked */
        const char *ports;     /* with qmp: free PCIe root ports by their ids, between commas; or NULL: QEMU chooses a slot */
        uint64_t window_bytes; /* that it gets whenever it starts, or 0: what the metadata of its domain says */
        bool has_quota;        /* there are limits for it: not those of its metadata */
};

struct guests_settings {
        const char *directory;   /* for sockets; is made */
        const char *libvirt_uri; /* or NULL: qemu:///system */
        bool has_user;           /* QEMU runs as this user; else as root, or as the daemon's own */
        uid_t uid;
        uint64_t unplug_ms; /* how long a guest may take to let go of a window */
        struct keep *keep;       /* of descriptors that outlive the daemon; borrowed; or NULL */
        const struct machine_ops *machines; /* NULL: systemd's; outlives it */
};

struct guests_listener {
        /* The guest's QEMU has connected; the descriptor is the callee's. */
        void (*channel)(void *userdata, const char *owner, int fd, pid_t pid, uid_t uid);
        /* This is the process of its QEMU, and nobody else is. 0: whoever is connected is to be heard no more. */
        void (*known)(void *userdata, const char *owner, pid_t pid);
        /* It has ended, or begun anew: the owner's sessions end now. */
        void (*ended)(void *userdata, const char *owner);
        /* What lies in one of its windows goes: the sessions of which session_is_user() is true end now. */
        void (*lost)(void *userdata);
        void (*changed)(void *userdata, const struct guest_view *view, enum guest_change change);
        /* A memory domain's grant table is nearly full, or is not any more: is_over. */
        void (*filling)(void *userdata, const struct guest_table_view *view, bool is_over);
};

/* The strings of settings are copied. */
int guests_new(uv_loop_t *loop, struct broker *broker, const struct guests_settings *settings, struct guests **ret);
/* Before guests_begin(). -EEXIST: its name or UUID is another's; -EINVAL: it has none; -ENOMEM. */
int guests_define(struct guests *guests, const struct guest_definition *definition);
/* What an earlier daemon has left is as it was, and everybody may come. After broker_load(). listener outlives it. */
int guests_begin(struct guests *guests, const struct guests_listener *listener, void *userdata, struct failure *failure);
/* leave: the next daemon goes on with what there is. Calls closed() when its handles are closed; then guests_free(). What is
 * under way is refused. */
void guests_close(struct guests *guests, bool leave, void (*closed)(void *userdata), void *userdata);
struct guests *guests_free(struct guests *guests); /* NULL is fine; also when guests_begin() was never called */

/* Whether this session is one of ours, by its note: it is nobody's to resume, and ends with its guest. */
bool guests_owns_session(const char *note);

/* Of the configuration. */
size_t guests_count(const struct guests *guests);
typedef int (*guest_visit_fn)(const struct guest_view *view, void *userdata);
int guests_visit(const struct guests *guests, guest_visit_fn visit, void *userdata);
/* By name or UUID. unknown_guest. */
int guests_get(const struct guests *guests, const char *guest, struct guest_view *ret, struct failure *failure);
/* By what it is called as an owner: of one UUID there may be guests of two hypervisors. -ENOENT. */
int guests_get_owner(const struct guests *guests, const char *owner, struct guest_view *ret);
typedef int (*guest_window_visit_fn)(const struct guest_window_view *view, void *userdata);
/* owner: only this one's, or NULL. with_left: also those that a guest has left: it shall not look for what it cannot have. */
int guests_visit_windows(const struct guests *guests, const char *owner, bool with_left, guest_window_visit_fn visit,
                         void *userdata);

/* false: there is no such window, or it is not granted. */
bool guests_look_grants(const struct guests *guests, uint64_t window, struct guest_grants_view *ret);

/* Of every memory domain, but not more than max. How many; none on a host without Xen. */
size_t guests_look_tables(struct guest_table_view *ret, size_t max);

/* ---- grants beside windows, of guests of Xen's ----
 *
 * The handle is that of a grant of the core's, which ends with grant_end(). */

struct guest_grant_request {
        const char *guest; /* by name or UUID */
        enum dma_direction direction;
        uint64_t pages;
        const struct grant_run *runs; /* of guests_map_grant() */
        size_t n_runs;
        const char *request_key;
        uint64_t request_digest;
};

/* Pages that the guest has granted to dom0, for the caller to map. Reasons: unknown_guest, unsupported (it is none of Xen's),
 * source_unavailable (it does not run, or that is not known), gone (it has just ended), bad_address (it has not granted them),
 * and those of grant_new(). What was made under the key is had whatever has become of the guest. */
int guests_map_grant(struct guests *guests, const struct caller *caller, const struct guest_grant_request *request,
                     uint64_t *ret_handle, struct failure *failure);
/* New pages of this host's, for the guest to map. Reasons: likewise, limit. */
int guests_share(struct guests *guests, const struct caller *caller, const struct guest_grant_request *request,
                 uint64_t *ret_handle, struct failure *failure);
/* A descriptor of these pages, the caller's, to be mapped from offset 0 on. Reasons: gone, limit. */
int guests_dup_share(const struct guests *guests, uint64_t grant, int *ret_fd, struct failure *failure);
/* For one answer: each domain's table is opened once, and no more than 1 GiB of pages are looked at. NULL: no memory. */
struct guests_use;
struct guests_use *guests_use_new(void);
/* Returns NULL; NULL is fine. */
struct guests_use *guests_use_free(struct guests_use *use);
/* How many pages of the grant are mapped at this moment. false: that cannot be read, or it is none that a guest has made. */
bool guests_look_use(struct guests_use *use, const struct grant_view *grant, uint64_t *ret);

struct attach_request {
        const char *guest;
        uint64_t size;
        uint64_t mask;           /* of the machine addresses of a guest of Xen's, or 0 */
        const char *request_key; /* one for each guest, beside those that it has itself; or NULL */
        uint64_t request_digest;
};

/* done gets the window's handle, or why there is none; the ticket is as one of the core's, but cancelled it only means that
 * nobody waits: what was begun goes on. Reasons: unknown_guest, bad_param, unsupported (a mask where
 * machine addresses are of no concern), limit, source_unavailable (it does not run, or QEMU
 * refuses), gone, timeout, busy (what was asked for with this key is not over), and those of device_reserve(). */
struct ticket *guests_attach(struct guests *guests, const struct attach_request *request, broker_done_fn done, void *userdata);
/* Likewise, with the same handle. From then on nothing is allocated in it, until the guest refuses. force: what lies in it is
 * freed, and the sessions that have something of that end. What rests in it is in nobody's way. Reasons: unknown_handle, busy,
 * timeout (the guest does not let go of it; the window is given back when it does), source_unavailable. */
struct ticket *guests_detach(struct guests *guests, uint64_t window, bool force, broker_done_fn done, void *userdata);

/* By the guest itself. Reasons: unknown_handle, bad_param, busy (things lie in it, by other addresses). */
int guests_bind(struct guests *guests, const char *owner, uint64_t window, uint64_t guest_addr, struct failure *failure);
/* Everything that the guest has is freed; its windows stay. unknown_guest. */
int guests_evict(struct guests *guests, const char *guest, struct failure *failure);

/* Frames of the machine's that a paravirtualised guest of Xen's has given up, for others: as many, in pieces of 1 << order that
 * follow one another. */
struct exchange_request {
        const char *guest;
        bool by_itself; /* it is the guest that asks */
        bool given_up;  /* an administrator says that it has given them up */
        const uint64_t *frames; /* the machine's numbers */
        size_t n_frames;
        const uint64_t *pfns; /* what the guest calls the first page of each piece; NULL: as it called what was there */
        size_t n_pfns;
        unsigned order;
        uint64_t mask; /* of machine addresses */
};

struct exchange_result {
        const uint64_t *extents; /* the first frame of each piece, in their order */
        size_t n_extents;        /* at least one; for the frames behind these nothing was done */
        const struct failure *why; /* these are not all, or something else is not as it should be; or NULL */
};
typedef void (*guests_exchange_fn)(void *userdata, const struct failure *failure, const struct exchange_result *result);
/* Xen is asked on a thread, and cannot be stopped: the ticket cancelled, nobody waits. Reasons: unsupported (no Xen, or no such
 * guest), unknown_guest, bad_param, limit, mask, not_permitted (an administrator, and the guest runs or has not given them up),
 * source_unavailable, gone, and those of xen_frames_exchange(). */
struct ticket *guests_exchange(struct guests *guests, const struct exchange_request *request, guests_exchange_fn done,
                               void *userdata);

/* What an administrator adds to the domain, as text with line ends, to be freed. -errno with a sentence. */
int guests_advise(const struct guests *guests, const char *guest, uint64_t size, char **ret, struct failure *failure);

#endif
