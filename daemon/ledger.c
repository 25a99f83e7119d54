#include "daemon/ledger.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "daemon/ledger-read.h"
#include "daemon/log.h"

enum {
        /* Reserved at a time, on disk and in memory. */
        CHUNK = 1 << 18,
        /* Promises end here: what is left is for what can be given back. */
        ROOM_MIN = 1 << 18,
        /* A rewrite that stands alone is written in pieces of this size. */
        PIECE = 1 << 20,
        /* Smaller files are not worth a rewrite. */
        REWRITE_MIN = 4 << 20, /* unless told otherwise */
};

/* One file. */
struct volume {
        uint64_t generation;
        int fd; /* -1: there is none */
        struct ledger_header *header; /* all that is reserved of it, mapped */
        uint64_t size, reserved;      /* bytes; the latter on disk, and in memory */
        uint64_t on_disk;             /* at least */
        uint64_t sequence;            /* of the last frame */
};

struct file_ledger {
        struct ledger base;
        int directory_fd;
        unsigned char boot[LEDGER_BOOT_BYTES];
        struct volume volume; /* in force; while it is written anew: the next one, where rows go already */
        struct volume before; /* while it is written anew: what must be read first after a crash, with others perhaps; or none */
        bool rewriting, alone;
        bool ended;          /* the end of the rewrite is in the frame */
        bool full;           /* nothing was promised the last time, for want of room */
        uint64_t rewrite_min;
        uint64_t live_bytes; /* of rows, when they were last counted */
        unsigned char *frame;
        size_t used, capacity; /* of frame; used: with the header's room */
        struct ledger_reading *reading; /* until the first row is put */
        struct ledger_facts facts;
        bool (*keeps)(const char *source); /* NULL: none is gone, or all of them are */
        char about[160];
};

/* ---- files ---- */

static void volume_name(char name[LEDGER_NAME_MAX], uint64_t generation) {
        snprintf(name, LEDGER_NAME_MAX, "ledger.%llu", (unsigned long long)generation);
}

static void volume_close(struct volume *volume) {
        if (volume->header)
                munmap(volume->header, volume->reserved);
        if (volume->fd >= 0)
                close(volume->fd);
        *volume = (struct volume){ .fd = -1 };
}

static void volume_remove(const struct file_ledger *ledger, struct volume *volume) {
        char name[LEDGER_NAME_MAX];

        if (volume->fd < 0)
                return;
        volume_name(name, volume->generation);
        unlinkat(ledger->directory_fd, name, 0);
        volume_close(volume);
}

/* What will be written of it is in memory when this returns, so that writing costs no system call and cannot fail. */
static int volume_map(struct volume *volume, uint64_t size) {
        const uint64_t before = volume->reserved, first = before ? before : volume->size / CHUNK * CHUNK;
        void *map;
        int r = 0;

        if (before)
                map = mremap(volume->header, before, size, MREMAP_MAYMOVE);
        else
                map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, volume->fd, 0);
        if (map == MAP_FAILED)
                return -errno;
        /* A keeper that is made later would hold the disk space of files that have long been removed. It stays so when the
         * mapping moves. */
        if (!before)
                madvise(map, size, MADV_DONTFORK);
        /* EINVAL: the kernel is older than that (5.14), and brings the pages one by one. */
        if (madvise((char *)map + first, size - first, MADV_POPULATE_WRITE) < 0 && errno != EINVAL)
                r = errno == EFAULT ? -EIO : -errno;
        if (r < 0)
                munmap((char *)map + before, size - before);
        if (r == 0 || before)
                volume->header = map;
        if (r == 0)
                volume->reserved = size;
        return r;
}

static uint64_t whole_chunks(uint64_t size) {
        return (size + CHUNK - 1) / CHUNK * CHUNK;
}

static int volume_allocate(struct volume *volume, uint64_t size) {
        int r;

        if (size <= volume->on_disk)
                return 0;
        do
                r = posix_fallocate(volume->fd, (off_t)volume->on_disk, (off_t)(size - volume->on_disk));
        while (r == EINTR);
        if (r == 0)
                volume->on_disk = size;
        return -r;
}

static int volume_reserve(struct volume *volume, uint64_t size) {
        int r;

        if (size <= volume->reserved)
                return 0;
        r = volume_allocate(volume, whole_chunks(size));
        return r < 0 ? r : volume_map(volume, whole_chunks(size));
}

