#include "tests/survive/fault-load.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/client.h"

enum {
        READS = 1,     /* changes nothing */
        KEYED = 2,     /* gets a key, by which it can be repeated */
        GOES = 4,      /* gives something back: made twice, it finds it gone */
        FD = 8,        /* a descriptor comes with the result */
        TOGETHER = 16, /* is sent together with the next one, and may wait for it */
        CLEAN = 32,    /* debug.check */
        FULL = 64,     /* everything is held from here on */
        GROWS = 128,   /* a pool may have grown for it, and stay so, also when it is refused */
};

struct step {
        char side; /* whose connection: a or b */
        const char *method;
        const char *params; /* with ' for ", and $names; without a method: the line itself */
        const char *take;   /* names of what is taken from the result: "name=member other=member.0.member" */
        const char *reason; /* of the error; NULL: a result is wanted */
        int code;           /* of the error, if it has no reason */
        unsigned flags;
};

static const struct step steps[] = {
        /* ---- the protocol itself ---- */
        { 'a', "broker.hello", "{'client':'load'}", "sa=session" },
        { 'a', "broker.ping", "{}", .flags = READS },
        { 'a', "broker.ping", "{'speed':1}", .code = -32602, .flags = READS },
        { 'a', "broker.pong", "{}", .code = -32601, .flags = READS },
        { 'a', NULL, "{'jsonrpc':'2.0','id':'x','method'", .code = -32700, .flags = READS },
        { 'a', NULL, "{'jsonrpc':'2.0','id':{},'method':'broker.ping'}", .code = -32600, .flags = READS },
        { 'a', NULL, "{'jsonrpc':'2.0','method':'broker.ping'}\n{'jsonrpc':'2.0','id':'x','method':'broker.ping'}",
          .flags = READS },
        { 'a', NULL, "[{'jsonrpc':'2.0','id':'x','method':'broker.ping'},{'jsonrpc':'2.0','id':'y','method':'device.list'}]",
          .flags = READS },
        { 'a', "broker.status", "{'runs':10}", .flags = READS },
        { 'a', "rpc.discover", "{}", .flags = READS },
        { 'b', "broker.hello", "{'client':'other','protocol':1}", "sb=session" },
        { 'b', "broker.hello", "{'session':'0123'}", .reason = "unknown_handle", .flags = READS },
        { 'b', "events.subscribe", "{'topics':['recall','pressure','leak']}" },
        { 'b', "events.subscribe", "{'topics':['recall'],'since':0}" },
        /* ---- devices ---- */
        { 'a', "device.open", "{'name':'card','wait_ms':0}", "dev=device", .flags = KEYED },
        { 'a', "device.open", "{'name':'child','parent':'card','mask':'0xffffffffffff'}", "kid=device", .flags = KEYED },
        { 'a', "device.open", "{'name':'card','mask':'0x0'}", .reason = "mask", .flags = READS | KEYED },
        { 'a', "device.open", "{}", .code = -32602, .flags = READS },
        { 'a', "device.list", "{'limit':1}", .flags = READS },
        { 'a', "device.supported", "{'device':$dev,'mask':'0xffffffff'}", .flags = READS },
        { 'a', "device.supported", "{'device':4711,'mask':'0xffffffff'}", .reason = "unknown_handle", .flags = READS },
        { 'a', "device.set_mask", "{'device':$kid,'mask':'0xffffffffff'}" },
        { 'a', "device.set_mask", "{'device':$kid,'mask':'0x1'}", .reason = "mask", .flags = READS },
        { 'a', "device.reserve", "{'device':$kid,'size':2097152}", "kept=region", .flags = KEYED },
        { 'a', "device.reserve", "{'device':$kid,'size':1099511627776}", .reason = "no_memory", .flags = READS | KEYED },
        /* ---- coherent memory ---- */
        { 'a', "coherent.alloc", "{'device':$dev,'size':65536,'fd':true}", "one=alloc at=dma_addr region=region",
          .flags = KEYED | FD },
        { 'a', "coherent.alloc", "{'device':$dev,'size':2000000,'zero':true,'shareable':true,'lifetime':'owner'}", "two=alloc",
          .flags = KEYED },
        { 'a', "coherent.alloc", "{'device':$kid,'size':4096,'align':65536,'boundary':65536,'mask':'0xffffffffff'}",
          "three=alloc", .flags = KEYED },
        { 'b', "coherent.alloc", "{'device':$dev,'size':4096,'zero':true,'priority':'high'}", "four=alloc", .flags = KEYED },
        { 'b', "coherent.move", "{'alloc':$four,'device':$kid}", "moved=alloc", .flags = KEYED },
        { 'b', "coherent.move", "{'alloc':$moved,'device':$dev}", "five=alloc", .flags = KEYED },
        { 'b', "coherent.move", "{'alloc':4711000,'device':$dev}", .reason = "unknown_handle", .flags = READS | KEYED },
        { 'b', "coherent.swap_out", "{'alloc':$five}" },
        { 'b', "coherent.swap_out", "{'alloc':$five}" },
        { 'b', "coherent.list", "{}", .flags = READS },
        { 'b', "coherent.swap_in", "{'alloc':$five,'mask':'0xffffffffff'}" },
        { 'b', "coherent.swap_out", "{'alloc':$five}" },
        { 'b', "coherent.swap_in", "{'alloc':4711000}", .reason = "unknown_handle", .flags = READS },
        { 'a', "quarantine.list", "{}", .flags = READS },
        { 'a', "coherent.alloc", "{'device':$dev,'size':1099511627776,'wait_ms':0}", .reason = "no_memory",
          .flags = READS | KEYED },
        { 'a', "coherent.alloc", "{'device':$dev,'size':0}", .code = -32602, .flags = READS | KEYED },
        { 'a', "coherent.list", "{'limit':2}", .flags = READS },
        { 'a', "coherent.lookup", "{'dma_addr':'$at'}", .flags = READS },
        { 'a', "coherent.lookup", "{'dma_addr':'0x10'}", .reason = "bad_address", .flags = READS },
        { 'a', "coherent.free", "{'alloc':4711000}", .reason = "unknown_handle", .flags = READS },
        { 'a', "region.list", "{}", .flags = READS },
        { 'a', "region.get", "{'region':$region}", .flags = READS | FD },
        { 'a', "region.get", "{'region':4711000}", .reason = "unknown_handle", .flags = READS },
        /* ---- pools ---- */
        { 'a', "pool.create", "{'name':'ring','device':$dev,'size':1000,'reserve':8,'max_blocks':100}", "pool=pool",
          .flags = KEYED },
        { 'a', "pool.create", "{'name':'ring','device':$dev,'size':100,'align':3}", .reason = "bad_param",
          .flags = READS | KEYED },
        { 'a', "pool.create", "{'name':'large','device':$dev,'size':65536}", "large=pool", .flags = KEYED },
        { 'a', "pool.alloc", "{'pool':$pool,'count':4}", "b0=blocks.0.dma_addr b1=blocks.1.dma_addr", .flags = KEYED | GROWS },
        { 'b', "pool.alloc", "{'pool':$pool,'count':3}", "b2=blocks.2.dma_addr", .flags = KEYED | GROWS },
        { 'a', "pool.alloc", "{'pool':$large,'count':40}", "large0=blocks.0.dma_addr", .flags = KEYED | GROWS },
        { 'a', "pool.alloc", "{'pool':$pool,'count':200}", .reason = "limit", .flags = READS | KEYED },
        { 'a', "pool.lease", "{'pool':$pool,'count':8,'fd':true}", "lease=lease", .flags = KEYED | FD | GROWS },
        { 'b', "pool.lease", "{'pool':$pool,'count':8}", "lease2=lease", .flags = KEYED | GROWS },
        { 'a', "pool.lease", "{'pool':4711000,'count':8}", .reason = "unknown_handle", .flags = READS | KEYED },
        { 'a', "pool.free", "{'pool':$pool,'dma_addrs':['$b0']}", .flags = GOES },
        { 'a', "pool.free", "{'pool':$pool,'dma_addrs':['$b0']}", .reason = "double_free", .flags = READS },
        { 'a', "pool.free", "{'pool':$pool,'dma_addrs':['0x1']}", .reason = "bad_address", .flags = READS },
        { 'a', "pool.list", "{}", .flags = READS },
        { 'a', "pool.stats", "{'pool':$pool}", .flags = READS },
        { 'a', "pool.destroy", "{'pool':$pool}", .reason = "busy", .flags = READS },
        { 'a', "pool.trim", "{'pool':$pool}" },
        { 'a', "lease.list", "{'pool':$pool}", .flags = READS },
        { 'a', "coherent.lookup", "{'dma_addr':'$b1'}", .flags = READS },
        /* ---- bounce pools and mappings ---- */
        { 'a', "bounce.create", "{'device':$dev,'size':65536,'areas':2,'max_size':131072}", "bounce=bounce", .flags = KEYED },
        { 'a', "bounce.create", "{'device':$dev,'size':65536,'slot_size':3000}", .reason = "bad_param", .flags = READS | KEYED },
        { 'a', "bounce.create", "{'device':$dev,'size':16384}", "small=bounce", .flags = KEYED },
        { 'a', "bounce.map", "{'bounce':$bounce,'size':5000,'direction':'bidirectional'}", "map=mapping",
          .flags = KEYED | GROWS },
        { 'a', "bounce.map", "{'bounce':$bounce,'size':50000,'direction':'to_device'}", "map2=mapping", .flags = KEYED | GROWS },
        { 'a', "bounce.map", "{'bounce':$bounce,'size':50000,'direction':'from_device'}", "map3=mapping",
          .flags = KEYED | GROWS },
        { 'a', "bounce.map", "{'bounce':$small,'size':16384,'direction':'to_device'}", "all=mapping", .flags = KEYED | GROWS },
        { 'a', "bounce.map", "{'bounce':$small,'size':16384,'direction':'to_device'}", .reason = "no_memory",
          .flags = READS | KEYED },
        { 'a', "bounce.map", "{'bounce':$small,'size':16384,'direction':'to_device','wait_ms':3}", .reason = "timeout",
          .flags = KEYED },
        { 'a', "bounce.map", "{'bounce':$small,'size':16384,'direction':'to_device','wait_ms':60000}", "again=mapping",
          .flags = KEYED | TOGETHER },
        { 'a', "bounce.unmap", "{'mapping':$all}", .flags = GOES },
        { 'a', "bounce.sync", "{'mapping':$map,'offset':100,'size':100,'for':'cpu'}" },
        { 'a', "bounce.sync", "{'mapping':$map,'offset':5001}", .reason = "bad_address", .flags = READS },
        { 'a', "bounce.unmap", "{'mapping':$map,'size':4999}", .reason = "wrong_size", .flags = READS },
        { 'a', "bounce.lease", "{'bounce':$bounce,'slots':2,'fd':true}", "lease3=lease", .flags = KEYED | FD | GROWS },
        { 'a', "bounce.stats", "{'bounce':$bounce}", .flags = READS },
        { 'a', "bounce.list", "{}", .flags = READS },
        { 'a', "bounce.destroy", "{'bounce':$bounce}", .reason = "busy", .flags = READS },
        { 'a', "mapping.map", "{'device':$dev,'alloc':$two,'offset':4096,'size':8192,'direction':'bidirectional'}",
          "shared=mapping", .flags = KEYED },
        { 'a', "mapping.map", "{'device':$dev,'alloc':4711000,'direction':'to_device'}", .reason = "unknown_handle",
          .flags = READS | KEYED },
        { 'a', "mapping.list", "{'limit':1}", .flags = READS },
        { 'a', "coherent.free", "{'alloc':$two}", .reason = "busy", .flags = READS },
        /* ---- the administrator ---- */
        { 'a', "quota.get", "{}", .flags = READS },
        { 'a', "quota.get", "{'owner':'user:12345'}", .flags = READS },
        { 'a', "quota.set", "{'owner':'user:12345','limits':{'allocs':5},'guaranteed':{'bytes':65536}}" },
        { 'a', "quota.set", "{'owner':'user:12345','guaranteed':{'bytes':1099511627776}}", .reason = "no_memory",
          .flags = READS },
        { 'a', "quota.set", "{'device':$dev,'limits':{'pools':50}}" },
        { 'a', "stats.get", "{}", .flags = READS },
        { 'a', "stats.reset", "{'group':'rpc'}" },
        { 'a', "debug.check", "{}", .flags = READS | CLEAN | FULL },
        { 'a', "!lose", "" },
        { 'b', "!lose", "" },
        { 'a', "!hangup", "" },
        { 'a', "memory.release", "{}" },
        /* ---- giving back ---- */
        /* A start that could not look at something has it rest. */
        { 'a', "quarantine.release", "{}" },
        { 'a', "quota.set", "{'device':$dev,'unlimited':['pools']}" },
        { 'a', "quota.set", "{'owner':'user:12345','unlimited':['allocs'],'guaranteed':{}}" },
        { 'a', "mapping.unmap", "{'mapping':$shared}", .flags = GOES },
        { 'a', "mapping.unmap", "{'mapping':$shared}", .reason = "double_free", .flags = READS },
        { 'a', "bounce.return", "{'lease':$lease3}", .flags = GOES },
        { 'a', "bounce.return", "{'lease':$lease3}", .reason = "double_free", .flags = READS },
        { 'a', "bounce.unmap", "{'mapping':$map}", .flags = GOES },
        { 'a', "bounce.unmap", "{'mapping':$map}", .reason = "double_free", .flags = READS },
        { 'a', "bounce.destroy", "{'bounce':$small,'force':true}", .flags = GOES },
        { 'a', "bounce.destroy", "{'bounce':$bounce,'force':true}", .flags = GOES },
        { 'a', "pool.return", "{'lease':$lease}", .flags = GOES },
        { 'a', "pool.return", "{'lease':$lease}", .reason = "double_free", .flags = READS },
        { 'a', "pool.destroy", "{'pool':$pool,'force':true}", .flags = GOES },
        { 'a', "coherent.free", "{'alloc':$one}", .flags = GOES },
        { 'a', "coherent.free", "{'alloc':$one}", .reason = "double_free", .flags = READS },
        { 'a', "device.unreserve", "{'device':$kid,'region':$kept}", .reason = "busy", .flags = READS },
        { 'a', "coherent.free", "{'alloc':$three}", .flags = GOES },
        { 'a', "device.unreserve", "{'device':$kid,'region':$kept}", .flags = GOES },
        { 'a', "device.close", "{'device':$kid}", .flags = GOES },
        { 'a', "device.close", "{'device':$dev}", .reason = "busy", .flags = READS },
        { 'a', "device.close", "{'device':$dev,'force':true}", .flags = GOES },
        { 'b', "events.unsubscribe", "{}" },
        { 'b', "broker.bye", "{}", .flags = GOES },
        { 'a', "memory.release", "{}" },
        { 'a', "debug.check", "{}", .flags = READS | CLEAN },
        { 'a', "broker.bye", "{}", .flags = GOES },
};
enum { STEPS = sizeof(steps) / sizeof(*steps), NAMES_MAX = 64, BOOKS = 1024, NOTES = 40 };

