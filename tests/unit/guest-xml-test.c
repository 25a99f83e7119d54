/* What a guest gets, as XML, and where it is plugged in. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "daemon/guest/guest-port.h"
#include "daemon/guest/guest-xml.h"
#include "daemon/guest/xml-scan.h"

/* ---- composing ---- */

static void test_shared_memory_has_what_it_was_given(void **state) {
        const struct guest_pci_address address = { .bus = 2 };
        struct guest_shmem shmem = { .name = "dmabroker-0", .alias = "window-0", .server_path = "/run/dmabroker/iv.sock",
                                     .address = &address };
        char *xml;

        assert_int_equal(guest_xml_shmem(&shmem, &xml), 0);
        assert_string_equal(xml, "<shmem name='dmabroker-0'>\n"
                                 "  <model type='ivshmem-doorbell'/>\n"
                                 "  <server path='/run/dmabroker/iv.sock'/>\n"
                                 "  <msi vectors='1' ioeventfd='on'/>\n"
                                 "  <alias name='ua-dmabroker-window-0'/>\n"
                                 "  <address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>\n"
                                 "</shmem>\n");
        free(xml);
        shmem.address = NULL;
        shmem.vectors = 4;
        assert_int_equal(guest_xml_shmem(&shmem, &xml), 0);
        assert_null(strstr(xml, "<address"));
        assert_non_null(strstr(xml, "<msi vectors='4' "));
        free(xml);
}

static void test_a_channel_is_connected_to_again_and_again(void **state) {
        char *xml;

        assert_int_equal(guest_xml_channel("channel", "/run/a&b<c>'\"/\xc3\xa9.sock", &xml), 0);
        assert_string_equal(xml, "<channel type='unix'>\n"
                                 "  <source mode='connect' path='/run/a&amp;b&lt;c&gt;&apos;&quot;/\xc3\xa9.sock'>\n"
                                 "    <reconnect enabled='yes' timeout='1'/>\n"
                                 "  </source>\n"
                                 "  <target type='virtio' name='org.dmabroker.0'/>\n"
                                 "  <alias name='ua-dmabroker-channel'/>\n"
                                 "</channel>\n");
        free(xml);
}

static void test_what_xml_cannot_hold_is_refused(void **state) {
        static const char *const paths[] = {
                "", "relative", "/a\nb", "/a\tb", "/a\x01", "/a\x7f", "/\xc3", "/\xc0\xaf", "/\xff", "/\xed\xa0\x80",
                "/\xe0\x80\x80", "/\xf4\x90\x80\x80", "/\xf8\x88\x80\x80", "/\xef\xbf\xbf", "/\xe2\x82",
        };
        static const char *const aliases[] = { "", "a b", "a/b", "a'b", "\xc3\xa9" };
        static const char *const names[] = { "", "a/b", "a\nb", "\xff" };
        char *xml = (char *)"untouched";

        for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
                assert_int_equal(guest_xml_channel("channel", paths[i], &xml), -EINVAL);
        for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases); i++)
                assert_int_equal(guest_xml_channel(aliases[i], "/path", &xml), -EINVAL);
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
                const struct guest_shmem shmem = { .name = names[i], .alias = "a", .server_path = "/path" };

                assert_int_equal(guest_xml_shmem(&shmem, &xml), -EINVAL);
        }
        assert_int_equal(guest_xml_root_port(0, 4096, &xml), -EINVAL);
        assert_int_equal(guest_xml_root_port(1, 0, &xml), -EINVAL);
        assert_int_equal(guest_xml_root_port(1, 4097, &xml), -EINVAL);
        assert_string_equal(xml, "untouched");
        assert_int_equal(guest_xml_channel("channel", "/\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\xee\x80\x80", &xml), 0);
        free(xml);
}

/* ---- scanning ---- */

