/* A process between a client and a daemon that passes on what they say, descriptors included, and cuts connections at random
 * bytes: both ends at once, in the middle of whatever was on its way. */
#ifndef DMAB_TESTS_CLIENT_CUTTER_H
#define DMAB_TESTS_CLIENT_CUTTER_H

#include <stdbool.h>
#include <stdint.h>

struct cutter;

/* Each connection is cut after some bytes until there have been so many cuts; then no more. Start it before any thread. */
struct cutter *cutter_start(const char *daemon_socket, unsigned cuts, uint64_t seed);

/* For dmab_connect(). */
const char *cutter_uri(const struct cutter *cutter);

/* Are all cuts made? */
bool cutter_is_done(struct cutter *cutter);

void cutter_end(struct cutter *cutter);

#endif