/* An empty one, which says nothing of what was before, with room for so much. */
static int volume_make(const struct file_ledger *ledger, uint64_t generation, bool alone, uint64_t room, struct volume *ret) {
        struct volume volume = { .generation = generation, .size = LEDGER_HEADER_SIZE };
        struct ledger_header header = { .version = LEDGER_VERSION, .alone = alone, .generation = generation };
        char name[LEDGER_NAME_MAX];
        uint64_t magic;
        int r;

        volume_name(name, generation);
        memcpy(header.magic, LEDGER_MAGIC, sizeof(header.magic));
        memcpy(header.boot, ledger->boot, sizeof(header.boot));
        if (getrandom(&header.salt, sizeof(header.salt), 0) != sizeof(header.salt))
                return -EIO;
        header.committed = LEDGER_HEADER_SIZE;
        header.checksum = ledger_header_checksum(&header);
        volume.fd = openat(ledger->directory_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (volume.fd < 0)
                return -errno;
        r = volume_allocate(&volume, whole_chunks(room));
        if (r == 0)
                r = volume_reserve(&volume, CHUNK);
        if (r < 0) {
                volume_remove(ledger, &volume);
                return r;
        }
        memcpy((char *)volume.header + sizeof(header.magic), (char *)&header + sizeof(header.magic),
               sizeof(header) - sizeof(header.magic));
        /* Without it the file is nothing yet, whatever a kill has left of the rest. */
        memcpy(&magic, header.magic, sizeof(magic));
        __atomic_store_n((uint64_t *)volume.header, magic, __ATOMIC_RELEASE);
        *ret = volume;
        return 0;
}

/* All but this one; 0: all. */
static int remove_others(int directory_fd, uint64_t generation) {
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
        while ((entry = readdir(directory)))
                if (sscanf(entry->d_name, "ledger.%llu%c", &number, &rest) == 1 && number != generation &&
                    unlinkat(directory_fd, entry->d_name, 0) < 0)
                        r = -errno;
        closedir(directory);
        return r;
}

int ledger_discard(int directory_fd) {
        return remove_others(directory_fd, 0);
}

/* ---- frames ---- */

static void frame_begin(struct file_ledger *ledger) {
        ledger->used = sizeof(struct ledger_frame);
}

static bool frame_is_empty(const struct file_ledger *ledger) {
        return ledger->used <= sizeof(struct ledger_frame);
}

static int frame_reserve(struct file_ledger *ledger, size_t more) {
        size_t capacity = ledger->capacity ? ledger->capacity : 4096;
        unsigned char *frame;

        while (capacity - ledger->used < more)
                capacity *= 2;
        if (capacity == ledger->capacity)
                return 0;
        frame = realloc(ledger->frame, capacity);
        if (!frame)
                return -ENOMEM;
        ledger->frame = frame;
        ledger->capacity = capacity;
        return 0;
}

static void frame_number(struct file_ledger *ledger, uint64_t number) {
        for (; number > 0x7f; number >>= 7)
                ledger->frame[ledger->used++] = (unsigned char)(number | 0x80);
        ledger->frame[ledger->used++] = (unsigned char)number;
}

/* What the frame holds is true from here on. */
static int frame_write(struct file_ledger *ledger) {
        struct volume *volume = &ledger->volume;
        struct ledger_frame *head = (struct ledger_frame *)ledger->frame;
        size_t size = (ledger->used + LEDGER_ALIGN - 1) / LEDGER_ALIGN * LEDGER_ALIGN;
        int r;

        r = frame_reserve(ledger, LEDGER_ALIGN);
        if (r == 0)
                r = volume_reserve(volume, volume->size + size + ROOM_MIN);
        /* The last of the room is for this very case. */
        if (r == -ENOSPC || r == -EDQUOT)
                r = volume_reserve(volume, volume->size + size);
        if (r < 0)
                return r;
        head = (struct ledger_frame *)ledger->frame;
        memset(ledger->frame + ledger->used, 0, size - ledger->used);
        *head = (struct ledger_frame){
                .magic = LEDGER_FRAME_MAGIC, .size = (uint32_t)size, .sequence = volume->sequence + 1,
        };
        head->checksum = ledger_frame_checksum(head, volume->header->salt);
        memcpy((char *)volume->header + volume->size, ledger->frame, size);
        volume->size += size;
        volume->sequence++;
        /* In this order also for whoever reads what a kill has left. */
        __atomic_store_n(&volume->header->committed, volume->size, __ATOMIC_RELEASE);
        frame_begin(ledger);
        return 0;
}

/* ---- what the core asks for ---- */

static struct file_ledger *file_ledger(struct ledger *ledger) {
        return (struct file_ledger *)ledger;
}

/* What an earlier daemon left has been read, and is not needed any more. */
static void forget_reading(struct file_ledger *ledger) {
        if (ledger->reading)
                ledger->reading = ledger_reading_free(ledger->reading);
}

static int record(struct file_ledger *ledger, unsigned char what, enum row_kind kind, uint64_t id, const void *bytes,
                  size_t size) {
        int r;

        r = frame_reserve(ledger, 24 + size);
        if (r < 0)
                return r;
        ledger->frame[ledger->used++] = what;
        ledger->frame[ledger->used++] = (unsigned char)kind;
        frame_number(ledger, id);
        if (what != LEDGER_PUT)
                return 0;
        frame_number(ledger, size);
        memcpy(ledger->frame + ledger->used, bytes, size);
        ledger->used += size;
        /* Not valid before its end, so it need not be one frame; but what follows its end is part of a commit. */
        if (ledger->rewriting && ledger->alone && !ledger->ended && ledger->used > PIECE)
                return frame_write(ledger);
        return 0;
}

static int file_put(struct ledger *base, enum row_kind kind, uint64_t id, const void *bytes, size_t size) {
        return record(file_ledger(base), LEDGER_PUT, kind, id, bytes, size);
}

static int file_drop(struct ledger *base, enum row_kind kind, uint64_t id) {
        return record(file_ledger(base), LEDGER_DROP, kind, id, NULL, 0);
}

static bool file_is_dirty(const struct ledger *base) {
        return !frame_is_empty((const struct file_ledger *)base);
}

static int file_commit(struct ledger *base) {
        struct file_ledger *ledger = file_ledger(base);
        int r = 0;

        forget_reading(ledger);
        if (!frame_is_empty(ledger))
                r = frame_write(ledger);
        if (r < 0 || !ledger->ended)
                return r;
        ledger->ended = ledger->rewriting = ledger->alone = false;
        ledger->live_bytes = ledger->volume.size;
        volume_close(&ledger->before);
        remove_others(ledger->directory_fd, ledger->volume.generation);
        return 0;
}

static bool has_room(const struct file_ledger *ledger, uint64_t room) {
        return ledger->volume.fd < 0 || ledger->volume.size + ledger->used + room <= ledger->volume.reserved;
}

static int file_room(struct ledger *base, bool last, struct failure *failure) {
        struct file_ledger *ledger = file_ledger(base);
        int r;

        if (has_room(ledger, ROOM_MIN))
                return 0;
        r = volume_reserve(&ledger->volume, ledger->volume.size + ledger->used + ROOM_MIN);
        if (r < 0 && !ledger->full)
                log_warning("nothing more is promised, because the file system of the state directory refuses: %s; what is there "
                            "can be given back", strerror(-r));
        else if (r == 0 && ledger->full)
                log_info("the state directory has room again");
        ledger->full = r < 0;
        if (r == 0 || (last && has_room(ledger, ROOM_MIN / 2)))
                return 0;
        return failure_set_errno(failure, REASON_source_unavailable, -r,
                                 "The daemon cannot write down what it would promise, because the file system of its state "
                                 "directory refuses: %s", strerror(-r));
}

static bool file_wants_rewrite(const struct ledger *base) {
        const struct file_ledger *ledger = (const struct file_ledger *)base;

        return !ledger->rewriting && ledger->volume.size > ledger->rewrite_min && ledger->volume.size / 2 > ledger->live_bytes;
}

static int file_rewrite_begin(struct ledger *base, bool alone) {
        struct file_ledger *ledger = file_ledger(base);
        struct volume next;
        int r;

        forget_reading(ledger);
        /* Beside changes, it must not end for want of room before it has told all that there is: what is given back meanwhile
         * is told there, too. */
        r = volume_make(ledger, ledger->volume.generation + 1, alone, alone ? CHUNK : ledger->volume.size + 2 * ROOM_MIN,
                        &next);
        if (r < 0 && !alone)
                ledger->rewrite_min = ledger->volume.size + ledger->volume.size / 4;
        if (r < 0)
                return r;
        if (alone)
                frame_begin(ledger);
        /* One that was begun alone and not ended counts for nothing; one beside which changes were told counts, together with
         * what it stands beside. */
        if (ledger->rewriting && ledger->alone) {
                volume_remove(ledger, &ledger->volume);
        } else {
                volume_close(&ledger->before);
                ledger->before = ledger->volume;
        }
        ledger->volume = next;
        ledger->rewriting = true;
        ledger->alone = alone;
        ledger->ended = false;
        return 0;
}

static int file_rewrite_end(struct ledger *base) {
        struct file_ledger *ledger = file_ledger(base);
        int r;

        r = record(ledger, LEDGER_END, ROW_BROKER, 0, NULL, 0);
        ledger->ended = r == 0;
        return r;
}

static int file_visit(struct ledger *base, enum row_kind kind, row_visit_fn visit, void *userdata) {
        struct file_ledger *ledger = file_ledger(base);

        /* What concerns memory is void when that memory is gone. */
        if (!ledger->reading || (ledger->facts.gone && kind != ROW_OWNER && kind != ROW_BROKER))
                return 0;
        return ledger_reading_visit(ledger->reading, kind, visit, userdata);
}

static bool file_is_damaged(const struct ledger *base) {
        const struct file_ledger *ledger = (const struct file_ledger *)base;

        return ledger->facts.damaged && !ledger->facts.gone;
}

static bool file_is_blank(const struct ledger *base) {
        return ((const struct file_ledger *)base)->volume.fd < 0;
}

static bool file_is_void(const struct ledger *base, const char *source) {
        const struct file_ledger *ledger = (const struct file_ledger *)base;

        return ledger->keeps && !ledger->keeps(source);
}

static int file_read_back(struct ledger *base, row_read_fn read, void *userdata) {
        struct ledger_reading *reading = NULL;
        struct failure failure = {};
        int r;

        r = ledger_read(file_ledger(base)->directory_fd, &reading, &failure);
        if (r == 0 && !reading)
                r = -ENOENT;
        if (r == 0)
                r = ledger_reading_is_damaged(reading) ? -EBADMSG : ledger_reading_read(reading, read, userdata);
        ledger_reading_free(reading);
        return r;
}

static const struct ledger_ops file_ops = {
        .put = file_put,
        .drop = file_drop,
        .is_dirty = file_is_dirty,
        .commit = file_commit,
        .room = file_room,
        .is_blank = file_is_blank,
        .wants_rewrite = file_wants_rewrite,
        .rewrite_begin = file_rewrite_begin,
        .rewrite_end = file_rewrite_end,
        .visit = file_visit,
        .is_damaged = file_is_damaged,
        .is_void = file_is_void,
        .read_back = file_read_back,
};

/* ---- opening ---- */

static int read_boot(unsigned char boot[LEDGER_BOOT_BYTES]) {
        char text[64] = "";
        int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        size_t bytes = 0;
        ssize_t i;
        int r = n < 0 ? -errno : 0;

        if (fd >= 0)
                close(fd);
        for (i = 0; i + 1 < n && bytes < LEDGER_BOOT_BYTES; i++) {
                unsigned value;

                if (text[i] == '-' || sscanf(text + i, "%2x", &value) != 1)
                        continue;
                boot[bytes++] = (unsigned char)value;
                i++;
        }
        return r < 0 ? r : bytes == LEDGER_BOOT_BYTES ? 0 : -EBADMSG;
}

/* Go on where the other daemon stopped: behind its last whole frame. */
static int continue_volume(struct file_ledger *ledger) {
        const struct ledger_reading *reading = ledger->reading;
        struct volume volume = { .generation = ledger_reading_generation(reading) };
        char name[LEDGER_NAME_MAX];
        int r;

        volume_name(name, volume.generation);
        volume.fd = openat(ledger->directory_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (volume.fd < 0)
                return -errno;
        ledger_reading_end(reading, &volume.size, &volume.sequence);
        r = volume_reserve(&volume, volume.size + 1);
        if (r < 0) {
                volume_close(&volume);
                return r;
        }
        ledger->live_bytes = ledger_reading_live_bytes(reading);
        ledger->volume = volume;
        return 0;
}

static void describe(struct file_ledger *ledger) {
        const struct ledger_facts *facts = &ledger->facts;

        snprintf(ledger->about, sizeof(ledger->about), "%s%s",
                 !facts->found ? facts->damaged ? "the ledger is not there" : "the ledger is new" : facts->gone
                         ? "the memory that the ledger tells of is gone: the machine was booted, or nobody has kept it"
                         : ledger->keeps ? "the ledger was read; but for Xen's, nobody has kept the memory that it tells of"
                         : "the ledger was read",
                 facts->damaged && facts->found ? "; part of it is damaged" : "");
        ledger->facts.about = ledger->about;
}

/* With nothing to go on with, the first commit makes a file that stands alone. */
static int begin(struct file_ledger *ledger, bool expected, struct failure *failure) {
        const unsigned char *boot;
        bool whole;
        int r;

        r = ledger_read(ledger->directory_fd, &ledger->reading, failure);
        if (r < 0)
                return r;
        ledger->facts.found = ledger->reading;
        ledger->facts.damaged = expected && !ledger->reading;
        if (!ledger->reading)
                return 0;
        boot = ledger_reading_boot(ledger->reading);
        ledger->facts.gone = boot && memcmp(boot, ledger->boot, sizeof(ledger->boot)) != 0;
        ledger->facts.damaged = ledger_reading_is_damaged(ledger->reading);
        ledger->facts.rows = ledger_reading_rows(ledger->reading);
        whole = !ledger->facts.gone && !ledger->facts.damaged && ledger_reading_is_one(ledger->reading);
        ledger->volume.generation = ledger_reading_generation(ledger->reading);
        r = whole ? continue_volume(ledger) : 0;
        return r < 0 ? failure_set_errno(failure, REASON_source_unavailable, -r, "the ledger cannot be gone on with: %s",
                                         strerror(-r))
                     : 0;
}

int ledger_open(int directory_fd, bool expected, struct ledger **ret, struct failure *failure) {
        struct file_ledger *ledger = calloc(1, sizeof(*ledger));
        int r;

        if (!ledger)
                return failure_set(failure, REASON_no_memory, "there is no memory for the ledger");
        ledger->base.ops = &file_ops;
        ledger->rewrite_min = REWRITE_MIN;
        ledger->directory_fd = directory_fd;
        ledger->volume.fd = ledger->before.fd = -1;
        r = frame_reserve(ledger, CHUNK / 4);
        frame_begin(ledger);
        if (r == 0)
                r = read_boot(ledger->boot);
        if (r < 0)
                failure_set_errno(failure, REASON_source_unavailable, -r, "the ledger cannot be opened: %s", strerror(-r));
        else
                r = begin(ledger, expected, failure);
        if (r < 0) {
                ledger_close(&ledger->base);
                return r;
        }
        describe(ledger);
        *ret = &ledger->base;
        return 0;
}

void ledger_set_rewrite(struct ledger *base, uint64_t bytes) {
        file_ledger(base)->rewrite_min = bytes;
}

void ledger_forget_memory(struct ledger *base, bool (*keeps)(const char *source)) {
        struct file_ledger *ledger = file_ledger(base);
        uint64_t generation = ledger->volume.generation;

        if (!ledger->facts.found || ledger->facts.gone)
                return;
        if (keeps) {
                ledger->keeps = keeps;
                describe(ledger);
                return;
        }
        volume_close(&ledger->volume);
        ledger->volume.generation = generation;
        ledger->facts.gone = true;
        describe(ledger);
}

void ledger_facts(const struct ledger *ledger, struct ledger_facts *ret) {
        *ret = ((const struct file_ledger *)ledger)->facts;
}

uint64_t ledger_size(const struct ledger *ledger) {
        return ((const struct file_ledger *)ledger)->volume.size;
}

struct ledger *ledger_close(struct ledger *base) {
        struct file_ledger *ledger = file_ledger(base);

        if (!ledger)
                return NULL;
        forget_reading(ledger);
        volume_close(&ledger->volume);
        volume_close(&ledger->before);
        free(ledger->frame);
        free(ledger);
        return NULL;
}