static void test_elements_and_attributes_are_found(void **state) {
        struct xml_scan scan;
        char value[16];
        unsigned long long number;

        xml_scan_init(&scan, "<?xml version='1.0'?>\n<!-- <no> -->\n<a x = '1' q:y=\"2>\"><b:c z='&lt;&amp;&#65;&#x42;&apos;'/>"
                             "<![CDATA[</a>]]>text</a >\n");
        assert_int_equal(xml_scan_next(&scan), XML_OPEN);
        assert_true(xml_scan_is(&scan, "a"));
        assert_int_equal(scan.depth, 1);
        assert_true(xml_scan_attribute_is(&scan, "x", "1"));
        assert_true(xml_scan_attribute_is(&scan, "q:y", "2>"));
        assert_false(xml_scan_attribute(&scan, "z", value, sizeof(value)));
        assert_true(xml_scan_attribute_number(&scan, "x", 1, &number));
        assert_int_equal(number, 1);
        assert_false(xml_scan_attribute_number(&scan, "x", 0, &number));
        assert_false(xml_scan_attribute_number(&scan, "q:y", 10, &number));
        assert_int_equal(xml_scan_next(&scan), XML_OPEN);
        assert_true(xml_scan_is(&scan, "c"));
        assert_int_equal(scan.depth, 2);
        assert_true(xml_scan_attribute_is(&scan, "z", "<&AB'"));
        assert_true(xml_scan_attribute(&scan, "z", value, 6));
        assert_false(xml_scan_attribute(&scan, "z", value, 5));
        assert_int_equal(xml_scan_next(&scan), XML_CLOSE);
        assert_int_equal(scan.depth, 2);
        assert_int_equal(xml_scan_next(&scan), XML_CLOSE);
        assert_int_equal(scan.depth, 1);
        assert_int_equal(xml_scan_next(&scan), XML_END);
        assert_int_equal(xml_scan_next(&scan), XML_END);
}

static enum xml_token scan_all(const char *text) {
        struct xml_scan scan;
        enum xml_token token;
        char value[4];

        xml_scan_init(&scan, text);
        do {
                token = xml_scan_next(&scan);
                if (token == XML_OPEN)
                        xml_scan_attribute(&scan, "a", value, sizeof(value));
        } while (token == XML_OPEN || token == XML_CLOSE);
        return token;
}

static void test_what_is_no_xml_is_an_error(void **state) {
        static const char *const texts[] = {
                "", "text", "<", "<a", "<a>", "</a>", "<a></a", "<a/", "<a b>", "<a b=>", "<a b='>", "<a b=\"'>", "<a b=c/>",
                "<a><b></a>", "<!DOCTYPE a>", "<!-- <a/>", "<a><![CDATA[</a>", "<?x <a/>", "<>", "< a/>", "<a/ >", "<a></>",
        };
        static const char whole[] = "<?xml v='1'?><d a='&#x41;&amp;&bad;' b='&'><!-- c --><e a='&#;'/><![CDATA[x]]></d>";
        char part[sizeof(whole)];

        for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
                assert_int_equal(scan_all(texts[i]), XML_ERROR);
        assert_int_equal(scan_all(whole), XML_END);
        for (size_t n = 0; n < strlen(whole); n++) {
                memcpy(part, whole, n);
                part[n] = '\0';
                assert_int_equal(scan_all(part), XML_ERROR);
        }
}

/* ---- ports ---- */

#define PORT(index, rest) "<controller type='pci' index='" index "' model='pcie-root-port'>" rest "</controller>"
#define RESERVE(alias, value) \
        "<qemu:device alias='" alias "'><qemu:frontend><qemu:property name='pref64-reserve' type='unsigned' value='" value \
        "'/></qemu:frontend></qemu:device>"

/* As libvirt tells it of a running guest, with less. */
static const char q35[] =
        "<domain type='qemu' id='1' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n"
        "  <name>guest</name>\n"
        "  <metadata><x:devices xmlns:x='http://x/'><x:a><address type='pci' bus='0x03'/></x:a></x:devices></metadata>\n"
        "  <devices>\n"
        "    <controller type='pci' index='0' model='pcie-root'><alias name='pcie.0'/></controller>\n"
        PORT("1", "<target chassis='1' port='0x8'/><alias name='pci.1'/><address type='pci' domain='0x0000' bus='0x00' "
                  "slot='0x01' function='0x0' multifunction='on'/>")
        PORT("2", "<alias name='pci.2'/>")
        PORT("3", "<alias name='pci.3'/>")
        PORT("4", "<alias name='pci.4'/><target hotplug='off'/>")
        PORT("5", "<alias name='ua-big'/>")
        "    <controller type='virtio-serial' index='0'><address type='pci' domain='0x0000' bus='0x01' slot='0x00' "
        "function='0x0'/></controller>\n"
        "    <hostdev mode='subsystem' type='pci'><source><address type='pci' domain='0x0000' bus='0x03' slot='0x00'/></source>"
        "</hostdev>\n"
        "    <channel type='unix'><address type='virtio-serial' controller='0' bus='2' port='1'/></channel>\n"
        "  </devices>\n"
        "  <qemu:override>" RESERVE("pci.3", "67108864") RESERVE("ua-big", "1073741824") RESERVE("pci.4", "67108864")
        "</qemu:override>\n"
        "</domain>\n";

