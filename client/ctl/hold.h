/* What a session has taken ends with it, so that whoever takes something here stays as long as it is wanted. */
#ifndef DMAB_CTL_HOLD_H
#define DMAB_CTL_HOLD_H

#include "client/ctl/ctl.h"

struct holding {
        const char *method;
        const char *of;      /* the parameter that is told with the answer: the device, the pool */
        const char *undo;    /* the method that gives it back; NULL: the end of the session does */
        const char *handle;  /* ... and the member of the answer that it takes */
        void (*show)(json_t *result); /* NULL: member by member */
        size_t command;      /* operands from this one on are a command */
};

/* Call a method that takes something, with params, which are released, show what it answers, and wait to be interrupted.
 *
 * If there is a command, run it instead; its status becomes the result when it ends. It finds each member of the answer that is
 * text or a number in its environment, block_size in DMABROKER_BLOCK_SIZE, and of a list the addresses, or the references as
 * DOMAIN:FIRST+COUNT.
 *
 * What lives as long as its device, which may be another session's, is given back in the end; with force where there is
 * such a thing. */
enum ctl_status hold(struct ctl *ctl, const struct holding *holding, json_t *params);
/* The same with what was taken already; result is released. */
enum ctl_status hold_taken(struct ctl *ctl, const struct holding *holding, json_t *result);

#endif
