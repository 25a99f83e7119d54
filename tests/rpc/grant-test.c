/* Grants, where there is no Xen: all of them are refused, and nothing is taken. What they are where there is one is proven in a
 * machine that has it (tests/vm/xen.sh). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/rpc/ask.h"

static int set_up(void **state) {
        /* Where there is Xen there are grants. */
        if (access("/dev/xen/privcmd", F_OK) == 0)
                skip();
        return ask_set_up(state, "[daemon]\naccess = everyone\n");
}

static void test_a_host_without_xen_has_none(void **state) {
        struct ask_fixture *fixture = *state;

        ask_refused(fixture->client, "unsupported", "grant.list", "{}");
        ask_refused(fixture->client, "unsupported", "grant.list", "{'guest':'nobody','after':7,'limit':3}");
        ask_refused(fixture->client, "unsupported", "grant.map", "{'guest':'one','refs':[8,9],'direction':'bidirectional'}");
        ask_refused(fixture->client, "unsupported", "grant.share", "{'guest':'one','size':4096,'direction':'to_device'}");
        ask_refused(fixture->client, "unsupported", "grant.unmap", "{'grant':77}");
        ask_clean(fixture->client);
}

static void test_what_is_no_parameter_is_refused_before(void **state) {
        struct ask_fixture *fixture = *state;

        ask_invalid(fixture->client, -32602, "grant.list", "{'guest':7}");
        ask_invalid(fixture->client, -32602, "grant.list", "{'limit':0}");
        ask_invalid(fixture->client, -32602, "grant.list", "{'refs':[]}");
        ask_invalid(fixture->client, -32602, "grant.map", "{'guest':'one','direction':'to_device'}");
        ask_invalid(fixture->client, -32602, "grant.map", "{'guest':'one','refs':[8]}");
        ask_invalid(fixture->client, -32602, "grant.map", "{'guest':'one','refs':[4294967296],'direction':'to_device'}");
        ask_invalid(fixture->client, -32602, "grant.map", "{'guest':'one','refs':[-1],'direction':'to_device'}");
        ask_invalid(fixture->client, -32602, "grant.map", "{'guest':'one','refs':['8'],'direction':'to_device'}");
        ask_invalid(fixture->client, -32602, "grant.share", "{'guest':'one','size':0,'direction':'to_device'}");
        ask_invalid(fixture->client, -32602, "grant.share", "{'guest':'one','size':134217729,'direction':'to_device'}");
        ask_invalid(fixture->client, -32602, "grant.unmap", "{'grant':0}");
}

static void test_who_is_no_administrator_is_told_the_same(void **state) {
        struct ask_fixture *fixture = *state;
        struct test_client *user = ask_connect_as(fixture->daemon, 12345);

        ask_refused(user, "unsupported", "grant.list", "{}");
        ask_refused(user, "not_permitted", "grant.map", "{'guest':'one','refs':[8],'direction':'to_device'}");
        ask_refused(user, "not_permitted", "grant.share", "{'guest':'one','size':4096,'direction':'to_device'}");
        ask_refused(user, "not_permitted", "grant.unmap", "{'grant':77}");
        test_client_close(user);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, ask_tear_down)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_a_host_without_xen_has_none),
                TEST(test_what_is_no_parameter_is_refused_before),
                TEST(test_who_is_no_administrator_is_told_the_same),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
