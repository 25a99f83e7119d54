# The library against a scripted daemon and against a real one.
client_scripts = tests/client/symbols-test.sh
dist_check_SCRIPTS += $(client_scripts)
TESTS += $(client_scripts)

if HAVE_CMOCKA
client_tests = tests/client/link-test
check_PROGRAMS += $(client_tests)
TESTS += $(client_tests)

tests_client_link_test_SOURCES = tests/client/link-test.c tests/client/scripted.c tests/client/scripted.h
tests_client_link_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS) -pthread
tests_client_link_test_LDADD = libtest.la libdmabroker.la libproto.la $(CMOCKA_LIBS) $(JANSSON_LIBS)
endif
