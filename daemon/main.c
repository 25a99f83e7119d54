/* dmabrokerd: parse, set up, run, tear down. */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/config.h"
#include "daemon/guest/guests.h"
#include "daemon/ledger.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/memory.h"
#include "daemon/metrics/http.h"
#include "daemon/notify.h"
#include "daemon/options.h"
#include "daemon/privileges.h"
#include "daemon/rpc/listener.h"
#include "daemon/rpc/server.h"
#include "daemon/source/keep.h"
#include "daemon/source/pagemap.h"
#include "daemon/source/sources.h"
#include "daemon/state.h"

#define SOCKET_PATH "/run/dmabroker/dmabroker.sock"

struct daemon {
        struct options options;
        struct config *config;
        uv_loop_t loop;
        uv_signal_t term, interrupt, hangup;
        uv_timer_t watchdog;
        struct memory *memory;
        struct server *server;
        struct guests *guests;
        struct metrics *metrics; /* or NULL */
        struct keep *keep;
        struct ledger *ledger;
        uv_poll_t keeper;
        bool watches_keeper;
        int state_fd, lock_fd, mark_fd, listen_fd;
        char *socket; /* that must be removed in the end, or NULL */
        ino_t socket_inode;
        bool has_handles, started, stopping;
        bool marked; /* the keep has something that an earlier daemon has left */
        bool found;  /* ... or a source has that needs no keep */
        bool leaves; /* the next daemon goes on with what there is */
        int status;
};

/* ---- configuration ---- */

/* The fields are those that systemd uses for its own files. */
static void complain(void *userdata, const char *path, unsigned line, const char *sentence) {
        char number[16];
        const struct log_field fields[] = {
                { "CONFIG_FILE", path },
                { line ? "CONFIG_LINE" : NULL, number },
                { NULL, NULL },
        };

        snprintf(number, sizeof(number), "%u", line);
        if (line)
                log_fields(LOG_LEVEL_ERROR, fields, "%s:%u: %s", path, line, sentence);
        else
                log_fields(LOG_LEVEL_ERROR, fields, "%s: %s", path, sentence);
}

static void complain_plainly(void *userdata, const char *path, unsigned line, const char *sentence) {
        if (line)
                fprintf(stderr, "%s:%u: %s\n", path, line, sentence);
        else
                fprintf(stderr, "%s: %s\n", path, sentence);
}

static int check_config(const struct options *options) {
        const struct config_source *picked[CONFIG_SOURCES_MAX];
        struct failure failure = { 0 };
        struct config *config;
        size_t n;
        int status = 0;

        if (config_load(options->config, complain_plainly, NULL, &config) < 0)
                return 1;
        if (config_pick_sources(config, options->source, picked, &n, &failure) < 0) {
                fprintf(stderr, "--source: %s\n", failure.sentence);
                status = 1;
        }
        if (!status)
                printf("%s: %s\n", options->config ? options->config : CONFIG_PATH,
                       options->config || access(CONFIG_PATH, F_OK) == 0
                               ? "the configuration is good"
                               : "there is no such file, so every key has its default, which is good");
        config_free(config);
        return status;
}

static void apply_log(const struct config *config) {
        bool journal = config->log_target == CONFIG_LOG_JOURNAL ||
                       (config->log_target == CONFIG_LOG_AUTO && log_stderr_is_journal());

        log_configure((enum log_level)config->log_level, journal);
}

/* Some descriptors must be left for regions and for those that travel. */
static size_t connections_possible(const struct config *config) {
        struct rlimit files;
        rlim_t possible;

        if (getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_cur == RLIM_INFINITY)
                return config->connections;
        possible = files.rlim_cur - files.rlim_cur / 8 > 64 ? files.rlim_cur - files.rlim_cur / 8 - 64 : 1;
        if (config->connections <= possible)
                return config->connections;
        log_warning("connections in [limits] is %llu, but at most %llu files may be open (LimitNOFILE=): %llu will do",
                    (unsigned long long)config->connections, (unsigned long long)files.rlim_cur,
                    (unsigned long long)possible);
        return possible;
}