/* Blocks of the heap that the daemon may keep for later: a piece of a queue, the room for events. What leaks with each fault of
 * a kind is soon more than that. */
enum { CACHED_MAX = 6 };

enum outcome { FINE, REFUSED, LOST };

struct side {
        struct test_client *client;
        bool has_session; /* said hello, and did not say bye */
};

struct load {
        struct test_daemon *daemon;
        struct inject *inject;
        struct side sides[2];
        char names[NAMES_MAX][2][64];
        size_t n_names;
        unsigned long round;
        int last_id;
        char books[STEPS][BOOKS], nothing[BOOKS];
        long base_live, base_fds;
        char why[512]; /* the last answer that was not as expected */
        bool grown; /* a pool may have grown otherwise than it did with nothing failing */
        bool restarted;
};

static struct load_counts came_of;

size_t load_steps(void) {
        return STEPS;
}

size_t load_next(size_t step) {
        return step + (steps[step].flags & TOGETHER ? 2 : 1);
}

const char *load_step_name(size_t step) {
        return step >= STEPS ? "the end" : steps[step].method ? steps[step].method : "a raw line";
}

bool load_step_reads(size_t step) {
        return steps[step].flags & READS;
}

size_t load_full(void) {
        size_t i = 0;

        while (!(steps[i].flags & FULL))
                i++;
        return i;
}

