#include <config.h>

#include "daemon/metrics/http.h"

#include <errno.h>

#ifdef HAVE_MICROHTTPD
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/metrics/address.h"
#include "daemon/metrics/page.h"
#include "daemon/rpc/listener.h"

enum {
        CONNECTIONS_MAX = 16,
        CONNECTION_BYTES = 8 << 10, /* for a request's line and headers, too */
        CONNECTION_SECONDS = 5,     /* without a word, until it is hung up on */
        REST_MS = 5,                /* between two looks */
        BACKLOG = 64,
};

struct metrics {
        struct MHD_Daemon *http;
        uv_poll_t poll;
        uv_timer_t timer;
        unsigned n_handles;
        bool resting; /* the timer ends a rest; else it is libmicrohttpd's */
        bool again;   /* another look comes after the rest in any case */
        unsigned n_connections;
        struct page_facts facts;
        struct MHD_Response *page; /* made during this look, or NULL */
        char *path; /* of a UNIX socket, to be removed in the end, or NULL */
        ino_t inode;
};

/* ---- answering ---- */

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *text, const char *header,
                              const char *value) {
        struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_PERSISTENT);
        enum MHD_Result result;

        if (!response)
                return MHD_NO;
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; charset=utf-8");
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
        if (header)
                MHD_add_response_header(response, header, value);
        result = MHD_queue_response(connection, status, response);
        MHD_destroy_response(response);
        return result;
}

static struct MHD_Response *make_page(const struct page_facts *facts) {
        struct MHD_Response *response;
        size_t length;
        char *text;

        if (page_make(facts, &text, &length) < 0)
                return NULL;
        response = MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
        if (!response) {
                free(text);
                return NULL;
        }
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, METRICS_PAGE_TYPE);
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
        return response;
}

static enum MHD_Result answer_page(struct metrics *metrics, struct MHD_Connection *connection) {
        if (!metrics->page)
                metrics->page = make_page(&metrics->facts);
        if (!metrics->page)
                return answer(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "There is no memory for the metrics.\n", NULL, NULL);
        return MHD_queue_response(connection, MHD_HTTP_OK, metrics->page);
}

/* Called when the headers are there. Every request is answered then, whatever else it wants to send, and its connection
 * closed. */
static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **state) {
        if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
                return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "Metrics can only be read: GET /metrics\n",
                              MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
        if (strcmp(url, "/metrics") == 0)
                return answer_page(userdata, connection);
        if (strcmp(url, "/") == 0)
                return answer(connection, MHD_HTTP_OK, "dmabrokerd " PACKAGE_VERSION ": the metrics are at /metrics\n",
                              NULL, NULL);
        return answer(connection, MHD_HTTP_NOT_FOUND, "There is nothing here; the metrics are at /metrics\n", NULL, NULL);
}

/* ---- the loop ---- */

static void on_timer(uv_timer_t *timer);

/* libmicrohttpd does all that it can without waiting. Then it rests: whoever floods it has only the time of these looks,
 * and so has a listening socket that stays readable because nothing can be accepted.
 *
 * While it has as many connections as it may, it does not wait for more; that there is room again it notices at the next
 * look only, and tells no descriptor. */