static void fill_settings(struct daemon *daemon, struct server_settings *ret) {
        const struct config *config = daemon->config;

        *ret = (struct server_settings){
                .limits = RPC_LIMITS_DEFAULT,
                .queue_bytes = config->queue_bytes,
                .queue_pause_bytes = config->queue_pause_bytes,
                .stall_ms = config->stall_ms,
                .grace_ms = config->grace_ms,
                .shutdown_ms = config->shutdown_ms,
                .connections = connections_possible(config),
        };
        /* Pausing must come before cutting off. */
        if (ret->queue_pause_bytes > ret->queue_bytes / 4 * 3)
                ret->queue_pause_bytes = ret->queue_bytes / 4 * 3;
        ret->limits.message_bytes = config->message_bytes;
        ret->limits.nesting = config->nesting;
        ret->limits.calls_in_flight = config->calls_in_flight;
        ret->limits.batch_elements = config->batch_elements;
        ret->limits.batch_reply_bytes = config->batch_reply_bytes;
        identity_rules_init(&ret->rules, config->access == CONFIG_ACCESS_EVERYONE, config->group, config->admin_group);
        if (!ret->rules.everyone && !ret->rules.has_group)
                log_warning("the group %s does not exist, so only administrators may connect: create it, or set "
                            "access = everyone in [daemon]", config->group);
}

/* ---- while it runs ---- */

static void on_settled(void *userdata) {
        struct daemon *daemon = userdata;
        struct failure failure = { 0 };
        int fd = daemon->listen_fd, r;

        if (daemon->stopping)
                return;
        daemon->listen_fd = -1;
        r = server_listen(daemon->server, fd);
        if (r < 0)
                failure_set_errno(&failure, REASON_source_unavailable, -r, "cannot accept connections: %s", uv_strerror(r));
        else
                r = guests_begin(daemon->guests, &server_guests_listener, daemon->server, &failure);
        if (r < 0) {
                log_error("%s", failure.sentence);
                daemon->status = 1;
                raise(SIGTERM);
                return;
        }
        log_fields(LOG_LEVEL_INFO, LOG_ID(LOG_ID_READY), "ready");
        notify("READY=1");
}

static void on_watchdog(uv_timer_t *timer) {
        notify("WATCHDOG=1");
}

static void on_hangup(uv_signal_t *handle, int number) {
        struct daemon *daemon = handle->data;
        struct server_settings settings;
        struct config *config, *old = daemon->config;
        char what[128];

        notify_reloading();
        if (config_load(daemon->options.config, complain, NULL, &config) < 0)
                log_fields(LOG_LEVEL_ERROR, LOG_ID(LOG_ID_NOT_RELOADED), "the configuration stays as it was");
        else {
                if (config_needs_restart(old, config, what, sizeof(what)))
                        log_fields(LOG_LEVEL_WARNING, LOG_ID(LOG_ID_RELOADED), "the new configuration is in force, except "
                                   "for %s and the like: restart the daemon for that", what);
                else
                        log_fields(LOG_LEVEL_INFO, LOG_ID(LOG_ID_RELOADED), "the new configuration is in force");
                daemon->config = config;
                apply_log(config);
                fill_settings(daemon, &settings);
                memory_reconfigure(daemon->memory, old, config);
                server_set_settings(daemon->server, &settings);
                if (daemon->metrics)
                        metrics_set_owners_max(daemon->metrics, config->metrics_owners);
                config_free(old);
        }
        notify("READY=1");
}

static void close_handles(struct daemon *daemon) {
        if (daemon->memory)
                memory_close_handles(daemon->memory);
        metrics_close(daemon->metrics);
        if (daemon->has_handles) {
                uv_close((uv_handle_t *)&daemon->term, NULL);
                uv_close((uv_handle_t *)&daemon->interrupt, NULL);
                uv_close((uv_handle_t *)&daemon->hangup, NULL);
                uv_close((uv_handle_t *)&daemon->watchdog, NULL);
        }
        if (daemon->watches_keeper)
                uv_close((uv_handle_t *)&daemon->keeper, NULL);
}

static void on_stopped(void *userdata) {
        close_handles(userdata);
}

static void on_guests_closed(void *userdata) {
        struct daemon *daemon = userdata;

        server_stop(daemon->server, daemon->leaves, on_stopped, daemon);
}

/* Whether anybody has anything that would be missed. */
static bool is_in_use(const struct daemon *daemon) {
        struct broker_counts counts;
        struct broker_loaded loaded;

        broker_counts(memory_broker(daemon->memory), &counts);
        broker_loaded(memory_broker(daemon->memory), &loaded);
        return counts.sessions || counts.devices || counts.allocs || loaded.withheld;
}

