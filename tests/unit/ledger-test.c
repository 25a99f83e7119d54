/* The ledger on disk: what is read back of it after any end, and what is done about damage, a full disk and strangers. */
#include <stdarg.h>
#include <stddef.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the others: it redefines what they may declare */
#include <setjmp.h>
#include <cmocka.h>

#include "daemon/ledger-read.h"
#include "daemon/ledger.h"

struct fixture {
        char directory[64];
        int fd;
        struct ledger *ledger;
};

static struct ledger *reopen(struct fixture *fixture) {
        struct failure failure = {};

        ledger_close(fixture->ledger);
        fixture->ledger = NULL;
        if (ledger_open(fixture->fd, false, &fixture->ledger, &failure) < 0)
                fail_msg("%s", failure.sentence);
        return fixture->ledger;
}

static int set_up(void **state) {
        struct fixture *fixture = calloc(1, sizeof(*fixture));

        strcpy(fixture->directory, "/tmp/dmab-ledger-XXXXXX");
        assert_non_null(mkdtemp(fixture->directory));
        fixture->fd = open(fixture->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fixture->fd >= 0);
        reopen(fixture);
        *state = fixture;
        return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw) {
        return remove(path);
}

static int tear_down(void **state) {
        struct fixture *fixture = *state;

        ledger_close(fixture->ledger);
        close(fixture->fd);
        nftw(fixture->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
        free(fixture);
        return 0;
}

/* ---- telling and reading ---- */

static void put(struct fixture *fixture, enum row_kind kind, uint64_t id, const char *text) {
        assert_int_equal(fixture->ledger->ops->put(fixture->ledger, kind, id, text, strlen(text)), 0);
}

static void drop(struct fixture *fixture, enum row_kind kind, uint64_t id) {
        assert_int_equal(fixture->ledger->ops->drop(fixture->ledger, kind, id), 0);
}

static void commit(struct fixture *fixture) {
        assert_int_equal(fixture->ledger->ops->commit(fixture->ledger), 0);
}

/* What a ledger that is blank needs first. */
static void begin(struct fixture *fixture, bool alone) {
        assert_int_equal(fixture->ledger->ops->rewrite_begin(fixture->ledger, alone), 0);
}

static void end(struct fixture *fixture) {
        assert_int_equal(fixture->ledger->ops->rewrite_end(fixture->ledger), 0);
        commit(fixture);
}

static void start(struct fixture *fixture) {
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
        begin(fixture, true);
        end(fixture);
}

struct found {
        char text[4096];
        size_t used, n;
};

static int find(void *userdata, uint64_t id, const void *bytes, size_t size) {
        struct found *found = userdata;

        found->n++;
        if (found->used < sizeof(found->text) - 64)
                found->used += (size_t)snprintf(found->text + found->used, 64, "%llu=%.*s ", (unsigned long long)id,
                                                (int)(size < 40 ? size : 40), (const char *)bytes);
        return 0;
}

static struct found rows(struct fixture *fixture, enum row_kind kind) {
        struct found found = {};

        assert_int_equal(fixture->ledger->ops->visit(fixture->ledger, kind, find, &found), 0);
        return found;
}

#define require_rows(fixture, kind, expected) assert_string_equal(rows(fixture, kind).text, expected)

static bool is_damaged(struct fixture *fixture) {
        return fixture->ledger->ops->is_damaged(fixture->ledger);
}

/* The file in force. */
static int volume(struct fixture *fixture, unsigned generation) {
        char name[LEDGER_NAME_MAX];
        int fd;

        snprintf(name, sizeof(name), "ledger.%u", generation);
        fd = openat(fixture->fd, name, O_RDWR | O_CLOEXEC);
        assert_true(fd >= 0);
        return fd;
}

static bool volume_is_there(struct fixture *fixture, unsigned generation) {
        char name[LEDGER_NAME_MAX];

        snprintf(name, sizeof(name), "ledger.%u", generation);
        return faccessat(fixture->fd, name, F_OK, 0) == 0;
}

/* ---- the tests ---- */

static void test_a_new_ledger_has_nothing(void **state) {
        struct fixture *fixture = *state;
        struct ledger_facts facts;

        ledger_facts(fixture->ledger, &facts);
        assert_false(facts.found || facts.damaged || facts.gone);
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
        require_rows(fixture, ROW_ALLOC, "");
}

static void test_what_was_committed_is_read_back(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        put(fixture, ROW_ALLOC, UINT64_C(1) << 60, "");
        put(fixture, ROW_LEASE, 1, "another");
        commit(fixture);
        put(fixture, ROW_ALLOC, 2, "two");
        put(fixture, ROW_ALLOC, 1, "changed");
        commit(fixture);
        drop(fixture, ROW_ALLOC, 2);
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=changed 1152921504606846976= ");
        require_rows(fixture, ROW_LEASE, "1=another ");
        assert_false(is_damaged(fixture));
        assert_false(fixture->ledger->ops->is_blank(fixture->ledger));
}

static void test_what_was_not_committed_never_was(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        put(fixture, ROW_ALLOC, 2, "two");
        drop(fixture, ROW_ALLOC, 1);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
}

static void test_it_goes_on_where_the_last_daemon_stopped(void **state) {
        struct fixture *fixture = *state;
        char text[32], expected[4096] = "";

        start(fixture);
        for (unsigned i = 1; i < 20; i++) {
                snprintf(text, sizeof(text), "row %u", i);
                put(fixture, ROW_DEVICE, i, text);
                commit(fixture);
                snprintf(expected + strlen(expected), 64, "%u=%s ", i, text);
                reopen(fixture);
                require_rows(fixture, ROW_DEVICE, expected);
        }
}

static void test_half_a_frame_at_the_end_is_cut_off_without_a_word(void **state) {
        struct fixture *fixture = *state;
        uint64_t size, whole;
        int fd;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        whole = ledger_size(fixture->ledger);
        put(fixture, ROW_ALLOC, 2, "this one is torn");
        commit(fixture);
        size = ledger_size(fixture->ledger);
        ledger_close(fixture->ledger);
        fixture->ledger = NULL;
        /* As a kill in the middle of the write leaves it: the frame's end is missing, and was never said to be there. */
        fd = volume(fixture, 1);
        assert_int_equal(pwrite(fd, &whole, sizeof(whole), offsetof(struct ledger_header, committed)), sizeof(whole));
        assert_int_equal(pwrite(fd, "\0\0\0\0\0\0\0\0", 8, (off_t)size - 8), 8);
        close(fd);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
        assert_false(is_damaged(fixture));
        put(fixture, ROW_ALLOC, 3, "three");
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one 3=three ");
}

static void test_damage_at_the_end_is_noticed_too(void **state) {
        struct fixture *fixture = *state;
        uint64_t size;
        int fd;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        size = ledger_size(fixture->ledger);
        fd = volume(fixture, 1);
        assert_int_equal(pwrite(fd, "\xff", 1, (off_t)size - 8), 1);
        close(fd);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
        assert_true(is_damaged(fixture));
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
}

static void test_what_lies_behind_damage_is_saved(void **state) {
        struct fixture *fixture = *state;
        uint64_t before;
        int fd;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        before = ledger_size(fixture->ledger);
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        put(fixture, ROW_ALLOC, 3, "three");
        commit(fixture);
        fd = volume(fixture, 1);
        assert_int_equal(pwrite(fd, "\xff\xff", 2, (off_t)before + 26), 2);
        close(fd);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one 3=three ");
        assert_true(is_damaged(fixture));
}

/* Every byte of the file, one after the other: it is noticed, or it does not matter, and nothing is made up. */
static void test_no_flipped_bit_makes_a_row(void **state) {
        static const char *const allowed[] = { "1=one", "2=two", "3=three", "3=drei" };
        struct fixture *fixture = *state;
        struct failure failure;
        uint64_t size;
        char byte, flipped;
        int fd;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        put(fixture, ROW_ALLOC, 2, "two");
        put(fixture, ROW_ALLOC, 3, "three");
        commit(fixture);
        put(fixture, ROW_ALLOC, 3, "drei");
        commit(fixture);
        size = ledger_size(fixture->ledger);
        fd = volume(fixture, 1);
        for (uint64_t at = 0; at < size; at = at + 1 == sizeof(struct ledger_header) ? LEDGER_HEADER_SIZE : at + 1) {
                struct found found = {};
                char *word, *rest = found.text;

                assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
                flipped = (char)(byte ^ (1 << at % 8));
                assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
                ledger_close(fixture->ledger);
                fixture->ledger = NULL;
                failure = (struct failure){};
                if (ledger_open(fixture->fd, false, &fixture->ledger, &failure) < 0) {
                        assert_int_equal(failure.error, EPROTONOSUPPORT);
                } else {
                        found = rows(fixture, ROW_ALLOC);
                        while ((word = strsep(&rest, " ")) && *word) {
                                size_t i;

                                for (i = 0; i < 4 && strcmp(word, allowed[i]); i++)
                                        ;
                                if (i == 4)
                                        fail_msg("bit %llu of byte %llu made %s", (unsigned long long)at % 8,
                                                 (unsigned long long)at, word);
                        }
                        if (found.n < 3)
                                assert_true(is_damaged(fixture));
                }
                assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
        }
        close(fd);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one 2=two 3=drei ");
}

static bool is_mapped(const char *directory) {
        FILE *maps = fopen("/proc/self/maps", "re");
        char line[512];
        bool is = false;

        while (maps && fgets(line, sizeof(line), maps))
                is |= strstr(line, directory) != NULL;
        if (maps)
                fclose(maps);
        return is;
}

/* A child would keep the space of files that have been removed; also of one that has grown. */
static void test_a_child_has_nothing_of_it(void **state) {
        struct fixture *fixture = *state;
        int self = pidfd_open(getpid(), 0), status;
        char text[4096];
        pid_t child;

        if (self < 0) {
                print_message("skipped: there is no pidfd_open() here, as in valgrind, where a child has all mappings\n");
                skip();
        }
        close(self);
        start(fixture);
        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        for (unsigned i = 0; i < 256; i++)
                put(fixture, ROW_ALLOC, i, text);
        commit(fixture);
        assert_true(is_mapped(fixture->directory));
        child = fork();
        assert_true(child >= 0);
        if (child == 0)
                _exit(is_mapped(fixture->directory));
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_another_version_is_refused_with_a_sentence(void **state) {
        struct fixture *fixture = *state;
        struct failure failure = {};
        uint32_t version = LEDGER_VERSION + 1;
        int fd;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        ledger_close(fixture->ledger);
        fixture->ledger = NULL;
        fd = volume(fixture, 1);
        assert_int_equal(pwrite(fd, &version, sizeof(version), offsetof(struct ledger_header, version)), sizeof(version));
        assert_int_equal(ledger_open(fixture->fd, false, &fixture->ledger, &failure), -EPROTONOSUPPORT);
        assert_non_null(strstr(failure.sentence, "newer daemon"));
        /* And nothing has been changed: the right daemon still finds it. */
        version = LEDGER_VERSION;
        assert_int_equal(pwrite(fd, &version, sizeof(version), offsetof(struct ledger_header, version)), sizeof(version));
        close(fd);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
}

/* The newer one adds a kind of rows; what it says of the others is as true as ever. */
static void test_rows_of_a_kind_that_is_not_known_are_passed_over(void **state) {
        struct fixture *fixture = *state;
        const enum row_kind newer = (enum row_kind)ROW_KINDS;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        put(fixture, newer, 1, "what an older daemon cannot know");
        put(fixture, ROW_ALLOC, 2, "two");
        drop(fixture, newer, 2);
        put(fixture, ROW_LEASE, 1, "three");
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one 2=two ");
        require_rows(fixture, ROW_LEASE, "1=three ");
        assert_false(is_damaged(fixture));
        /* Everything is told anew, and the strange rows are not there any more when the newer one comes back. */
        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
        assert_false(fixture->ledger->ops->is_blank(fixture->ledger));
}

static void test_after_a_boot_only_what_was_said_of_owners_is_left(void **state) {
        struct fixture *fixture = *state;
        struct ledger_header header;
        struct ledger_facts facts;
        int fd;

        start(fixture);
        put(fixture, ROW_OWNER, 1, "quota");
        put(fixture, ROW_SESSION, 1, "session");
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        ledger_close(fixture->ledger);
        fixture->ledger = NULL;
        fd = volume(fixture, 1);
        assert_int_equal(pread(fd, &header, sizeof(header), 0), sizeof(header));
        header.boot[3] ^= 1;
        header.checksum = ledger_header_checksum(&header);
        assert_int_equal(pwrite(fd, &header, sizeof(header), 0), sizeof(header));
        close(fd);
        reopen(fixture);
        ledger_facts(fixture->ledger, &facts);
        assert_true(facts.gone);
        require_rows(fixture, ROW_OWNER, "1=quota ");
        require_rows(fixture, ROW_SESSION, "");
        require_rows(fixture, ROW_ALLOC, "");
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
}

static void test_memory_that_nobody_has_kept_is_forgotten(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_OWNER, 1, "quota");
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        reopen(fixture);
        ledger_forget_memory(fixture->ledger, NULL);
        require_rows(fixture, ROW_OWNER, "1=quota ");
        require_rows(fixture, ROW_ALLOC, "");
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
}

static bool keeps_its_own(const char *source) {
        return strcmp(source, "xen") == 0;
}

static void test_memory_that_needs_no_keep_is_not_forgotten(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        reopen(fixture);
        assert_false(fixture->ledger->ops->is_void(fixture->ledger, "sim"));
        ledger_forget_memory(fixture->ledger, keeps_its_own);
        require_rows(fixture, ROW_ALLOC, "1=one ");
        assert_true(fixture->ledger->ops->is_void(fixture->ledger, "sim"));
        assert_false(fixture->ledger->ops->is_void(fixture->ledger, "xen"));
        assert_false(fixture->ledger->ops->is_blank(fixture->ledger));
}

static void test_a_ledger_that_is_gone_is_damage_where_memory_was_kept(void **state) {
        struct fixture *fixture = *state;
        struct failure failure = {};

        ledger_close(fixture->ledger);
        assert_int_equal(ledger_open(fixture->fd, true, &fixture->ledger, &failure), 0);
        assert_true(is_damaged(fixture));
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
}

/* ---- writing it anew ---- */

static void test_a_rewrite_takes_the_place_of_what_was_before(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        begin(fixture, false);
        put(fixture, ROW_ALLOC, 2, "two");
        assert_true(volume_is_there(fixture, 1));
        end(fixture);
        assert_false(volume_is_there(fixture, 1));
        reopen(fixture);
        /* 1 was not told again: it was no more. */
        require_rows(fixture, ROW_ALLOC, "2=two ");
}

static void test_a_rewrite_that_was_not_ended_goes_on_from_what_was_before(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        put(fixture, ROW_ALLOC, 2, "two");
        put(fixture, ROW_ALLOC, 3, "three");
        commit(fixture);
        begin(fixture, false);
        put(fixture, ROW_ALLOC, 2, "zwei");
        drop(fixture, ROW_ALLOC, 3);
        commit(fixture);
        reopen(fixture);
        assert_false(is_damaged(fixture));
        require_rows(fixture, ROW_ALLOC, "1=one 2=zwei ");
        /* It cannot be gone on with as it is: everything is told first. */
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
}

static void test_a_rewrite_that_stands_alone_counts_for_nothing_before_its_end(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        begin(fixture, true);
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
        assert_false(is_damaged(fixture));
        put(fixture, ROW_ALLOC, 3, "three");
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one 3=three ");
}

static void test_a_rewrite_may_be_begun_again(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        begin(fixture, false);
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        begin(fixture, true);
        put(fixture, ROW_ALLOC, 1, "one");
        put(fixture, ROW_ALLOC, 2, "two");
        end(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one 2=two ");
}

/* The daemon died while it told everything beside what changed, and the next one while it told everything alone. */
static void test_two_rewrites_that_were_not_ended(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        begin(fixture, false);
        put(fixture, ROW_ALLOC, 3, "three");
        drop(fixture, ROW_ALLOC, 1);
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "2=two 3=three ");
        assert_true(fixture->ledger->ops->is_blank(fixture->ledger));
        begin(fixture, true);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "2=two 3=three ");
        begin(fixture, true);
        begin(fixture, true);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "2=two 3=three ");
        assert_false(is_damaged(fixture));
        begin(fixture, true);
        put(fixture, ROW_ALLOC, 3, "three");
        end(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "3=three ");
        assert_false(is_damaged(fixture));
}

