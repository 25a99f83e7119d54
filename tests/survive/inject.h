/* Failing system calls. The daemon runs under a seccomp filter that asks this process before each call that can fail, made by
 * whatever thread or child of the daemon, in whatever library; the call then goes on, or returns an error without having
 * been made. */
#ifndef DMAB_TESTS_SURVIVE_INJECT_H
#define DMAB_TESTS_SURVIVE_INJECT_H

#include <stdbool.h>
#include <stdio.h>

#include "tests/survive/faulty.h"

struct inject;

/* 0 or -errno. -EPERM, -ENOSYS, -EINVAL: this system has no such filters, or does not let us. */
int inject_new(struct inject **ret);

/* Shared with the daemon that starts next. */
struct faulty *inject_page(const struct inject *inject);

/* Wait for a daemon that will call inject_begin() in a moment. */
int inject_expect(struct inject *inject);
/* Whether a process lives that has called inject_begin(), or one that it has forked: a keeper. Whenever that may have
 * changed, SIGCHLD is sent to this process. */
bool inject_watches(struct inject *inject);
/* In the child that becomes the daemon: from here on it is watched. Ends the child with status 125 on failure. library: what
 * is loaded into it. */
void inject_begin(struct inject *inject, const char *library);

/* From now on, the n-th of these fails; of a system call: with the error `variant`, counted from 0, of those that it may
 * have, and only calls that have so many count. One at a time. */
void inject_arm(struct inject *inject, enum faulty_kind kind, long n, unsigned variant);
/* How many have been there since then. */
long inject_passed(const struct inject *inject);
/* Nothing fails from here on. What has failed, such as "openat: EMFILE", or NULL; lives until the next inject_arm(). */
const char *inject_disarm(struct inject *inject);

enum { INJECT_VARIANTS = 5 };

/* A table of everything that was counted and that has failed. */
void inject_report(const struct inject *inject, FILE *file);
/* How many have failed. */
unsigned long inject_total(const struct inject *inject);

#endif