static void on_term(uv_signal_t *handle, int number) {
        struct daemon *daemon = handle->data;

        if (daemon->stopping)
                return;
        daemon->stopping = true;
        /* An interrupt comes from somebody at a terminal, who wants it to be over. */
        daemon->leaves = daemon->keep && number != SIGINT && is_in_use(daemon);
        log_fields(LOG_LEVEL_INFO, LOG_ID(LOG_ID_ENDING), "ending: signal %d%s", number,
                   daemon->leaves ? "; what is in use stays for the next daemon" : "");
        notify("STOPPING=1");
        if (daemon->socket)
                listener_unlink(daemon->socket, daemon->socket_inode);
        guests_close(daemon->guests, daemon->leaves, on_guests_closed, daemon);
}

/* ---- set up ---- */

static void raise_file_limit(void) {
        struct rlimit files;

        if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
                files.rlim_cur = files.rlim_max;
                setrlimit(RLIMIT_NOFILE, &files);
        }
}

/* Whoever gets the better of the daemon later shall not have CAP_SYS_ADMIN by it. */
static void give_up_rights(void) {
        int r;

        if (pagemap_prepare() < 0)
                return; /* the source that needs it will say so */
        r = privileges_drop();
        if (r < 0)
                log_warning("CAP_SYS_ADMIN is kept, though it is not needed any more: %s", strerror(-r));
}

static const char *socket_path(const struct daemon *daemon) {
        const char *environment = getenv("DMABROKER_SOCKET");

        if (daemon->options.socket)
                return daemon->options.socket;
        if (environment && *environment)
                return environment;
        return daemon->config->socket ? daemon->config->socket : SOCKET_PATH;
}

static int open_socket(struct daemon *daemon, struct failure *failure) {
        const char *path = socket_path(daemon);
        int r = notify_take_socket(&daemon->listen_fd, failure);

        if (r > 0) {
                fcntl(daemon->listen_fd, F_SETFL, fcntl(daemon->listen_fd, F_GETFL) | O_NONBLOCK);
                log_info("listening on the socket that the service manager passed");
                return 0;
        }
        if (r == 0)
                r = listener_bind(path, 0666, "--socket", &daemon->listen_fd, &daemon->socket_inode, failure);
        if (r == 0) {
                /* A copy: the configuration that the path may come from goes when another is read. */
                daemon->socket = strdup(path);
                if (!daemon->socket) {
                        listener_unlink(path, daemon->socket_inode);
                        return failure_set(failure, REASON_no_memory, "there is no memory to start");
                }
                log_info("listening at %s", path);
        }
        return r;
}

/* The first one takes descriptors, which the others share. */
static int init_handles(struct daemon *daemon) {
        int r;

        r = uv_signal_init(&daemon->loop, &daemon->term);
        if (r < 0)
                return r;
        r = loop_prepare(&daemon->loop);
        if (r < 0) {
                uv_close((uv_handle_t *)&daemon->term, NULL);
                return r;
        }
        uv_signal_init(&daemon->loop, &daemon->interrupt);
        uv_signal_init(&daemon->loop, &daemon->hangup);
        uv_timer_init(&daemon->loop, &daemon->watchdog);
        daemon->has_handles = true;
        return 0;
}

static void start_handles(struct daemon *daemon) {
        uint64_t watchdog_ms = notify_watchdog_ms();

        daemon->term.data = daemon->interrupt.data = daemon->hangup.data = daemon;
        uv_signal_start(&daemon->term, on_term, SIGTERM);
        uv_signal_start(&daemon->interrupt, on_term, SIGINT);
        uv_signal_start(&daemon->hangup, on_hangup, SIGHUP);
        if (watchdog_ms)
                uv_timer_start(&daemon->watchdog, on_watchdog, watchdog_ms, watchdog_ms);
}

/* Memory is served also when nobody can be told how much: Prometheus notices by itself. */
static void start_metrics(struct daemon *daemon) {
        const struct config *config = daemon->config;
        struct failure failure = { 0 };

        if (strcmp(config->metrics_listen, "off") == 0)
                return;
        if (metrics_new(&daemon->loop, daemon->server, config->metrics_listen, config->metrics_owners, &daemon->metrics,
                        &failure) < 0)
                log_error("no metrics are served: %s", failure.sentence);
}

/* ---- what outlives the daemon ---- */

static void on_keeper(uv_poll_t *handle, int status, int events) {
        struct daemon *daemon = handle->data;
        struct failure failure = { 0 };

        if (keep_attend(daemon->keep, &failure) < 0)
                log_error("%s", failure.sentence);
        else if (failure.error)
                log_warning("%s", failure.sentence);
}

