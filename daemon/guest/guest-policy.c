/* What is said of a guest where it is managed, and the configuration says nothing. With libvirt it is its domain's metadata:
 *
 *      <dmab:guest xmlns:dmab="https://dmabroker.org/xmlns/domain/1.0" window="64M" bytes="1G" mappings="1000"/>
 *
 * and with Xen what dom0 says of its UUID in xenstore:
 *
 *      window=64M bytes=1G mappings=1000
 *
 * A window that it gets whenever it starts, and limits by the names of quotas. It holds from when the guest is seen, or when
 * something else is said; what an administrator says to the daemon later holds until then. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/guest/guest.h"
#include "daemon/guest/xml-scan.h"
#include "daemon/log.h"
#include "daemon/source/option.h"

#define BLANKS " \t\r\n"

enum { WORD_SIZE = 40 };

struct policy {
        const char *called;          /* in the log */
        const struct xml_scan *scan; /* NULL: it is words */
        const char *words;
};

/* The next word: *ret_name and what is behind its "=", or NULL if it has none. false: there are no more. */
static bool next_word(const char **at, char *word, size_t size, char **ret_value) {
        size_t length;

        *at += strspn(*at, BLANKS);
        length = strcspn(*at, BLANKS);
        snprintf(word, size, "%.*s", (int)length, *at);
        *at += length;
        *ret_value = strchr(word, '=');
        if (*ret_value)
                *(*ret_value)++ = '\0';
        return length > 0;
}

static bool find_word(const char *words, const char *name, char *value, size_t size) {
        char word[WORD_SIZE], *is;

        while (next_word(&words, word, sizeof(word), &is))
                if (is && strcmp(word, name) == 0) {
                        snprintf(value, size, "%s", is);
                        return true;
                }
        return false;
}

static bool find_value(const struct policy *policy, const char *name, char *value, size_t size) {
        if (policy->scan)
                return xml_scan_attribute(policy->scan, name, value, size);
        return find_word(policy->words, name, value, size);
}

static bool read_limit(const struct policy *policy, const struct guest *guest, const char *name, uint64_t *ret) {
        char text[WORD_SIZE];

        if (!find_value(policy, name, text, sizeof(text)))
                return false;
        if (strcmp(text, "unlimited") == 0)
                *ret = QUOTA_UNLIMITED;
        else if (option_parse_size(text, ret) < 0) {
                log_warning("%s of the guest %s says %s=\"%s\", which is no number", policy->called, guest->name, name, text);
                return false;
        }
        return true;
}

/* What tells one set of limits from another, never 0 (FNV-1a). */
static uint64_t sum_of(unsigned mask, const struct quota *limits) {
        const unsigned char *bytes = (const unsigned char *)limits;
        uint64_t sum = UINT64_C(0xcbf29ce484222325) ^ mask;

        for (size_t i = 0; i < sizeof(*limits); i++)
                sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
        return sum ? sum : 1;
}

/* Those that were said before were taken then, and an administrator may have set others since: that the guest begins anew, or the
 * daemon, does not make them new. */
static void take_limits(struct guest *guest, const struct policy *policy) {
        const struct caller administrator = { .session = guest->caller.session, .admin = true };
        struct failure failure = { 0 };
        struct quota limits = { 0 };
        unsigned mask = 0;
        uint64_t sum;

        for (int kind = 0; kind < QUOTA_KINDS; kind++)
                if (read_limit(policy, guest, quota_name(kind), &limits.of[kind]))
                        mask |= 1u << kind;
        sum = sum_of(mask, &limits);
        if (!mask || sum == guest->limits_said || !guest->caller.session)
                return;
        if (guest->has_quota)
                log_warning("the limits in %s of the guest %s do not hold: the configuration has some for it", policy->called,
                            guest->name);
        else if (quota_set(&administrator, guest->owner, mask, &limits, &failure) < 0) {
                log_warning("the limits in %s of the guest %s cannot be set: %s", policy->called, guest->name, failure.sentence);
                return;
        }
        guest->limits_said = sum;
        guest_save(guest);
}

/* before: what it was to have by the metadata that held until now. */
static void take_window(struct guest *guest, const struct policy *policy, uint64_t before) {
        uint64_t size;

        if (guest->window_bytes || !read_limit(policy, guest, "window", &size))
                return;
        if (size < WINDOW_SIZE_MIN || size > WINDOW_SIZE_MAX || size & (size - 1)) {
                log_warning("%s of the guest %s gives it a window of %" PRIu64 " bytes, which must be a power of two of at least "
                            "1 MiB", policy->called, guest->name, size);
                return;
        }
        guest->own_bytes = size;
        if (size == before)
                return;
        guest->wants_own = guest->has_begun;
        guests_wake(guest->guests, 0);
}

/* `policy`: NULL if nothing is said. */
static void take(struct guest *guest, const struct policy *policy) {
        uint64_t before = guest->own_bytes;

        guest->own_bytes = guest->window_bytes;
        if (!policy)
                return;
        take_limits(guest, policy);
        take_window(guest, policy, before);
}

void guest_take_metadata(struct guest *guest, const char *text) {
        struct xml_scan scan;
        const struct policy policy = { .called = "the metadata", .scan = &scan };
        bool is_policy = false;

        if (text) {
                xml_scan_init(&scan, text);
                is_policy = xml_scan_next(&scan) == XML_OPEN && xml_scan_is(&scan, "guest");
                if (!is_policy)
                        log_warning("the metadata of the guest %s is no element called guest", guest->name);
        }
        take(guest, is_policy ? &policy : NULL);
}

static bool is_known(const char *name) {
        for (int kind = 0; kind < QUOTA_KINDS; kind++)
                if (strcmp(name, quota_name(kind)) == 0)
                        return true;
        return strcmp(name, "window") == 0;
}

void guest_take_words(struct guest *guest, const char *text) {
        const struct policy policy = { .called = "what xenstore says", .words = text };
        char word[WORD_SIZE], *value;

        for (const char *at = text; at && next_word(&at, word, sizeof(word), &value);)
                if (!value || !is_known(word))
                        log_warning("what xenstore says of the guest %s has \"%s\" in it, which is no \"window=\" and no limit",
                                    guest->name, word);
        take(guest, text ? &policy : NULL);
}
