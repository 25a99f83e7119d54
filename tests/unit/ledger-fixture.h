/* A ledger in memory, in which things go wrong as they do on disk: what was committed is all that another broker finds. */
#ifndef DMAB_TEST_LEDGER_FIXTURE_H
#define DMAB_TEST_LEDGER_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/core/ledger.h"

struct memory_record {
        enum { RECORD_PUT, RECORD_DROP, RECORD_END } what;
        enum row_kind kind;
        uint64_t id;
        size_t size;
        unsigned char *bytes;
};

struct memory_journal {
        struct memory_record *records;
        size_t n, capacity;
        bool alone;
};

struct memory_ledger {
        struct ledger base;
        struct memory_journal before, now, pending;
        bool blank, rewriting, ended, damaged;
        const char *void_source; /* whose memory is gone, or NULL */
        bool frozen; /* what is committed from here on is lost: the process has died */
        /* Asked before each step that may fail; NULL: none does. */
        bool (*fails)(void *userdata);
        bool (*wants_rewrite)(void *userdata);
        void *userdata;
};

struct memory_ledger *memory_ledger_new(void);
/* What another one finds that opens it after this one's death. */
struct memory_ledger *memory_ledger_reopen(const struct memory_ledger *ledger);
/* As if this row had been lost to damage. */
void memory_ledger_lose(struct memory_ledger *ledger, enum row_kind kind, uint64_t id);
struct memory_ledger *memory_ledger_free(struct memory_ledger *ledger);

#endif
