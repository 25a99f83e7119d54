/* The huge pages that a source holds in stock: one file that nobody else ever sees, whose slots hold a page or nothing,
 * and the books on which machine address is in which slot.
 *
 * The kernel keeps its free huge pages last-in-first-out. A page dropped from the stash is therefore the next page that
 * the kernel hands out: whoever drops one and at once faults one into another file has moved it there. Somebody else may
 * come in between, so every page that arrives anywhere is known by its address and never by what it should be.
 *
 * Pages that came in are *untold* until stash_tell() has put them in the core's books. Not thread-safe. */
#ifndef DMAB_SOURCE_STASH_H
#define DMAB_SOURCE_STASH_H

#include "daemon/core/source.h"
#include "daemon/source/huge.h"

struct stash;

/* A stash for up to n_slots pages; nothing it does later needs memory of its own. huge is copied, its descriptors stay
 * the caller's and must outlive the stash. marks: n_slots bytes, the caller's, which must outlive the stash; a slot that
 * may have a page, also when this process is killed now, is marked there. fd: -1, and no slot is marked; or the file of
 * the stash that made the marks, which is taken over, also on failure: its pages are untold. -ENOMEM, -errno. */
int stash_new(const struct huge *huge, size_t n_slots, unsigned char *marks, int fd, struct stash **ret);
/* Forgets the stash; its pages go back to the kernel unless its file is held elsewhere. Returns NULL; NULL is fine. */
struct stash *stash_free(struct stash *stash);
/* Gives all pages back to the kernel. */
void stash_empty(struct stash *stash);

/* Its file, to be held elsewhere: borrowed. */
int stash_fd(const struct stash *stash);

/* Get one page from the kernel, untold. -ENOSPC: the kernel has none, or all slots are full. ret_addr may be NULL. */
int stash_fill(struct stash *stash, uint64_t *ret_addr);

/* Give the page back to the kernel. -ENOENT: it is not here. */
int stash_drop(struct stash *stash, uint64_t addr);

/* The page's NUMA node, or -1. -ENOENT: it is not here. */
int stash_node(const struct stash *stash, uint64_t addr);

/* Whether the page is still at its address: the kernel may move pages that are not pinned. 0; -ENOENT: it is not here;
 * -ESTALE: it has another address now, under which it is in the books from here on, untold. */
int stash_check(struct stash *stash, uint64_t addr, uint64_t *ret_now);

/* Make a page untold again, to be told by the next stash_tell(). -ENOENT. */
int stash_untell(struct stash *stash, uint64_t addr);

/* List all untold pages in job->arrived, in ascending order and merged. When memory runs out the rest stays untold, for
 * the next job. */
void stash_tell(struct stash *stash, struct source_job *job);

size_t stash_count(const struct stash *stash);

#endif