/* One beside which changes were told is needed until another one has its end. */
static void test_a_rewrite_that_is_begun_again_alone_loses_nothing(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        begin(fixture, false);
        drop(fixture, ROW_ALLOC, 1);
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        begin(fixture, true);
        begin(fixture, true);
        put(fixture, ROW_ALLOC, 3, "three");
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "2=two ");
        begin(fixture, true);
        put(fixture, ROW_ALLOC, 3, "three");
        end(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "3=three ");
        assert_false(is_damaged(fixture));
}

/* Its file stays; the next daemon goes on with the one before, and its own next file comes between the two. */
static void test_a_rewrite_that_came_to_nothing_is_in_nobodys_way(void **state) {
        struct fixture *fixture = *state;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        begin(fixture, true);
        begin(fixture, true);
        reopen(fixture);
        assert_false(fixture->ledger->ops->is_blank(fixture->ledger));
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        begin(fixture, false);
        put(fixture, ROW_ALLOC, 3, "three");
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one 2=two 3=three ");
        assert_false(is_damaged(fixture));
}

/* As when the first daemon of all died in the middle of its first commit. */
static void test_a_first_rewrite_that_was_not_ended_is_begun_anew(void **state) {
        struct fixture *fixture = *state;

        begin(fixture, true);
        put(fixture, ROW_ALLOC, 1, "one");
        reopen(fixture);
        start(fixture);
        put(fixture, ROW_ALLOC, 2, "two");
        commit(fixture);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "2=two ");
        assert_false(is_damaged(fixture));
}

