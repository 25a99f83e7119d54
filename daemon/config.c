/* Reading the configuration file. libinih splits the lines; its reader callback is ours, so that every error, also one
 * that libinih would pass over in silence, is known with its line: each line is judged before libinih sees it, and the
 * section that it belongs to is kept here. */
#include <config.h>

#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/iommu/pci.h"
#include "daemon/source/sources.h"

enum section_kind { SECTION_NONE, SECTION_PLAIN, SECTION_QUOTA, SECTION_DEVICE, SECTION_GUEST, SECTION_SOURCE,
                    SECTION_UNKNOWN };

struct seen {
        char *text; /* "[section]", or "section.key" */
        unsigned line;
};

struct parser {
        struct config *config;
        const char *path;
        config_complain_fn complain;
        void *userdata;

        FILE *file;
        char *buffer; /* getline()'s */
        size_t buffer_size;
        unsigned line, n_errors;
        bool no_memory;

        enum section_kind kind;
        char section[64]; /* as written between the brackets, white space made single */
        char plain[16];   /* its first word */
        size_t index;     /* of the quota, device or source */

        struct seen *seen;
        size_t n_seen;
};

static void complain(struct parser *parser, unsigned line, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void complain(struct parser *parser, unsigned line, const char *format, ...) {
        char text[512];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        parser->n_errors++;
        parser->complain(parser->userdata, parser->path, line, text);
}

static void *grow(struct parser *parser, void *items, size_t n, size_t size) {
        void *grown = reallocarray(items, n + 1, size);

        if (!grown) {
                if (!parser->no_memory)
                        complain(parser, parser->line, "there is no memory for the configuration");
                parser->no_memory = true;
                return NULL;
        }
        memset((char *)grown + n * size, 0, size);
        return grown;
}

/* True if text was there before; then that is told. */
static bool is_duplicate(struct parser *parser, const char *text) {
        struct seen *seen;

        for (size_t i = 0; i < parser->n_seen; i++)
                if (strcmp(parser->seen[i].text, text) == 0) {
                        complain(parser, parser->line, "%s is there twice, first in line %u", text, parser->seen[i].line);
                        return true;
                }
        seen = grow(parser, parser->seen, parser->n_seen, sizeof(*seen));
        if (!seen)
                return false;
        parser->seen = seen;
        seen[parser->n_seen].text = strdup(text);
        seen[parser->n_seen].line = parser->line;
        if (seen[parser->n_seen].text)
                parser->n_seen++;
        return false;
}

/* ---- defaults ---- */

static void *key_target(struct config *config, const struct config_key *key, enum section_kind kind, size_t index) {
        switch (kind) {
        case SECTION_PLAIN:
                return (char *)config + key->offset;
        case SECTION_QUOTA:
                return (char *)(index ? &config->quotas[index - 1] : &config->everybody) + key->offset;
        case SECTION_DEVICE:
                return (char *)&config->devices[index] + key->offset;
        case SECTION_GUEST:
                return (char *)&config->guests[index] + key->offset;
        default:
                return NULL;
        }
}

/* Whether its sections have a name as well. */
static bool is_named(const char *section) {
        return !strcmp(section, "quota") || !strcmp(section, "device") || !strcmp(section, "guest");
}

static int fill_fallbacks(struct config *config, const char *section, enum section_kind kind, size_t index) {
        int r;

        for (const struct config_key *key = config_keys; key->section; key++) {
                if (section ? strcmp(key->section, section) != 0
                            : is_named(key->section))
                        continue;
                /* Where the socket and the state are depends on who runs the daemon, unless it is said. */
                if (!key->fallback || !strcmp(key->key, "socket") || !strcmp(key->key, "state_dir"))
                        continue;
                r = config_value_parse(key, key->fallback, key_target(config, key, kind, index), NULL);
                if (r < 0)
                        return r;
        }
        return 0;
}

static struct config *config_new(void) {
        struct config *config = calloc(1, sizeof(*config));

        if (!config)
                return NULL;
        while (source_all[config->n_sources])
                config->n_sources++;
        config->sources = calloc(config->n_sources + 1, sizeof(*config->sources));
        if (!config->sources || fill_fallbacks(config, NULL, SECTION_PLAIN, 0) < 0 ||
            fill_fallbacks(config, "quota", SECTION_QUOTA, 0) < 0)
                return config_free(config);
        for (size_t i = 0; i < config->n_sources; i++)
                config->sources[i].ops = source_all[i];
        return config;
}

struct config *config_free(struct config *config) {
        if (!config)
                return NULL;
        for (const struct config_key *key = config_keys; key->section; key++)
                if (key->type == CONFIG_TEXT && !is_named(key->section))
                        free(*(char **)((char *)config + key->offset));
        for (size_t i = 0; i < config->n_quotas; i++)
                free(config->quotas[i].owner);
        for (size_t i = 0; i < config->n_devices; i++) {
                free(config->devices[i].name);
                free(config->devices[i].parent);
                free(config->devices[i].allow);
        }
        for (size_t i = 0; i < config->n_guests; i++) {
                free(config->guests[i].name);
                free(config->guests[i].uuid);
                free(config->guests[i].qmp);
                free(config->guests[i].ports);
        }
        for (size_t i = 0; config->sources && i < config->n_sources; i++) {
                for (size_t j = 0; j < config->sources[i].n_options; j++) {
                        free((char *)config->sources[i].options[j].key);
                        free((char *)config->sources[i].options[j].value);
                }
                free(config->sources[i].options);
        }
        free(config->quotas);
        free(config->devices);
        free(config->guests);
        free(config->sources);
        free(config);
        return NULL;
}

/* ---- sections ---- */

static bool is_guest_name(const char *name) {
        size_t n = 0;

        while (isalnum((unsigned char)name[n]) || (name[n] && strchr("._-", name[n])))
                n++;
        return n && !name[n] && n <= 63;
}

static bool is_uuid(const char *text) {
        size_t i;

        for (i = 0; text[i]; i++)
                if (i == 8 || i == 13 || i == 18 || i == 23 ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
                        return false;
        return i == 36;
}

static bool is_user(const char *owner) {
        char canonical[32], *end;
        unsigned long uid;

        errno = 0;
        uid = strncmp(owner, "user:", 5) == 0 && isdigit((unsigned char)owner[5]) ? strtoul(owner + 5, &end, 10) : 0;
        snprintf(canonical, sizeof(canonical), "user:%lu", uid);
        return !errno && uid < UINT32_MAX && strcmp(owner, canonical) == 0;
}

static enum section_kind begin_quota(struct parser *parser, const char *owner) {
        struct config *config = parser->config;
        struct config_quota *quotas;

        if (strcmp(owner, "default") == 0) {
                parser->index = 0;
                return SECTION_QUOTA;
        }
        if (!is_user(owner) && ((strncmp(owner, "kvm:", 4) != 0 && strncmp(owner, "xen:", 4) != 0) || !is_uuid(owner + 4))) {
                complain(parser, parser->line, "[%s]: write [quota default], [quota user:UID] with the user's number, or "
                         "[quota kvm:UUID] (or xen:) with the guest's, in small letters", parser->section);
                return SECTION_UNKNOWN;
        }
        quotas = grow(parser, config->quotas, config->n_quotas, sizeof(*quotas));
        if (!quotas)
                return SECTION_UNKNOWN;
        config->quotas = quotas;
        quotas[config->n_quotas].owner = strdup(owner);
        if (!quotas[config->n_quotas].owner)
                return SECTION_UNKNOWN;
        parser->index = ++config->n_quotas;
        /* What is not said is taken from the defaults when all is read. */
        for (size_t i = 0; i < QUOTA_KINDS; i++)
                quotas[config->n_quotas - 1].quota.of[i] = UINT64_MAX - 1;
        return SECTION_QUOTA;
}

static enum section_kind begin_device(struct parser *parser, const char *name) {
        struct config *config = parser->config;
        struct config_device *devices = grow(parser, config->devices, config->n_devices, sizeof(*devices));
        char canonical[PCI_NAME_MAX];

        if (!devices)
                return SECTION_UNKNOWN;
        config->devices = devices;
        parser->index = config->n_devices;
        devices[parser->index].name = strdup(pci_name_parse(name, canonical) ? canonical : name);
        if (!devices[parser->index].name)
                return SECTION_UNKNOWN;
        config->n_devices++;
        for (size_t i = 0; i < QUOTA_KINDS; i++)
                devices[parser->index].limits.of[i] = QUOTA_UNLIMITED;
        return fill_fallbacks(config, "device", SECTION_DEVICE, parser->index) < 0 ? SECTION_UNKNOWN : SECTION_DEVICE;
}

static enum section_kind begin_guest(struct parser *parser, const char *name) {
        struct config *config = parser->config;
        struct config_guest *guests;

        if (!is_guest_name(name)) {
                complain(parser, parser->line, "[%s]: a guest's name has 1 to 63 letters, digits or any of . _ -",
                         parser->section);
                return SECTION_UNKNOWN;
        }
        guests = grow(parser, config->guests, config->n_guests, sizeof(*guests));
        if (!guests)
                return SECTION_UNKNOWN;
        config->guests = guests;
        parser->index = config->n_guests;
        guests[parser->index].line = parser->line;
        guests[parser->index].name = strdup(name);
        if (!guests[parser->index].name)
                return SECTION_UNKNOWN;
        config->n_guests++;
        return fill_fallbacks(config, "guest", SECTION_GUEST, parser->index) < 0 ? SECTION_UNKNOWN : SECTION_GUEST;
}

static enum section_kind begin_source(struct parser *parser, const char *name) {
        struct config *config = parser->config;

        for (size_t i = 0; i < config->n_sources; i++)
                if (strcmp(config->sources[i].ops->name, name) == 0) {
                        config->sources[i].line = parser->line;
                        parser->index = i;
                        return SECTION_SOURCE;
                }
        complain(parser, parser->line, "[%s]: there is no memory source \"%s\" in this build", parser->section, name);
        return SECTION_UNKNOWN;
}

static bool is_plain(const char *word) {
        for (const struct config_key *key = config_keys; key->section; key++)
                if (strcmp(key->section, word) == 0)
                        return !is_named(word);
        return false;
}

/* text: what is between the brackets. */
static void begin_section(struct parser *parser, const char *text, size_t length) {
        char bracketed[80], *argument;
        size_t n = 0;

        for (size_t i = 0; i < length && n < sizeof(parser->section) - 1; i++)
                if (!isspace((unsigned char)text[i]) || (n && parser->section[n - 1] != ' '))
                        parser->section[n++] = isspace((unsigned char)text[i]) ? ' ' : text[i];
        while (n && parser->section[n - 1] == ' ')
                n--;
        parser->section[n] = '\0';
        parser->kind = SECTION_UNKNOWN;
        snprintf(bracketed, sizeof(bracketed), "[%s]", parser->section);
        argument = strchr(parser->section, ' ');
        snprintf(parser->plain, sizeof(parser->plain), "%.*s",
                 (int)(argument ? argument - parser->section : (long)strlen(parser->section)), parser->section);
        if (is_duplicate(parser, bracketed))
                return;
        if (!argument && is_plain(parser->section))
                parser->kind = SECTION_PLAIN;
        else if (argument && !strcmp(parser->plain, "quota"))
                parser->kind = begin_quota(parser, argument + 1);
        else if (argument && !strcmp(parser->plain, "device"))
                parser->kind = begin_device(parser, argument + 1);
        else if (argument && !strcmp(parser->plain, "guest"))
                parser->kind = begin_guest(parser, argument + 1);
        else if (argument && !strcmp(parser->plain, "source"))
                parser->kind = begin_source(parser, argument + 1);
        else
                complain(parser, parser->line, "there is no section %s; there are [daemon], [memory], [limits], "
                         "[metrics], [guests], [source NAME], [quota OWNER], [device NAME] and [guest NAME]", bracketed);
}

/* ---- keys ---- */

static void take_source_option(struct parser *parser, const char *name, const char *value) {
        struct config_source *source = &parser->config->sources[parser->index];
        struct failure failure = { 0 };
        struct source_option *options;
        bool known = false;

        for (const struct source_option *option = source->ops->options; option && option->key; option++)
                known |= strcmp(option->key, name) == 0;
        if (!known) {
                complain(parser, parser->line, "[%s] has no key \"%s\"", parser->section, name);
                return;
        }
        if (source->ops->check_option && source->ops->check_option(name, value, &failure) < 0) {
                complain(parser, parser->line, "%s", failure.sentence);
                return;
        }
        options = grow(parser, source->options, source->n_options, sizeof(*options));
        if (!options)
                return;
        source->options = options;
        options[source->n_options] = (struct source_option){ strdup(name), strdup(value) };
        if (options[source->n_options].key && options[source->n_options].value)
                source->n_options++;
}

static void take_key(struct parser *parser, const char *name, const char *value) {
        struct failure failure = { 0 };

        for (const struct config_key *key = config_keys; key->section; key++) {
                if (strcmp(key->section, parser->plain) != 0 || strcmp(key->key, name) != 0)
                        continue;
                if (config_value_parse(key, value, key_target(parser->config, key, parser->kind, parser->index),
                                       &failure) < 0)
                        complain(parser, parser->line, "%s", failure.sentence);
                return;
        }
        complain(parser, parser->line, "[%s] has no key \"%s\"", parser->section, name);
}

/* libinih's handler: the line of the pair is the one that was read last. */
static int take_pair(void *userdata, const char *section, const char *name, const char *value) {
        struct parser *parser = userdata;
        char text[256];

        snprintf(text, sizeof(text), "%s in [%s]", name, parser->section);
        if (parser->kind == SECTION_NONE)
                complain(parser, parser->line, "\"%s\" stands before the first section", name);
        else if (parser->kind != SECTION_UNKNOWN && !is_duplicate(parser, text)) {
                if (parser->kind == SECTION_SOURCE)
                        take_source_option(parser, name, value);
                else
                        take_key(parser, name, value);
        }
        return 1;
}

/* Judge one line, white space stripped from both ends. False: libinih must not see it. */
static bool judge_line(struct parser *parser, const char *text, size_t length, int room) {
        const char *end;

        if (!length || *text == ';' || *text == '#')
                return false;
        if (memchr(text, '\0', length)) {
                complain(parser, parser->line, "the line contains a NUL byte");
                return false;
        }
        if (length + 2 > (size_t)room) {
                complain(parser, parser->line, "the line is longer than %d characters", room - 2);
                return false;
        }
        if (*text == '[') {
                end = memchr(text, ']', length);
                if (end)
                        begin_section(parser, text + 1, (size_t)(end - text - 1));
                else {
                        complain(parser, parser->line, "the section's closing bracket is missing");
                        parser->kind = SECTION_UNKNOWN;
                }
                return false;
        }
        if (!memchr(text, '=', length) || *text == '=') {
                complain(parser, parser->line, "this is neither a [section] nor key = value");
                return false;
        }
        return true;
}

/* libinih's reader: like fgets(), but one call is one whole line. What libinih need not see becomes an empty line;
 * indented lines lose their indentation, which libinih would take for a continued value. */
static char *read_line(char *text, int room, void *userdata) {
        struct parser *parser = userdata;
        ssize_t n = getline(&parser->buffer, &parser->buffer_size, parser->file);
        char *start = parser->buffer;
        size_t length;

        if (n < 0)
                return NULL;
        parser->line++;
        length = (size_t)n;
        if (parser->line == 1 && length >= 3 && memcmp(start, "\xef\xbb\xbf", 3) == 0)
                start += 3, length -= 3;
        while (length && isspace((unsigned char)*start))
                start++, length--;
        while (length && isspace((unsigned char)start[length - 1]))
                length--;
        if (!judge_line(parser, start, length, room))
                length = 0;
        memcpy(text, start, length);
        memcpy(text + length, "\n", 2);
        return text;
}

/* ---- the whole ---- */

/* The line of a key in a section; 0: it is not there. */
static unsigned line_of(const struct parser *parser, const char *seen) {
        for (size_t i = 0; i < parser->n_seen; i++)
                if (strcmp(parser->seen[i].text, seen) == 0)
                        return parser->seen[i].line;
        return 0;
}

static void judge_guarantees(struct parser *parser) {
        static const char *const keys[] = { "guaranteed in [quota default]", "guaranteed_low in [quota default]" };

        for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
                if (line_of(parser, keys[i]))
                        complain(parser, line_of(parser, keys[i]),
                                 "memory cannot be guaranteed to everybody: write it in [quota user:UID]");
}

static void judge_guests(struct parser *parser) {
        struct config *config = parser->config;

        for (size_t i = 0; i < config->n_guests; i++) {
                struct config_guest *guest = &config->guests[i];

                for (char *at = guest->uuid; at && *at; at++)
                        *at = (char)tolower((unsigned char)*at);
#ifndef HAVE_XEN
                if (guest->hypervisor == CONFIG_XEN)
                        complain(parser, guest->line, "[guest %s]: this build goes without Xen", guest->name);
#endif
                if (guest->hypervisor == CONFIG_XEN && (guest->qmp || guest->ports))
                        complain(parser, guest->line, "[guest %s]: a guest of Xen's has no qmp and no ports", guest->name);
                if (!guest->uuid || !is_uuid(guest->uuid))
                        complain(parser, guest->line, "[guest %s] needs its uuid, as 36 characters", guest->name);
                if (guest->window_bytes && (guest->window_bytes < (1 << 20) || guest->window_bytes & (guest->window_bytes - 1)))
                        complain(parser, guest->line, "[guest %s]: a window has a power of two of bytes, at least 1M",
                                 guest->name);
                for (size_t j = 0; guest->uuid && j < i; j++)
                        if (config->guests[j].uuid && strcmp(config->guests[j].uuid, guest->uuid) == 0)
                                complain(parser, guest->line, "[guest %s] has the uuid of [guest %s]", guest->name,
                                         config->guests[j].name);
        }
}

static void finish(struct parser *parser) {
        struct config *config = parser->config;
        const struct config_source *picked[CONFIG_SOURCES_MAX];
        struct failure failure = { 0 };
        unsigned line = 0;
        size_t n;

        for (size_t i = 0; i < config->n_quotas; i++)
                for (size_t j = 0; j < QUOTA_KINDS; j++)
                        if (config->quotas[i].quota.of[j] == UINT64_MAX - 1)
                                config->quotas[i].quota.of[j] = config->everybody.quota.of[j];
        judge_guarantees(parser);
        judge_guests(parser);
        if (config->pressure_stall_ms > config->pressure_window_ms)
                complain(parser, line_of(parser, "pressure_stall in [memory]"),
                         "pressure_stall is %llu ms, longer than pressure_window, which is %llu ms",
                         (unsigned long long)config->pressure_stall_ms, (unsigned long long)config->pressure_window_ms);
        if (config_pick_sources(config, NULL, picked, &n, &failure) < 0) {
                for (size_t i = 0; i < config->n_sources; i++)
                        if (config->sources[i].line > line)
                                line = config->sources[i].line;
                if (line_of(parser, "source in [daemon]"))
                        line = line_of(parser, "source in [daemon]");
                complain(parser, line, "%s", failure.sentence);
        }
}

static int parse_file(struct parser *parser) {
        parser->config = config_new();
        if (!parser->config) {
                complain(parser, 0, "there is no memory for the configuration");
                return -ENOMEM;
        }
        if (parser->file && ini_parse_stream(read_line, parser, take_pair, parser) != 0 && !parser->n_errors)
                complain(parser, parser->line, "this is neither a [section] nor key = value");
        if (parser->file && ferror(parser->file))
                complain(parser, 0, "the file cannot be read: %s", strerror(errno));
        if (!parser->n_errors)
                finish(parser);
        return parser->n_errors ? -EINVAL : 0;
}

int config_load(const char *path, config_complain_fn complain_fn, void *userdata, struct config **ret) {
        struct parser parser = { .path = path ? path : CONFIG_PATH, .complain = complain_fn, .userdata = userdata };
        int r;

        parser.file = fopen(parser.path, "re");
        if (!parser.file && (path || errno != ENOENT)) {
                r = -errno;
                complain(&parser, 0, "the configuration cannot be read: %s%s", strerror(errno),
                         errno == EACCES ? "; let the daemon's user read it" : "");
                return r;
        }
        r = parse_file(&parser);
        if (parser.file)
                fclose(parser.file);
        for (size_t i = 0; i < parser.n_seen; i++)
                free(parser.seen[i].text);
        free(parser.seen);
        free(parser.buffer);
        if (r < 0)
                config_free(parser.config);
        else
                *ret = parser.config;
        return r;
}

static int pick_by_name(const struct config *config, const char *name, size_t length,
                        const struct config_source *picked[], size_t *n, struct failure *failure) {
        for (size_t i = 0; i < config->n_sources; i++) {
                const struct config_source *source = &config->sources[i];

                if (strlen(source->ops->name) != length || memcmp(source->ops->name, name, length) != 0)
                        continue;
                if (source->ops == &source_anonymous_ops)
                        return failure_set(failure, REASON_bad_param, "the source anonymous has no memory for devices; it "
                                           "serves beside the others, unasked");
                for (size_t j = 0; j < *n; j++)
                        if (picked[j] == source)
                                return failure_set(failure, REASON_bad_param, "the source %s is there twice",
                                                   source->ops->name);
                picked[(*n)++] = source;
                return 0;
        }
        return failure_set(failure, REASON_bad_param, "there is no memory source \"%.*s\" in this build",
                           (int)(length < 60 ? length : 60), name);
}

int config_pick_sources(const struct config *config, const char *names,
                        const struct config_source *ret_picked[CONFIG_SOURCES_MAX], size_t *ret_n,
                        struct failure *failure) {
        const struct config_source *picked[CONFIG_SOURCES_MAX];
        bool simulated = false;
        size_t n = 0;
        int r;

        if (!names)
                names = config->source;
        if (strcmp(names, "auto") == 0) {
                for (size_t i = 0; i < config->n_sources && n < CONFIG_SOURCES_MAX; i++)
                        if (config->sources[i].line && config->sources[i].ops != &source_anonymous_ops)
                                picked[n++] = &config->sources[i];
        } else {
                for (const char *name = names + strspn(names, ", "); *name; name += strspn(name, ", ")) {
                        size_t length = strcspn(name, ", ");

                        r = pick_by_name(config, name, length, picked, &n, failure);
                        if (r < 0)
                                return r;
                        name += length;
                }
                if (!n)
                        return failure_set(failure, REASON_bad_param, "no memory source is named");
        }
        for (size_t i = 0; i < n; i++)
                simulated |= strcmp(picked[i]->ops->name, "sim") == 0;
        if (simulated && n > 1)
                return failure_set(failure, REASON_bad_param,
                                   "the source sim cannot serve beside a real one, since its addresses are made up");
        memcpy(ret_picked, picked, n * sizeof(*picked));
        *ret_n = n;
        return 0;
}

void config_list(FILE *file) {
        for (const struct config_key *key = config_keys; key->section; key++)
                fprintf(file, "%s\t%s\t%s\t%s\t%s\t%s\n", key->section, key->key, config_type_name(key->type),
                        key->fallback ? key->fallback : "-", key->reloadable ? "reload" : "restart", key->doc);
        for (size_t i = 0; source_all[i]; i++)
                for (const struct source_option *option = source_all[i]->options; option && option->key; option++)
                        fprintf(file, "source %s\t%s\ttext\t-\trestart\t%s\n", source_all[i]->name, option->key,
                                option->value);
}

static bool same_text(const char *one, const char *other) {
        return one == other || (one && other && strcmp(one, other) == 0);
}

static bool same_guest(const struct config_guest *one, const struct config_guest *other) {
        return same_text(one->name, other->name) && same_text(one->uuid, other->uuid) && same_text(one->qmp, other->qmp) &&
               same_text(one->ports, other->ports) && one->window_bytes == other->window_bytes &&
               one->hypervisor == other->hypervisor;
}

bool config_needs_restart(const struct config *old, const struct config *new, char *text, size_t text_size) {
        for (const struct config_key *key = config_keys; key->section; key++) {
                const void *a = (const char *)old + key->offset, *b = (const char *)new + key->offset;

                if (key->reloadable || is_named(key->section))
                        continue;
                if (key->type == CONFIG_TEXT ? same_text(*(char *const *)a, *(char *const *)b)
                                             : *(const uint64_t *)a == *(const uint64_t *)b)
                        continue;
                snprintf(text, text_size, "%s in [%s]", key->key, key->section);
                return true;
        }
        for (size_t i = 0; i < old->n_guests || i < new->n_guests; i++)
                if (i >= old->n_guests || i >= new->n_guests || !same_guest(&old->guests[i], &new->guests[i])) {
                        snprintf(text, text_size, "[guest %s]", i < new->n_guests ? new->guests[i].name : old->guests[i].name);
                        return true;
                }
        for (size_t i = 0; i < new->n_sources; i++) {
                const struct config_source *a = &old->sources[i], *b = &new->sources[i];
                bool same = a->n_options == b->n_options && !a->line == !b->line;

                for (size_t j = 0; same && j < a->n_options; j++)
                        same = same_text(a->options[j].key, b->options[j].key) &&
                               same_text(a->options[j].value, b->options[j].value);
                if (!same) {
                        snprintf(text, text_size, "[source %s]", a->ops->name);
                        return true;
                }
        }
        return false;
}
