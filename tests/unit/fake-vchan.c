#include "tests/unit/fake-vchan.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/xen.h"

enum { PAGE = 4096, VALUE_SIZE = 40 };

struct node {
        char path[64], value[VALUE_SIZE]; /* "" is a path of none */
        struct xs_permissions permissions[2];
};

struct fake_vchan fake_vchan;

static struct {
        pthread_mutex_t mutex; /* of what follows, and of the shares */
        struct node nodes[FAKE_VCHAN_NODES], before[FAKE_VCHAN_NODES];
        uint32_t last_grant;
} store = { .mutex = PTHREAD_MUTEX_INITIALIZER };

const struct vchan_library *__wrap_vchan_library(const char **ret_why);
bool __wrap_xen_store_is_dead(void);
void *__wrap_calloc(size_t n, size_t size);
void *__real_calloc(size_t n, size_t size);

/* Whoever has it may unmap something of its own. */
static _Thread_local bool has_lock;

static void lock(void) {
        pthread_mutex_lock(&store.mutex);
        has_lock = true;
}

static void unlock(void) {
        has_lock = false;
        pthread_mutex_unlock(&store.mutex);
}

/* false: this is the step that fails. */
static bool step(void) {
        if (!fake_vchan.fail_step || --fake_vchan.fail_step > 0)
                return true;
        errno = ENOSPC;
        return false;
}

static void add(unsigned *count, int n) {
        __atomic_fetch_add(count, (unsigned)n, __ATOMIC_SEQ_CST);
}

void *__wrap_calloc(size_t n, size_t size) {
        return step() ? __real_calloc(n, size) : NULL;
}

/* ---- libxengnttab ---- */

/* Any address that is none. */
static int there;

xengntshr_handle *xengntshr_open(xentoollog_logger *logger, unsigned flags) {
        if (!step())
                return NULL;
        add(&fake_vchan.n_grants_open, 1);
        return (xengntshr_handle *)&there;
}

int xengntshr_close(xengntshr_handle *handle) {
        assert_ptr_equal(handle, &there);
        add(&fake_vchan.n_grants_open, -1);
        return 0;
}

static struct fake_share *find_share(const void *at) {
        for (struct fake_share *share = fake_vchan.shares; share < fake_vchan.shares + FAKE_VCHAN_SHARES; share++)
                if (share->at == at)
                        return share;
        return NULL;
}

void *xengntshr_share_pages(xengntshr_handle *handle, uint32_t domid, int n, uint32_t *refs, int writable) {
        struct fake_share *share;
        void *at;

        assert_ptr_equal(handle, &there);
        assert_int_equal(domid, FAKE_VCHAN_DOMID);
        assert_true(writable);
        if (!step() || fake_vchan.fails_to_share) {
                errno = ENOSPC;
                return NULL;
        }
        at = mmap(NULL, (size_t)n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        lock();
        share = find_share(NULL);
        assert_non_null(share);
        *share = (struct fake_share){ .at = at, .size = (size_t)n * PAGE, .first = store.last_grant + 1 };
        for (int i = 0; i < n; i++)
                refs[i] = ++store.last_grant;
        unlock();
        return at;
}

void *xengntshr_share_page_notify(xengntshr_handle *handle, uint32_t domid, uint32_t *ref, int writable, uint32_t offset,
                                  evtchn_port_t port) {
        assert_int_equal(offset, offsetof(struct vchan_interface, srv_live));
        assert_int_equal(port, FAKE_VCHAN_PORT);
        return xengntshr_share_pages(handle, domid, 1, ref, writable);
}

static int unmap(void *at, size_t size) {
        return (int)syscall(SYS_munmap, at, size);
}

/* Whoever unmaps what is shared ends that. */
int munmap(void *at, size_t size) {
        struct fake_share *share;

        if (has_lock)
                return unmap(at, size);
        lock();
        share = at ? find_share(at) : NULL;
        if (share && share->size != size)
                add(&fake_vchan.n_strange, 1);
        if (share)
                *share = (struct fake_share){ 0 };
        else if (fake_vchan.counts_unmaps)
                add(&fake_vchan.n_strange, 1);
        unlock();
        return share || !fake_vchan.counts_unmaps ? unmap(at, size) : 0;
}

int xengntshr_unshare(xengntshr_handle *handle, void *at, uint32_t n) {
        assert_ptr_equal(handle, &there);
        add(&fake_vchan.n_closed, 1);
        return munmap(at, (size_t)n * PAGE);
}

void *fake_vchan_map(uint32_t grant) {
        void *at = NULL;

        lock();
        for (const struct fake_share *share = fake_vchan.shares; share < fake_vchan.shares + FAKE_VCHAN_SHARES; share++)
                if (share->at && grant >= share->first && grant < share->first + share->size / PAGE)
                        at = (char *)share->at + (size_t)(grant - share->first) * PAGE;
        unlock();
        return at;
}

/* ---- libxenevtchn ---- */

xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned flags) {
        if (!step())
                return NULL;
        fake_vchan.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        add(&fake_vchan.n_events_open, 1);
        return (xenevtchn_handle *)(intptr_t)(fake_vchan.event + 1);
}

