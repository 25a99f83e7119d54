# dmabrokerctl, with and without a daemon.
ctl_tests = \
	tests/ctl/admin-test.sh \
	tests/ctl/attach-test.sh \
	tests/ctl/exit-test.sh \
	tests/ctl/grants-test.sh \
	tests/ctl/guests-test.sh \
	tests/ctl/help-test.sh \
	tests/ctl/map-test.sh \
	tests/ctl/memory-test.sh \
	tests/ctl/others-test.sh \
	tests/ctl/pools-test.sh \
	tests/ctl/quarantine-test.sh \
	tests/ctl/terminal-test.sh \
	tests/ctl/top-test.sh \
	tests/ctl/watch-test.sh
dist_check_SCRIPTS += $(ctl_tests)
TESTS += $(ctl_tests)

check_PROGRAMS += tests/ctl/on-terminal
tests_ctl_on_terminal_SOURCES = tests/ctl/on-terminal.c

if HAVE_CMOCKA
check_PROGRAMS += tests/ctl/hold-test
TESTS += tests/ctl/hold-test
tests_ctl_hold_test_SOURCES = tests/ctl/hold-test.c
tests_ctl_hold_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS) -pthread
tests_ctl_hold_test_LDADD = libtest.la libdmabroker.la libproto.la $(CMOCKA_LIBS) $(JANSSON_LIBS)
endif
