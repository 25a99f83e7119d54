/* The device of driver-before.c and driver-after.c: a network card that sends every packet back to itself. It is emulated
 * by driver-device.c, in this process, but is given nothing that a card would not be given: addresses on the bus. */
#ifndef DRIVER_DEVICE_H
#define DRIVER_DEVICE_H

#include <stdint.h>

/* An entry of a ring. The driver sets addr and size, and done to 0; the device sets done, and size of what it received. */
struct descriptor {
        uint64_t addr;
        uint32_t size;
        uint32_t done;
};

/* Its registers: where the rings of n descriptors are, of packets to be sent and of room for those that come. */
void device_set_rings(uint64_t send_ring, uint64_t receive_ring, uint32_t n);
/* "There is something to send." */
void device_doorbell(void);

#endif
