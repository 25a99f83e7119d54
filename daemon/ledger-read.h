/* The ledger's format, and reading it. All numbers are in the machine's own order: the file never leaves it. */
#ifndef DMAB_DAEMON_LEDGER_READ_H
#define DMAB_DAEMON_LEDGER_READ_H

#include "daemon/core/ledger.h"

#define LEDGER_MAGIC "dmabledg" /* without its NUL */
#define LEDGER_FRAME_MAGIC UINT32_C(0xb0f4a3e1)

enum {
        LEDGER_HEADER_SIZE = 4096,
        LEDGER_BOOT_BYTES = 16,
        LEDGER_NAME_MAX = 40,
        LEDGER_ALIGN = 8,
        LEDGER_PUT = 1,
        LEDGER_DROP = 2,
        LEDGER_END = 3, /* everything has been told: what was before this file is not needed */
};

/* At the beginning of the file's first page. */
struct ledger_header {
        char magic[8];
        uint32_t version;
        uint32_t alone; /* without its end it counts for nothing; otherwise it goes on from the generation before */
        uint64_t generation;
        uint64_t salt; /* nobody who names things in here can forge a frame */
        unsigned char boot[LEDGER_BOOT_BYTES];
        uint32_t checksum; /* of what is above */
        uint32_t unused;
        uint64_t committed; /* bytes: what is damaged before here was whole once; what is not whole behind, was never told */
};

struct ledger_frame {
        uint32_t magic;
        uint32_t size; /* with this head; a multiple of LEDGER_ALIGN, filled up with zeros */
        uint64_t sequence;
        uint32_t checksum;
        uint32_t unused;
};

uint32_t ledger_header_checksum(const struct ledger_header *header);
/* The frame's bytes follow its head. */
uint32_t ledger_frame_checksum(const struct ledger_frame *frame, uint64_t salt);

struct ledger_reading;

/* *ret NULL: there is no ledger. */
int ledger_read(int directory_fd, struct ledger_reading **ret, struct failure *failure);
struct ledger_reading *ledger_reading_free(struct ledger_reading *reading);
int ledger_reading_visit(const struct ledger_reading *reading, enum row_kind kind, row_visit_fn visit, void *userdata);
/* All of them. */
int ledger_reading_read(const struct ledger_reading *reading, row_read_fn read, void *userdata);
/* NULL: it is damaged just there. */
const unsigned char *ledger_reading_boot(const struct ledger_reading *reading);
uint64_t ledger_reading_generation(const struct ledger_reading *reading);
bool ledger_reading_is_damaged(const struct ledger_reading *reading);
/* One file says it all, and can be gone on with. One that has rows of a kind that is not known cannot: nobody would keep
 * them true, and a newer daemon would find them again. */
bool ledger_reading_is_one(const struct ledger_reading *reading);
uint64_t ledger_reading_rows(const struct ledger_reading *reading);
uint64_t ledger_reading_live_bytes(const struct ledger_reading *reading);
/* Where the last whole frame ends, and its number. */
void ledger_reading_end(const struct ledger_reading *reading, uint64_t *ret_size, uint64_t *ret_sequence);

#endif
