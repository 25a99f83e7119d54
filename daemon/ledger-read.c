#include "daemon/ledger-read.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- checksums: CRC-32C, eight bytes at a time ---- */

static uint32_t crc_tables[8][256];

static void crc_init(void) {
        uint32_t crc;
        unsigned i, j;

        if (crc_tables[0][1])
                return;
        for (i = 0; i < 256; i++) {
                crc = i;
                for (j = 0; j < 8; j++)
                        crc = crc & 1 ? crc >> 1 ^ UINT32_C(0x82f63b78) : crc >> 1;
                crc_tables[0][i] = crc;
        }
        for (i = 0; i < 256; i++)
                for (j = 1; j < 8; j++)
                        crc_tables[j][i] = crc_tables[j - 1][i] >> 8 ^ crc_tables[0][crc_tables[j - 1][i] & 0xff];
}

static uint32_t crc_add(uint32_t crc, const void *bytes, size_t size) {
        const unsigned char *at = bytes;
        uint64_t word;

        crc_init();
        for (; size >= 8; at += 8, size -= 8) {
                memcpy(&word, at, 8);
                word ^= crc;
                crc = crc_tables[7][word & 0xff] ^ crc_tables[6][word >> 8 & 0xff] ^ crc_tables[5][word >> 16 & 0xff] ^
                      crc_tables[4][word >> 24 & 0xff] ^ crc_tables[3][word >> 32 & 0xff] ^
                      crc_tables[2][word >> 40 & 0xff] ^ crc_tables[1][word >> 48 & 0xff] ^ crc_tables[0][word >> 56];
        }
        for (; size; at++, size--)
                crc = crc >> 8 ^ crc_tables[0][(crc ^ *at) & 0xff];
        return crc;
}

uint32_t ledger_header_checksum(const struct ledger_header *header) {
        return ~crc_add(UINT32_MAX, header, offsetof(struct ledger_header, checksum));
}

uint32_t ledger_frame_checksum(const struct ledger_frame *frame, uint64_t salt) {
        uint32_t crc = crc_add(UINT32_MAX, &salt, sizeof(salt));

        crc = crc_add(crc, frame, offsetof(struct ledger_frame, checksum));
        return ~crc_add(crc, frame + 1, frame->size - sizeof(*frame));
}

/* ---- what has been read ---- */

struct entry {
        uint64_t id;
        const unsigned char *bytes; /* NULL: it was dropped */
        uint32_t size;
        uint16_t kind;
        bool used;
};

/* A file as it was found. */
struct text {
        unsigned char *bytes; /* NULL: there is none */
        uint64_t size;        /* that is there */
        struct ledger_header header;
        uint64_t end, sequence; /* of the last whole frame */
        bool ended;             /* everything was told in it */
        bool damaged;
};

struct ledger_reading {
        struct text *texts; /* that count, the newest first: each goes on from the one behind it */
        size_t n_texts;
        bool damaged; /* what counts of it is */
        bool foreign; /* there are kinds of rows that this daemon does not know */
        struct entry *entries; /* by kind and id, open addressing; later: the live ones in order */
        size_t n_entries, capacity;
        size_t starts[ROW_KINDS + 1]; /* of each kind in the sorted entries */
        uint64_t live_bytes;
};

static size_t entry_home(const struct ledger_reading *reading, uint64_t id, unsigned kind) {
        return (size_t)((id * 2 + kind * UINT64_C(0x9e3779b97f4a7c55)) * UINT64_C(0x9e3779b97f4a7c15) >> 20) &
               (reading->capacity - 1);
}

static struct entry *entry_find(const struct ledger_reading *reading, uint64_t id, unsigned kind) {
        size_t at = entry_home(reading, id, kind);

        while (reading->entries[at].used && (reading->entries[at].id != id || reading->entries[at].kind != kind))
                at = (at + 1) & (reading->capacity - 1);
        return &reading->entries[at];
}

static int entries_grow(struct ledger_reading *reading) {
        struct entry *old = reading->entries;
        size_t n = reading->capacity, i;

        if (2 * (reading->n_entries + 1) <= reading->capacity)
                return 0;
        reading->capacity = n ? 2 * n : 1024;
        reading->entries = calloc(reading->capacity, sizeof(*old));
        if (!reading->entries) {
                reading->entries = old;
                reading->capacity = n;
                return -ENOMEM;
        }
        for (i = 0; i < n; i++)
                if (old[i].used)
                        *entry_find(reading, old[i].id, old[i].kind) = old[i];
        free(old);
        return 0;
}

static int note(struct ledger_reading *reading, unsigned kind, uint64_t id, const unsigned char *bytes, uint32_t size) {
        struct entry *entry;

        if (entries_grow(reading) < 0)
                return -ENOMEM;
        entry = entry_find(reading, id, kind);
        reading->n_entries += !entry->used;
        *entry = (struct entry){ .id = id, .bytes = bytes, .size = size, .kind = (uint16_t)kind, .used = true };
        return 0;
}

