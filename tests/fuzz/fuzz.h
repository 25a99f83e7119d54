/* What fuzzers have in common. */
#ifndef DMAB_TESTS_FUZZ_FUZZ_H
#define DMAB_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define CHECK(condition)                 \
        do {                             \
                if (!(condition))        \
                        abort();         \
        } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
