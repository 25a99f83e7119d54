/* Threads that take memory of every kind from a session, fill it, look at it again and again, and give it back: nothing that
 * they have may change, and nothing may fail but for want of memory. */
#ifndef DMAB_TESTS_CLIENT_LOAD_H
#define DMAB_TESTS_CLIENT_LOAD_H

#include <dmabroker.h>
#include <stdbool.h>
#include <stdint.h>

struct load;

/* Fails the test when it cannot begin. */
struct load *load_start(dmab_t *dmab, unsigned n_threads, uint64_t seed);

/* The same for a session that gets no descriptors: host is one of the same owner that does. */
struct load *load_start_in_guest(dmab_t *dmab, dmab_t *host, unsigned n_threads, uint64_t seed);

/* Wait until each thread has made so many steps more. False: one has failed, or does not get on. */
bool load_wait(struct load *load, uint64_t steps);

/* Let them give back what they have, and end. Fails the test with what went wrong. */
void load_end(struct load *load);

#endif