/* Without a keep the ledger is there for the quotas. */
static int open_past(struct daemon *daemon, struct failure *failure) {
        int r;

        source_set_directory(daemon->state_fd);
        r = keep_open(daemon->state_fd, daemon->config->keep_ms, &daemon->keep, failure);
        if (r == 0 && daemon->options.discard_state) {
                ledger_discard(daemon->state_fd);
                daemon->keep = keep_end(daemon->keep);
                r = keep_open(daemon->state_fd, daemon->config->keep_ms, &daemon->keep, failure);
        }
        if (r < 0)
                return r;
        if (daemon->keep)
                log_info("%s", keep_about(daemon->keep));
        if (keep_ends_with_service(daemon->keep))
                log_warning("systemd has started the daemon and keeps nothing for it, so what is in use will not outlive a "
                            "restart of the service: build it with libsystemd, and set FileDescriptorStoreMax= in its unit");
        daemon->marked = keep_take(daemon->keep, KEEP_MARK, &daemon->mark_fd) == 0;
        daemon->found = daemon->marked || (daemon->keep && source_any_kept());
        r = ledger_open(daemon->state_fd, daemon->marked, &daemon->ledger, failure);
        if (r < 0)
                return r;
        ledger_set_rewrite(daemon->ledger, daemon->config->ledger_bytes);
        /* Whoever has removed the ledger, or has it discarded, gives all of that back. */
        if (!daemon->marked)
                ledger_forget_memory(daemon->ledger, daemon->found ? source_needs_no_keep : NULL);
        return 0;
}

/* From here on what is kept is told of by a ledger. */
static int mark(struct daemon *daemon, struct failure *failure) {
        int r = broker_commit(memory_broker(daemon->memory));

        /* What is in use is not given up because of that: it is tried again, and nobody is answered before. */
        if (r < 0 && daemon->found) {
                log_error("the ledger cannot be written yet: %s", strerror(-r));
                r = 0;
        }
        if (r == 0 && daemon->keep && !daemon->marked)
                r = keep_put(daemon->keep, KEEP_MARK, daemon->state_fd);
        return r < 0 ? failure_set_errno(failure, REASON_source_unavailable, -r, "nothing can be kept for the next daemon: %s",
                                         strerror(-r))
                     : 0;
}

static void watch_keeper(struct daemon *daemon) {
        int fd = keep_event_fd(daemon->keep);

        int r;

        if (fd < 0)
                return;
        r = uv_poll_init(&daemon->loop, &daemon->keeper, fd);
        daemon->watches_keeper = r == 0;
        daemon->keeper.data = daemon;
        if (r == 0)
                r = loop_watch(&daemon->keeper, UV_READABLE, on_keeper);
        if (r < 0)
                log_warning("should the process that keeps the memory die, it is noticed only when it is needed next: %s",
                            uv_strerror(r));
}

static bool has_quota(const struct config *config, const struct config_guest *guest) {
        const char *prefix = guest->hypervisor == CONFIG_XEN ? "xen:" : "kvm:";

        for (size_t i = 0; i < config->n_quotas; i++)
                if (strncmp(config->quotas[i].owner, prefix, 4) == 0 && strcmp(config->quotas[i].owner + 4, guest->uuid) == 0)
                        return true;
        return false;
}

/* They are followed, and may come, when the sources have settled. */
static int define_guests(struct daemon *daemon, struct failure *failure) {
        const struct config *config = daemon->config;
        const struct passwd *user = config->guests_user ? getpwnam(config->guests_user) : NULL;
        struct guests_settings settings = {
                .directory = config->guests_directory, .libvirt_uri = config->guests_libvirt,
                .has_user = user, .unplug_ms = config->guests_unplug_ms, .keep = daemon->keep,
        };
        int r;

        if (config->guests_user && !user)
                return failure_set(failure, REASON_bad_param, "there is no user %s, which user in [guests] names",
                                   config->guests_user);
        if (user)
                settings.uid = user->pw_uid;
        r = guests_new(&daemon->loop, memory_broker(daemon->memory), &settings, &daemon->guests);
        for (size_t i = 0; r == 0 && i < config->n_guests; i++)
                r = guests_define(daemon->guests, &(struct guest_definition){
                                  .name = config->guests[i].name, .uuid = config->guests[i].uuid, .qmp = config->guests[i].qmp,
                                  .ports = config->guests[i].ports, .window_bytes = config->guests[i].window_bytes,
                                  .has_quota = has_quota(config, &config->guests[i]),
                                  .is_xen = config->guests[i].hypervisor == CONFIG_XEN });
        if (r < 0)
                return failure_set_errno(failure, REASON_no_memory, -r, "the guests cannot be served: %s", strerror(-r));
        return 0;
}

