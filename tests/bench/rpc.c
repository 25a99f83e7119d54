/* P8 and P9: the round trip and the throughput of calls, beside a raw socket echo, a libuv+jansson echo, Redis and OVSDB.
 * Everybody runs on one core, the client included: on two cores of a virtual machine the figure would be the time that
 * waking the other core takes. The servers are measured in turns, and the median of the turns counts. */
#include <errno.h>
#include <ftw.h>
#include <jansson.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "tests/bench/table.h"
#include "tests/lib/daemon.h"

enum {
        TURNS = 9,
        TRIPS = 4000,    /* round trips per turn */
        IN_FLIGHT = 32,
        BURSTS = 1500,   /* of IN_FLIGHT calls, per turn */
        REQUEST_MAX = 512,
};

#define PATH_HERE "@"

/* One server, and what to ask it. */
struct server {
        const char *name;
        void (*run)(int listener);       /* in a child; NULL: an external program */
        const char *const *command;      /* or a program and its arguments, PATH_HERE being the socket's path */
        const char *request;
        char end;                        /* how many of these tell how many replies there are */
        char path[108];
        pid_t pid;
        int fd; /* connected, -1: not there */
        double trip[TURNS], rate[TURNS];
};

static void fail(const char *what) {
        fprintf(stderr, "rpc: %s: %s\n", what, strerror(errno));
        exit(1);
}

/* ---- the peers that are ours ---- */

static void raw_echo_run(int listener) {
        char buffer[65536];
        ssize_t n;
        int fd;

        fd = accept(listener, NULL, NULL);
        while ((n = read(fd, buffer, sizeof(buffer))) > 0)
                if (write(fd, buffer, (size_t)n) != n)
                        break;
}

struct json_echo {
        uv_pipe_t listener, peer;
        char in[65536], out[65536];
        size_t n_in;
};

static void json_echo_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret) {
        struct json_echo *echo = handle->data;

        *ret = uv_buf_init(echo->in + echo->n_in, (unsigned)(sizeof(echo->in) - echo->n_in));
}

/* What any server with this stack must do at least: parse, look at method and id, print an answer. */
static size_t json_echo_answer(const char *line, size_t size, char *out, size_t room) {
        json_t *request, *reply;
        size_t n;

        request = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
        if (!request || !json_is_string(json_object_get(request, "method")))
                fail("the echo got no request");
        reply = json_pack("{s:s, s:O, s:{}}", "jsonrpc", "2.0", "id", json_object_get(request, "id"), "result");
        n = json_dumpb(reply, out, room - 1, JSON_COMPACT);
        out[n] = '\n';
        json_decref(reply);
        json_decref(request);
        return n + 1;
}

/* One write for all replies to what one read brought. */
static void json_echo_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer) {
        struct json_echo *echo = stream->data;
        char *line = echo->in, *end = echo->in + echo->n_in + (n > 0 ? n : 0), *stop;
        size_t n_out = 0;
        uv_buf_t out;

        if (n < 0)
                _exit(0);
        while ((stop = memchr(line, '\n', (size_t)(end - line)))) {
                n_out += json_echo_answer(line, (size_t)(stop - line), echo->out + n_out, sizeof(echo->out) - n_out);
                line = stop + 1;
        }
        echo->n_in = (size_t)(end - line);
        memmove(echo->in, line, echo->n_in);
        out = uv_buf_init(echo->out, (unsigned)n_out);
        if (n_out && uv_try_write(stream, &out, 1) != (int)n_out)
                fail("the echo cannot write");
}

static void json_echo_connection(uv_stream_t *listener, int status) {
        struct json_echo *echo = listener->data;

        uv_pipe_init(listener->loop, &echo->peer, 0);
        echo->peer.data = echo;
        uv_accept(listener, (uv_stream_t *)&echo->peer);
        uv_read_start((uv_stream_t *)&echo->peer, json_echo_alloc, json_echo_read);
}

static void json_echo_run(int listener) {
        static struct json_echo echo;
        uv_loop_t loop;

        uv_loop_init(&loop);
        uv_pipe_init(&loop, &echo.listener, 0);
        uv_pipe_open(&echo.listener, listener);
        echo.listener.data = &echo;
        uv_listen((uv_stream_t *)&echo.listener, 8, json_echo_connection);
        uv_run(&loop, UV_RUN_DEFAULT);
}

/* ---- starting and connecting ---- */

static int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
                close(fd);
                return -1;
        }
        return fd;
}