/* ---- frames ---- */

static bool read_number(const unsigned char **at, const unsigned char *end, uint64_t *ret) {
        uint64_t number = 0;
        unsigned shift;

        for (shift = 0; shift < 64 && *at < end; shift += 7) {
                number |= (uint64_t)(**at & 0x7f) << shift;
                if (!(*(*at)++ & 0x80)) {
                        *ret = number;
                        return true;
                }
        }
        return false;
}

/* -EBADMSG: its checksum is right, but it makes no sense. */
static int frame_read(struct ledger_reading *reading, struct text *text, const struct ledger_frame *frame) {
        const unsigned char *at = (const unsigned char *)(frame + 1), *end = (const unsigned char *)frame + frame->size;
        uint64_t id, size;
        unsigned what, kind;
        int r = 0;

        while (r == 0 && end - at > 2 && *at) {
                what = *at++;
                kind = *at++;
                size = 0;
                if (!read_number(&at, end, &id) ||
                    (what == LEDGER_PUT && (!read_number(&at, end, &size) || size > (uint64_t)(end - at))))
                        return -EBADMSG;
                if (what == LEDGER_END)
                        text->ended = true;
                else if (what != LEDGER_PUT && what != LEDGER_DROP)
                        return -EBADMSG;
                else if (kind >= ROW_KINDS) /* a newer daemon's, which may add some */
                        reading->foreign = true;
                else
                        r = note(reading, kind, id, what == LEDGER_PUT ? at : NULL, (uint32_t)size);
                at += size;
        }
        return r;
}

/* The whole frame that begins here, or NULL. */
static const struct ledger_frame *frame_at(const struct text *text, uint64_t at) {
        const struct ledger_frame *frame = (const struct ledger_frame *)(text->bytes + at);

        if (text->size - at < sizeof(*frame) || frame->magic != LEDGER_FRAME_MAGIC || frame->size < sizeof(*frame) ||
            frame->size % LEDGER_ALIGN || frame->size > text->size - at || frame->sequence <= text->sequence)
                return NULL;
        return frame->checksum == ledger_frame_checksum(frame, text->header.salt) ? frame : NULL;
}

/* Where the next whole frame begins; 0: there is none. */
static uint64_t frame_search(const struct text *text, uint64_t from) {
        for (; from + sizeof(struct ledger_frame) <= text->size; from += LEDGER_ALIGN)
                if (frame_at(text, from))
                        return from;
        return 0;
}

static int frames_read(struct ledger_reading *reading, struct text *text) {
        const struct ledger_frame *frame;
        uint64_t at = LEDGER_HEADER_SIZE;
        int r = 0;

        text->end = at;
        text->sequence = 0;
        text->ended = false;
        while (r == 0 && at) {
                frame = at < text->size ? frame_at(text, at) : NULL;
                if (!frame) {
                        at = frame_search(text, at);
                        text->damaged |= at != 0;
                        continue;
                }
                text->damaged |= frame->sequence != text->sequence + 1;
                r = frame_read(reading, text, frame);
                if (r == -EBADMSG) {
                        text->damaged = true;
                        r = 0;
                }
                text->sequence = frame->sequence;
                text->end = at += frame->size;
        }
        text->damaged |= text->end < text->header.committed;
        return r;
}

/* ---- files ---- */

