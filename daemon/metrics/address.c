#include <config.h>

#include "daemon/metrics/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static int refuse(const char *text, struct failure *failure) {
        return failure_set(failure, REASON_bad_param,
                           "listen is \"%.80s\", but must be off, an address with a port such as 127.0.0.1:9464 or "
                           "[::1]:9464, or unix: and an absolute path", text);
}

static bool parse_port(const char *text, in_port_t *ret) {
        unsigned long port;
        char *end;

        /* strtoul() would take signs and white space. */
        if (!isdigit((unsigned char)*text))
                return false;
        port = strtoul(text, &end, 10);
        if (*end || port > 65535)
                return false;
        *ret = htons((in_port_t)port);
        return true;
}

static bool parse_v4(const char *host, in_port_t port, struct metrics_address *ret) {
        struct sockaddr_in *address = (struct sockaddr_in *)&ret->network;

        *address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port };
        ret->network_length = sizeof(*address);
        return inet_pton(AF_INET, host, &address->sin_addr) == 1;
}

static bool parse_v6(const char *host, in_port_t port, struct metrics_address *ret) {
        struct sockaddr_in6 *address = (struct sockaddr_in6 *)&ret->network;

        *address = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port };
        ret->network_length = sizeof(*address);
        return inet_pton(AF_INET6, host, &address->sin6_addr) == 1;
}

static bool parse_network(const char *text, struct metrics_address *ret) {
        char host[INET6_ADDRSTRLEN + 2];
        const char *colon = strrchr(text, ':');
        size_t length = colon ? (size_t)(colon - text) : 0;
        in_port_t port;

        if (!length || length >= sizeof(host) || !parse_port(colon + 1, &port))
                return false;
        memcpy(host, text, length);
        host[length] = '\0';
        if (*host != '[')
                return parse_v4(host, port, ret);
        if (host[length - 1] != ']')
                return false;
        host[length - 1] = '\0';
        return parse_v6(host + 1, port, ret);
}

int metrics_address_parse(const char *text, struct metrics_address *ret, struct failure *failure) {
        struct metrics_address address = { 0 };

        if (strcmp(text, "off") == 0)
                address.off = true;
        else if (strncmp(text, "unix:", 5) == 0) {
                address.path = text + 5;
                if (*address.path != '/')
                        return refuse(text, failure);
                if (strlen(address.path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
                        return failure_set(failure, REASON_bad_param,
                                           "listen has a path of %zu characters, but at most %zu fit", strlen(address.path),
                                           sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
        } else if (!parse_network(text, &address))
                return refuse(text, failure);
        *ret = address;
        return 0;
}

int metrics_address_check(const char *text, struct failure *failure) {
        struct metrics_address address;
        int r = metrics_address_parse(text, &address, failure);

#ifndef HAVE_MICROHTTPD
        if (r == 0 && !address.off)
                return failure_set(failure, REASON_unsupported,
                                   "listen must be off, since this build serves no metrics: it was made without libmicrohttpd");
#endif
        return r;
}
