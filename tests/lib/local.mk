# What tests share. Programs add libtest.la to their LDADD.
check_LTLIBRARIES += libtest.la
libtest_la_SOURCES = \
	tests/lib/client.c tests/lib/client.h \
	tests/lib/daemon.c tests/lib/daemon.h \
	tests/lib/hugepages.c tests/lib/hugepages.h \
	tests/lib/identity.c tests/lib/identity.h \
	tests/lib/pagemap.c tests/lib/pagemap.h

check_PROGRAMS += tests/lib/with-daemon
tests_lib_with_daemon_SOURCES = tests/lib/with-daemon.c
tests_lib_with_daemon_LDADD = libtest.la

EXTRA_DIST += tests/lib/daemon.sh
