#include "daemon/rpc/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "daemon/log.h"
#include "daemon/loop.h"
#include "daemon/rpc/events.h"
#include "daemon/rpc/principal.h"
#include "daemon/rpc/session.h"
#include "proto/fdpass.h"

/* A piece of the write queue. One with descriptors holds a single answer, because descriptors belong to the line that
 * they are sent with. */
struct chunk {
        struct chunk *next;
        size_t size, used, sent;
        size_t n_fds;
        int fds[FDPASS_MAX];
        char bytes[];
};

enum {
        CHUNK_USUAL = 8192,
        PIECES_MAX = 16,
        /* A descriptor that waits for its peer counts like so many bytes: what is scarce about it is not its length. */
        FD_CHARGE = 4096,
        /* So many may wait for one user in all of its connections, beyond one in each. */
        USER_FDS_MAX = 256,
        TURN_REQUESTS = 2,
        /* Whoever has asked for something so lately is about to ask for more. */
        OTHERS_MS = 20,
};

/* ---- the write queue ---- */

static void close_fds(const int *fds, size_t n) {
        for (size_t i = 0; i < n; i++)
                close(fds[i]);
}

static struct chunk *chunk_new(struct server *server, size_t size) {
        struct chunk *chunk = server->spare;

        if (size < CHUNK_USUAL)
                size = CHUNK_USUAL;
        if (chunk && size == CHUNK_USUAL)
                server->spare = NULL;
        else
                chunk = malloc(sizeof(*chunk) + size);
        if (!chunk)
                return NULL;
        chunk->next = NULL;
        chunk->size = size;
        chunk->used = chunk->sent = chunk->n_fds = 0;
        return chunk;
}

static void chunk_drop(struct connection *connection) {
        struct server *server = connection->server;
        struct chunk *chunk = connection->head;

        close_fds(chunk->fds, chunk->n_fds);
        connection->queued_fds -= chunk->n_fds;
        principal_remove_fds(connection->principal, chunk->n_fds);
        connection->queued -= chunk->used - chunk->sent + chunk->n_fds * FD_CHARGE;
        LL_DELETE(connection->head, chunk);
        if (!connection->head)
                connection->tail = NULL;
        if (!server->spare && chunk->size == CHUNK_USUAL)
                server->spare = chunk;
        else
                free(chunk);
}

static int queue_append(struct connection *connection, const char *text, size_t length, const int *fds, size_t n_fds) {
        struct chunk *chunk = connection->tail;

        if (!chunk || n_fds || chunk->n_fds || chunk->size - chunk->used < length) {
                chunk = chunk_new(connection->server, length);
                if (!chunk)
                        return -ENOMEM;
                if (connection->tail)
                        connection->tail->next = chunk;
                else
                        connection->head = chunk;
                connection->tail = chunk;
        }
        memcpy(chunk->bytes + chunk->used, text, length);
        chunk->used += length;
        if (n_fds)
                memcpy(chunk->fds, fds, n_fds * sizeof(*fds));
        chunk->n_fds = n_fds;
        connection->queued += length + n_fds * FD_CHARGE;
        connection->queued_fds += n_fds;
        principal_add_fds(connection->principal, n_fds);
        return 0;
}

/* As many chunks as one system call may take: those up to the first that has descriptors, or that one alone. */
static ssize_t queue_write(struct connection *connection) {
        struct iovec pieces[PIECES_MAX];
        struct chunk *chunk = connection->head;
        size_t n = 0;
        ssize_t sent;

        do {
                pieces[n++] = (struct iovec){ chunk->bytes + chunk->sent, chunk->used - chunk->sent };
                chunk = chunk->next;
        } while (chunk && n < PIECES_MAX && !connection->head->n_fds && !chunk->n_fds);
        sent = fdpass_send(connection->fd, pieces, n, connection->head->fds, connection->head->n_fds);
        if (sent <= 0)
                return sent;
        connection->server->counters.bytes_sent += (uint64_t)sent;
        connection->server->counters.fds_sent += connection->head->n_fds;
        close_fds(connection->head->fds, connection->head->n_fds);
        connection->queued -= connection->head->n_fds * FD_CHARGE;
        connection->queued_fds -= connection->head->n_fds;
        principal_remove_fds(connection->principal, connection->head->n_fds);
        connection->head->n_fds = 0;
        for (size_t left = (size_t)sent; left;) {
                size_t part = connection->head->used - connection->head->sent;

                if (part > left)
                        part = left;
                connection->head->sent += part;
                connection->queued -= part;
                left -= part;
                if (connection->head->sent == connection->head->used)
                        chunk_drop(connection);
        }
        return sent;
}

/* ---- what the socket is watched for ---- */

