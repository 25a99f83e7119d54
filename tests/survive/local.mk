# The daemon is killed at random moments: see README.md.
check_PROGRAMS += tests/survive/kills
TESTS += tests/survive/kills
tests_survive_kills_SOURCES = tests/survive/kills.c tests/survive/model.c tests/survive/model.h
tests_survive_kills_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_survive_kills_LDADD = libtest.la $(JANSSON_LIBS)

EXTRA_DIST += tests/survive/README.md

# Calls of the daemon fail: faults.c says how. Some in each check, always the same; every one with `make check-survival`.
check_LTLIBRARIES += tests/survive/faulty.la
tests_survive_faulty_la_SOURCES = tests/survive/faulty.c tests/survive/faulty.h
tests_survive_faulty_la_CFLAGS = $(AM_CFLAGS) -fno-builtin
tests_survive_faulty_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nowhere

check_PROGRAMS += tests/survive/faults
TESTS += tests/survive/faults
tests_survive_faults_SOURCES = tests/survive/faults.c \
	tests/survive/fault-load.c tests/survive/fault-load.h \
	tests/survive/inject.c tests/survive/inject.h tests/survive/faulty.h
tests_survive_faults_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) -pthread
tests_survive_faults_LDADD = libtest.la $(JANSSON_LIBS)
