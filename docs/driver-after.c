/* cc -DDEVICE_ASKS_BROKER driver-after.c driver-device.c $(pkg-config --cflags --libs dmabroker)
 * The driver of driver-before.c with memory from dmabroker. */
#include "driver-device.h"

#include <dmabroker.h>
#include <stdio.h>
#include <string.h>

enum { RING = 64, BUFFER = 2048, PACKETS = 1000 };

struct card {
        struct descriptor *send, *receive; /* two rings of RING descriptors, one behind the other */
        uint64_t rings;                    /* where they are for the card */
        unsigned next;                     /* the same in both: what is sent comes back */
        void *buffers[RING];               /* that the card may fill */
        dmab_t *broker;
        dmab_device_t *device;
        dmab_pool_t *pool;
};

/* ---- the driver ---- */

static int post_buffer(struct card *card, unsigned i) {
        uint64_t addr;

        if (dmab_pool_alloc(card->pool, DMAB_NOWAIT, &card->buffers[i], &addr))
                return -1;
        card->receive[i] = (struct descriptor){ .addr = addr, .size = BUFFER };
        return 0;
}

static int card_open(struct card *card) {
        if (dmab_connect(NULL, &card->broker) || dmab_device_open(card->broker, "ring-card", NULL, &card->device) ||
            dmab_alloc_coherent(card->device, 2 * RING * sizeof(struct descriptor), DMAB_WAIT | DMAB_ZERO,
                                (void **)&card->send, &card->rings) ||
            dmab_pool_create("receive", card->device, BUFFER, 0, 0, NULL, &card->pool))
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

        dmab_addr_t addr;

        if (dmab_map_single(card->device, packet, size, DMAB_TO_DEVICE, &addr))
                return -1;
        *send = (struct descriptor){ .addr = addr, .size = (uint32_t)size };
        device_doorbell();
        if (dmab_unmap_single(card->device, addr, size, DMAB_TO_DEVICE))
                return -1;
        if (!send->done || !receive->done || receive->size != size)
                return -1;
        memcpy(ret_packet, card->buffers[card->next], size);
        if (dmab_pool_free(card->pool, card->buffers[card->next], receive->addr) || post_buffer(card, card->next))
                return -1;
        card->next = (card->next + 1) % RING;
        return 0;
}

static void card_close(struct card *card) {
        dmab_disconnect(card->broker);
        memset(card, 0, sizeof(*card));
}

int main(void) {
        unsigned char packet[BUFFER], echo[BUFFER];
        struct card card = { 0 };

        if (card_open(&card)) {
                fprintf(stderr, "there is no memory for the card: %s\n", dmab_last_error());
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