static int listen_at(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd;

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
                fail(path);
        return fd;
}

static void exec_command(struct server *server) {
        const char *arguments[16];
        size_t n;

        for (n = 0; server->command[n]; n++)
                arguments[n] = strcmp(server->command[n], PATH_HERE) ? server->command[n] : server->path;
        arguments[n] = NULL;
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
                _exit(1);
        execvp(arguments[0], (char **)arguments);
        _exit(127);
}

/* Somebody else's server tells nobody when it is ready: try until it answers the door or is dead. */
static int connect_patiently(struct server *server) {
        int status, fd;

        while ((fd = connect_to(server->path)) < 0) {
                if (waitpid(server->pid, &status, WNOHANG) == server->pid) {
                        server->pid = 0;
                        return -1;
                }
                sched_yield();
        }
        return fd;
}

static void server_start(struct server *server, const char *directory, size_t index) {
        int listener = -1;

        snprintf(server->path, sizeof(server->path), "%s/peer%zu", directory, index);
        if (server->run)
                listener = listen_at(server->path);
        server->pid = fork();
        if (server->pid < 0)
                fail("fork");
        if (server->pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (!server->run)
                        exec_command(server);
                server->run(listener);
                _exit(0);
        }
        if (listener >= 0)
                close(listener);
        server->fd = connect_patiently(server);
}

static void server_stop(struct server *server) {
        if (server->fd >= 0)
                close(server->fd);
        if (server->pid > 0) {
                kill(server->pid, SIGKILL);
                waitpid(server->pid, NULL, 0);
        }
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw) {
        remove(path);
        return 0;
}

/* ---- asking ---- */

static void send_all(int fd, const char *bytes, size_t size) {
        while (size > 0) {
                ssize_t n = write(fd, bytes, size);

                if (n < 0)
                        fail("write");
                bytes += n;
                size -= (size_t)n;
        }
}

static char replies[IN_FLIGHT * 4096];

/* Read until there are n replies; returns their bytes. */
static size_t read_replies(int fd, char end, size_t n) {
        size_t size = 0;

        while (n > 0) {
                ssize_t got = read(fd, replies + size, sizeof(replies) - size - 1);

                if (got <= 0)
                        fail("a server hung up");
                for (const char *at = replies + size, *stop = at + got; (at = memchr(at, end, (size_t)(stop - at))); at++)
                        n--;
                size += (size_t)got;
        }
        replies[size] = '\0';
        return size;
}

/* Nanoseconds of one round trip. */
static double trip_time(int fd, char end, const char *request) {
        size_t size = strlen(request);
        uint64_t start = table_now();

        for (int i = 0; i < TRIPS; i++) {
                send_all(fd, request, size);
                read_replies(fd, end, 1);
        }
        return (double)(table_now() - start) / TRIPS;
}

/* Calls per second with IN_FLIGHT of them on their way. */
static double call_rate(int fd, char end, const char *request) {
        static char burst[IN_FLIGHT * REQUEST_MAX];
        size_t size = strlen(request);
        uint64_t start;

        for (int i = 0; i < IN_FLIGHT; i++)
                memcpy(burst + (size_t)i * size, request, size);
        start = table_now();
        for (int i = 0; i < BURSTS; i++) {
                send_all(fd, burst, IN_FLIGHT * size);
                read_replies(fd, end, IN_FLIGHT);
        }
        return (double)IN_FLIGHT * BURSTS * 1e9 / (double)(table_now() - start);
}

/* ---- the broker ---- */

#define PING "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.ping\"}\n"
#define CALL(method, params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\",\"params\":" params "}\n"

struct broker {
        struct test_daemon *daemon;
        int fd;
        char alloc[REQUEST_MAX];
        double ping_trip[TURNS], alloc_trip[TURNS], ping_rate[TURNS], alloc_rate[TURNS];
};

/* The next handle in the replies, from *at on. */
static unsigned long long handle_next(const char **at) {
        const char *found = strstr(*at, "\"alloc\":");

        if (!found) {
                fprintf(stderr, "rpc: no handle in: %s\n", replies);
                exit(1);
        }
        *at = found + strlen("\"alloc\":");
        return strtoull(*at, NULL, 10);
}

static void broker_ask(struct broker *broker, const char *request) {
        send_all(broker->fd, request, strlen(request));
        read_replies(broker->fd, '\n', 1);
        if (!strstr(replies, "\"result\"")) {
                fprintf(stderr, "rpc: %srpc: was answered with %s\n", request, replies);
                exit(1);
        }
}