static int file_read(int directory_fd, uint64_t generation, struct text *ret) {
        char name[LEDGER_NAME_MAX];
        struct stat status;
        int fd, r = 0;
        ssize_t n;

        snprintf(name, sizeof(name), "ledger.%llu", (unsigned long long)generation);
        fd = openat(directory_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        if (fstat(fd, &status) < 0)
                r = -errno;
        else
                ret->bytes = malloc((size_t)status.st_size + 1);
        if (r == 0 && !ret->bytes)
                r = -ENOMEM;
        while (r == 0 && ret->size < (uint64_t)status.st_size) {
                n = pread(fd, ret->bytes + ret->size, (size_t)((uint64_t)status.st_size - ret->size), (off_t)ret->size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        r = n < 0 ? -errno : 0;
                        break;
                }
                ret->size += (uint64_t)n;
        }
        close(fd);
        return r;
}

/* Whether there is anything behind the header. */
static bool is_written(const struct text *text) {
        uint64_t i;

        for (i = LEDGER_HEADER_SIZE; i < text->size && i < LEDGER_HEADER_SIZE + sizeof(struct ledger_frame); i++)
                if (text->bytes[i])
                        return true;
        return false;
}

/* -ENOENT: it was being begun, and is nothing yet. -EBADMSG: it is damaged. -EPROTONOSUPPORT: it is another version's. */
static int header_read(struct text *text) {
        static const char no_magic[sizeof(text->header.magic)];

        if (text->size < LEDGER_HEADER_SIZE)
                return text->size ? -EBADMSG : -ENOENT;
        memcpy(&text->header, text->bytes, sizeof(text->header));
        if (memcmp(text->header.magic, no_magic, sizeof(no_magic)) == 0)
                return is_written(text) ? -EBADMSG : -ENOENT;
        if (memcmp(text->header.magic, LEDGER_MAGIC, sizeof(text->header.magic)) != 0)
                return -EBADMSG;
        if (text->header.version != LEDGER_VERSION)
                return -EPROTONOSUPPORT;
        return text->header.checksum == ledger_header_checksum(&text->header) ? 0 : -EBADMSG;
}

struct generations {
        uint64_t *numbers;
        size_t n, capacity;
};

static int generations_add(struct generations *generations, uint64_t number) {
        size_t capacity = 2 * generations->n + 8;
        uint64_t *numbers;

        if (generations->n == generations->capacity) {
                numbers = realloc(generations->numbers, capacity * sizeof(*numbers));
                if (!numbers)
                        return -ENOMEM;
                generations->numbers = numbers;
                generations->capacity = capacity;
        }
        generations->numbers[generations->n++] = number;
        return 0;
}

static int newest_first(const void *a, const void *b) {
        const uint64_t *x = a, *y = b;

        return (*x < *y) - (*x > *y);
}

static int find_generations(int directory_fd, struct generations *ret) {
        int fd = openat(directory_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        unsigned long long number;
        struct dirent *entry;
        DIR *directory;
        char rest;

        directory = fd < 0 ? NULL : fdopendir(fd);
        if (!directory) {
                r = -errno;
                if (fd >= 0)
                        close(fd);
                return r;
        }
        /* A directory that could not be read to its end is not one without a ledger. */
        while (r == 0 && (errno = 0, entry = readdir(directory)))
                if (sscanf(entry->d_name, "ledger.%llu%c", &number, &rest) == 1)
                        r = generations_add(ret, number);
        if (r == 0 && errno)
                r = -errno;
        closedir(directory);
        if (r == 0 && ret->n)
                qsort(ret->numbers, ret->n, sizeof(*ret->numbers), newest_first);
        return r;
}

static void version_failure(const struct text *text, struct failure *failure) {
        failure_set_errno(failure, REASON_unsupported, EPROTONOSUPPORT,
                          "the ledger in the state directory has version %u, and this daemon reads version %d: %s",
                          text->header.version, LEDGER_VERSION,
                          text->header.version > LEDGER_VERSION
                                  ? "a newer daemon wrote it, so run that one, or end everything with --discard-state"
                                  : "run the daemon that wrote it once more and let its clients end, or use --discard-state");
}

static void text_forget(struct text *text) {
        free(text->bytes);
        *text = (struct text){};
}

/* Without bytes: there is no such file, or it is nothing yet. */
static int text_read(struct text *text, int directory_fd, uint64_t generation, struct failure *failure) {
        int r;

        r = file_read(directory_fd, generation, text);
        if (r == 0)
                r = header_read(text);
        if (r == -EPROTONOSUPPORT)
                version_failure(text, failure);
        text->damaged |= r == -EBADMSG;
        if (r == 0 || r == -EBADMSG)
                return 0;
        text_forget(text);
        return r == -ENOENT ? 0 : r;
}

static int by_kind(const void *a, const void *b) {
        const struct entry *x = a, *y = b;

        if (x->kind != y->kind)
                return x->kind < y->kind ? -1 : 1;
        return (x->id > y->id) - (x->id < y->id);
}

static void entries_sort(struct ledger_reading *reading) {
        size_t i, n = 0;
        unsigned kind = 0;

        for (i = 0; i < reading->capacity; i++)
                if (reading->entries[i].used && reading->entries[i].bytes)
                        reading->entries[n++] = reading->entries[i];
        if (n)
                qsort(reading->entries, n, sizeof(*reading->entries), by_kind);
        reading->n_entries = n;
        for (i = 0; i < n; i++) {
                reading->live_bytes += reading->entries[i].size + 16;
                while (kind <= reading->entries[i].kind)
                        reading->starts[kind++] = i;
        }
        while (kind <= ROW_KINDS)
                reading->starts[kind++] = n;
}

static void entries_forget(struct ledger_reading *reading) {
        if (reading->entries)
                memset(reading->entries, 0, reading->capacity * sizeof(*reading->entries));
        reading->n_entries = 0;
}

/* The newest says it all if it has its end. If not, it goes on from the one before, which need not have its end either;
 * but one that was to stand alone counts for nothing then. What counts is read when it is known, unless it is one only:
 * *ret_read. */
static int texts_read(struct ledger_reading *reading, int directory_fd, const struct generations *generations,
                      bool *ret_read, struct failure *failure) {
        struct text unended = {}, *text;
        size_t i;
        int r = 0;

        reading->texts = calloc(generations->n + 1, sizeof(*reading->texts));
        if (!reading->texts)
                return -ENOMEM;
        for (i = 0; i < generations->n && r == 0 && !*ret_read; i++) {
                text = &reading->texts[reading->n_texts];
                r = text_read(text, directory_fd, generations->numbers[i], failure);
                if (r < 0 || !text->bytes)
                        continue;
                r = frames_read(reading, text);
                reading->damaged |= text->damaged;
                *ret_read = text->ended && !reading->n_texts;
                reading->n_texts++;
                if (*ret_read)
                        break;
                entries_forget(reading);
                if (text->ended)
                        break;
                if (!text->header.alone)
                        continue;
                text_forget(&unended);
                unended = *text;
                *text = (struct text){};
                reading->n_texts--;
        }
        /* The one before is removed only after the end was written: when it is not there, the end was, and is damaged. */
        if (!reading->n_texts && (unended.end > LEDGER_HEADER_SIZE || unended.damaged)) {
                reading->texts[reading->n_texts++] = unended;
                unended = (struct text){};
        }
        text_forget(&unended);
        if (reading->n_texts && !reading->texts[reading->n_texts - 1].ended)
                reading->damaged = true;
        return r;
}

static int read_all(struct ledger_reading *reading, int directory_fd, struct failure *failure) {
        struct generations generations = {};
        bool is_read = false;
        size_t i;
        int r;

        r = find_generations(directory_fd, &generations);
        if (r == 0)
                r = texts_read(reading, directory_fd, &generations, &is_read, failure);
        free(generations.numbers);
        for (i = is_read ? 0 : reading->n_texts; i && r == 0; i--)
                r = frames_read(reading, &reading->texts[i - 1]);
        return r;
}

int ledger_read(int directory_fd, struct ledger_reading **ret, struct failure *failure) {
        struct ledger_reading *reading = calloc(1, sizeof(*reading));
        int r;

        if (!reading)
                return failure_set(failure, REASON_no_memory, "there is no memory to read the ledger");
        r = read_all(reading, directory_fd, failure);
        if (r < 0 && !failure->error)
                failure_set_errno(failure, REASON_source_unavailable, -r, "the ledger cannot be read: %s", strerror(-r));
        if (r < 0 || !reading->n_texts)
                reading = ledger_reading_free(reading);
        else
                entries_sort(reading);
        if (r == 0)
                *ret = reading;
        return r;
}

struct ledger_reading *ledger_reading_free(struct ledger_reading *reading) {
        size_t i;

        if (!reading)
                return NULL;
        for (i = 0; i < reading->n_texts; i++)
                text_forget(&reading->texts[i]);
        free(reading->texts);
        free(reading->entries);
        free(reading);
        return NULL;
}

/* ---- looking at it ---- */

int ledger_reading_visit(const struct ledger_reading *reading, enum row_kind kind, row_visit_fn visit, void *userdata) {
        size_t i;
        int r = 0;

        for (i = reading->starts[kind]; i < reading->starts[kind + 1] && r == 0; i++)
                r = visit(userdata, reading->entries[i].id, reading->entries[i].bytes, reading->entries[i].size);
        return r;
}

int ledger_reading_read(const struct ledger_reading *reading, row_read_fn read, void *userdata) {
        size_t i;
        int r = 0;

        for (i = 0; i < reading->n_entries && r == 0; i++)
                r = read(userdata, (enum row_kind)reading->entries[i].kind, reading->entries[i].id, reading->entries[i].bytes,
                         reading->entries[i].size);
        return r;
}

const unsigned char *ledger_reading_boot(const struct ledger_reading *reading) {
        const struct ledger_header *header = &reading->texts[0].header;

        return header->checksum == ledger_header_checksum(header) ? header->boot : NULL;
}

uint64_t ledger_reading_generation(const struct ledger_reading *reading) {
        return reading->texts[0].header.generation;
}

bool ledger_reading_is_damaged(const struct ledger_reading *reading) {
        return reading->damaged;
}

bool ledger_reading_is_one(const struct ledger_reading *reading) {
        return reading->n_texts == 1 && !reading->foreign;
}

uint64_t ledger_reading_rows(const struct ledger_reading *reading) {
        return reading->n_entries;
}

uint64_t ledger_reading_live_bytes(const struct ledger_reading *reading) {
        return reading->live_bytes;
}

void ledger_reading_end(const struct ledger_reading *reading, uint64_t *ret_size, uint64_t *ret_sequence) {
        *ret_size = reading->texts[0].end;
        *ret_sequence = reading->texts[0].sequence;
}
