/* The parameters of a call as JSON, written straight into a buffer: for calls that happen often. */
#ifndef DMAB_CLIENT_PARAMS_H
#define DMAB_CLIENT_PARAMS_H

#include <stddef.h>
#include <stdint.h>

/* Room for every call that is made with it: ten members with names below 20 bytes and values below 40. */
struct params {
        size_t length;
        char text[640];
};

void params_begin(struct params *params);
void params_end(struct params *params);
void params_uint(struct params *params, const char *name, uint64_t value);
void params_hex(struct params *params, const char *name, uint64_t value);
/* word needs no escaping: a word of the protocol, a number or true. quote: '"', or 0 */
void params_word(struct params *params, const char *name, const char *word, char quote);

#endif
