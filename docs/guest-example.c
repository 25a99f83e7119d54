/* cc guest-example.c $(pkg-config --cflags --libs dmabroker)
 * In a guest: memory in one piece, for a device of the guest. */
#include <dmabroker.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what) {
        fprintf(stderr, "cannot %s: %s\n", what, dmab_last_error());
        return 1;
}

int main(int argc, char **argv) {
        const size_t size = 64 << 10;
        dmab_device_t *device;
        dmab_addr_t dma;
        dmab_t *broker;
        void *ring;

        if (argc != 2) {
                fprintf(stderr, "usage: %s DEVICE, such as 0000:05:00.0\n", argv[0]);
                return 2;
        }
        /* NULL: the virtio port, where there is no daemon's socket. */
        if (dmab_connect(NULL, &broker))
                return fail("connect");
        if (dmab_device_open(broker, argv[1], NULL, &device))
                return fail("open the device");
        if (dmab_alloc_coherent(device, size, DMAB_WAIT | DMAB_ZERO, &ring, &dma))
                return fail("allocate");
        printf("the device is given 0x%" PRIx64 " (%s), the program has it at %p\n", dma, dmab_device_translation(device), ring);
        if (dmab_addressing(device, ring) == DMAB_ADDRESSING_SIMULATED)
                puts("(this address is made up: give it to no device)");
        strcpy(ring, "hello, device");

        if (dmab_free_coherent(device, size, ring, dma))
                return fail("free");
        dmab_disconnect(broker);
        return 0;
}
