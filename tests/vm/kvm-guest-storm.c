/* What a guest does that wants everything, and one that is out of its mind. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/vm/kvm-guest.h"

enum { PIECES_MAX = 64, PIECE_MIN = 4096, CHUNK = 4096, PATIENCE_MS = 2000 };

static struct piece {
        uint64_t *memory;
        size_t size;
        dmab_addr_t dma;
} pieces[PIECES_MAX];
static unsigned n_pieces;

static uint64_t word(uint64_t seed, unsigned piece, size_t at) {
        return (seed * PIECES_MAX + piece + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ at;
}

/* From large to small, until there is nothing left. false: told already. */
static bool take_piece(uint64_t seed, size_t size) {
        struct piece *piece = &pieces[n_pieces];
        void *memory;

        if (dmab_alloc_coherent(guest_device, size, DMAB_ZERO, &memory, &piece->dma) < 0)
                return false;
        piece->memory = memory;
        piece->size = size;
        for (size_t at = 0; at < size / sizeof(uint64_t); at++) {
                if (piece->memory[at]) {
                        guest_say("error: 0x%" PRIx64 " lies in new memory at %zu of %zu", piece->memory[at], at, size);
                        return false;
                }
                piece->memory[at] = word(seed, n_pieces, at);
        }
        n_pieces++;
        return true;
}

bool storm_take(uint64_t seed, void **ret_first, dmab_addr_t *ret_dma, size_t *ret_size) {
        size_t bytes = 0;

        n_pieces = 0;
        for (size_t size = 1 << 23; size >= PIECE_MIN && n_pieces < PIECES_MAX;) {
                pieces[n_pieces].memory = NULL;
                if (take_piece(seed, size))
                        bytes += size;
                else if (pieces[n_pieces].memory)
                        return false;
                else
                        size /= 2;
        }
        if (!n_pieces) {
                guest_say("error: there is nothing: %s", dmab_last_error());
                return false;
        }
        *ret_first = pieces[0].memory;
        *ret_dma = pieces[0].dma;
        *ret_size = pieces[0].size;
        guest_say("ok {\"pieces\":%u,\"bytes\":%zu}", n_pieces, bytes);
        return true;
}

void storm_look(uint64_t seed) {
        size_t bytes = 0;

        for (unsigned i = 0; i < n_pieces; i++)
                for (size_t at = 0; at < pieces[i].size / sizeof(uint64_t); at++, bytes += sizeof(uint64_t))
                        if (pieces[i].memory[at] != word(seed, i, at)) {
                                guest_say("error: 0x%" PRIx64 " at %zu of piece %u", pieces[i].memory[at], at, i);
                                return;
                        }
        guest_say("ok {\"bytes\":%zu}", bytes);
}

void storm_drop(void) {
        int r = 0;

        for (; n_pieces && r == 0; n_pieces--)
                r = dmab_free_coherent(guest_device, pieces[n_pieces - 1].size, pieces[n_pieces - 1].memory,
                                       pieces[n_pieces - 1].dma);
        guest_say_result(r);
}

/* ---- the port ---- */

static uint64_t random_state;

static uint64_t next_random(void) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state;
}

static void make_garbage(char *chunk) {
        for (size_t at = 0; at < CHUNK; at++)
                chunk[at] = (char)next_random();
}

/* Some have no end, some no beginning, some are two. */
static void make_halves(char *chunk) {
        static const char *const requests[] = {
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.hello\",\"params\":{\"client\":\"half\"}}\n",
                "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"coherent.alloc\",\"params\":{\"device\":1,\"size\":4096}}\n",
                "[{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"broker.ping\"},{\"jsonrpc\":\"2.0\",\"method\":\"broker.bye\"}]\n",
                "{\"jsonrpc\":\"2.0\",\"id\":\"\\u0000\",\"method\":\"window.list\",\"params\":[[[[[[[[\n",
        };

        for (size_t at = 0; at < CHUNK;) {
                const char *request = requests[next_random() % (sizeof(requests) / sizeof(*requests))];
                size_t from = next_random() % 4 ? 0 : next_random() % 20, n = next_random() % (strlen(request) + 1 - from);

                if (next_random() % 2)
                        n = strlen(request) - from;
                n = n < CHUNK - at ? n : CHUNK - at;
                memcpy(chunk + at, request + from, n);
                at += n;
        }
}

/* Each begins anew; each hello opens a session of which nobody will hear again. */
static void make_resets(char *chunk) {
        static const char hello[] = "\xff{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"broker.hello\"}\n";

        memset(chunk, 0xff, CHUNK);
        for (int i = 0; i < 8; i++)
                memcpy(chunk + next_random() % (CHUNK - sizeof(hello)), hello, sizeof(hello) - 1);
}

/* A line that never ends. */
static void make_long(char *chunk) {
        memset(chunk, ' ', CHUNK);
        chunk[0] = '{';
}

static const struct flood {
        const char *name;
        void (*make)(char *chunk);
} floods[] = { { "garbage", make_garbage }, { "halves", make_halves }, { "resets", make_resets }, { "long", make_long } };

/* Whoever reads the answers lets the daemon go on; who does not is the other half of the cases. */
static size_t write_flood(int fd, const struct flood *flood, size_t chunks, bool reads) {
        struct pollfd poll_for = { .fd = fd, .events = POLLOUT };
        char chunk[CHUNK], heard[CHUNK];
        size_t sent = 0;
        ssize_t n = 0;

        for (size_t i = 0; i < chunks && n >= 0; i++) {
                flood->make(chunk);
                for (size_t at = 0; at < CHUNK; at += (size_t)n, sent += (size_t)n) {
                        while (reads && read(fd, heard, sizeof(heard)) > 0)
                                ;
                        n = poll(&poll_for, 1, PATIENCE_MS) > 0 ? write(fd, chunk + at, CHUNK - at) : -1;
                        if (n < 0)
                                break;
                }
        }
        return sent;
}

void storm_flood(char *arguments) {
        const struct flood *flood = floods;
        unsigned long kib;
        char kind[16];
        int fd;

        if (!arguments || sscanf(arguments, "%15s %" SCNu64 " %lu", kind, &random_state, &kib) != 3) {
                guest_say("error: flood with what?");
                return;
        }
        while (strcmp(flood->name, kind) != 0 && flood + 1 < floods + sizeof(floods) / sizeof(*floods))
                flood++;
        random_state = random_state * 2 + 1;
        fd = open(KVM_GUEST_PORT, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0) {
                guest_say("error: %s: %s", KVM_GUEST_PORT, strerror(errno));
                return;
        }
        guest_say("ok {\"bytes\":%zu}", write_flood(fd, flood, kib * 1024 / CHUNK, next_random() % 2));
        close(fd);
}