static void check_choice(const char *xml, uint64_t size, unsigned bus) {
        struct guest_pci_address address = { 9, 9, 9, 9 };

        assert_int_equal(guest_port_choose(xml, size, &address), 0);
        assert_int_equal(address.domain, 0);
        assert_int_equal(address.bus, bus);
        assert_int_equal(address.slot, 0);
        assert_int_equal(address.function, 0);
}

static void test_the_free_port_that_reserves_just_enough_is_chosen(void **state) {
        struct guest_pci_address address;

        check_choice(q35, 1 << 20, 2);
        check_choice(q35, 2 << 20, 2);
        check_choice(q35, 4 << 20, 3);
        check_choice(q35, 32 << 20, 3);
        check_choice(q35, 33 << 20, 5);
        check_choice(q35, 512 << 20, 5);
        assert_int_equal(guest_port_choose(q35, (512 << 20) + 1, &address), -EFBIG);
        assert_int_equal(guest_port_choose(q35, UINT64_MAX, &address), -EFBIG);
}

static void test_no_port_is_told_from_none_needed(void **state) {
        static const char pc[] = "<domain><devices><controller type='pci' index='0' model='pci-root'/></devices></domain>";
        static const char full[] = "<domain><devices>" PORT("1", "") "<memballoon><address type='pci' bus='1'/></memballoon>"
                                   "</devices></domain>";
        static const char bare[] = "<domain><devices><controller type='pci' index='0' model='pcie-root'/></devices></domain>";
        static const char global[] = "<domain><devices>" PORT("7", "") "</devices><qemu:commandline><qemu:arg value='-global'/>"
                                     "<qemu:arg value='pcie-root-port.pref64-reserve=64M'/></qemu:commandline></domain>";
        struct guest_pci_address address;

        assert_int_equal(guest_port_choose(pc, 1 << 30, &address), 1);
        assert_int_equal(guest_port_choose(full, 4096, &address), -ENOSPC);
        assert_int_equal(guest_port_choose(bare, 4096, &address), -ENOSPC);
        check_choice(global, 32 << 20, 7);
        assert_int_equal(guest_port_choose(global, 64 << 20, &address), -EFBIG);
        assert_int_equal(guest_port_choose("<network/>", 4096, &address), -EINVAL);
        assert_int_equal(guest_port_choose("<domain>", 4096, &address), -EINVAL);
        assert_int_equal(guest_port_choose("", 4096, &address), -EINVAL);
}

static void test_what_is_advised_would_do(void **state) {
        const uint64_t reserve = guest_port_reserve(300 << 20);
        struct guest_pci_address address;
        char *advice, *override, domain[2048];

        assert_int_equal(reserve, UINT64_C(1) << 30);
        assert_int_equal(guest_port_reserve(2 << 20), 0);
        assert_int_equal(guest_port_reserve((2 << 20) + 1), 8 << 20);
        assert_int_equal(guest_port_reserve(UINT64_C(1) << 62), UINT64_C(1) << 63);
        assert_int_equal(guest_port_reserve((UINT64_C(1) << 62) + 1), UINT64_MAX);

        assert_int_equal(guest_xml_root_port(6, reserve, &advice), 0);
        override = strstr(advice, "<qemu:override>");
        assert_non_null(override);
        snprintf(domain, sizeof(domain), "<domain><devices>%.*s</devices>%s</domain>", (int)(override - advice), advice,
                 override);
        check_choice(domain, 300 << 20, 6);
        assert_int_equal(guest_port_choose(domain, 600 << 20, &address), -EFBIG);
        free(advice);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_shared_memory_has_what_it_was_given),
                cmocka_unit_test(test_a_channel_is_connected_to_again_and_again),
                cmocka_unit_test(test_what_xml_cannot_hold_is_refused),
                cmocka_unit_test(test_elements_and_attributes_are_found),
                cmocka_unit_test(test_what_is_no_xml_is_an_error),
                cmocka_unit_test(test_the_free_port_that_reserves_just_enough_is_chosen),
                cmocka_unit_test(test_no_port_is_told_from_none_needed),
                cmocka_unit_test(test_what_is_advised_would_do),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
