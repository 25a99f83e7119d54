/* Where metrics are served: what `listen` in [metrics] means. Names are not looked up, which would block. */
#ifndef DMAB_METRICS_ADDRESS_H
#define DMAB_METRICS_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "daemon/core/failure.h"

struct metrics_address {
        bool off;         /* nowhere */
        const char *path; /* of a UNIX socket, in the text that was parsed; NULL: on the network */
        struct sockaddr_storage network;
        socklen_t network_length;
};

/* off, ADDRESS:PORT, [ADDRESS]:PORT or unix:PATH. -EINVAL with a sentence. */
int metrics_address_parse(const char *text, struct metrics_address *ret, struct failure *failure);
/* The same for a configuration: also -EOPNOTSUPP when this build can serve none. */
int metrics_address_check(const char *text, struct failure *failure);

#endif