/* What fails here leaves the rest to tear_down(). */
static int set_up(struct daemon *daemon, struct failure *failure) {
        const char *state = daemon->options.state_dir ? daemon->options.state_dir : daemon->config->state_dir;
        struct server_settings settings;
        int r;

        r = init_handles(daemon);
        if (r < 0)
                return failure_set_errno(failure, REASON_source_unavailable, -r, "the event loop cannot be used: %s",
                                         uv_strerror(r));
        r = state_open(state, &daemon->state_fd, &daemon->lock_fd, failure);
        if (r == 0)
                r = open_past(daemon, failure);
        if (r == 0)
                r = open_socket(daemon, failure);
        if (r < 0)
                return r;
        r = memory_new(&daemon->loop, daemon->config, daemon->options.source,
                       &(struct memory_past){ .keep = daemon->keep, .ledger = daemon->ledger }, on_settled, daemon,
                       &daemon->memory, failure);
        if (r < 0)
                return r;
        r = mark(daemon, failure);
        if (r < 0)
                return r;
        r = define_guests(daemon, failure);
        if (r < 0)
                return r;
        fill_settings(daemon, &settings);
        r = server_new(&daemon->loop, memory_broker(daemon->memory), &settings, memory_facts(daemon->memory),
                       &daemon->server);
        if (r < 0)
                return failure_set_errno(failure, REASON_no_memory, -r, "the daemon cannot start: %s", strerror(-r));
        server_set_guests(daemon->server, daemon->guests);
        start_handles(daemon);
        watch_keeper(daemon);
        start_metrics(daemon);
        daemon->started = true;
        return 0;
}

static void tear_down(struct daemon *daemon) {
        int r;

        if (!daemon->started)
                close_handles(daemon);
        uv_run(&daemon->loop, UV_RUN_DEFAULT);
        /* What an earlier daemon left is not lost because this one could not start. */
        daemon->leaves |= !daemon->started && daemon->found;
        guests_free(daemon->guests);
        memory_free(daemon->memory, daemon->leaves);
        server_free(daemon->server);
        ledger_close(daemon->ledger);
        if (daemon->leaves)
                keep_free(daemon->keep);
        else
                keep_end(daemon->keep);
        r = uv_loop_close(&daemon->loop);
        if (r < 0) {
                log_error("something was left on the event loop: %s", uv_strerror(r));
                daemon->status = 1;
        }
        if (daemon->socket && !daemon->stopping)
                listener_unlink(daemon->socket, daemon->socket_inode);
        free(daemon->socket);
        if (daemon->listen_fd >= 0)
                close(daemon->listen_fd);
        if (daemon->state_fd >= 0)
                close(daemon->state_fd);
        if (daemon->mark_fd >= 0)
                close(daemon->mark_fd);
        if (daemon->lock_fd >= 0)
                close(daemon->lock_fd);
        pagemap_finish();
}

static int run(struct daemon *daemon) {
        struct failure failure = { 0 };
        int r = loop_init(&daemon->loop);

        if (r < 0) {
                log_error("there is no event loop: %s", uv_strerror(r));
                return 1;
        }
        raise_file_limit();
        give_up_rights();
        if (set_up(daemon, &failure) < 0) {
                log_error("%s", failure.sentence);
                daemon->status = 1;
        } else
                uv_run(&daemon->loop, UV_RUN_DEFAULT);
        tear_down(daemon);
        return daemon->status;
}

int main(int argc, char **argv) {
        struct daemon daemon = { .state_fd = -1, .lock_fd = -1, .mark_fd = -1, .listen_fd = -1 };
        int status;

        switch (options_parse(argc, argv, &daemon.options)) {
        case OPTIONS_USAGE:
                return 2;
        case OPTIONS_DONE:
                return 0;
        case OPTIONS_LIST_CONFIG:
                config_list(stdout);
                return 0;
        case OPTIONS_CHECK_CONFIG:
                return check_config(&daemon.options);
        case OPTIONS_RUN:
                break;
        }
        signal(SIGPIPE, SIG_IGN);
        if (config_load(daemon.options.config, complain, NULL, &daemon.config) < 0)
                return 1;
        apply_log(daemon.config);
        status = run(&daemon);
        config_free(daemon.config);
        return status;
}
