/* The configuration: one table of keys, from which the parser, the defaults, --list-config and the manual page's test all
 * come, and what a file says in terms of it. Files are read and judged as a whole: every error is told with its line. */
#ifndef DMAB_DAEMON_CONFIG_H
#define DMAB_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "daemon/core/broker.h"
#include "daemon/core/failure.h"
#include "daemon/core/source.h"

#define CONFIG_PATH "/etc/dmabroker/dmabroker.conf"

enum config_type {
        CONFIG_TEXT,   /* char * */
        CONFIG_CHOICE, /* uint64_t: index into choices */
        CONFIG_BOOL,   /* uint64_t: 0 or 1; yes, no, true, false, on, off */
        CONFIG_COUNT,  /* uint64_t */
        CONFIG_SIZE,   /* uint64_t: bytes, with K, M, G or T */
        CONFIG_POWER,  /* uint64_t: a size that is a power of two */
        CONFIG_TIME,   /* uint64_t: milliseconds, with ms, s, min or h; a bare number is seconds */
        CONFIG_MASK,   /* uint64_t: 2^n - 1, as 0x… */
};

struct config_key {
        const char *section; /* daemon, memory, limits, metrics, guests; quota, device and guest, which have a name as well */
        const char *key;
        enum config_type type;
        bool reloadable;      /* SIGHUP changes it */
        const char *endless;  /* this word is a value too: UINT64_MAX; or NULL */
        size_t offset;        /* in struct config, config_quota, config_device or config_guest */
        const char *fallback; /* as one would write it; NULL: nothing said */
        uint64_t min, max;    /* of numbers; max 0: none */
        const char *const *choices; /* ends with NULL */
        /* Whether a text is acceptable; NULL: any. -errno with a sentence. */
        int (*check)(const char *text, struct failure *failure);
        const char *doc;
};

/* Ends with a NULL section. */
extern const struct config_key config_keys[];

const char *config_type_name(enum config_type type);

/* Text to value as the key's type and range demand it. text is copied. 0; -EINVAL with a sentence; -ENOMEM. */
int config_value_parse(const struct config_key *key, const char *text, void *ret_value, struct failure *failure);

enum config_access { CONFIG_ACCESS_GROUP, CONFIG_ACCESS_EVERYONE };
enum config_pressure { CONFIG_PRESSURE_OFF, CONFIG_PRESSURE_PSI };
enum config_log_target { CONFIG_LOG_AUTO, CONFIG_LOG_JOURNAL, CONFIG_LOG_STDERR };

struct config_source {
        const struct source_ops *ops;
        unsigned line; /* of its section; 0: it has none */
        struct source_option *options;
        size_t n_options;
};

struct config_quota {
        char *owner; /* user:UID, kvm:UUID or xen:UUID; NULL: of everybody */
        struct quota quota;
        struct guarantee guaranteed;
};

struct config_device {
        char *name, *parent, *allow;
        uint64_t dma, mask, coherent_mask, boundary, max_segment, min_align_mask, quarantine_ms;
        struct quota limits; /* of QUOTA_OF_DEVICES */
};

enum { CONFIG_KVM, CONFIG_XEN };

struct config_guest {
        char *name, *uuid, *qmp, *ports;
        uint64_t hypervisor; /* CONFIG_KVM, CONFIG_XEN */
        uint64_t window_bytes;
        unsigned line; /* of its section */
};

struct config {
        char *socket, *state_dir, *source, *group, *admin_group; /* socket and state_dir: NULL unless said */
        uint64_t access, log_level, log_target;
        uint64_t grace_ms, shutdown_ms, keep_ms, ledger_bytes;

        uint64_t region_idle_ms, quarantine_ms, low_keep_percent, emergency_permille, emergency_max;
        uint64_t minimum, pressure, pressure_stall_ms, pressure_window_ms;

        uint64_t connections, message_bytes, nesting, calls_in_flight, batch_elements, batch_reply_bytes;
        uint64_t queue_bytes, queue_pause_bytes, stall_ms;

        char *metrics_listen;
        uint64_t metrics_owners;

        struct config_quota everybody;
        struct config_quota *quotas;
        size_t n_quotas;
        struct config_device *devices;
        size_t n_devices;
        char *guests_directory, *guests_libvirt, *guests_user; /* NULL unless said, but for the directory */
        uint64_t guests_unplug_ms;
        struct config_guest *guests;
        size_t n_guests;
        struct config_source *sources; /* every source that this build has */
        size_t n_sources;
};

/* line 0: the file as a whole. */
typedef void (*config_complain_fn)(void *userdata, const char *path, unsigned line, const char *sentence);

/* path NULL: the default one, which need not exist. 0; -EINVAL, -errno after complain() was called at least once. */
int config_load(const char *path, config_complain_fn complain, void *userdata, struct config **ret);
struct config *config_free(struct config *config); /* NULL is fine */

enum { CONFIG_SOURCES_MAX = 8 };

/* Which sources are to serve: `names` (--source; NULL: what the file says) is a comma-separated list or "auto". Nothing
 * picked means that the daemon chooses. -EINVAL with a sentence: unknown, or the simulation beside a real source. */
int config_pick_sources(const struct config *config, const char *names,
                        const struct config_source *ret_picked[CONFIG_SOURCES_MAX], size_t *ret_n,
                        struct failure *failure);

/* One line per key: section, key, type, default, "reload" or "restart", documentation; separated by tabs. */
void config_list(FILE *file);

/* The name of the first key whose value differs and that cannot be changed by a reload, as section.key in text, or false. */
bool config_needs_restart(const struct config *old, const struct config *new, char *text, size_t text_size);

#endif
