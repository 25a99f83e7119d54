#include "daemon/guest/vchan-server.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/guest/vchan-library.h"
#include "daemon/guest/xen.h"

/* A dom0 shares 1,024 pages, unless xen_gntalloc was told otherwise (`limit`): this takes 9 of them. */
enum {
        PAGE = 4096,
        STREAM_ORDER = 14,
        STREAM_PAGES = (1 << STREAM_ORDER) / PAGE,
        TRIES_MAX = 32, /* to tell xenstore of it, while others tell it of the same domain */
        GUEST_HAS_NOT_COME = 2,
};

#define PROTOCOL "1"

struct vchan_server {
        const struct vchan_library *library;
        uint32_t domid, ref;
        /* From the library's point of view its xenstore path is nobody's: it would remove what another server has told. */
        struct libxenvchan *vchan;
        char mark[32]; /* what xenstore knows it by; "": it was told nothing */
};

/* What Xen's libraries would print is in errno. xen-library.h has the same, but cannot come after vchan-library.h: the header of
 * libxenctrl must be the first of Xen's. */
static void say_nothing(xentoollog_logger *logger, xentoollog_level level, int error, const char *context, const char *format,
                        va_list arguments) {
}

static xentoollog_logger silence = { .vmessage = say_nothing };

/* Of what has just failed: these libraries do not always say. */
static int refuse(struct failure *failure, const char *what) {
        const int error = errno > 0 ? errno : EIO;

        return failure_set_errno(failure, REASON_source_unavailable, error, "%s: %s", what, strerror(error));
}

/* ---- what is shared ---- */

/* Whatever libxenvchan_close() would undo is entered when it is there, and not before. */
static int open_event(struct vchan_server *server, struct failure *failure) {
        const struct vchan_library *library = server->library;
        struct libxenvchan *vchan = server->vchan;
        int port;

        vchan->event = library->xenevtchn_open(&silence, 0);
        if (!vchan->event)
                return refuse(failure, "there are no event channels (/dev/xen/evtchn)");
        port = library->xenevtchn_bind_unbound_port(vchan->event, server->domid);
        if (port < 0)
                return refuse(failure, "there is no event channel for it");
        vchan->event_port = (uint32_t)port;
        if (library->xenevtchn_unmask(vchan->event, vchan->event_port) < 0)
                return refuse(failure, "its event channel does not work");
        return 0;
}

/* A process that is forked from this one, as the keeper is, would seem to be at this end when this one has ended. */
static void *without_children(void *at, size_t size) {
        if (at)
                madvise(at, size, MADV_DONTFORK);
        return at;
}

/* dom0's kernel says there that nobody is at this end any more, however that ends. */
static int share_page(struct vchan_server *server, struct failure *failure) {
        struct libxenvchan *vchan = server->vchan;
        void *page;

        vchan->gntshr = server->library->xengntshr_open(&silence, 0);
        if (!vchan->gntshr)
                return refuse(failure, "no page can be shared (/dev/xen/gntalloc; modprobe xen_gntalloc)");
        page = server->library->xengntshr_share_page_notify(vchan->gntshr, server->domid, &server->ref, 1,
                                                            offsetof(struct vchan_interface, srv_live), vchan->event_port);
        if (!without_children(page, PAGE))
                return refuse(failure, "a page cannot be shared with it (xen_gntalloc has a limit)");
        memset(page, 0, PAGE);
        vchan->ring = page;
        return 0;
}

/* at: of the first of its pages in the page's list. */
static int share_stream(struct vchan_server *server, struct libxenvchan_ring *stream, unsigned at, struct failure *failure) {
        struct libxenvchan *vchan = server->vchan;
        uint32_t refs[STREAM_PAGES];
        void *buffer = server->library->xengntshr_share_pages(vchan->gntshr, server->domid, STREAM_PAGES, refs, 1);

        if (!without_children(buffer, STREAM_PAGES * PAGE))
                return refuse(failure, "pages cannot be shared with it (xen_gntalloc has a limit)");
        stream->buffer = buffer;
        stream->order = STREAM_ORDER;
        memcpy(vchan->ring->grants + at, refs, sizeof(refs));
        return 0;
}

static int share(struct vchan_server *server, struct failure *failure) {
        struct libxenvchan *vchan = server->vchan;
        int r = open_event(server, failure);

        if (r == 0)
                r = share_page(server, failure);
        if (r < 0)
                return r;
        vchan->read.shr = &vchan->ring->left;
        vchan->write.shr = &vchan->ring->right;
        r = share_stream(server, &vchan->read, 0, failure);
        if (r == 0)
                r = share_stream(server, &vchan->write, STREAM_PAGES, failure);
        if (r < 0)
                return r;
        vchan->ring->left_order = vchan->ring->right_order = STREAM_ORDER;
        vchan->ring->cli_live = GUEST_HAS_NOT_COME;
        vchan->ring->cli_notify = VCHAN_NOTIFY_WRITE;
        __atomic_store_n(&vchan->ring->srv_live, 1, __ATOMIC_RELEASE);
        return 0;
}

/* ---- what xenstore tells ---- */

