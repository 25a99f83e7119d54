#include "daemon/rpc/session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <utlist.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "daemon/alive.h"
#include "daemon/guest/guests.h"
#include "daemon/log.h"

enum { TOKEN_BYTES = 16, TOKEN_TEXT = 2 * TOKEN_BYTES + 1, PROGRAMS_MAX = 8, PROGRAM_TEXT = 48,
       NOTE_SIZE = TOKEN_TEXT + 24 + PROGRAMS_MAX * PROGRAM_TEXT };
enum { RESTART_GRACE_MS = 10000 };
/* So many sessions without a connection are kept for a guest, which may begin a new one with every byte that it sends. */
enum { GUEST_LINGERING_MAX = 32 };

/* One that a session belongs to: it has a connection, or had one before the daemon was restarted. */
struct program {
        struct program *prev, *next;
        struct rpc_session *session;
        pid_t pid;
        uint64_t since;
        struct alive *alive; /* it lives, and has not come back yet; or NULL */
};

struct rpc_session {
        UT_hash_handle hh; /* in server->sessions by token */
        struct rpc_session *prev, *next; /* in server->lingering while it has no connection */
        struct server *server;
        struct session *core;
        struct connection *connections;
        struct waiting *waiting;
        uint64_t ends_ms; /* while lingering; 0 otherwise */
        struct program *programs;
        uid_t uid;
        char token[TOKEN_TEXT];
};

/* ---- calls that wait ---- */

static void on_cancel(struct rpc_call *call, void *userdata) {
        struct waiting *waiting = userdata;

        ticket_cancel(waiting->ticket);
        waiting_end(waiting);
        waiting->forget(waiting);
}

void waiting_begin(struct waiting *waiting, struct connection *connection, struct rpc_call *call, struct ticket *ticket,
                   void (*forget)(struct waiting *waiting)) {
        waiting->session = connection->session;
        waiting->call = call;
        waiting->ticket = ticket;
        waiting->forget = forget;
        DL_APPEND(waiting->session->waiting, waiting);
        rpc_call_defer(call, on_cancel, waiting);
}

void waiting_end(struct waiting *waiting) {
        DL_DELETE(waiting->session->waiting, waiting);
}

static void refuse_waiting(struct rpc_session *session, const char *why) {
        struct waiting *waiting;

        while ((waiting = session->waiting)) {
                ticket_cancel(waiting->ticket);
                waiting_end(waiting);
                rpc_call_fail_format(waiting->call, REASON_gone, "%s", why);
                waiting->forget(waiting);
        }
}

/* ---- the grace time ---- */

static void set_timer(struct server *server) {
        uint64_t now = uv_now(server->loop);

        if (server->lingering)
                uv_timer_start(&server->grace_timer, session_on_grace_timer,
                               server->lingering->ends_ms > now ? server->lingering->ends_ms - now : 0, 0);
        else
                uv_timer_stop(&server->grace_timer);
}

/* died: nobody said broker.bye. */
static void session_finish(struct rpc_session *session, bool died);

void session_on_grace_timer(uv_timer_t *timer) {
        struct server *server = timer->data;
        uint64_t now = uv_now(server->loop);

        while (server->lingering && server->lingering->ends_ms <= now)
                session_finish(server->lingering, true);
        set_timer(server);
}

static void linger(struct rpc_session *session, uint64_t grace_ms) {
        struct server *server = session->server;
        struct rpc_session *after;

        if (!grace_ms) {
                session_finish(session, true);
                return;
        }
        session->ends_ms = uv_now(server->loop) + grace_ms;
        /* Nearly always the last one: the grace time is the same for all unless it was just changed. */
        after = server->lingering ? server->lingering->prev : NULL;
        while (after && after->ends_ms > session->ends_ms)
                after = after == server->lingering ? NULL : after->prev;
        if (after)
                DL_APPEND_ELEM(server->lingering, after, session);
        else
                DL_PREPEND(server->lingering, session);
        if (server->lingering == session)
                set_timer(server);
}

/* ---- the programs that a session belongs to ---- */

static void program_free(struct rpc_session *session, struct program *program) {
        DL_DELETE(session->programs, program);
        alive_forget(program->alive);
        free(program);
}

static void programs_free(struct rpc_session *session) {
        while (session->programs)
                program_free(session, session->programs);
}

static struct program *program_add(struct rpc_session *session, pid_t pid, uint64_t since) {
        struct program *program = calloc(1, sizeof(*program));

        if (!program)
                return NULL;
        *program = (struct program){ .session = session, .pid = pid, .since = since };
        DL_APPEND(session->programs, program);
        return program;
}

static struct program *program_find(const struct rpc_session *session, pid_t pid) {
        struct program *program;

        DL_FOREACH(session->programs, program)
                if (program->pid == pid)
                        return program;
        return NULL;
}

static bool has_connection(const struct rpc_session *session, pid_t pid) {
        const struct connection *connection;

        DL_FOREACH2(session->connections, connection, session_next)
                if (connection->identity.pid == pid)
                        return true;
        return false;
}

