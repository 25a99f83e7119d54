/* A real Xen, as its dom0 sees it: guests are who they should be, and nothing is left of them when they end, in all the ways
 * there are. Memory for them: xen-daemon.c, xen-memory.c, xen-guests.c; frames of their own: xen-exchange.c; all that can befall
 * one beside another: xen-storm.c. */
#include <stdio.h>
#include <string.h>

#include "tests/vm/xen-memory.h"

static struct xen_guest guests[] = {
        { .name = "pv", .uuid = "2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a01", .type = "pv" },
        { .name = "pvh", .uuid = "2b9a3d70-8f0e-4f0b-9d6f-5a1c7f3e0a02", .type = "pvh" },
};
enum { N_GUESTS = sizeof(guests) / sizeof(*guests) };

static void tell_facts(void) {
        int version = xc_version(xen_xc, XENVER_version, NULL);
        xen_capabilities_info_t capabilities = "";

        xen_check(version > 0, "Xen answers");
        xc_version(xen_xc, XENVER_capabilities, &capabilities);
        printf("Xen %d.%d: %s\n", version >> 16, version & 0xffff, capabilities);
        printf("%llu MiB are free\n", (unsigned long long)xen_free_pages() >> 8);
}

static void test_identity(struct xen_guest *guest) {
        char kind[16];
        const char *answer = xen_tell(guest, "kind");

        snprintf(kind, sizeof(kind), "ok %s", strcmp(guest->type, "pv") == 0 ? "PV" : "PVH");
        xen_check(strcmp(answer, kind) == 0, "it is of the kind that was asked for");
        answer = xen_tell(guest, "uuid");
        xen_check(strncmp(answer, "ok ", 3) == 0 && strcmp(answer + 3, guest->uuid) == 0, "its kernel knows its UUID");
}

static bool has_all_memory(void *userdata) {
        const uint64_t *before = userdata;

        return xen_free_pages() + XEN_FIRST_COSTS + XEN_MAPPING_COSTS >= *before;
}

static void begin_life(struct xen_guest *guest) {
        uint64_t before = xen_free_pages();

        xen_start(guest);
        printf("it takes %llu pages of the machine's\n", (unsigned long long)(before - xen_free_pages()));
        test_identity(guest);
}

/* To boot one takes longer than all else that is done with it: the same ones are there for all of it. */
int main(void) {
        uint64_t before;

        xen_begin(guests, N_GUESTS);
        tell_facts();
        xen_test_daemon();
        xen_test_kills();
        before = xen_free_pages();
        for (unsigned i = 0; i < N_GUESTS; i++)
                begin_life(&guests[i]);
        xen_test_memory(&guests[1], &guests[0]);
        xen_test_guests(&guests[0], &guests[1]);
        printf("%llu pages were free before, %llu are now\n", (unsigned long long)before, (unsigned long long)xen_free_pages());
        xen_await("all of Xen's memory is free again", has_all_memory, &before);
        printf("and %llu in the end\n", (unsigned long long)xen_free_pages());
        xen_check(xen_count_domains() == 1, "dom0 is alone again");
        xen_end();
}