static void look(struct metrics *metrics) {
        unsigned before = metrics->n_connections;

        MHD_run(metrics->http);
        metrics->n_connections =
                MHD_get_daemon_info(metrics->http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
        metrics->again = metrics->n_connections < before;
        if (metrics->page)
                MHD_destroy_response(metrics->page);
        metrics->page = NULL;
        uv_poll_stop(&metrics->poll);
        metrics->resting = true;
        uv_timer_start(&metrics->timer, on_timer, REST_MS, 0);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
        look(poll->data);
}

static void on_timer(uv_timer_t *timer) {
        struct metrics *metrics = timer->data;
        MHD_UNSIGNED_LONG_LONG timeout;

        if (!metrics->resting || metrics->again) {
                look(metrics);
                return;
        }
        metrics->resting = false;
        if (loop_watch(&metrics->poll, UV_READABLE, on_poll) < 0) {
                metrics->resting = true;
                uv_timer_start(&metrics->timer, on_timer, REST_MS, 0);
                return;
        }
        if (MHD_get_timeout(metrics->http, &timeout) == MHD_YES)
                uv_timer_start(&metrics->timer, on_timer, timeout, 0);
}

/* ---- beginning and end ---- */

static int bind_network(const struct metrics_address *address, const char *listen_at, int *ret_fd, struct failure *failure) {
        const int on = 1;
        int fd = socket(address->network.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

        if (fd >= 0)
                setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (fd < 0 || bind(fd, (const struct sockaddr *)&address->network, address->network_length) < 0 ||
            listen(fd, BACKLOG) < 0) {
                r = errno;
                if (fd >= 0)
                        close(fd);
                return failure_set_errno(failure, REASON_bad_param, r, "cannot listen at %s: %s%s", listen_at, strerror(r),
                                         r == EAFNOSUPPORT ? "; the service's RestrictAddressFamilies= forbids it" : "");
        }
        *ret_fd = fd;
        return 0;
}

static int bind_address(struct metrics *metrics, const char *listen_at, int *ret_fd, struct failure *failure) {
        struct metrics_address address;
        int r = metrics_address_parse(listen_at, &address, failure);

        if (r < 0 || !address.path)
                return r < 0 ? r : bind_network(&address, listen_at, ret_fd, failure);
        metrics->path = strdup(address.path);
        if (!metrics->path)
                return failure_set(failure, REASON_no_memory, "there is no memory for the metrics");
        r = listener_bind(address.path, 0660, "listen in [metrics]", ret_fd, &metrics->inode, failure);
        if (r < 0) {
                free(metrics->path);
                metrics->path = NULL;
        }
        return r;
}

/* Consumes fd. */
static struct MHD_Daemon *start_http(struct metrics *metrics, int fd) {
        struct MHD_Daemon *http =
                MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, metrics, MHD_OPTION_LISTEN_SOCKET, fd,
                                 MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
                                 MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONNECTION_SECONDS,
                                 MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_END);

        if (!http)
                close(fd);
        return http;
}

static int start_polling(uv_loop_t *loop, struct metrics *metrics, struct failure *failure) {
        const union MHD_DaemonInfo *info = MHD_get_daemon_info(metrics->http, MHD_DAEMON_INFO_EPOLL_FD);
        int r = info ? uv_poll_init(loop, &metrics->poll, info->epoll_fd) : UV_ENOTSUP;

        if (r < 0)
                return failure_set_errno(failure, REASON_unsupported, -r, "the metrics cannot be waited for: %s",
                                         uv_strerror(r));
        uv_timer_init(loop, &metrics->timer);
        metrics->n_handles = 2;
        metrics->poll.data = metrics->timer.data = metrics;
        look(metrics);
        return 0;
}

static double real_time(void) {
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void metrics_free(struct metrics *metrics) {
        if (metrics->http)
                MHD_stop_daemon(metrics->http);
        if (metrics->path)
                listener_unlink(metrics->path, metrics->inode);
        free(metrics->path);
        free(metrics);
}

static void tell_address(const struct metrics *metrics, int fd, const char *listen_at) {
        const char *colon = strrchr(listen_at, ':');
        struct sockaddr_storage bound;
        socklen_t length = sizeof(bound);

        if (metrics->path)
                log_info("metrics are served at %s", listen_at);
        else if (getsockname(fd, (struct sockaddr *)&bound, &length) == 0)
                /* The port is at the same place in both kinds. */
                log_info("metrics are served at http://%.*s:%u/metrics", (int)(colon - listen_at), listen_at,
                         ntohs(((const struct sockaddr_in *)&bound)->sin_port));
}

int metrics_new(uv_loop_t *loop, const struct server *server, const char *listen_at, size_t owners_max,
                struct metrics **ret, struct failure *failure) {
        struct metrics *metrics = calloc(1, sizeof(*metrics));
        int r, fd;

        if (!metrics)
                return failure_set(failure, REASON_no_memory, "there is no memory for the metrics");
        metrics->facts = (struct page_facts){ .server = server, .started = real_time(), .owners_max = owners_max };
        r = bind_address(metrics, listen_at, &fd, failure);
        if (r == 0) {
                metrics->http = start_http(metrics, fd);
                r = metrics->http ? start_polling(loop, metrics, failure)
                                  : failure_set(failure, REASON_unsupported, "libmicrohttpd does not start");
        }
        if (r < 0) {
                metrics_free(metrics);
                return r;
        }
        tell_address(metrics, fd, listen_at);
        *ret = metrics;
        return 0;
}

void metrics_set_owners_max(struct metrics *metrics, size_t owners_max) {
        metrics->facts.owners_max = owners_max;
}

static void on_closed(uv_handle_t *handle) {
        struct metrics *metrics = handle->data;

        if (--metrics->n_handles == 0)
                free(metrics);
}

/* libmicrohttpd ends at once, while what it would tell of is still there. */
void metrics_close(struct metrics *metrics) {
        if (!metrics)
                return;
        uv_close((uv_handle_t *)&metrics->poll, on_closed);
        uv_close((uv_handle_t *)&metrics->timer, on_closed);
        MHD_stop_daemon(metrics->http);
        if (metrics->path)
                listener_unlink(metrics->path, metrics->inode);
        free(metrics->path);
}

#else

/* metrics_address_check() lets no address come so far. */
int metrics_new(uv_loop_t *loop, const struct server *server, const char *listen_at, size_t owners_max,
                struct metrics **ret, struct failure *failure) {
        return failure_set(failure, REASON_unsupported, "this build serves no metrics: it was made without libmicrohttpd");
}

void metrics_set_owners_max(struct metrics *metrics, size_t owners_max) {
}

void metrics_close(struct metrics *metrics) {
}

#endif
