/* cc driver-before.c driver-device.c
 * A small driver in user space that gets its memory as such drivers do: a huge page, and its place from the page map. */
#include "driver-device.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { RING = 64, BUFFER = 2048, PACKETS = 1000 };

struct card {
        struct descriptor *send, *receive; /* two rings of RING descriptors, one behind the other */
        uint64_t rings;                    /* where they are for the card */
        unsigned next;                     /* the same in both: what is sent comes back */
        unsigned char *buffers[RING];      /* that the card may fill */
        unsigned char *bounce;             /* a place that the card can reach, for the packet that is sent */
        uint64_t bounce_addr;
};

/* ---- memory ---- */

enum { HUGE_PAGE = 2 << 20 };

static unsigned char *huge;
static uint64_t huge_addr;
static size_t huge_used;
static unsigned char *free_buffers[RING];
static size_t n_free_buffers;

static int memory_open(void) {
        uint64_t entry = 0;
        int pagemap;

        huge = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
        if (huge == MAP_FAILED || mlock(huge, HUGE_PAGE))
                return -1;
        memset(huge, 0, HUGE_PAGE);
        pagemap = open("/proc/self/pagemap", O_RDONLY);
        if (pagemap < 0)
                return -1;
        if (pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)huge / 4096 * sizeof(entry))) != sizeof(entry))
                entry = 0;
        close(pagemap);
        /* Without CAP_SYS_ADMIN the number of the page reads as 0. And nothing says that it stays where it is. */
        huge_addr = (entry & ((UINT64_C(1) << 55) - 1)) * 4096;
        return huge_addr ? 0 : -1;
}

static void *memory_take(size_t size, uint64_t *ret_addr) {
        unsigned char *taken = huge + huge_used;

        if (huge_used + size > HUGE_PAGE)
                return NULL;
        *ret_addr = huge_addr + huge_used;
        huge_used += (size + 63) / 64 * 64;
        return taken;
}

static unsigned char *buffer_take(uint64_t *ret_addr) {
        unsigned char *buffer;

        if (!n_free_buffers)
                return memory_take(BUFFER, ret_addr);
        buffer = free_buffers[--n_free_buffers];
        *ret_addr = huge_addr + (uint64_t)(buffer - huge);
        return buffer;
}

static void buffer_give(unsigned char *buffer) {
        free_buffers[n_free_buffers++] = buffer;
}

/* ---- the driver ---- */

static int post_buffer(struct card *card, unsigned i) {
        uint64_t addr;

        card->buffers[i] = buffer_take(&addr);
        if (!card->buffers[i])
                return -1;
        card->receive[i] = (struct descriptor){ .addr = addr, .size = BUFFER };
        return 0;
}

static int card_open(struct card *card) {
        if (memory_open())
                return -1;
        card->send = memory_take(2 * RING * sizeof(struct descriptor), &card->rings);
        card->bounce = memory_take(BUFFER, &card->bounce_addr);
        if (!card->send || !card->bounce)
                return -1;
        card->receive = card->send + RING;
        for (unsigned i = 0; i < RING; i++)
                if (post_buffer(card, i))
                        return -1;
        device_set_rings(card->rings, card->rings + RING * sizeof(struct descriptor), RING);
        return 0;
}

/* Send a packet, which is anywhere in memory, and take what comes. */
static int card_exchange(struct card *card, unsigned char *packet, size_t size, unsigned char *ret_packet) {
        struct descriptor *send = &card->send[card->next], *receive = &card->receive[card->next];

        memcpy(card->bounce, packet, size);
        *send = (struct descriptor){ .addr = card->bounce_addr, .size = (uint32_t)size };
        device_doorbell();
        if (!send->done || !receive->done || receive->size != size)
                return -1;
        memcpy(ret_packet, card->buffers[card->next], size);
        buffer_give(card->buffers[card->next]);
        if (post_buffer(card, card->next))
                return -1;
        card->next = (card->next + 1) % RING;
        return 0;
}

static void card_close(struct card *card) {
        munmap(huge, HUGE_PAGE);
        memset(card, 0, sizeof(*card));
}

int main(void) {
        unsigned char packet[BUFFER], echo[BUFFER];
        struct card card = { 0 };

        if (card_open(&card)) {
                fprintf(stderr, "there is no memory for the card: is there a huge page, and are you root?\n");
                return 1;
        }
        for (unsigned i = 0; i < PACKETS; i++) {
                size_t size = 64 + i * 7 % (BUFFER - 64);

                memset(packet, (int)(i % 251), size);
                if (card_exchange(&card, packet, size, echo) || memcmp(packet, echo, size)) {
                        fprintf(stderr, "packet %u did not come back\n", i);
                        return 1;
                }
        }
        card_close(&card);
        printf("%d packets came back\n", PACKETS);
        return 0;
}
