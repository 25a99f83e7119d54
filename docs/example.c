/* cc example.c $(pkg-config --cflags --libs dmabroker) */
#include <dmabroker.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what) {
        fprintf(stderr, "cannot %s: %s\n", what, dmab_last_error());
        return 1;
}

int main(void) {
        const size_t size = 1 << 20;
        struct dmab_device_options options = DMAB_DEVICE_OPTIONS_INIT;
        dmab_device_t *nic;
        dmab_addr_t dma;
        dmab_t *broker;
        void *ring;

        if (dmab_connect(NULL, &broker))
                return fail("connect");

        /* The address lines that the device has; with 32, its memory must lie below 4 GiB. */
        options.mask = DMAB_MASK(64);
        if (dmab_device_open(broker, "my-nic", &options, &nic))
                return fail("open the device");

        /* One piece on the machine's bus, mapped here, waited for if need be. */
        if (dmab_alloc_coherent(nic, size, DMAB_WAIT | DMAB_ZERO, &ring, &dma))
                return fail("allocate");
        printf("the device is given 0x%" PRIx64 ", the program has it at %p\n", dma, ring);
        if (dmab_addressing(nic, ring) == DMAB_ADDRESSING_SIMULATED)
                puts("(this address is made up: give it to no device)");
        strcpy(ring, "hello, device");

        if (dmab_free_coherent(nic, size, ring, dma))
                return fail("free");
        if (dmab_device_close(nic))
                return fail("close the device");
        dmab_disconnect(broker);
        return 0;
}