static void on_event(uv_poll_t *handle, int status, int events);

/* Whether so many answers are waiting that the next request must wait too. Whoever has no descriptor waiting itself does
 * not wait for the user's other connections, so that each goes on as soon as its own peer reads. */
static bool is_full(const struct connection *connection) {
        return connection->queued >= connection->server->settings.queue_pause_bytes ||
               (connection->queued_fds && principal_fds(connection->principal) >= USER_FDS_MAX);
}

static bool is_paused(const struct connection *connection) {
        return connection->rest || is_full(connection);
}

/* Urgent data is not used on UNIX sockets; being watched for, it makes libuv tell of a hang-up while nothing is read. */
static void watch(struct connection *connection) {
        int events = UV_PRIORITIZED, r;

        if (!connection->eof && !connection->last_words && !is_paused(connection))
                events |= UV_READABLE;
        if ((connection->queued || (connection->rest && connection->wait != WAIT_HELD)) && !connection->server->unsettled)
                events |= UV_WRITABLE;
        if (events == connection->polled)
                return;
        connection->polled = events;
        r = loop_watch(&connection->poll, events, on_event);
        if (r < 0)
                connection_cut_off(connection, uv_strerror(r));
}

static bool is_done(const struct connection *connection) {
        if (connection->queued || connection->rest)
                return false;
        return connection->last_words || (connection->eof && !connection->peer.n_calls);
}

static void set_stalled(struct connection *connection, bool stalled) {
        struct server *server = connection->server;

        if (stalled && !connection->is_stalled) {
                DL_APPEND2(server->stalled, connection, stalled_prev, stalled_next);
                connection->progress_ms = uv_now(server->loop);
                server_watch_stalled(server);
        } else if (!stalled && connection->is_stalled)
                DL_DELETE2(server->stalled, connection, stalled_prev, stalled_next);
        connection->is_stalled = stalled;
}

static void set_dirty(struct connection *connection) {
        if (connection->is_dirty || connection->closing)
                return;
        connection->is_dirty = true;
        DL_APPEND2(connection->server->dirty, connection, dirty_prev, dirty_next);
}

void connection_flush(struct connection *connection) {
        ssize_t n = 0;

        if (connection->closing)
                return;
        if (!server_settle(connection->server)) {
                set_dirty(connection);
                watch(connection);
                return;
        }
        if (connection->is_dirty)
                DL_DELETE2(connection->server->dirty, connection, dirty_prev, dirty_next);
        connection->is_dirty = false;
        while (connection->head && (n = queue_write(connection)) > 0)
                connection->progress_ms = uv_now(connection->server->loop);
        if (connection->cut) {
                connection_cut_off(connection, connection->cut);
                return;
        }
        if (n < 0 && n != -EAGAIN) {
                connection_close(connection);
                return;
        }
        set_stalled(connection, connection->queued);
        if (is_done(connection))
                connection_close(connection);
        else
                watch(connection);
}

/* ---- answers ---- */

/* Comes from deep inside, so nothing is closed here: that is for the next flush. */
static void on_send(struct rpc_peer *peer, const char *text, size_t length, const int *fds, size_t n_fds) {
        struct connection *connection = peer->userdata;
        struct server *server = connection->server;

        while (!connection->cut && connection->head && connection->queued + length > server->settings.queue_bytes)
                if (broker_is_dirty(server->broker) || queue_write(connection) <= 0)
                        connection->cut = "it does not read its answers";
        if (!connection->cut && !connection->closing && queue_append(connection, text, length, fds, n_fds) < 0)
                connection->cut = "there is no memory for its answers";
        if (connection->cut || connection->closing)
                close_fds(fds, n_fds);
        set_dirty(connection);
}

/* ---- requests ---- */

static void keep_rest(struct connection *connection, const char *piece, size_t size, bool is_rest) {
        if (is_rest) {
                connection->rest_used = connection->rest_size - size;
                return;
        }
        connection->rest = malloc(size);
        if (!connection->rest) {
                connection_cut_off(connection, "there is no memory for its requests");
                return;
        }
        memcpy(connection->rest, piece, size);
        connection->rest_size = size;
        connection->rest_used = 0;
}

static void forget_rest(struct connection *connection) {
        free(connection->rest);
        connection->rest = NULL;
        connection->rest_size = connection->rest_used = 0;
}

static void on_no_memory(struct connection *connection) {
        static const struct rpc_error error = {
                .error = ENOMEM, .reason = REASON_no_memory, .message = "The daemon has no memory to read this message",
        };

        rpc_peer_complain(&connection->peer, &error);
}

static bool must_pause(struct connection *connection) {
        if (is_full(connection))
                connection_flush(connection);
        return !connection->closing && is_full(connection);
}

