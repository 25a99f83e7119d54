/* watch: events, as they come. They come over a connection of this verb's own, which the library has no word for. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl/show.h"
#include "client/ctl/verbs.h"
#include "proto/frame.h"
#include "proto/methods.h"

#define TOPICS "recall pressure leak guest"

enum { MESSAGE_MAX = 16 << 20, HELLO_ID = 1, SUBSCRIBE_ID = 2 };

static const struct ctl_option options[] = {
        { "--count", "N", "end after N events" },
        { NULL },
};

struct watch {
        const struct ctl *ctl;
        int fd;
        uint64_t left; /* events to be printed; UINT64_MAX: no end */
        struct frame_reader reader;
        bool ended; /* for the better or worse: status says */
        enum ctl_status status;
};

/* ---- sentences ---- */

/* "5 (ring)", or "5". */
static void name_of(json_t *event, const char *member, char *text, size_t size) {
        const char *name = json_string_value(json_object_get(event, "name"));
        unsigned long long handle = show_uint(event, member);

        if (name)
                snprintf(text, size, "%llu (%s)", handle, name);
        else
                snprintf(text, size, "%llu", handle);
}

/* What an event is about: the most particular that it names. Returns what is counted there. */
static const char *describe_place(json_t *event, char *text, size_t size) {
        static const struct {
                const char *member, *word, *things;
        } places[] = {
                { "pool", "pool", "blocks" },
                { "bounce", "bounce pool", "mappings and leases" },
                { "device", "device", "allocations or mappings" },
        };
        char name[256];

        for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
                if (json_object_get(event, places[i].member)) {
                        name_of(event, places[i].member, name, sizeof(name));
                        snprintf(text, size, "%s %s", places[i].word, name);
                        return places[i].things;
                }
        snprintf(text, size, "the daemon");
        return "things";
}

static void print_pressure(json_t *event) {
        const char *level = json_string_value(json_object_get(event, "level"));
        bool host = level && !strcmp(level, "host"), grants = level && !strcmp(level, "grants");
        bool over = json_is_true(json_object_get(event, "over"));
        unsigned long long bytes = show_uint(event, "bytes");
        char buffer[SHOW_SIZE];

        if (grants)
                printf("pressure the grant table of memory %s %s: %llu pages are granted",
                       show_member(event, "name", buffer), over ? "has room again" : "is nearly full",
                       (unsigned long long)show_uint(event, "count"));
        else if (over)
                printf("pressure %s", host ? "the host wants no more memory back" : "nobody waits for memory any more");
        else if (!host)
                printf("pressure a call for %llu bytes found too little memory", bytes);
        else if (bytes)
                printf("pressure the host wants %llu bytes of memory back", bytes);
        else
                printf("pressure the host wants memory back");
}

static void print_guest(json_t *event) {
        static const struct {
                const char *change, *sentence;
        } changes[] = {
                { "started", "runs" },
                { "stopped", "does not run: what it had is the host's again" },
                { "rebooted", "boots anew: what it had is freed, but for its windows" },
                { "attached", "has one more window" },
                { "detached", "has one window less" },
                { "connected", "has connected to its channel" },
                { "leaving", "is asked to let go of a window" },
        };
        const char *name = json_string_value(json_object_get(event, "name"));
        const char *change = json_string_value(json_object_get(event, "change"));
        const char *sentence = change;

        for (size_t i = 0; change && i < sizeof(changes) / sizeof(*changes); i++)
                if (!strcmp(changes[i].change, change))
                        sentence = changes[i].sentence;
        printf("guest %s %s", name ? name : "-", sentence ? sentence : "has changed");
}

static void print_sentence(json_t *event) {
        const char *topic = json_string_value(json_object_get(event, "topic"));
        const char *owner = json_string_value(json_object_get(event, "owner"));
        unsigned long long bytes = show_uint(event, "bytes"), count = show_uint(event, "count");
        char place[300], buffer[SHOW_SIZE];
        const char *things = describe_place(event, place, sizeof(place));

        if (!topic)
                printf("- an event without a topic");
        else if (!strcmp(topic, "pressure"))
                print_pressure(event);
        else if (!strcmp(topic, "guest"))
                print_guest(event);
        else if (!strcmp(topic, "leak"))
                printf("leak %s left something behind: %llu %s of %s, %llu bytes", owner ? owner : "somebody", count,
                       things, place, bytes);
        else if (!strcmp(topic, "recall") && json_object_get(event, "grant"))
                printf("recall %s should give grant %llu back: its guest, %s, has ended", owner ? owner : "somebody",
                       (unsigned long long)show_uint(event, "grant"), show_member(event, "name", buffer));
        else if (!strcmp(topic, "recall"))
                printf("recall %s should return what it does not use of %s: %llu bytes are wanted",
                       owner ? owner : "somebody", place, bytes);
        else
                printf("%s %s", topic, place);
        if (json_object_get(event, "missed"))
                printf("; %llu events before this one were missed", (unsigned long long)show_uint(event, "missed"));
        putchar('\n');
}

/* ---- events ---- */