const struct load_counts *load_counts(void) {
        return &came_of;
}

/* ---- what has failed lately ---- */

static struct {
        char lines[NOTES][256];
        unsigned long n;
} notes;

void load_note(const char *format, ...) {
        char *line = notes.lines[notes.n++ % NOTES];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(line, sizeof(notes.lines[0]), format, arguments);
        va_end(arguments);
        if (getenv("FAULTS_SHOW"))
                fprintf(stderr, "%s\n", line);
}

void load_tell(FILE *file) {
        unsigned long i;

        for (i = notes.n > NOTES ? notes.n - NOTES : 0; i < notes.n; i++)
                fprintf(file, "%s\n", notes.lines[i % NOTES]);
}

/* ---- texts ---- */

static const char *name_find(const struct load *load, const char *name, size_t length) {
        for (size_t i = 0; i < load->n_names; i++)
                if (strlen(load->names[i][0]) == length && memcmp(load->names[i][0], name, length) == 0)
                        return load->names[i][1];
        give_up("there is nothing called %.*s", (int)length, name);
}

static void name_set(struct load *load, const char *name, size_t length, const json_t *value) {
        size_t i;

        for (i = 0; i < load->n_names; i++)
                if (strlen(load->names[i][0]) == length && memcmp(load->names[i][0], name, length) == 0)
                        break;
        if (i == load->n_names && ++load->n_names > NAMES_MAX)
                give_up("there are too many names");
        snprintf(load->names[i][0], sizeof(load->names[i][0]), "%.*s", (int)length, name);
        if (json_is_string(value))
                snprintf(load->names[i][1], sizeof(load->names[i][1]), "%s", json_string_value(value));
        else
                snprintf(load->names[i][1], sizeof(load->names[i][1]), "%lld", (long long)json_integer_value(value));
}