static bool others_ask(const struct server *server) {
        return uv_now(server->loop) - server->others_ms < OTHERS_MS;
}

static void peer_begin(struct connection *connection) {
        const struct identity *identity = &connection->identity;

        rpc_peer_init(&connection->peer, connection->server->service,
                      identity->admin ? SCHEMA_ROLE_ADMIN : identity->guest ? SCHEMA_ROLE_ANY : SCHEMA_ROLE_LOCAL,
                      !identity->guest, on_send, connection);
}

/* The guest is told that whatever it has read in part ends here. */
static void tell_reset(struct connection *connection) {
        static const char reset = (char)0xff;

        if (queue_append(connection, &reset, 1, NULL, 0) < 0)
                connection->cut = "there is no memory for its answers";
        set_dirty(connection);
}

/* Somebody else may have opened the guest's end, who neither asked what is not answered yet nor has the session. */
static void begin_anew(struct connection *connection) {
        connection->awaits_reset = false;
        events_subscribe(connection, 0);
        rpc_peer_drop(&connection->peer);
        session_detach(connection);
        connection->session_ended = false;
        peer_begin(connection);
        tell_reset(connection);
}

/* A connection that sends many requests at once has some of them answered, and then the others have their turn. It has all
 * the daemon's time while nobody else asks for anything. */
static bool turn_is_over(const struct server *server, unsigned done) {
        return done >= TURN_REQUESTS && others_ask(server);
}

/* Nor does it get errors without end while others ask. */
static bool is_held_back(const struct connection *connection) {
        return !connection->closing && others_ask(connection->server) &&
               principal_is_held_back(connection->server, connection->principal);
}

static void set_wait(struct connection *connection, enum connection_wait wait) {
        struct server *server = connection->server;

        if (wait == connection->wait)
                return;
        if (connection->wait == WAIT_TURN)
                DL_DELETE2(server->turns, connection, wait_prev, wait_next);
        if (connection->wait == WAIT_HELD)
                DL_DELETE2(server->held, connection, wait_prev, wait_next);
        connection->wait = wait;
        if (wait == WAIT_TURN) {
                DL_APPEND2(server->turns, connection, wait_prev, wait_next);
                server_take_turns(server);
        }
        if (wait == WAIT_HELD) {
                DL_APPEND2(server->held, connection, wait_prev, wait_next);
                server->counters.held_back++;
                server_hold_back(server);
        }
}

static void note_reader(struct connection *connection) {
        struct server *server = connection->server;

        if (server->reader && server->reader != connection)
                server->others_ms = uv_now(server->loop);
        server->reader = connection;
}

/* is_rest: piece lies in connection->rest. */
static void dispatch(struct connection *connection, const char *piece, size_t size, bool is_rest) {
        enum frame_event event;
        uint64_t errors;
        unsigned done = 0;
        const char *text;
        size_t length;

        note_reader(connection);
        do {
                if (size && (must_pause(connection) || is_held_back(connection) || turn_is_over(connection->server, done++))) {
                        keep_rest(connection, piece, size, is_rest);
                        if (!connection->closing && !is_full(connection))
                                set_wait(connection, is_held_back(connection) ? WAIT_HELD : WAIT_TURN);
                        return;
                }
                errors = connection->peer.n_errors;
                event = connection->closing ? FRAME_MORE
                                            : frame_reader_next(&connection->reader, &piece, &size, &text, &length);
                if (event == FRAME_RESET)
                        begin_anew(connection);
                else if (connection->awaits_reset)
                        ; /* nobody of now has said it */
                else if (event == FRAME_TEXT)
                        rpc_peer_receive(&connection->peer, text, length);
                else if (event == FRAME_OVERSIZE)
                        rpc_peer_complain_oversize(&connection->peer);
                else if (event == FRAME_NO_MEMORY)
                        on_no_memory(connection);
                if (!connection->closing)
                        principal_add_errors(connection->server, connection->principal, connection->peer.n_errors - errors);
        } while (event != FRAME_MORE);
        if (is_rest)
                forget_rest(connection);
}

/* A message that came with descriptors is refused: it is the one that the last byte of the read belongs to. */
static size_t without_refused_line(struct connection *connection, const char *bytes, size_t n) {
        const char *before = n > 1 ? memrchr(bytes, '\n', n - 1) : NULL;
        size_t kept = before ? (size_t)(before + 1 - bytes) : 0;

        connection->skip_line = bytes[n - 1] != '\n';
        if (!kept)
                frame_reader_deinit(&connection->reader);
        return kept;
}

void connection_let_go(struct connection *connection) {
        set_wait(connection, WAIT_TURN);
}

