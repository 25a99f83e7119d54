#include "daemon/guest/guest-xml.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what goes into XML ---- */

/* The bytes of one character of UTF-8, the shortest form only and no surrogates; 0: it is none. */
static size_t utf8_length(const unsigned char *text) {
        static const struct {
                unsigned char first_min, first_max, second_min, second_max;
                size_t length;
        } forms[] = {
                { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
                { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
                { 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
        };

        for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
                size_t n = 2;

                if (text[0] < forms[i].first_min || text[0] > forms[i].first_max)
                        continue;
                if (text[1] < forms[i].second_min || text[1] > forms[i].second_max)
                        return 0;
                while (n < forms[i].length && text[n] >= 0x80 && text[n] <= 0xbf)
                        n++;
                return n == forms[i].length ? n : 0;
        }
        return 0;
}

/* Control characters cannot be written in XML, but for blanks, which an attribute does not keep; a path with such is refused
 * rather than changed. U+FFFE and U+FFFF are no characters. */
static bool is_writable(const char *text) {
        const unsigned char *at = (const unsigned char *)text;
        size_t n;

        for (; *at; at += n) {
                n = *at < 0x80 ? *at >= 0x20 && *at != 0x7f : utf8_length(at);
                if (n == 0 || (n == 3 && at[0] == 0xef && at[1] == 0xbf && at[2] >= 0xbe))
                        return false;
        }
        return true;
}

static void put_escaped(FILE *out, const char *text) {
        for (; *text; text++)
                switch (*text) {
                case '&':
                        fputs("&amp;", out);
                        break;
                case '<':
                        fputs("&lt;", out);
                        break;
                case '>':
                        fputs("&gt;", out);
                        break;
                case '\'':
                        fputs("&apos;", out);
                        break;
                case '"':
                        fputs("&quot;", out);
                        break;
                default:
                        fputc(*text, out);
                }
}

static void put_attribute(FILE *out, const char *name, const char *value) {
        fprintf(out, " %s='", name);
        put_escaped(out, value);
        fputc('\'', out);
}

static bool is_alias(const char *alias) {
        return *alias && alias[strspn(alias, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")] == '\0';
}

static bool is_path(const char *path) {
        return *path == '/' && is_writable(path);
}

static void put_alias(FILE *out, const char *alias) {
        fprintf(out, "  <alias name='%s%s'/>\n", GUEST_ALIAS_PREFIX, alias);
}

/* ---- what is written ---- */

static int finish(FILE *out, char **text, char **ret) {
        bool failed = ferror(out);

        if (fclose(out) != 0 || failed) {
                free(*text);
                return -ENOMEM;
        }
        *ret = *text;
        return 0;
}

int guest_xml_shmem(const struct guest_shmem *shmem, char **ret) {
        const struct guest_pci_address *address = shmem->address;
        char *text = NULL;
        size_t size;
        FILE *out;

        if (!*shmem->name || strchr(shmem->name, '/') || !is_writable(shmem->name) || !is_alias(shmem->alias) ||
            !is_path(shmem->server_path))
                return -EINVAL;
        out = open_memstream(&text, &size);
        if (!out)
                return -ENOMEM;
        fputs("<shmem", out);
        put_attribute(out, "name", shmem->name);
        fputs(">\n  <model type='ivshmem-doorbell'/>\n  <server", out);
        put_attribute(out, "path", shmem->server_path);
        fprintf(out, "/>\n  <msi vectors='%u' ioeventfd='on'/>\n", shmem->vectors > 0 ? shmem->vectors : 1);
        put_alias(out, shmem->alias);
        if (address)
                fprintf(out, "  <address type='pci' domain='0x%04x' bus='0x%02x' slot='0x%02x' function='0x%x'/>\n",
                        address->domain, address->bus, address->slot, address->function);
        fputs("</shmem>\n", out);
        return finish(out, &text, ret);
}

int guest_xml_channel(const char *alias, const char *path, char **ret) {
        char *text = NULL;
        size_t size;
        FILE *out;

        if (!is_alias(alias) || !is_path(path))
                return -EINVAL;
        out = open_memstream(&text, &size);
        if (!out)
                return -ENOMEM;
        fputs("<channel type='unix'>\n  <source mode='connect'", out);
        put_attribute(out, "path", path);
        fputs(">\n    <reconnect enabled='yes' timeout='1'/>\n  </source>\n", out);
        fprintf(out, "  <target type='virtio' name='%s'/>\n", GUEST_CHANNEL_NAME);
        put_alias(out, alias);
        fputs("</channel>\n", out);
        return finish(out, &text, ret);
}

int guest_xml_root_port(unsigned index, uint64_t reserve, char **ret) {
        char *text = NULL;
        size_t size;
        FILE *out;

        if (index == 0 || reserve == 0 || (reserve & (reserve - 1)))
                return -EINVAL;
        out = open_memstream(&text, &size);
        if (!out)
                return -ENOMEM;
        fprintf(out,
                "<!-- in <devices> -->\n"
                "<controller type='pci' index='%u' model='pcie-root-port'/>\n"
                "<!-- in <domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'> -->\n"
                "<qemu:override>\n"
                "  <qemu:device alias='pci.%u'>\n"
                "    <qemu:frontend>\n"
                "      <qemu:property name='pref64-reserve' type='unsigned' value='%" PRIu64 "'/>\n"
                "    </qemu:frontend>\n"
                "  </qemu:device>\n"
                "</qemu:override>\n",
                index, index, reserve);
        return finish(out, &text, ret);
}