static const json_t *member_of(const json_t *value, const char *path, size_t length) {
        char part[32];

        while (length) {
                size_t n = strcspn(path, ". ");

                snprintf(part, sizeof(part), "%.*s", (int)n, path);
                value = json_is_array(value) ? json_array_get(value, (size_t)atoi(part)) : json_object_get(value, part);
                path += n < length ? n + 1 : n;
                length -= n < length ? n + 1 : n;
        }
        return value;
}

static void take(struct load *load, const struct step *step, const json_t *result) {
        const char *at = step->take;

        while (at && *at) {
                const char *path = strchr(at, '=') + 1;
                size_t length = strcspn(path, " ");
                const json_t *value = member_of(result, path, length);

                if (!value)
                        give_up("the answer to %s has no %.*s", step->method, (int)length, path);
                name_set(load, at, (size_t)(path - at - 1), value);
                at = path + length + (path[length] == ' ');
        }
}

/* With ' for " and the names filled in. */
static void expand(const struct load *load, const char *text, char *out, size_t size) {
        size_t used = 0;

        while (*text && used + 80 < size) {
                if (*text == '$') {
                        size_t length = strspn(text + 1, "abcdefghijklmnopqrstuvwxyz0123456789");

                        used += (size_t)snprintf(out + used, size - used, "%s", name_find(load, text + 1, length));
                        text += length + 1;
                        continue;
                }
                out[used++] = *text == '\'' ? '"' : *text;
                text++;
        }
        out[used] = '\0';
}