void connection_take_turn(struct connection *connection) {
        set_wait(connection, WAIT_NONE);
        if (connection->rest && !is_full(connection))
                dispatch(connection, connection->rest + connection->rest_used, connection->rest_size - connection->rest_used,
                         true);
        connection_flush(connection);
}

static void receive(struct connection *connection) {
        char *bytes = connection->server->buffer, *end;
        bool refused = false;
        ssize_t n = fdpass_receive_none(connection->fd, bytes, SERVER_BUFFER_SIZE, &refused);
        size_t size;

        if (n < 0) {
                if (n != -EAGAIN)
                        connection_close(connection);
                return;
        }
        connection->eof = n == 0;
        connection->server->counters.bytes_received += (uint64_t)n;
        size = (size_t)n;
        if (connection->skip_line && size) {
                end = memchr(bytes, '\n', size);
                connection->skip_line = !end;
                size -= end ? (size_t)(end + 1 - bytes) : size;
                bytes = end ? end + 1 : bytes;
        }
        if (refused && size)
                size = without_refused_line(connection, bytes, size);
        dispatch(connection, bytes, size, false);
        if (refused && !connection->closing)
                rpc_peer_complain_fds(&connection->peer);
}

static void on_event(uv_poll_t *handle, int status, int events) {
        struct connection *connection = handle->data;

        /* Nobody is there any more to read an answer. */
        if (status < 0 || (events & UV_PRIORITIZED)) {
                connection_close(connection);
                return;
        }
        if (events & UV_WRITABLE)
                connection_flush(connection);
        if (connection->rest && connection->wait != WAIT_HELD &&
            connection->queued < connection->server->settings.queue_pause_bytes / 2 && !is_full(connection))
                dispatch(connection, connection->rest + connection->rest_used,
                         connection->rest_size - connection->rest_used, true);
        if (!connection->closing && (events & UV_READABLE))
                receive(connection);
        connection_flush(connection);
}

/* ---- beginning and end ---- */

void connection_cut_off(struct connection *connection, const char *why) {
        char pid[24];
        const struct log_field fields[] = {
                { "MESSAGE_ID", LOG_ID_CUT_OFF },
                { "DMABROKER_OWNER", connection->identity.owner },
                { "OBJECT_PID", pid },
                { NULL, NULL },
        };

        if (connection->closing)
                return;
        connection->server->counters.cut_off++;
        snprintf(pid, sizeof(pid), "%ld", (long)connection->identity.pid);
        log_fields(LOG_LEVEL_WARNING, fields, "%s (pid %s) was cut off: %s", connection->identity.owner, pid, why);
        connection_close(connection);
}

static void on_closed(uv_handle_t *handle) {
        struct connection *connection = handle->data;
        struct server *server = connection->server;

        DL_DELETE(server->connections, connection);
        server->n_connections--;
        close(connection->fd);
        frame_reader_deinit(&connection->reader);
        free(connection->rest);
        free(connection);
        server_connection_gone(server);
}

void connection_close(struct connection *connection) {
        struct server *server = connection->server;

        if (connection->closing)
                return;
        connection->closing = true;
        events_subscribe(connection, 0);
        rpc_peer_drop(&connection->peer);
        session_detach(connection);
        while (connection->head)
                chunk_drop(connection);
        principal_unref(server, connection->principal);
        set_stalled(connection, false);
        set_wait(connection, WAIT_NONE);
        if (connection->is_dirty)
                DL_DELETE2(server->dirty, connection, dirty_prev, dirty_next);
        connection->is_dirty = false;
        uv_close((uv_handle_t *)&connection->poll, on_closed);
}

void connection_finish(struct connection *connection) {
        connection->last_words = true;
        set_wait(connection, WAIT_NONE);
        forget_rest(connection);
        connection_flush(connection);
}

int connection_new(struct server *server, int fd, const struct identity *identity, struct principal *principal) {
        struct connection *connection = calloc(1, sizeof(*connection));
        int r;

        if (!connection) {
                close(fd);
                return -ENOMEM;
        }
        connection->server = server;
        connection->fd = fd;
        connection->identity = *identity;
        connection->poll.data = connection;
        r = uv_poll_init(server->loop, &connection->poll, fd);
        if (r < 0) {
                close(fd);
                free(connection);
                return r;
        }
        connection->principal = principal;
        principal_ref(principal);
        frame_reader_init(&connection->reader, server->settings.limits.message_bytes, identity->guest);
        peer_begin(connection);
        DL_APPEND(server->connections, connection);
        server->n_connections++;
        server->counters.accepted++;
        connection->awaits_reset = identity->guest;
        if (identity->guest)
                tell_reset(connection);
        watch(connection);
        return 0;
}