static int event_of(xenevtchn_handle *handle) {
        return (int)(intptr_t)handle - 1;
}

int xenevtchn_close(xenevtchn_handle *handle) {
        add(&fake_vchan.n_events_open, -1);
        __atomic_store_n(&fake_vchan.n_bound, 0, __ATOMIC_SEQ_CST);
        return close(event_of(handle));
}

int xenevtchn_fd(xenevtchn_handle *handle) {
        return event_of(handle);
}

int xenevtchn_notify(xenevtchn_handle *handle, evtchn_port_t port) {
        assert_int_equal(port, FAKE_VCHAN_PORT);
        add(&fake_vchan.n_told, 1);
        return 0;
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *handle, uint32_t domid) {
        assert_int_equal(domid, FAKE_VCHAN_DOMID);
        if (!step())
                return -1;
        add(&fake_vchan.n_bound, 1);
        return FAKE_VCHAN_PORT;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *handle) {
        uint64_t count;

        return read(event_of(handle), &count, sizeof(count)) < 0 ? -1 : FAKE_VCHAN_PORT;
}

int xenevtchn_unmask(xenevtchn_handle *handle, evtchn_port_t port) {
        assert_int_equal(port, FAKE_VCHAN_PORT);
        return step() ? 0 : -1;
}

void fake_vchan_notify(void) {
        const uint64_t one = 1;

        assert_int_equal(write(fake_vchan.event, &one, sizeof(one)), sizeof(one));
}

/* ---- libxenstore ---- */

bool __wrap_xen_store_is_dead(void) {
        return false;
}

struct xs_handle *xs_open(unsigned long flags) {
        char byte;

        if (fake_vchan.is_mute && read(fake_vchan.unmute[0], &byte, 1) != 1)
                return NULL;
        if (!step())
                return NULL;
        add(&fake_vchan.n_stores, 1);
        return (struct xs_handle *)&there;
}

void xs_close(struct xs_handle *handle) {
        add(&fake_vchan.n_stores, -1);
}

static struct node *find_node(const char *path) {
        for (struct node *node = store.nodes; node < store.nodes + FAKE_VCHAN_NODES; node++)
                if (strcmp(node->path, path) == 0)
                        return node;
        return NULL;
}

xs_transaction_t xs_transaction_start(struct xs_handle *handle) {
        if (!step())
                return XBT_NULL;
        lock();
        memcpy(store.before, store.nodes, sizeof(store.nodes));
        return 1;
}

/* There is one at a time. */
bool xs_transaction_end(struct xs_handle *handle, xs_transaction_t transaction, bool abort) {
        const bool conflicts = !abort && fake_vchan.n_conflicts > 0, fails = !abort && !conflicts && !step();

        fake_vchan.n_conflicts -= conflicts;
        if (abort || conflicts || fails)
                memcpy(store.nodes, store.before, sizeof(store.nodes));
        else if (find_node("/local/domain/7/dmabroker/vchan/ring-ref"))
                add(&fake_vchan.n_made, 1);
        unlock();
        if (abort || conflicts || fails) {
                errno = conflicts ? EAGAIN : ENOSPC;
                return abort;
        }
        return true;
}