static void write_line(struct load *load, size_t index, int id, char *line, size_t size) {
        const struct step *step = &steps[index];
        char params[1024];
        size_t end;

        expand(load, step->params, params, sizeof(params) - 64);
        if (!step->method) {
                snprintf(line, size, "%s\n", params);
                return;
        }
        end = strlen(params) - 1;
        if (step->flags & KEYED)
                snprintf(params + end, sizeof(params) - end, "%s\"request_key\":\"k%lu-%zu\"}", end > 1 ? "," : "",
                         load->round, index);
        snprintf(line, size, "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}\n", id, step->method, params);
}

/* ---- connections ---- */

static struct side *side_of(struct load *load, size_t index) {
        return &load->sides[steps[index].side - 'a'];
}

static void side_drop(struct side *side) {
        test_client_close(side->client);
        side->client = NULL;
}

/* Whether somebody answered who lets us in. */
static bool say_hello(struct load *load, struct side *side) {
        char line[160];
        const char *answer;
        bool good;
        json_t *root;

        if (side->has_session)
                snprintf(line, sizeof(line),
                         "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.hello\",\"params\":{\"session\":\"%s\"}}",
                         name_find(load, side == load->sides ? "sa" : "sb", 2));
        else
                snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.ping\"}");
        if (test_client_ask(side->client, line, &answer) < 0)
                return false;
        root = json_loads(answer, 0, NULL);
        good = json_object_get(root, "result");
        if (!good)
                snprintf(load->why, sizeof(load->why), "%.500s", answer);
        json_decref(root);
        return good;
}

/* It may fail as long as something has been made to fail. */
static void side_connect(struct load *load, struct side *side) {
        int r = 0, tries;

        for (tries = 0; tries < 10; tries++) {
                r = test_client_connect(test_daemon_socket(load->daemon), NULL, &side->client);
                if (r == 0 && say_hello(load, side))
                        return;
                if (r == 0)
                        side_drop(side);
        }
        give_up("nobody lets us in: %s", r < 0 ? strerror(-r) : load->why);
}

static void close_fds(struct side *side, size_t *ret_n) {
        int fd;

        for (*ret_n = 0; (fd = test_client_take_fd(side->client)) >= 0; ++*ret_n)
                close(fd);
}

/* ---- one step ---- */

/* What somebody is told who asked at the wrong moment, and may ask again. */
static bool is_passing(const char *reason, json_int_t code) {
        return reason ? strcmp(reason, "no_memory") == 0 || strcmp(reason, "source_unavailable") == 0 ||
                                strcmp(reason, "limit") == 0
                      : code == -32603;
}

static bool is_gone(const char *reason) {
        return reason && (strcmp(reason, "double_free") == 0 || strcmp(reason, "unknown_handle") == 0 ||
                          strcmp(reason, "unknown_device") == 0 || strcmp(reason, "gone") == 0);
}

static enum outcome judge_error(const struct load *load, const struct step *step, const json_t *error, bool again) {
        const char *reason = json_string_value(json_object_get(json_object_get(error, "data"), "reason"));
        json_int_t code = json_integer_value(json_object_get(error, "code"));

        if (step->reason && reason && strcmp(reason, step->reason) == 0)
                return FINE;
        if (step->code && code == step->code)
                return FINE;
        /* A daemon that was started anew does not know what was there and is no more. */
        if (load->restarted && step->reason && strcmp(step->reason, "double_free") == 0 && is_gone(reason))
                return FINE;
        if (again && (step->flags & GOES) && is_gone(reason))
                return FINE;
        if (is_passing(reason, code) && json_string_value(json_object_get(error, "message")))
                return REFUSED;
        give_up("%s got a wrong error: %s", step->method ? step->method : step->params, json_dumps(error, 0));
}

/* again: it was made before, and nobody knows whether it has worked. */
static enum outcome judge(struct load *load, size_t index, const json_t *answer, bool again) {
        const struct step *step = &steps[index];
        const json_t *result = json_object_get(answer, "result"), *error = json_object_get(answer, "error");
        size_t n_fds, i;
        json_t *item;