/* One connection, and all that is done by it is done at once, or not at all. */
struct telling {
        const struct vchan_server *server;
        struct xs_handle *store;
        xs_transaction_t transaction;
};

static bool tell_node(const struct telling *telling, const char *name, const char *value) {
        const struct vchan_server *server = telling->server;
        struct xs_permissions permissions[] = {
                { .id = 0, .perms = XS_PERM_NONE }, /* dom0 has it, and nobody else … */
                { .id = server->domid, .perms = XS_PERM_READ },
        };
        char path[80];

        snprintf(path, sizeof(path), "/local/domain/%" PRIu32 "/dmabroker%s", server->domid, name);
        return server->library->xs_write(telling->store, telling->transaction, path, value, (unsigned)strlen(value)) &&
               server->library->xs_set_permissions(telling->store, telling->transaction, path, permissions, 2);
}

static bool tell_number(const struct telling *telling, const char *name, uint32_t number) {
        char text[16];

        snprintf(text, sizeof(text), "%" PRIu32, number);
        return tell_node(telling, name, text);
}

/* Of a domain that has no nodes yet, or none any more, nothing is told: whoever makes it begins by removing what there is. */
static bool has_nodes(const struct telling *telling) {
        char path[40], *value;

        snprintf(path, sizeof(path), "/local/domain/%" PRIu32, telling->server->domid);
        value = telling->server->library->xs_read(telling->store, telling->transaction, path, &(unsigned){ 0 });
        free(value);
        return value;
}

static bool tell(const struct telling *telling) {
        const struct vchan_server *server = telling->server;

        return has_nodes(telling) && tell_node(telling, "", server->mark) && tell_node(telling, "/protocol", PROTOCOL) &&
               tell_node(telling, "/vchan", "") && tell_number(telling, "/vchan/ring-ref", server->ref) &&
               tell_number(telling, "/vchan/event-channel", server->vchan->event_port);
}

static bool take_back(const struct telling *telling) {
        const struct vchan_server *server = telling->server;
        unsigned length = 0;
        char path[56], *mark;
        bool is_ours;

        snprintf(path, sizeof(path), "/local/domain/%" PRIu32 "/dmabroker", server->domid);
        mark = server->library->xs_read(telling->store, telling->transaction, path, &length);
        is_ours = mark && length == strlen(server->mark) && memcmp(mark, server->mark, length) == 0;
        free(mark);
        if (!is_ours)
                errno = ENOENT;
        return is_ours && server->library->xs_rm(telling->store, telling->transaction, path);
}

/* 0; -errno: nothing has changed, unless the connection is what failed. */
static int transact(const struct vchan_server *server, bool (*what)(const struct telling *telling)) {
        const struct vchan_library *library = server->library;
        struct telling telling = { .server = server };
        int r = -ECONNREFUSED;

        errno = 0;
        telling.store = xen_store_is_dead() ? NULL : library->xs_open(0);
        if (!telling.store)
                return errno > 0 ? -errno : r;
        r = -EAGAIN;
        for (unsigned i = 0; i < TRIES_MAX && r == -EAGAIN; i++) {
                bool done;

                errno = 0;
                telling.transaction = library->xs_transaction_start(telling.store);
                done = telling.transaction != XBT_NULL && what(&telling);
                r = done ? 0 : errno > 0 ? -errno : -EIO;
                if (telling.transaction == XBT_NULL || library->xs_transaction_end(telling.store, telling.transaction, !done))
                        continue;
                if (done)
                        r = errno > 0 ? -errno : -EIO;
        }
        library->xs_close(telling.store);
        return r;
}

static int publish(struct vchan_server *server, struct failure *failure) {
        static atomic_uint last;
        int r;

        /* Before: when the connection fails it is not known what has been done. */
        snprintf(server->mark, sizeof(server->mark), "%ld.%u", (long)getpid(), atomic_fetch_add(&last, 1));
        r = transact(server, tell);
        return r == 0 ? 0 : failure_set_errno(failure, REASON_source_unavailable, -r, "xenstore cannot tell it where it is: %s",
                                              strerror(-r));
}

/* ---- its life ---- */

int vchan_server_new(const struct vchan_library *library, uint32_t domid, struct vchan_server **ret, struct failure *failure) {
        struct vchan_server *server = calloc(1, sizeof(*server));
        int r;

        if (server)
                server->vchan = calloc(1, sizeof(*server->vchan)); /* the library's free() */
        if (!server || !server->vchan) {
                free(server);
                return failure_set(failure, REASON_no_memory, "there is no memory");
        }
        server->library = library;
        server->domid = domid;
        server->vchan->is_server = 1;
        server->vchan->server_persist = 1; /* programs of the guest come and go */
        r = share(server, failure);
        if (r == 0)
                r = publish(server, failure);
        if (r < 0)
                vchan_server_free(server);
        else
                *ret = server;
        return r;
}

struct libxenvchan *vchan_server_vchan(const struct vchan_server *server) {
        return server->vchan;
}

struct vchan_server *vchan_server_free(struct vchan_server *server) {
        if (!server)
                return NULL;
        server->library->libxenvchan_close(server->vchan);
        if (*server->mark)
                transact(server, take_back);
        free(server);
        return NULL;
}