/* A kill may come between any two stores; the magic is the last of them. */
static void test_a_header_that_was_being_written_is_no_damage(void **state) {
        struct fixture *fixture = *state;
        const char nothing[8] = "";
        int fd;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        begin(fixture, true);
        fd = volume(fixture, 2);
        assert_int_equal(pwrite(fd, nothing, sizeof(nothing), 0), sizeof(nothing));
        close(fd);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
        assert_false(is_damaged(fixture));
        /* But it is where something was written behind it. */
        fd = volume(fixture, 1);
        assert_int_equal(pwrite(fd, nothing, sizeof(nothing), 0), sizeof(nothing));
        close(fd);
        reopen(fixture);
        assert_true(is_damaged(fixture));
}

static void test_what_follows_the_end_of_a_rewrite_waits_for_its_commit(void **state) {
        struct fixture *fixture = *state;
        char large[4000];
        unsigned i;

        start(fixture);
        put(fixture, ROW_ALLOC, 1, "one");
        commit(fixture);
        begin(fixture, true);
        put(fixture, ROW_ALLOC, 2, "two");
        assert_int_equal(fixture->ledger->ops->rewrite_end(fixture->ledger), 0);
        memset(large, 'x', sizeof(large) - 1);
        large[sizeof(large) - 1] = '\0';
        for (i = 0; i < 1000; i++)
                put(fixture, ROW_ALLOC, 3, large);
        reopen(fixture);
        require_rows(fixture, ROW_ALLOC, "1=one ");
}