void *xs_read(struct xs_handle *handle, xs_transaction_t transaction, const char *path, unsigned *ret_n) {
        const struct node *node = find_node(path);

        if (!step())
                return NULL;
        errno = ENOENT;
        *ret_n = node ? (unsigned)strlen(node->value) : 0;
        return node ? strdup(node->value) : NULL;
}

bool xs_write(struct xs_handle *handle, xs_transaction_t transaction, const char *path, const void *data, unsigned n) {
        struct node *node = find_node(path) ? find_node(path) : find_node("");

        assert_non_null(node);
        assert_true(n < VALUE_SIZE);
        if (!step())
                return false;
        *node = (struct node){ 0 };
        strncpy(node->path, path, sizeof(node->path) - 1);
        memcpy(node->value, data, n);
        return true;
}

bool xs_set_permissions(struct xs_handle *handle, xs_transaction_t transaction, const char *path,
                        struct xs_permissions *permissions, unsigned n) {
        struct node *node = find_node(path);

        assert_non_null(node);
        assert_int_equal(n, 2);
        if (!step())
                return false;
        memcpy(node->permissions, permissions, sizeof(node->permissions));
        return true;
}

static void remove_nodes(const char *path) {
        const size_t n = strlen(path);

        for (struct node *node = store.nodes; node < store.nodes + FAKE_VCHAN_NODES; node++)
                if (strncmp(node->path, path, n) == 0 && (!node->path[n] || node->path[n] == '/'))
                        *node = (struct node){ 0 };
}

bool xs_rm(struct xs_handle *handle, xs_transaction_t transaction, const char *path) {
        if (!step())
                return false;
        remove_nodes(path);
        return true;
}

const char *fake_vchan_node(const char *path) {
        const struct node *node;

        lock();
        node = find_node(path);
        unlock();
        return node ? node->value : NULL;
}

bool fake_vchan_is_guests(const char *path) {
        const struct node *node = find_node(path);

        return node && node->permissions[0].id == 0 && node->permissions[0].perms == XS_PERM_NONE &&
               node->permissions[1].id == FAKE_VCHAN_DOMID && node->permissions[1].perms == XS_PERM_READ;
}

void fake_vchan_write_node(const char *path, const char *value) {
        lock();
        assert_true(xs_write(NULL, XBT_NULL, path, value, (unsigned)strlen(value)));
        unlock();
}

void fake_vchan_remove_node(const char *path) {
        lock();
        remove_nodes(path);
        unlock();
}

/* ---- all of it ---- */

const struct vchan_library *__wrap_vchan_library(const char **ret_why) {
        static const struct vchan_library library = {
#define MEMBER(name) .name = name,
                VCHAN_LIBRARY_VCHAN(MEMBER)
                VCHAN_LIBRARY_GRANTS(MEMBER)
                VCHAN_LIBRARY_EVENTS(MEMBER)
                VCHAN_LIBRARY_STORE(MEMBER)
#undef MEMBER
        };

        return &library;
}

void fake_vchan_begin(void) {
        memset(&fake_vchan, 0, sizeof(fake_vchan));
        memset(store.nodes, 0, sizeof(store.nodes));
        fake_vchan.event = -1;
        assert_int_equal(pipe(fake_vchan.unmute), 0);
        fake_vchan_write_node("/local/domain/7", "");
}

static bool is_any(const unsigned *count) {
        return __atomic_load_n(count, __ATOMIC_SEQ_CST) > 0;
}

bool fake_vchan_has_left_nothing(void) {
        bool has;

        lock();
        has = is_any(&fake_vchan.n_grants_open) || is_any(&fake_vchan.n_events_open) || is_any(&fake_vchan.n_bound) ||
              is_any(&fake_vchan.n_stores) || is_any(&fake_vchan.n_strange);
        for (unsigned i = 0; i < FAKE_VCHAN_SHARES; i++)
                has |= fake_vchan.shares[i].at != NULL;
        for (unsigned i = 0; i < FAKE_VCHAN_NODES; i++)
                has |= strstr(store.nodes[i].path, "dmabroker") != NULL;
        unlock();
        return !has;
}

void fake_vchan_end(void) {
        assert_true(fake_vchan_has_left_nothing());
        close(fake_vchan.unmute[0]);
        close(fake_vchan.unmute[1]);
}