        close_fds(side_of(load, index), &n_fds);
        json_array_foreach(answer, i, item)
                if (judge(load, index, item, again) != FINE)
                        return REFUSED;
        if (json_is_array(answer))
                return FINE;
        if (error)
                return judge_error(load, step, error, again);
        if (!result || step->reason || step->code)
                give_up("%s got a wrong answer: %s", load_step_name(index), json_dumps(answer, 0));
        if (n_fds != ((step->flags & FD) ? 1 : 0))
                give_up("%s brought %zu descriptors", step->method, n_fds);
        /* What could not be looked at is not clean, either. */
        if ((step->flags & CLEAN) && !json_is_true(json_object_get(result, "clean")))
                return REFUSED;
        take(load, step, result);
        return FINE;
}

/* The next answer, which is one to `id`, or to nothing in particular. NULL: the connection is lost. */
static json_t *read_answer(struct load *load, struct side *side) {
        const char *line;
        json_t *root;
        int r;

        for (;;) {
                r = test_client_read_line(side->client, &line);
                if (r == -ETIMEDOUT)
                        give_up("there is no answer");
                if (r < 0)
                        return NULL;
                root = json_loads(line, JSON_DECODE_ANY, NULL);
                if (!root)
                        give_up("this is no JSON: %s", line);
                if (!json_object_get(root, "method")) {
                        snprintf(load->why, sizeof(load->why), "%.500s", line);
                        return root;
                }
                json_decref(root);
        }
}

static enum outcome ask(struct load *load, size_t index, bool again) {
        struct side *side = side_of(load, index);
        enum outcome outcome;
        char line[2048];
        json_t *answer;

        write_line(load, index, ++load->last_id, line, sizeof(line));
        if (test_client_send_text(side->client, line) < 0)
                return LOST;
        answer = read_answer(load, side);
        if (!answer)
                return LOST;
        outcome = judge(load, index, answer, again);
        json_decref(answer);
        return outcome;
}

/* This one waits for the next one. */
static void ask_together(struct load *load, size_t index, enum outcome outcomes[2]) {
        struct side *side = side_of(load, index);
        char line[4096];
        json_t *answer;
        int first = load->last_id + 1, i;

        load->last_id += 2;
        outcomes[0] = outcomes[1] = LOST;
        write_line(load, index, first, line, 2048);
        write_line(load, index + 1, first + 1, line + strlen(line), 2048);
        if (test_client_send_text(side->client, line) < 0)
                return;
        for (i = 0; i < 2; i++) {
                json_int_t id;

                answer = read_answer(load, side);
                if (!answer)
                        return;
                id = json_integer_value(json_object_get(answer, "id"));
                /* A line that could not even be read is answered without an id. What waits then waits for ever. */
                if (id != first && id != first + 1) {
                        json_decref(answer);
                        side_drop(side);
                        return;
                }
                outcomes[id - first] = judge(load, index + (size_t)(id - first), answer, false);
                json_decref(answer);
                if (id == first + 1 && outcomes[1] != FINE && outcomes[0] == LOST) {
                        side_drop(side);
                        return;
                }
        }
}

/* ---- the books ---- */

static json_t *ask_plainly(struct load *load, struct side *side, const char *method) {
        char line[128];
        json_t *root, *result;

        snprintf(line, sizeof(line), "{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\"}\n", ++load->last_id, method);
        root = test_client_send_text(side->client, line) < 0 ? NULL : read_answer(load, side);
        result = json_incref(json_object_get(root, "result"));
        if (!result)
                give_up("%s does not work with nothing failing: %s", method, root ? load->why : "the connection is lost");
        json_decref(root);
        return result;
}

/* Whatever is there to be counted, but what depends on where it lies: a request that failed may have left its owner an
 * empty region. */
static void write_books(struct load *load, struct side *side, char *books, bool all) {
        static const char *const counts[] = { "devices", "pools", "bounces", "leases", "mappings", "waiters", "allocs" };
        json_t *status = ask_plainly(load, side, "broker.status"), *source;
        size_t used = 0, i;

        for (i = 0; i < sizeof(counts) / sizeof(*counts); i++)
                used += (size_t)snprintf(books + used, BOOKS - used, "%s %lld ", counts[i], (long long)json_integer_value(
                                         json_object_get(json_object_get(status, "counts"), counts[i])));
        json_array_foreach(json_object_get(status, "sources"), i, source) {
                used += (size_t)snprintf(books + used, BOOKS - used, "used %lld ",
                                         (long long)json_integer_value(json_object_get(source, "used")));
                if (all)
                        used += (size_t)snprintf(books + used, BOOKS - used, "total %lld free %lld in_regions %lld ",
                                                 (long long)json_integer_value(json_object_get(source, "total")),
                                                 (long long)json_integer_value(json_object_get(source, "free")),
                                                 (long long)json_integer_value(json_object_get(source, "in_regions")));
        }
        json_decref(status);
}