static void test_a_large_rewrite_is_written_in_pieces(void **state) {
        struct fixture *fixture = *state;
        char text[1001];

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        begin(fixture, true);
        for (unsigned i = 1; i <= 5000; i++)
                put(fixture, ROW_ALLOC, i, text);
        end(fixture);
        reopen(fixture);
        assert_int_equal(rows(fixture, ROW_ALLOC).n, 5000);
        assert_false(is_damaged(fixture));
}

static void test_it_wants_to_be_written_anew_when_most_of_it_is_old(void **state) {
        struct fixture *fixture = *state;
        char text[1001];

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        start(fixture);
        for (unsigned i = 0; !fixture->ledger->ops->wants_rewrite(fixture->ledger); i++) {
                assert_true(i < 10000);
                put(fixture, ROW_ALLOC, 1, text);
                commit(fixture);
        }
        begin(fixture, false);
        assert_false(fixture->ledger->ops->wants_rewrite(fixture->ledger));
        put(fixture, ROW_ALLOC, 1, text);
        end(fixture);
        assert_true(ledger_size(fixture->ledger) < 16384);
        assert_false(fixture->ledger->ops->wants_rewrite(fixture->ledger));
}

/* ---- a full disk ---- */

static void test_a_full_disk_ends_promises_and_breaks_none(void **state) {
        struct fixture *fixture = *state;
        struct failure failure = {};
        char text[1001], path[128];
        unsigned n = 0, late = 0;

        if (geteuid() != 0 || mount("tmpfs", fixture->directory, "tmpfs", 0, "size=3m") < 0) {
                print_message("skipped: a small file system needs root\n");
                skip();
        }
        close(fixture->fd);
        fixture->fd = open(fixture->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        reopen(fixture);
        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        start(fixture);
        while (fixture->ledger->ops->room(fixture->ledger, false, &failure) == 0) {
                assert_true(++n < 5000);
                put(fixture, ROW_ALLOC, n, text);
                commit(fixture);
        }
        assert_int_equal(failure.reason, REASON_source_unavailable);
        assert_int_equal(failure.error, ENOSPC);
        assert_true(n > 1000);
        /* Whoever comes to give back has half of what is left, and no more. */
        while (fixture->ledger->ops->room(fixture->ledger, true, &failure) == 0) {
                assert_true(++late < 1000);
                put(fixture, ROW_SESSION, late, text);
                commit(fixture);
        }
        assert_in_range(late, 50, 200);
        /* There is no room for another one, which is noticed before anything is told there. */
        assert_true(fixture->ledger->ops->rewrite_begin(fixture->ledger, false) < 0);
        assert_false(fixture->ledger->ops->wants_rewrite(fixture->ledger));
        /* What is there can still be given back. */
        for (unsigned i = 1; i <= n / 2; i++) {
                drop(fixture, ROW_ALLOC, i);
                commit(fixture);
        }
        reopen(fixture);
        assert_int_equal(rows(fixture, ROW_ALLOC).n, n - n / 2);
        assert_false(is_damaged(fixture));
        ledger_close(fixture->ledger);
        fixture->ledger = NULL;
        close(fixture->fd);
        assert_int_equal(umount(fixture->directory), 0);
        snprintf(path, sizeof(path), "%s", fixture->directory);
        fixture->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int main(void) {
        static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)
                TEST(a_new_ledger_has_nothing),
                TEST(what_was_committed_is_read_back),
                TEST(what_was_not_committed_never_was),
                TEST(it_goes_on_where_the_last_daemon_stopped),
                TEST(half_a_frame_at_the_end_is_cut_off_without_a_word),
                TEST(damage_at_the_end_is_noticed_too),
                TEST(what_lies_behind_damage_is_saved),
                TEST(no_flipped_bit_makes_a_row),
                TEST(a_child_has_nothing_of_it),
                TEST(another_version_is_refused_with_a_sentence),
                TEST(rows_of_a_kind_that_is_not_known_are_passed_over),
                TEST(after_a_boot_only_what_was_said_of_owners_is_left),
                TEST(memory_that_nobody_has_kept_is_forgotten),
                TEST(memory_that_needs_no_keep_is_not_forgotten),
                TEST(a_ledger_that_is_gone_is_damage_where_memory_was_kept),
                TEST(a_rewrite_takes_the_place_of_what_was_before),
                TEST(a_rewrite_that_was_not_ended_goes_on_from_what_was_before),
                TEST(a_rewrite_that_stands_alone_counts_for_nothing_before_its_end),
                TEST(a_rewrite_may_be_begun_again),
                TEST(two_rewrites_that_were_not_ended),
                TEST(a_rewrite_that_is_begun_again_alone_loses_nothing),
                TEST(a_rewrite_that_came_to_nothing_is_in_nobodys_way),
                TEST(a_first_rewrite_that_was_not_ended_is_begun_anew),
                TEST(a_header_that_was_being_written_is_no_damage),
                TEST(what_follows_the_end_of_a_rewrite_waits_for_its_commit),
                TEST(a_large_rewrite_is_written_in_pieces),
                TEST(it_wants_to_be_written_anew_when_most_of_it_is_old),
                TEST(a_full_disk_ends_promises_and_breaks_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