/* When it came, for the daemon tells no time: that of the place for people, that of the world for programs. */
static void write_time(bool json, char *text, size_t size) {
        char seconds[32], zone[8] = "Z";
        struct timespec now;
        struct tm tm;

        clock_gettime(CLOCK_REALTIME, &now);
        if (json)
                gmtime_r(&now.tv_sec, &tm);
        else {
                localtime_r(&now.tv_sec, &tm);
                strftime(zone, sizeof(zone), "%z", &tm);
        }
        strftime(seconds, sizeof(seconds), "%FT%T", &tm);
        snprintf(text, size, "%s.%03ld%s", seconds, now.tv_nsec / 1000000, zone);
}

static void print_event(const struct watch *watch, json_t *event) {
        char time_text[64];

        write_time(watch->ctl->json, time_text, sizeof(time_text));
        if (watch->ctl->json) {
                json_t *object = json_pack("{s:s}", "time", time_text);

                json_object_update(object, event);
                json_dumpf(object, stdout, JSON_COMPACT);
                putchar('\n');
                json_decref(object);
        } else {
                printf("%s ", time_text);
                print_sentence(event);
        }
        /* Whoever reads this wants to know at once; main() says what could not be written. */
        fflush(stdout);
}

static void end(struct watch *watch, enum ctl_status status) {
        watch->ended = true;
        watch->status = status;
}

static void refuse(struct watch *watch, json_t *error) {
        const char *sentence = json_string_value(json_object_get(error, "message"));

        fprintf(stderr, "dmabrokerctl: %s\n", sentence ? sentence : "the daemon refuses, and does not say why");
        if (watch->ctl->json) {
                json_t *wrapped = json_pack("{s:O}", "error", error);

                ctl_print_json(wrapped);
                json_decref(wrapped);
        }
        end(watch, CTL_FAILURE);
}

static void take_message(struct watch *watch, json_t *message) {
        json_t *error = json_object_get(message, "error"), *event = json_object_get(message, "params");
        const char *method = json_string_value(json_object_get(message, "method"));

        if (error)
                refuse(watch, error);
        else if (method && !strcmp(method, PROTOCOL_EVENT) && event) {
                print_event(watch, event);
                if (watch->left != UINT64_MAX && --watch->left == 0)
                        end(watch, CTL_OK);
        }
}

static void take_bytes(struct watch *watch, const char *piece, size_t size) {
        const char *text;
        size_t length;

        for (;;) {
                enum frame_event event = frame_reader_next(&watch->reader, &piece, &size, &text, &length);
                json_t *message = event == FRAME_TEXT ? json_loadb(text, length, 0, NULL) : NULL;

                if (event == FRAME_MORE || watch->ended) {
                        json_decref(message);
                        return;
                }
                if (message)
                        take_message(watch, message);
                else {
                        fprintf(stderr, "dmabrokerctl: what the daemon says cannot be read\n");
                        end(watch, CTL_FAILURE);
                }
                json_decref(message);
        }
}

/* ---- the connection ---- */

/* ctl_connect() has been here before: there is a daemon, and the address is one of these. */
static int connect_again(const struct ctl *ctl) {
        const char *path = ctl->socket, *environment = secure_getenv("DMABROKER_SOCKET");
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (!path || !strcmp(path, "auto:"))
                path = environment && *environment ? environment : "/run/dmabroker/dmabroker.sock";
        if (!strncmp(path, "unix:", 5))
                path += 5;
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
                return fd;
        fprintf(stderr, "dmabrokerctl: cannot connect to %s: %s\n", path, strerror(errno));
        if (fd >= 0)
                close(fd);
        return -1;
}

/* A request on a line of its own. Consumes it. */
static bool say(int fd, json_t *request) {
        char *text = json_dumps(request, JSON_COMPACT);
        bool said = text && send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text) &&
                    send(fd, "\n", 1, MSG_NOSIGNAL) == 1;

        free(text);
        json_decref(request);
        return said;
}

static bool subscribe(const struct watch *watch) {
        json_t *topics = json_array();

        for (size_t i = 0; i < watch->ctl->n_operands; i++)
                json_array_append_new(topics, json_string(watch->ctl->operands[i]));
        for (const char *word = TOPICS; *word && !watch->ctl->n_operands; word += strspn(word, " ")) {
                json_array_append_new(topics, json_stringn(word, strcspn(word, " ")));
                word += strcspn(word, " ");
        }
        return say(watch->fd, json_pack("{s:s, s:i, s:s, s:{s:s}}", "jsonrpc", "2.0", "id", HELLO_ID, "method",
                                        "broker.hello", "params", "client", "dmabrokerctl watch")) &&
               say(watch->fd, json_pack("{s:s, s:i, s:s, s:{s:o}}", "jsonrpc", "2.0", "id", SUBSCRIBE_ID, "method",
                                        "events.subscribe", "params", "topics", topics));
}

/* ---- the verb ---- */