static void expect_books(struct load *load, size_t index, const char *wanted, const char *when) {
        char books[BOOKS];

        if (!load->sides->client)
                side_connect(load, load->sides);
        write_books(load, load->sides, books, false);
        if (strncmp(books, wanted, load->grown ? (size_t)(strstr(wanted, "allocs") - wanted) : BOOKS) != 0)
                give_up("%s %s: the books are\n  %s\ninstead of\n  %s", when, load_step_name(index), books, wanted);
}

/* ---- steps ---- */

static enum outcome special(struct load *load, size_t index) {
        struct side *side = side_of(load, index);

        if (strcmp(steps[index].method, "!lose") == 0) {
                side_drop(side);
                side_connect(load, side);
                return FINE;
        }
        if (test_daemon_signal(load->daemon, SIGHUP) < 0 || test_daemon_wait_notify(load->daemon, "READY=1") < 0)
                give_up("the daemon did not read its configuration again");
        return FINE;
}

/* Whether the session is no more, which a lost answer would have said. */
static bool has_ended(struct load *load, struct side *side) {
        side_drop(side);
        if (test_client_connect(test_daemon_socket(load->daemon), NULL, &side->client) < 0)
                give_up("nobody lets us in");
        return !say_hello(load, side) && strstr(load->why, "unknown_handle");
}

/* What was refused has changed nothing, and works when it is asked again; so does what nobody knows of. */
static void make_good(struct load *load, size_t index, enum outcome outcome) {
        bool lost = outcome == LOST;

        if (outcome == FINE)
                return;
        if (lost && steps[index].method && strcmp(steps[index].method, "broker.bye") == 0 &&
            has_ended(load, side_of(load, index)))
                return;
        if (lost)
                side_drop(side_of(load, index));
        if (!side_of(load, index)->client)
                side_connect(load, side_of(load, index));
        outcome = ask(load, index, lost);
        if (outcome == LOST)
                give_up("%s loses the connection with nothing failing", load_step_name(index));
        if (outcome != FINE)
                give_up("%s still fails: %s", load_step_name(index), load->why);
        came_of.again++;
}

static void note_session(struct load *load, size_t index) {
        if (!steps[index].method || steps[index].reason)
                return;
        if (strcmp(steps[index].method, "broker.hello") == 0)
                side_of(load, index)->has_session = true;
        else if (strcmp(steps[index].method, "broker.bye") == 0)
                side_of(load, index)->has_session = false;
}

static void settle(struct load *load, size_t index, enum outcome outcome, const char *what) {
        if (outcome != FINE && !what)
                give_up("%s failed, and nothing was made to fail: %s", load_step_name(index),
                        outcome == LOST ? "the connection was lost" : load->why);
        if (!what)
                return;
        load->grown |= steps[index].flags & GROWS;
        load_note("step %zu (%s): %s: %s", index, load_step_name(index), what,
                  outcome == FINE ? "answered" : outcome == REFUSED ? load->why : "the connection was lost");
        came_of.answered += outcome == FINE;
        came_of.refused += outcome == REFUSED;
        came_of.lost += outcome == LOST;
}

bool load_step(struct load *load, size_t index, enum faulty_kind kind, long n, unsigned variant) {
        enum outcome outcomes[2] = { FINE, FINE };
        const struct step *step = &steps[index];
        struct side *side = side_of(load, index);
        const char *what;
        bool reached;

        if (!side->client)
                side_connect(load, side);
        inject_arm(load->inject, n > 0 ? kind : FAULTY_NONE, n, variant);
        if (step->flags & TOGETHER)
                ask_together(load, index, outcomes);
        else
                outcomes[0] = step->method && *step->method == '!' ? special(load, index) : ask(load, index, false);
        reached = inject_passed(load->inject) >= n;
        what = inject_disarm(load->inject);
        /* Of two, nobody can say what the books were between them. */
        settle(load, index, outcomes[1] == FINE ? outcomes[0] : LOST, what);
        if (outcomes[0] == REFUSED && !(step->flags & (TOGETHER | GROWS)) && index > 0 && *load->books[index - 1])
                expect_books(load, index, load->books[index - 1], "after a refused");
        make_good(load, index + 1, outcomes[1]);
        make_good(load, index, outcomes[0]);
        note_session(load, index);
        if (what && *load->books[index] && index + 1 < STEPS)
                expect_books(load, index, load->books[index], "after");
        return n > 0 && reached;
}

long load_measure(struct load *load, size_t step, enum faulty_kind kind, unsigned variant) {
        load_step(load, step, kind, 1000000000, variant);
        return inject_passed(load->inject);
}

void load_connect(struct load *load) {
        for (int i = 0; i < 2; i++)
                if (!load->sides[i].client)
                        side_connect(load, &load->sides[i]);
}

void load_resume(struct load *load, size_t step) {
        load->restarted = true;
        load_connect(load);
        expect_books(load, step, load->books[step], "started anew after");
}