/* Some program of it lives that has not come back yet. */
static bool is_awaited(const struct rpc_session *session) {
        const struct program *program;

        DL_FOREACH(session->programs, program)
                if (program->alive)
                        return true;
        return false;
}

/* What the next daemon must know: whose it is, and which programs it belongs to. */
static int write_note(struct rpc_session *session) {
        const struct program *program;
        char note[NOTE_SIZE];
        int used;

        used = snprintf(note, sizeof(note), "%s %lu", session->token, (unsigned long)session->uid);
        DL_FOREACH(session->programs, program)
                if (used > 0 && used < NOTE_SIZE - PROGRAM_TEXT)
                        used += snprintf(note + used, PROGRAM_TEXT, " %ld:%llu", (long)program->pid,
                                         (unsigned long long)program->since);
        return session_set_note(session->core, note);
}

/* A connection has come or gone. Where there is no room or no memory to tell the ledger, the grace time will do. */
static void note_programs(struct rpc_session *session) {
        const struct connection *connection;
        struct program *program, *next;
        bool changed = false;
        unsigned n = 0;

        DL_FOREACH_SAFE(session->programs, program, next) {
                if (program->alive || has_connection(session, program->pid)) {
                        n++;
                        continue;
                }
                program_free(session, program);
                changed = true;
        }
        /* A guest's are known to nobody but itself. */
        DL_FOREACH2(session->connections, connection, session_next)
                if (n < PROGRAMS_MAX && !connection->identity.guest && !program_find(session, connection->identity.pid) &&
                    program_add(session, connection->identity.pid, alive_since(connection->identity.pid))) {
                        n++;
                        changed = true;
                }
        if (changed && broker_room(session->server->broker, false, NULL) == 0)
                write_note(session);
}

/* ---- coming and going ---- */

static void attach(struct connection *connection, struct rpc_session *session) {
        struct server *server = session->server;
        struct rpc_session *first = server->lingering;
        struct program *program = program_find(session, connection->identity.pid);

        if (program)
                program->alive = alive_forget(program->alive);
        if (session->ends_ms) {
                DL_DELETE(server->lingering, session);
                session->ends_ms = 0;
                if (first == session)
                        set_timer(server);
        }
        DL_APPEND2(session->connections, connection, session_prev, session_next);
        connection->session = session;
        connection->session_ended = false;
        note_programs(session);
}

/* The oldest goes first. Only when a new one is opened: one that is being resumed may be the oldest. */
static void trim_lingering(struct server *server, const char *owner) {
        struct rpc_session *session, *first = NULL;
        unsigned n = 0;

        DL_FOREACH(server->lingering, session)
                if (strcmp(session_owner(session->core), owner) == 0) {
                        first = first ? first : session;
                        n++;
                }
        if (n > GUEST_LINGERING_MAX)
                session_finish(first, true);
}

void session_detach(struct connection *connection) {
        struct rpc_session *session = connection->session;

        if (!session)
                return;
        DL_DELETE2(session->connections, connection, session_prev, session_next);
        connection->session = NULL;
        /* What the next daemon will have does not end with this one. */
        if (session->server->leaving)
                return;
        note_programs(session);
        if (!session->connections && !is_awaited(session))
                linger(session, session->server->settings.grace_ms);
}

static int make_token(char token[TOKEN_TEXT]) {
        unsigned char bytes[TOKEN_BYTES];

        if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
                return -EIO;
        for (size_t i = 0; i < sizeof(bytes); i++)
                snprintf(token + 2 * i, 3, "%02x", bytes[i]);
        return 0;
}

static int enter(struct rpc_session *session) {
        HASH_ADD_STR(session->server->sessions, token, session);
        return session->hh.tbl ? 0 : -ENOMEM;
}

int session_open_for(struct connection *connection, struct failure *failure) {
        struct server *server = connection->server;
        struct rpc_session *session;
        int r;

        /* Administrators still come when nothing more can be promised: to look, and to free. */
        r = broker_room(server->broker, connection->identity.admin, failure);
        if (r < 0)
                return r;
        session = calloc(1, sizeof(*session));
        if (!session)
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        session->server = server;
        session->uid = connection->identity.uid;
        r = make_token(session->token);
        if (r < 0) {
                free(session);
                return failure_set_errno(failure, REASON_source_unavailable, -r, "The kernel gave no random numbers");
        }
        r = session_open(server->broker, connection->identity.owner, &session->core, failure);
        if (r < 0) {
                free(session);
                return r;
        }
        r = write_note(session);
        if (r == 0)
                r = enter(session);
        if (r < 0) {
                session_close(session->core);
                free(session);
                return failure_set(failure, REASON_no_memory, "The daemon itself is out of memory");
        }
        session_detach(connection);
        attach(connection, session);
        if (connection->identity.guest)
                trim_lingering(server, connection->identity.owner);
        return 0;
}

int session_resume(struct connection *connection, const char *token, struct failure *failure) {
        struct rpc_session *session = NULL;

        HASH_FIND_STR(connection->server->sessions, token, session);
        if (!session || strcmp(session_owner(session->core), connection->identity.owner) != 0)
                return failure_set(failure, REASON_unknown_handle,
                                   "There is no such session; say broker.hello without one to open a new one");
        if (session == connection->session)
                return 0;
        session_detach(connection);
        attach(connection, session);
        return 0;
}

