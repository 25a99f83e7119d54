/* Lines out of pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
/* after the others: it redefines what they may declare */
#include <cmocka.h>

#include "proto/frame.h"

/* Feed the bytes in pieces of at most step bytes, and write down what came out: texts in <>, O for oversize, R for
 * reset. */
static void feed(struct frame_reader *reader, const char *bytes, size_t size, size_t step, char *ret_log) {
        const char *text = NULL;
        size_t length = 0, n = 0;

        while (size) {
                size_t piece_size = size < step ? size : step;
                char *copy = malloc(piece_size);
                const char *piece = copy;
                enum frame_event event;

                assert_non_null(copy);
                memcpy(copy, bytes, piece_size);
                bytes += piece_size;
                size -= piece_size;
                while ((event = frame_reader_next(reader, &piece, &piece_size, &text, &length)) != FRAME_MORE) {
                        if (event == FRAME_TEXT) {
                                ret_log[n++] = '<';
                                memcpy(ret_log + n, text, length);
                                n += length;
                                ret_log[n++] = '>';
                        } else {
                                ret_log[n++] = event == FRAME_OVERSIZE ? 'O' : event == FRAME_RESET ? 'R' : '?';
                        }
                }
                assert_int_equal(piece_size, 0);
                free(copy);
        }
        ret_log[n] = '\0';
}

static void assert_fed(bool resets, const char *bytes, const char *expected) {
        struct frame_reader reader;
        char log[256];

        for (size_t step = 1; step <= strlen(bytes); step++) {
                frame_reader_init(&reader, 8, resets);
                feed(&reader, bytes, strlen(bytes), step, log);
                assert_string_equal(log, expected);
                frame_reader_deinit(&reader);
        }
}

static void test_lines_come_out_whole_however_they_went_in(void **state) {
        assert_fed(false, "{}\n[1,2]\n\nabcdefgh\nrest", "<{}><[1,2]><><abcdefgh>");
}

static void test_an_oversize_line_is_told_once_and_skipped(void **state) {
        assert_fed(false, "abcdefghi\n{}\n", "O<{}>");
        assert_fed(false, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz\n{}\nabcdefghi", "O<{}>O");
}

static void test_a_reset_forgets_what_was_begun(void **state) {
        struct frame_reader reader;
        char log[64];

        frame_reader_init(&reader, 8, true);
        feed(&reader, "abc\xFF\xFF{}\nde\xFF[]\n", 14, 100, log);
        assert_string_equal(log, "R<{}>R<[]>");
        feed(&reader, "abc\xFF\xFF{}\nde\xFF[]\n", 14, 1, log);
        assert_string_equal(log, "RR<{}>R<[]>");
        frame_reader_deinit(&reader);
}

static void test_a_reset_ends_the_skipping(void **state) {
        struct frame_reader reader;
        char log[64];

        frame_reader_init(&reader, 8, true);
        feed(&reader, "abcdefghijk", 11, 3, log);
        assert_string_equal(log, "O");
        assert_true(frame_reader_pending(&reader));
        feed(&reader, "lmn\xFF{}\n", 7, 1, log);
        assert_string_equal(log, "R<{}>");
        assert_false(frame_reader_pending(&reader));
        frame_reader_deinit(&reader);
}

static void test_without_resets_the_byte_is_part_of_the_text(void **state) {
        assert_fed(false, "a\xFF" "b\n", "<a\xFF" "b>");
}

static void test_a_nul_is_part_of_the_text(void **state) {
        struct frame_reader reader;
        char log[16];

        frame_reader_init(&reader, 8, false);
        feed(&reader, "a\0b\n", 4, 2, log);
        assert_memory_equal(log, "<a\0b>", 6);
        frame_reader_deinit(&reader);
}

static void test_between_lines_a_reader_holds_no_memory(void **state) {
        struct frame_reader reader;
        char log[64];

        frame_reader_init(&reader, 8, false);
        feed(&reader, "abc", 3, 1, log);
        assert_non_null(reader.buffer);
        assert_true(frame_reader_pending(&reader));
        feed(&reader, "d\n", 2, 1, log);
        assert_string_equal(log, "<abcd>");
        assert_null(reader.buffer);
        frame_reader_deinit(&reader);
}

static void test_memory_stays_within_twice_the_limit(void **state) {
        enum { LIMIT = 5000 };
        static char bytes[3 * LIMIT];
        struct frame_reader reader;
        const char *text = NULL;
        size_t length = 0, oversize = 0;

        memset(bytes, 'x', sizeof(bytes));
        frame_reader_init(&reader, LIMIT, false);
        for (size_t i = 0; i < sizeof(bytes); i++) {
                const char *piece = bytes + i;
                size_t size = 1;

                oversize += frame_reader_next(&reader, &piece, &size, &text, &length) == FRAME_OVERSIZE;
                assert_true(reader.size <= 2 * LIMIT);
        }
        assert_int_equal(oversize, 1);
        assert_null(reader.buffer);
        frame_reader_deinit(&reader);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lines_come_out_whole_however_they_went_in),
                cmocka_unit_test(test_an_oversize_line_is_told_once_and_skipped),
                cmocka_unit_test(test_a_reset_forgets_what_was_begun),
                cmocka_unit_test(test_a_reset_ends_the_skipping),
                cmocka_unit_test(test_without_resets_the_byte_is_part_of_the_text),
                cmocka_unit_test(test_a_nul_is_part_of_the_text),
                cmocka_unit_test(test_between_lines_a_reader_holds_no_memory),
                cmocka_unit_test(test_memory_stays_within_twice_the_limit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