void load_drop(struct load *load) {
        side_drop(&load->sides[0]);
        side_drop(&load->sides[1]);
}

void load_forget(struct load *load) {
        load_drop(load);
        load->sides[0].has_session = load->sides[1].has_session = false;
}

/* ---- nothing is left ---- */

/* like: only those that are this, or NULL. file: where they are listed, or NULL. */
static long count_fds(const struct load *load, const char *like, FILE *file) {
        char path[32], target[256];
        struct dirent *entry;
        DIR *directory;
        ssize_t length;
        long n = 0;

        snprintf(path, sizeof(path), "/proc/%d/fd", (int)test_daemon_pid(load->daemon));
        directory = opendir(path);
        while (directory && (entry = readdir(directory))) {
                length = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target));
                length = length > 0 ? length : 0;
                if (file)
                        fprintf(file, "descriptor %s: %.*s\n", entry->d_name, (int)length, target);
                n += !like || (strlen(like) == (size_t)length && memcmp(target, like, strlen(like)) == 0);
        }
        if (directory)
                closedir(directory);
        return n;
}

static int64_t now_ms(void) {
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Sessions of which the answer was lost end by themselves in a while, as do regions in which nothing is allocated. */
static bool is_at_rest(struct load *load, struct side *monitor, const char *wanted, char *books) {
        json_t *status = ask_plainly(load, monitor, "broker.status"), *counts = json_object_get(status, "counts");
        json_int_t sessions = json_integer_value(json_object_get(counts, "sessions"));
        json_int_t connections = json_integer_value(json_object_get(counts, "connections"));
        json_int_t regions = json_integer_value(json_object_get(counts, "regions")), pending = 0;
        json_t *source;
        size_t i;

        json_array_foreach(json_object_get(status, "sources"), i, source)
                pending += json_integer_value(json_object_get(source, "pending"));
        json_decref(status);
        write_books(load, monitor, books, true);
        return sessions == 0 && connections == 1 && regions == 0 && pending == 0 &&
                (!*wanted || strcmp(books, wanted) == 0);
}

/* False: it does not become what was wanted. What is closed or freed a moment later is no leak, and a keeper that is just
 * being replaced is missing. */
static bool look(struct load *load, const char *wanted, bool compares, char *books, long *ret_live, long *ret_fds) {
        int64_t end = now_ms() + test_timeout_ms();
        struct side monitor = { 0 };
        bool good, unsettled;

        load_drop(load);
        side_connect(load, &monitor);
        do {
                good = is_at_rest(load, &monitor, wanted, books);
                *ret_live = (long)inject_page(load->inject)->live;
                *ret_fds = count_fds(load, NULL, NULL);
                unsettled = compares ? *ret_fds > load->base_fds || *ret_live > load->base_live + CACHED_MAX
                                     : count_fds(load, "anon_inode:[pidfd]", NULL) == 0;
        } while ((!good || unsettled) && now_ms() < end);
        side_drop(&monitor);
        return good;
}

void load_learn(struct load *load) {
        long live, fds;

        for (size_t i = 0; i < STEPS; i = load_next(i)) {
                load_step(load, i, FAULTY_NONE, 0, 0);
                if (load->sides->has_session)
                        write_books(load, load->sides, load->books[i], false);
        }
        if (!look(load, "", false, load->nothing, &live, &fds))
                give_up("something is left with nothing failing: %s", load->nothing);
        load->round++;
}

void load_set_base(struct load *load) {
        char books[BOOKS];

        look(load, load->nothing, false, books, &load->base_live, &load->base_fds);
}

void load_expect_nothing(struct load *load, const char *after) {
        char books[BOOKS];
        long live, fds;

        load->round++;
        load->grown = load->restarted = false;
        if (!look(load, load->nothing, true, books, &live, &fds))
                give_up("%s: something is left: the books are\n  %s\ninstead of\n  %s", after, books, load->nothing);
        if (fds > load->base_fds)
                count_fds(load, NULL, stderr);
        if (fds > load->base_fds)
                give_up("%s: the daemon has %ld descriptors open instead of %ld", after, fds, load->base_fds);
        if (live > load->base_live + CACHED_MAX)
                give_up("%s: the daemon has %ld blocks of the heap more than at first", after, live - load->base_live);
        came_of.rests++;
        came_of.fds = fds - load->base_fds > came_of.fds ? fds - load->base_fds : came_of.fds;
        came_of.blocks = live - load->base_live > came_of.blocks ? live - load->base_live : came_of.blocks;
}

struct load *load_new(struct test_daemon *daemon, struct inject *inject) {
        struct load *load = calloc(1, sizeof(*load));

        if (!load)
                give_up("there is no memory");
        load->daemon = daemon;
        load->inject = inject;
        return load;
}

void load_free(struct load *load) {
        load_drop(load);
        free(load);
}