static void block_signals(sigset_t *signals) {
        sigemptyset(signals);
        sigaddset(signals, SIGINT);
        sigaddset(signals, SIGTERM);
        sigaddset(signals, SIGHUP);
        sigprocmask(SIG_BLOCK, signals, NULL);
}

static void receive(struct watch *watch) {
        char piece[16384];
        ssize_t n = read(watch->fd, piece, sizeof(piece));

        if (n > 0) {
                take_bytes(watch, piece, (size_t)n);
                return;
        }
        if (n < 0 && errno == EINTR)
                return;
        fprintf(stderr, "dmabrokerctl: the daemon has ended, or hung up\n");
        end(watch, CTL_FAILURE);
}

/* Until enough was printed, somebody interrupts, the daemon hangs up, or nobody reads any more. */
static void follow(struct watch *watch) {
        struct pollfd polled[] = { { .fd = watch->fd, .events = POLLIN }, { .events = POLLIN }, { .fd = STDOUT_FILENO } };
        sigset_t signals;

        block_signals(&signals);
        polled[1].fd = signalfd(-1, &signals, SFD_CLOEXEC);
        while (!watch->ended) {
                if (poll(polled, 3, -1) < 0)
                        continue;
                if (polled[0].revents)
                        receive(watch);
                else if (polled[1].revents || polled[2].revents)
                        end(watch, CTL_OK);
                if (ferror(stdout))
                        end(watch, CTL_FAILURE);
        }
        close(polled[1].fd);
}

/* So that no session stays behind for the grace time. What was told meanwhile must be read: a socket that is closed over it
 * takes back what was said last. */
static void leave(const struct watch *watch) {
        const struct timeval patience = { .tv_sec = 1 };
        char piece[4096];

        setsockopt(watch->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        if (say(watch->fd, json_pack("{s:s, s:s}", "jsonrpc", "2.0", "method", "broker.bye")) &&
            shutdown(watch->fd, SHUT_WR) == 0)
                while (read(watch->fd, piece, sizeof(piece)) > 0)
                        continue;
        close(watch->fd);
}

static enum ctl_status check_topics(const struct ctl *ctl) {
        for (size_t i = 0; i < ctl->n_operands; i++) {
                size_t length = strlen(ctl->operands[i]);
                const char *word = TOPICS;

                while (*word && (strcspn(word, " ") != length || strncmp(word, ctl->operands[i], length) != 0)) {
                        word += strcspn(word, " ");
                        word += strspn(word, " ");
                }
                if (!*word)
                        return ctl_misuse(ctl, "there is no topic \"%s\"", ctl->operands[i]);
        }
        return CTL_OK;
}

/* The port was opened by the library, which passes no events on. */
static bool is_in_guest(const struct ctl *ctl) {
        return !strcmp(dmab_role(ctl->dmab), "guest") ||
               (ctl->socket && (!strncmp(ctl->socket, "virtio:", 7) || !strncmp(ctl->socket, "xen:", 4)));
}

static enum ctl_status run_watch(struct ctl *ctl) {
        struct watch watch = { .ctl = ctl, .left = UINT64_MAX };
        enum ctl_status status = check_topics(ctl);

        if (status == CTL_OK && ctl_has(ctl, "--count"))
                status = ctl_parse_uint(ctl, "--count", ctl_value(ctl, "--count"), &watch.left);
        if (status == CTL_OK && !watch.left)
                status = ctl_misuse(ctl, "--count must be at least 1");
        if (status == CTL_OK)
                status = ctl_connect(ctl);
        if (status == CTL_OK && is_in_guest(ctl)) {
                fprintf(stderr, "dmabrokerctl: watch needs a socket, which a guest does not have: watch on its host\n");
                return CTL_FAILURE;
        }
        if (status != CTL_OK)
                return status;
        dmab_disconnect(ctl->dmab);
        ctl->dmab = NULL;
        watch.fd = connect_again(ctl);
        if (watch.fd < 0)
                return CTL_NO_DAEMON;
        frame_reader_init(&watch.reader, MESSAGE_MAX, false);
        if (subscribe(&watch))
                follow(&watch);
        else {
                fprintf(stderr, "dmabrokerctl: the daemon has ended, or hung up\n");
                watch.status = CTL_FAILURE;
        }
        leave(&watch);
        frame_reader_deinit(&watch.reader);
        return watch.status;
}

const struct ctl_verb verb_watch = {
        .name = "watch",
        .operands = "[recall | pressure | leak | guest]…",
        .summary = "follow events, one line for each, as they come",
        .doc = "The topics are pressure: a call waits for memory, or nobody waits any more, or the host wants "
               "memory back; leak: something was left behind when its device, pool or session ended; recall: a session "
               "should return leases that it does not use, which is told to that session only, and so never here; guest: a "
               "guest of the configuration runs, does not run, boots anew, gets or loses a window, or connects. All of them "
               "unless some are given. Each line is the time at which the event came, its topic and a "
               "sentence; with --json, an object with the members of the protocol's event and the time. Ends when "
               "interrupted, and fails when the daemon ends.",
        .words = TOPICS,
        .options = options,
        .max_operands = 16,
        .run = run_watch,
};
