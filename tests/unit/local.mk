# what is built and run from tests/unit: one block per test
if HAVE_CMOCKA

check_PROGRAMS += tests/unit/arena-model
TESTS += tests/unit/arena-model
tests_unit_arena_model_SOURCES = tests/unit/arena-model.c
tests_unit_arena_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_arena_model_LDADD = libcore.la $(CMOCKA_LIBS)

endif
