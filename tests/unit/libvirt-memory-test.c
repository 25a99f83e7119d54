/* A connection to libvirt while memory runs out, wherever in our own code. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/guest-port.h"
#include "daemon/guest/guest-xml.h"
#include "daemon/guest/libvirt-shared.h"
#include "daemon/guest/libvirt.h"

#define TEST_UUID "6695eb01-f6a4-8304-79aa-97f2502e193f"

/* ---- memory that runs out ---- */

static atomic_int left = -1; /* so many more succeed, then one fails; -1: all do */

void *__real_calloc(size_t n, size_t size);
void *__real_malloc(size_t size);
char *__real_strdup(const char *text);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);
char *__wrap_strdup(const char *text);

static bool fails(void) {
        int before = atomic_load(&left);

        while (before >= 0 && !atomic_compare_exchange_weak(&left, &before, before - 1))
                ;
        return before == 0;
}

void *__wrap_calloc(size_t n, size_t size) {
        return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_malloc(size_t size) {
        return fails() ? NULL : __real_malloc(size);
}

char *__wrap_strdup(const char *text) {
        return fails() ? NULL : __real_strdup(text);
}

/* ---- a connection that has to be made in spite of it ---- */

struct host {
        uv_loop_t loop;
        struct libvirt *libvirt;
        unsigned n_seen, n_suspended, n_metadata, n_done;
        bool listed, closed;
};

static void on_lost(void *userdata, const char *why) {
        struct host *host = userdata;

        assert_true(*why);
        host->listed = false;
        host->n_seen = 0;
}

static void on_seen(void *userdata, const struct libvirt_guest *guest) {
        struct host *host = userdata;

        assert_string_equal(guest->name, "test");
        host->n_seen++;
        host->n_suspended += guest->paused;
}

static void on_listed(void *userdata) {
        struct host *host = userdata;

        host->listed = true;
}

static void on_suspended(void *userdata, const char *uuid) {
        struct host *host = userdata;

        host->n_suspended++;
}

static void on_closed(void *userdata) {
        struct host *host = userdata;

        host->closed = true;
}

static void on_done(void *userdata, int status, const char *text) {
        struct host *host = userdata;

        host->n_done++;
        assert_true(status == 0 || (text && *text));
}

static const struct libvirt_listener listener = {
        .lost = on_lost,
        .guest_seen = on_seen,
        .listed = on_listed,
        .guest_suspended = on_suspended,
};

/* Whether it could be made at all. */
static bool begin(struct host *host) {
        const struct libvirt_options options = { .uri = "test:///default", .retry_ms = 1 };
        int r;

        *host = (struct host){ .closed = false };
        assert_int_equal(uv_loop_init(&host->loop), 0);
        r = libvirt_new(&host->loop, &options, &listener, host, &host->libvirt);
        if (r == 0)
                return true;
        assert_true(r == -ENOMEM || r == -EAGAIN);
        /* What was begun ends by itself. */
        uv_run(&host->loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&host->loop), 0);
        return false;
}

static void end(struct host *host) {
        libvirt_close(host->libvirt, on_closed);
        uv_run(&host->loop, UV_RUN_DEFAULT);
        assert_true(host->closed);
        assert_int_equal(uv_loop_close(&host->loop), 0);
}

static virConnectPtr other;
static virDomainPtr guest;

/* Lose no event, or be told of all guests anew, which is as good. */
static void live(struct host *host) {
        unsigned n_asked = 0;

        while (!host->listed)
                uv_run(&host->loop, UV_RUN_ONCE);
        host->n_suspended = 0;
        assert_int_equal(virDomainSuspend(guest), 0);
        while (host->n_suspended == 0)
                uv_run(&host->loop, UV_RUN_ONCE);
        assert_int_equal(virDomainResume(guest), 0);
        n_asked += libvirt_set_metadata(host->libvirt, TEST_UUID, "<a/>", false, on_done, host) == 0;
        n_asked += libvirt_get_xml(host->libvirt, TEST_UUID, on_done, host) == 0;
        n_asked += libvirt_list(host->libvirt, on_done, host) == 0;
        while (host->n_done < n_asked)
                uv_run(&host->loop, UV_RUN_ONCE);
}

static void test_every_allocation_may_fail(void **state) {
        struct host host;
        unsigned n_refused = 0;
        int n = 0;
        bool failed = true;

        for (; failed; n++) {
                atomic_store(&left, n);
                if (begin(&host)) {
                        live(&host);
                        end(&host);
                } else {
                        n_refused++;
                }
                failed = atomic_exchange(&left, -1) < 0;
        }
        assert_true(n_refused > 0);
        assert_true(n > 10);
}

static void test_composing_and_choosing_may_fail(void **state) {
        struct guest_pci_address address;
        char *xml = NULL;

        atomic_store(&left, 0);
        assert_int_equal(guest_port_choose("<domain/>", 1, &address), -ENOMEM);
        atomic_store(&left, -1);
        assert_int_equal(guest_xml_root_port(1, 4096, &xml), 0);
        free(xml);
}

static int open_other(void **state) {
        assert_null(libvirt_unavailable());
        other = virConnectOpen("test:///default");
        guest = other ? virDomainLookupByName(other, "test") : NULL;
        return guest ? 0 : -1;
}

static int close_other(void **state) {
        virDomainFree(guest);
        virConnectClose(other);
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_allocation_may_fail),
                cmocka_unit_test(test_composing_and_choosing_may_fail),
        };

        alarm(120);
        return cmocka_run_group_tests(tests, open_other, close_other);
}
