# The daemon is killed at random moments: see README.md.
check_PROGRAMS += tests/survive/kills
TESTS += tests/survive/kills
tests_survive_kills_SOURCES = tests/survive/kills.c tests/survive/model.c tests/survive/model.h
tests_survive_kills_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_survive_kills_LDADD = libtest.la $(JANSSON_LIBS)

EXTRA_DIST += tests/survive/README.md
