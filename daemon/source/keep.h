/* Descriptors that outlive the daemon, each under a name of its own: whatever is held here is there for the next daemon of
 * the same state directory, also when this one is killed at any instruction.
 *
 * Held they are by the service manager where it has a store for descriptors, else by a process of the daemon's own
 * (keeper.h). A keep does not copy what it is given: a descriptor that was put, or that was taken, must stay open in this
 * process until it has been dropped, because it is put again should the keeper die.
 *
 * All functions but keep_open(), keep_end() and keep_free() may be called from any thread. Where `keep` may be NULL, that
 * is a daemon of which nothing survives. */
#ifndef DMAB_SOURCE_KEEP_H
#define DMAB_SOURCE_KEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/failure.h"

enum { KEEP_NAME_MAX = 64 }; /* characters: a to z, 0 to 9 and - */

/* What the names of descriptors begin with in the service manager's store; a socket that it passes has no such name. */
#define KEEP_STORE_PREFIX "k."

/* This name says that everything else is held, too: where all is put again, it comes last. */
#define KEEP_MARK "mark"

struct keep;

/* Open the keep of a state directory, whose lock the caller holds, and receive everything that is held from before. The
 * directory's descriptor stays the caller's and must outlive the keep. keep_ms: how long everything is held without a
 * daemon; the service manager has a time of its own. 0: *ret is NULL, and what was held from before is given up.
 * Call it before there are threads: it may fork. -errno with a sentence. */
int keep_open(int directory_fd, uint64_t keep_ms, struct keep **ret, struct failure *failure);

/* One sentence without a full stop: what holds the descriptors, for how long. Lives as long as the keep. NULL is fine. */
const char *keep_about(const struct keep *keep);

/* Whether the service manager has started this process and ends whoever holds the descriptors together with it, unless the
 * unit says otherwise. NULL is fine. */
bool keep_ends_with_service(const struct keep *keep);

/* How many descriptors can be held in all; UINT64_MAX: as many as there may be files. NULL is fine. */
uint64_t keep_room(const struct keep *keep);

/* Hold a descriptor, which is borrowed until it is dropped. 0: it is held, whatever happens to this process from the next
 * instruction on, or `keep` is NULL. 1: nothing is held at present, of which keep_attend() tells; as soon as anything is
 * again, this is too, so that it is to be dropped as if it were. -EINVAL: no such name can be; -EEXIST: the name is in
 * use; -ENOSPC: no more can be held; -ENOMEM; -EMFILE: the keeper may not have so many files; -ETIMEDOUT, -errno: whoever
 * holds them does not answer. Then it is not held. */
int keep_put(struct keep *keep, const char *name, int fd);

/* Hold it no more. When this returns the keeper has closed it; the service manager may do so a moment later. The caller's
 * own descriptor stays as it is. 0, also when `keep` is NULL; -ENOENT: there is none; -ETIMEDOUT, -errno as for keep_put();
 * the name is free in any case. */
int keep_drop(struct keep *keep, const char *name);

/* Take what was held from before: once for each name. *ret_fd is the caller's, CLOEXEC; it stays held until it is dropped.
 * -ENOENT: there is none, or it was taken, or was put by this process; also when `keep` is NULL. */
int keep_take(struct keep *keep, const char *name, int *ret_fd);

/* Call visit() with every name that is held from before, begins with `prefix` and has not been taken, in no order, until
 * it returns something else than 0; returns what the last one did. visit() may call keep_take() and keep_drop() on the
 * name that it was given, but on no other, and nobody else may drop meanwhile. NULL is fine. */
int keep_visit(struct keep *keep, const char *prefix, int (*visit)(void *userdata, const char *name), void *userdata);

/* Readable when keep_attend() has something to do; owned by the keep; -1: never, or `keep` is NULL. */
int keep_event_fd(const struct keep *keep);

/* See to the keeper. 0: nothing has happened. 1: it had died, and another one holds everything again. -errno: it has
 * died, and no other one could be made: nothing is held until one can, which is tried again and told each time. Both with a
 * sentence. */
int keep_attend(struct keep *keep, struct failure *failure);

/* Give everything up and end the keeper. When it returns, the keeper has no descriptor open any more. Those that were
 * taken or put stay the caller's; those that nobody has taken are closed. Returns NULL; NULL is fine. */
struct keep *keep_end(struct keep *keep);

/* Leave everything held for the next daemon. Returns NULL; NULL is fine. */
struct keep *keep_free(struct keep *keep);

#endif