int session_need(struct connection *connection, struct session **ret, struct failure *failure) {
        int r;

        if (!connection->session) {
                if (connection->session_ended)
                        return failure_set(failure, REASON_gone,
                                           "The session has ended, and all that it held is freed; say broker.hello to "
                                           "open a new one");
                r = session_open_for(connection, failure);
                if (r < 0)
                        return r;
        }
        *ret = connection->session->core;
        return 0;
}

const char *session_token(const struct connection *connection) {
        return connection->session ? connection->session->token : NULL;
}

uint32_t session_number(const struct connection *connection) {
        return connection->session ? session_id(connection->session->core) : 0;
}

static void session_finish(struct rpc_session *session, bool died) {
        struct server *server = session->server;
        struct connection *connection;

        refuse_waiting(session, "The session has ended");
        programs_free(session);
        if (session->ends_ms)
                DL_DELETE(server->lingering, session);
        while ((connection = session->connections)) {
                DL_DELETE2(session->connections, connection, session_prev, session_next);
                connection->session = NULL;
                connection->session_ended = true;
        }
        HASH_DEL(server->sessions, session);
        if (died)
                session_abandon(session->core);
        else
                session_close(session->core);
        free(session);
}

void session_end(struct rpc_session *session) {
        session_finish(session, false);
}

void session_end_owner(struct server *server, const char *owner) {
        struct rpc_session *session, *next;

        HASH_ITER(hh, server->sessions, session, next)
                if (strcmp(session_owner(session->core), owner) == 0)
                        session_end(session);
}

void session_end_users(struct server *server) {
        struct rpc_session *session, *next;

        HASH_ITER(hh, server->sessions, session, next)
                if (session_is_user(session->core))
                        session_end(session);
}

void session_end_all(struct server *server) {
        struct rpc_session *session, *next;

        HASH_ITER(hh, server->sessions, session, next)
                session_end(session);
}

/* When it was the last, the grace time begins: yet another program may resume the session, as at any time. */
static void on_program_ended(void *userdata) {
        struct program *program = userdata;
        struct rpc_session *session = program->session;

        program->alive = alive_forget(program->alive);
        note_programs(session);
        if (!session->connections && !is_awaited(session))
                linger(session, session->server->settings.grace_ms);
}

static void read_programs(struct rpc_session *session, const char *note) {
        unsigned long long since;
        long pid;
        int n;

        while (sscanf(note, " %ld:%llu%n", &pid, &since, &n) == 2) {
                program_add(session, (pid_t)pid, since);
                note += n;
        }
}

/* One that nobody can name any more ends at once. */
static int restore(struct session *core, void *userdata) {
        struct server *server = userdata;
        const char *note = session_note(core);
        struct rpc_session *session;
        unsigned long uid;
        int n = 0;

        if (guests_owns_session(note))
                return 0;
        session = calloc(1, sizeof(*session));
        if (!session)
                return -ENOMEM;
        if (!note || sscanf(note, "%32[0-9a-f] %lu%n", session->token, &uid, &n) != 2) {
                free(session);
                session_abandon(core);
                return 0;
        }
        session->server = server;
        session->core = core;
        session->uid = (uid_t)uid;
        if (enter(session) < 0) {
                free(session);
                return -ENOMEM;
        }
        read_programs(session, note + n);
        return 0;
}

int session_restore_all(struct server *server) {
        return broker_visit_sessions(server->broker, restore, server);
}

/* The time without a daemon does not count against its grace time. How short that is does not matter while a program of it
 * lives; where that is not known it is long enough to come back. */
static void wait_for_client(struct rpc_session *session) {
        uint64_t grace_ms = session->server->settings.grace_ms;
        struct program *program;

        DL_FOREACH(session->programs, program)
                program->alive = alive_watch(session->server->loop, program->pid, program->since, on_program_ended, program);
        if (!is_awaited(session))
                linger(session, grace_ms > RESTART_GRACE_MS ? grace_ms : RESTART_GRACE_MS);
}

void session_wait_for_all(struct server *server) {
        struct rpc_session *session, *next;

        /* The start may have taken its time. */
        uv_update_time(server->loop);
        HASH_ITER(hh, server->sessions, session, next)
                if (!session->connections && !session->ends_ms)
                        wait_for_client(session);
}

void session_forget_all(struct server *server) {
        struct rpc_session *session, *next;

        HASH_ITER(hh, server->sessions, session, next) {
                if (session->ends_ms)
                        DL_DELETE(server->lingering, session);
                programs_free(session);
                HASH_DEL(server->sessions, session);
                free(session);
        }
}

void session_refuse_all(struct server *server) {
        struct rpc_session *session, *next;

        HASH_ITER(hh, server->sessions, session, next)
                refuse_waiting(session, "The daemon is ending");
}

size_t session_count(const struct server *server) {
        return HASH_COUNT(server->sessions);
}