static void broker_start(struct broker *broker) {
        static const struct test_daemon_options options = { .source = "sim" };
        const char *device;

        if (test_daemon_start(&options, &broker->daemon) < 0)
                exit(1);
        broker->fd = connect_to(test_daemon_socket(broker->daemon));
        if (broker->fd < 0)
                fail("cannot connect to dmabrokerd");
        broker_ask(broker, CALL("broker.hello", "{\"client\":\"bench\"}"));
        broker_ask(broker, CALL("device.open", "{\"name\":\"bench\",\"mask\":\"0xffffffffffffffff\"}"));
        device = strstr(replies, "\"device\":");
        if (!device)
                fail("device.open tells no handle");
        snprintf(broker->alloc, sizeof(broker->alloc), CALL("coherent.alloc", "{\"device\":%llu,\"size\":4096}"),
                 strtoull(device + strlen("\"device\":"), NULL, 10));
}

static size_t free_print(char *out, unsigned long long handle) {
        return (size_t)snprintf(out, REQUEST_MAX, CALL("coherent.free", "{\"alloc\":%llu}"), handle);
}

static void broker_free_all(struct broker *broker, const unsigned long long *handles, size_t n) {
        static char burst[IN_FLIGHT * REQUEST_MAX];

        for (size_t i = 0; i < n; i += IN_FLIGHT) {
                size_t size = 0, count = n - i < IN_FLIGHT ? n - i : IN_FLIGHT;

                for (size_t k = 0; k < count; k++)
                        size += free_print(burst + size, handles[i + k]);
                send_all(broker->fd, burst, size);
                read_replies(broker->fd, '\n', count);
                if (strstr(replies, "\"error\""))
                        fail(replies);
        }
}

/* Only the allocations are timed, in groups; they are freed between the groups. */
static double broker_alloc_trip(struct broker *broker) {
        enum { GROUP = 500 };
        unsigned long long handles[GROUP];
        size_t size = strlen(broker->alloc);
        uint64_t spent = 0;

        for (int i = 0; i < TRIPS / GROUP; i++) {
                uint64_t start = table_now();

                for (int k = 0; k < GROUP; k++) {
                        const char *at = replies;

                        send_all(broker->fd, broker->alloc, size);
                        read_replies(broker->fd, '\n', 1);
                        handles[k] = handle_next(&at);
                }
                spent += table_now() - start;
                broker_free_all(broker, handles, GROUP);
        }
        return (double)spent / (TRIPS / GROUP * GROUP);
}

static double broker_alloc_rate(struct broker *broker) {
        static char burst[IN_FLIGHT * REQUEST_MAX];
        unsigned long long handles[IN_FLIGHT];
        size_t size = strlen(broker->alloc);
        uint64_t start;

        for (int i = 0; i < IN_FLIGHT; i++)
                memcpy(burst + (size_t)i * size, broker->alloc, size);
        start = table_now();
        for (int i = 0; i < BURSTS / 2; i++) {
                const char *at = replies;

                send_all(broker->fd, burst, IN_FLIGHT * size);
                read_replies(broker->fd, '\n', IN_FLIGHT);
                for (int k = 0; k < IN_FLIGHT; k++)
                        handles[k] = handle_next(&at);
                broker_free_all(broker, handles, IN_FLIGHT);
        }
        return 2.0 * IN_FLIGHT * (BURSTS / 2) * 1e9 / (double)(table_now() - start);
}

static void broker_turn(struct broker *broker, int turn) {
        broker->ping_trip[turn] = trip_time(broker->fd, '\n', PING);
        broker->alloc_trip[turn] = broker_alloc_trip(broker);
        broker->ping_rate[turn] = call_rate(broker->fd, '\n', PING);
        broker->alloc_rate[turn] = broker_alloc_rate(broker);
}

/* ---- the table ---- */

#define REDIS_SET "*3\r\n$3\r\nSET\r\n$5\r\nalloc\r\n$16\r\n0123456789abcdef\r\n"
#define OVSDB_ECHO "{\"method\":\"echo\",\"params\":[],\"id\":1}"

static const char *const redis_command[] = { "redis-server", "--port", "0", "--save", "", "--appendonly", "no", "--unixsocket",
                                             PATH_HERE, NULL };
