/* The ledger on disk: what daemon/core/ledger.h asks for, as a file in the state directory.
 *
 * A file `ledger.N` begins with a header and goes on with frames. A frame is one commit: rows that were put and dropped,
 * under one checksum, so that it counts as a whole or not at all. Writing is one system call, into room that was reserved
 * before, so that a full disk is told while nothing has been promised. The file outlives the process in the page cache: the
 * memory that it tells of does not outlive the machine's next boot, and neither need the file, but for what was said of
 * quotas. When it has grown, `ledger.N+1` is begun beside it, and takes its place once everything has been told there. */
#ifndef DMAB_DAEMON_LEDGER_H
#define DMAB_DAEMON_LEDGER_H

#include "daemon/core/ledger.h"

struct ledger_facts {
        const char *about;   /* a sentence for the log; lives as long as the ledger */
        bool gone;           /* all memory that it tells of: the machine was booted since, or nobody has kept it */
        bool found, damaged; /* there was one; part of it cannot be read */
        uint64_t rows;       /* that were read */
};

/* Reads what is there. expected: there must be one; if there is none, that is damage. directory_fd is borrowed, and must
 * outlive the ledger. Reasons: unsupported (another version, which the sentence tells), source_unavailable (it cannot be read
 * or made), no_memory. What is there is not changed on failure, and neither before the first commit. */
int ledger_open(int directory_fd, bool expected, struct ledger **ret, struct failure *failure);
/* From how many bytes on it is written anew, if most of it is out of date. */
void ledger_set_rewrite(struct ledger *ledger, uint64_t bytes);
/* The memory that it tells of is gone, whatever it says, as after a boot; but for that of the sources of which keeps() says that
 * they need no keep. NULL: all of it. Before anything is visited. */
void ledger_forget_memory(struct ledger *ledger, bool (*keeps)(const char *source));
void ledger_facts(const struct ledger *ledger, struct ledger_facts *ret);
/* Bytes of the file. */
uint64_t ledger_size(const struct ledger *ledger);
/* What was committed is there for the next daemon. NULL is fine. Returns NULL. */
struct ledger *ledger_close(struct ledger *ledger);
/* Nothing is to be found any more. */
int ledger_discard(int directory_fd);

#endif