/* It will not serve without a database. */
static const char *const ovsdb_command[] = {
        "sh", "-c",
        "echo '{\"name\":\"bench\",\"version\":\"1.0.0\",\"tables\":{}}' >$0.schema && "
        "ovsdb-tool create $0.db $0.schema && "
        "exec ovsdb-server --remote=punix:$0 --unixctl=none --no-chdir $0.db",
        PATH_HERE, NULL };

enum { RAW_ECHO, JSON_ECHO, REDIS, OVSDB, SERVERS };

static struct server servers[SERVERS] = {
        [RAW_ECHO] = { .name = "raw socket echo", .run = raw_echo_run, .end = '\n' },
        [JSON_ECHO] = { .name = "libuv+jansson echo", .run = json_echo_run, .end = '\n' },
        [REDIS] = { .name = "Redis SET", .command = redis_command, .request = REDIS_SET, .end = '\n' },
        [OVSDB] = { .name = "OVSDB echo", .command = ovsdb_command, .request = OVSDB_ECHO, .end = '}' },
};

static void print_trip(const char *what, struct server *server, double *ours, const char *target, double most) {
        double peer = server->fd < 0 ? NAN : table_median(server->trip, TURNS) / 1000, figure = table_median(ours, TURNS) / 1000;

        table_print(&(struct table_row){ .id = "P8", .what = what, .peer = server->name, .peer_figure = peer,
                                         .ours = figure, .unit = "us", .target = target,
                                         .met = most > 0 ? table_met_ratio(figure, peer, most) : TABLE_UNKNOWN });
}

static void print_rate(const char *what, struct server *server, double *ours, const char *target, double least) {
        double peer = server->fd < 0 ? NAN : table_median(server->rate, TURNS), figure = table_median(ours, TURNS);

        table_print(&(struct table_row){ .id = "P9", .what = what, .peer = server->name, .peer_figure = peer,
                                         .ours = figure, .unit = "/s", .target = target,
                                         .met = least <= 0 ? TABLE_UNKNOWN : figure >= least ? TABLE_MET : TABLE_NOT_MET });
}

static void print_table(struct broker *broker) {
        print_trip("round trip, coherent.alloc of 4 KiB", &servers[RAW_ECHO], broker->alloc_trip, "<= 1.8x", 1.8);
        print_trip("round trip, broker.ping", &servers[RAW_ECHO], broker->ping_trip, "-", 0);
        for (int i = JSON_ECHO; i < SERVERS; i++)
                print_trip("round trip, coherent.alloc of 4 KiB", &servers[i], broker->alloc_trip, "-", 0);
        print_rate("broker.ping, 32 in flight", &servers[JSON_ECHO], broker->ping_rate, ">= 300,000/s", 300000);
        print_rate("coherent.alloc+free, 32 in flight", &servers[JSON_ECHO], broker->alloc_rate, ">= 200,000/s", 200000);
        for (int i = REDIS; i < SERVERS; i++)
                print_rate("coherent.alloc+free, 32 in flight", &servers[i], broker->alloc_rate, "-", 0);
}

static void pin_to_one_core(void) {
        cpu_set_t set;
        int core;

        if (sched_getaffinity(0, sizeof(set), &set) < 0)
                fail("sched_getaffinity");
        for (core = CPU_SETSIZE - 1; core > 0 && !CPU_ISSET(core, &set); core--)
                ;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        if (sched_setaffinity(0, sizeof(set), &set) < 0)
                fail("sched_setaffinity");
}

int main(void) {
        static struct broker broker;
        char directory[] = "/tmp/dmab-bench-XXXXXX";

        pin_to_one_core(); /* inherited by every server */
        if (!mkdtemp(directory))
                fail(directory);
        broker_start(&broker);
        servers[RAW_ECHO].request = broker.alloc;
        servers[JSON_ECHO].request = broker.alloc;
        for (size_t i = 0; i < SERVERS; i++)
                server_start(&servers[i], directory, i);
        for (int turn = 0; turn < TURNS; turn++) {
                for (int i = 0; i < SERVERS; i++) {
                        if (servers[i].fd < 0)
                                continue;
                        servers[i].trip[turn] = trip_time(servers[i].fd, servers[i].end, servers[i].request);
                        servers[i].rate[turn] = call_rate(servers[i].fd, servers[i].end, servers[i].request);
                }
                broker_turn(&broker, turn);
        }
        print_table(&broker);
        for (size_t i = 0; i < SERVERS; i++)
                server_stop(&servers[i]);
        close(broker.fd);
        nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
        return test_daemon_end(broker.daemon) < 0;
}
